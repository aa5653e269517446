"""Streams that break, that are left, or that never say what was used, on every wire and on both sides of async: one row each, of what is known."""
import asyncio, gc, json
from contextlib import suppress
from importlib.util import find_spec
from operator import attrgetter
import litellm, pytest
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
from standins import Say, pieces, says
from helpers import Handler, served
from llm_usage import UsageLogger
from llm_usage.streams import Reading

pytestmark = pytest.mark.filterwarnings('error:llm_usage', 'ignore:litellm.llms.anthropic.pass_through moved')

said   = Say('One word after another, so that there is something to be left behind when the reader goes, and not too little of it, since some send more at once.', 21, 33)
silent = dict(silent=True)
faults = dict(whole={}, error=dict(error=6), cut=dict(cut=6), timeout=dict(hold=6), left=dict(hold=6), silent=silent, refused=dict(error=0), given_up=dict(hold=0),
    failed=dict(error='failed'), incomplete=dict(error='incomplete'), stated=dict(cost=.0123), free=dict(cost=0), taken=dict(error=1, api='/chat/completions'),
    scrap=dict(only=9, cut=1), scrap_ended=dict(only=9), ended=dict(first=2))
says.update({k:said for k in faults})

class Breaking(Handler):
    "The stand-ins, who send so many events and then nothing until the tests are over, end after some events or bytes, or state what they charge"
    faults = faults
    def _fault(self, req):
        self.f = super()._fault(req)
        if not self.path.endswith(self.f.get('api', '')): self.f = {}
        self.rest = self.f.get('hold', 1000)
        return self.f

    def _play(self, status, hdrs, body, **kw):
        if 'only' in self.f or 'first' in self.f: body = [b''.join(body[:self.f.get('first')] if isinstance(body, list) else [body])[:self.f.get('only')]]
        stated = lambda e: e.replace(b'"usage":{', b'"usage":{"cost":%s,' % str(self.f['cost']).encode()) if 'cost' in self.f else e
        super()._play(status, hdrs, [*map(stated, body)] if isinstance(body, list) else stated(body), **kw)

    def _chunk(self, e, delay=0):
        if not self.rest: self.over.wait(60)
        self.rest -= 1
        super()._chunk(e)

@pytest.fixture(scope='module')
def base():
    with served(Breaking) as url: yield url

@pytest.fixture
def logger(logger):
    "Nothing that LiteLLM has still to say of an earlier test, whose loop has ended, is told to another logger"
    yield logger
    logger.uninstall()
    asyncio.run(GLOBAL_LOGGING_WORKER.flush())

def words(s): return dict(messages=[dict(role='user', content=s)])

# The function, its model, where the text goes, and how many of the six events of a stream that breaks have words

kinds = dict(
    chat      =('completion',                           'openai/gpt-5.6-luna',        words, 5),
    claude    =('completion',                           'anthropic/claude-haiku-5-5', words, 3),
    google    =('completion',                           'gemini/gemini-2.5-flash',    words, 6),
    text      =('text_completion',                      'text-completion-openai/gpt-3.5-turbo-instruct', lambda s: dict(prompt=s), 6),
    messages  =('anthropic.messages.acreate',           'anthropic/claude-haiku-5-5', lambda s: words(s) | dict(max_tokens=90), 3),
    responses =('responses',                            'openai/gpt-5.4-mini',        lambda s: dict(input=s), 2),
    gemini    =('google_genai.generate_content_stream', 'gemini/gemini-2.5-flash',    lambda s: dict(contents=[dict(role='user', parts=[dict(text=s)])]), 6))
sides   = 'sync','async'
missing = [] if find_spec('fastapi') else ['messages','gemini'] # newer LiteLLM has the native APIs with its proxy only
both    = [(k,s) for k in kinds for s in sides if (k,s)!=('messages','sync') and k not in missing] # there is no sync stream of that one
reports = 'gemini','google' # what was used so far comes with each chunk
chunked = 'chat','text' # whose server sends what was used only if asked
asked   = dict(stream_options=dict(include_usage=True))

def ask(base, kind, side, text, stream=True, **kw):
    "Ask a stand-in `text`, through the function of that kind"
    fn,model,arg,_ = kinds[kind]
    mod,_,name = fn.rpartition('.')
    if side=='async' and not name.startswith('a'): name = f'a{name}'
    if kind!='gemini': kw['stream'] = stream
    elif not stream: name = name.removesuffix('_stream')
    url = base if model.startswith(('anthropic/','gemini/')) else f'{base}/v1'
    return attrgetter(f'{mod}.{name}'.lstrip('.'))(litellm)(model=model, api_base=url, api_key='k', max_retries=0, **arg(text), **kw)

def begun(o): return 'One word' in str(o)

def read(base, kind, side, text, until=begun, **kw):
    "Read that stream to its end, or, if it is to be left, to its first words or until something else is there; what was read"
    left,got = text=='left' or until is not begun,[]
    async def go():
        async for o in await ask(base, kind, side, text, **kw):
            got.append(o)
            if left and until(o): break
    def here():
        for o in ask(base, kind, side, text, **kw):
            got.append(o)
            if left and until(o): break
    if side=='async': asyncio.run(go())
    else: here()
    return got

def row(logger, status, source, model):
    "The only row there is, whose money is its counts at the prices of LiteLLM's map, by LiteLLM"
    gc.collect()
    assert logger.flush()==[]
    u, = logger.ledger.rows()
    price = litellm.model_cost[model.split('/')[1]]
    assert (u.status, u.usage_source, u.cost_source, bool(u.stream), u.origin)==(status, source, 'litellm', True, 'live')
    assert u.cost==pytest.approx(u.prompt_tokens*price['input_cost_per_token'] + u.completion_tokens*price['output_cost_per_token'], rel=1e-9) and u.cost > 0
    assert u.total_tokens==u.prompt_tokens+u.completion_tokens
    return u

def counted(kind, n):
    "The tokens of the first `n` pieces of the answer, by LiteLLM's tokenizer"
    return litellm.token_counter(model=kinds[kind][1].split('/')[1], text=''.join(pieces(said.text)[:n]))

def seen(kind, u, n, least=None):
    "Row `u` has what its provider reported of the first `n` pieces, or of `least` of them, and else what they count"
    k = len(pieces(said.text, 24))
    if kind in reports: assert (u.prompt_tokens, u.completion_tokens)==(21, 33 - 33*(k-n)//k)
    else:
        assert u.completion_tokens in [counted(kind, i) for i in range(least or n, n+1)]
        assert u.prompt_tokens==21 if kind in ('claude','messages') else 5 <= u.prompt_tokens <= 10 # the first two say so when they begin

@pytest.mark.parametrize('fault', ['error','cut','timeout'])
@pytest.mark.parametrize('kind,side', both)
def test_breaks(logger, base, kind, side, fault):
    "A stream that breaks is one failed row of what had been sent, priced"
    with suppress(Exception): read(base, kind, side, fault, **(dict(timeout=.3) if fault=='timeout' else {}))
    u = row(logger, 'failed', 'reported' if kind in reports else 'estimated', kinds[kind][1])
    seen(kind, u, kinds[kind][3])
    assert u.error and said.text[:8] not in u.error and logger.ledger.total().amount==u.cost

@pytest.mark.parametrize('kind,side', both)
def test_left(logger, base, kind, side):
    "One that is left is partial"
    read(base, kind, side, 'left')
    u = row(logger, 'partial', 'reported' if kind in reports else 'estimated', kinds[kind][1])
    seen(kind, u, *((3,1) if kind=='messages' else (1,))) # whose events come as they lie in the network's packets

@pytest.mark.parametrize('text,kw', [('whole',{}), ('whole',asked), ('silent',{}), ('silent',asked)], ids=['whole','asked','silent','silent asked'])
@pytest.mark.parametrize('kind,side', both)
def test_whole(logger, base, kind, side, text, kw):
    "A whole stream has its provider's report, and an estimate where there is none, whether or not it was asked for"
    if kw and kind not in chunked: return
    read(base, kind, side, text, **kw)
    none = text=='silent' or kind in chunked and not kw
    u = row(logger, 'ok', 'estimated' if none else 'reported', kinds[kind][1])
    if none: assert u.completion_tokens==counted(kind, None) and 3 <= u.prompt_tokens <= 10 and logger.ledger.total().estimated==1
    else: assert (u.prompt_tokens, u.completion_tokens)==(21, 33)

@pytest.mark.parametrize('kind,side', both)
def test_refused(logger, base, kind, side):
    "A stream that fails before anything is sent costs nothing"
    with suppress(Exception): read(base, kind, side, 'refused')
    assert logger.flush()==[]
    u, = logger.ledger.rows()
    assert (u.status, u.usage_source, u.prompt_tokens, u.cost)==('failed', 'missing', None, 0) and u.error

@pytest.mark.parametrize('text', ['scrap','scrap_ended'])
@pytest.mark.parametrize('kind,side', both)
def test_scrap(logger, base, kind, side, text):
    "Nor does anybody know what a stream costs that breaks, or ends, within its first event"
    with suppress(Exception): read(base, kind, side, text)
    gc.collect()
    assert logger.flush()==[]
    u, = logger.ledger.rows()
    assert u.status in ('failed','partial') and u.usage_source in ('missing','estimated') and u.cost!=0
    assert logger.ledger.total().estimated==1 or repr(logger.ledger.total()).startswith('≥')

@pytest.mark.parametrize('kind,side', [o for o in both if o[0]!='google']) # to whose cut streams LiteLLM gives an end
def test_ended(logger, base, kind, side):
    "A stream that ends in good order after two events has not said its last word"
    with suppress(Exception): read(base, kind, side, 'ended')
    row(logger, 'failed' if kind=='responses' else 'partial', 'reported' if kind in (*reports,'messages','claude') else 'estimated', kinds[kind][1])

@pytest.mark.parametrize('kind,side', both)
def test_broken_reply(logger, base, kind, side):
    "Nor what one costs that was not streamed, and whose connection broke"
    async def go(): await ask(base, kind, side, 'scrap', False)
    with pytest.raises(Exception):
        if side=='async': asyncio.run(go())
        else: ask(base, kind, side, 'scrap', False)
    assert logger.flush()==[]
    u, = logger.ledger.rows()
    assert (u.status, u.usage_source, u.cost)==('failed', 'missing', None)

@pytest.mark.parametrize('stream', [True,False], ids=['stream','whole'])
@pytest.mark.parametrize('kind,side', both)
def test_given_up(logger, base, kind, side, stream):
    "Nobody knows what a call costs that was given up after it was sent"
    async def wait(): await ask(base, kind, side, 'given_up', False, timeout=.3)
    with pytest.raises(Exception):
        if stream: read(base, kind, side, 'given_up', timeout=.3)
        elif side=='async': asyncio.run(wait())
        else: ask(base, kind, side, 'given_up', False, timeout=.3)
    assert logger.flush()==[]
    u, = logger.ledger.rows()
    assert (u.status, u.usage_source, u.prompt_tokens, u.cost)==('failed', 'missing', None, None)
    assert repr(logger.ledger.total()).startswith('≥')

@pytest.mark.parametrize('side', sides)
def test_nobody_there(logger, side):
    "A call that could not be sent was not billed"
    with pytest.raises(Exception): read('http://127.0.0.1:9', 'chat', side, 'whole', timeout=5)
    assert logger.flush()==[]
    assert [(u.status, u.cost) for u in logger.ledger.rows()]==[('failed', 0)]

@pytest.mark.parametrize('side', sides)
@pytest.mark.parametrize('text,status', [('failed','failed'), ('incomplete','ok')])
def test_response_that_ends_otherwise(logger, base, side, text, status):
    "A response whose tokens ran out is whole for the bill; one that failed on the other side is failed; both have their usage"
    with suppress(Exception): read(base, 'responses', side, text)
    u = row(logger, status, 'reported', kinds['responses'][1])
    assert (u.prompt_tokens, u.completion_tokens)==(21, 33) and bool(u.error)==(status=='failed')

@pytest.mark.parametrize('side', sides)
def test_left_after_the_last_event(logger, base, side):
    "Nor is a response that is incomplete left by who has read that it is"
    async def go():
        async for o in await ask(base, 'responses', side, 'incomplete'):
            if o.type=='response.incomplete': return
    if side=='async': asyncio.run(go())
    else:
        for o in ask(base, 'responses', side, 'incomplete'):
            if o.type=='response.incomplete': break
    row(logger, 'ok', 'reported', kinds['responses'][1])

class Chunks: chunks = ()

ends = dict(chat=(dict(choices=[dict(finish_reason='stop')]), dict(choices=[], usage=dict(prompt_tokens=9))),
    gemini=(b'data: {"candidates": [{"finishReason": "STOP"}]}\n', b'data: {"usageMetadata": {"promptTokenCount": 9}}\n'))

def delta(**kw): return b'data: %s\n' % json.dumps(kw).encode()

spoken = dict( # an answer, a thought, and a tool that is called
    chat      = [dict(choices=[dict(delta=o)]) for o in (dict(content='a'), dict(reasoning_content='b'), dict(tool_calls=[dict(function=dict(name='c', arguments='d'))]))],
    responses = [dict(type='response.output_text.delta', delta='ab'), dict(type='response.function_call_arguments.delta', delta='cd')],
    messages  = [delta(type='content_block_delta', delta=o) for o in (dict(type='text_delta', text='a'), dict(type='thinking_delta', thinking='b'), dict(type='input_json_delta', partial_json='cd'))],
    gemini    = [delta(candidates=[dict(content=dict(parts=[dict(text='ab'), dict(functionCall=dict(name='cd'))]))])])

@pytest.mark.parametrize('kind', spoken)
def test_all_that_is_said_counts(kind):
    "What is counted of a stream that is left are the words of answers, thoughts and calls of tools"
    r = Reading(kind, None, stream := Chunks(), [])
    r.chunks = spoken[kind]
    assert r.words()=='abcd'

@pytest.mark.parametrize('kind', ends)
def test_what_follows_the_last_word(kind):
    "In a chat, and in Gemini's own API, the usage may follow the last word: who leaves before that has not had all"
    r = Reading(kind, None, stream := Chunks(), [])
    word,usage = ends[kind]
    r.chunks = [word]
    assert r.ended() and not r.complete() and r.columns(left=True)==dict(status='partial', usage_source='estimated')
    r.chunks.append(usage)
    assert r.complete() and r.columns(left=False)=={}

@pytest.mark.parametrize('side', sides)
def test_left_after_its_report(logger, base, side):
    "Who breaks off at the usage that he asked for has the whole row, once"
    async def go():
        async for o in await ask(base, 'chat', side, 'whole', **asked):
            if getattr(o, 'usage', None): break
    if side=='async': asyncio.run(go())
    else:
        for o in ask(base, 'chat', side, 'whole', **asked):
            if getattr(o, 'usage', None): break
    row(logger, 'ok', 'reported', kinds['chat'][1])

@pytest.mark.parametrize('side', [s for k,s in both if k=='gemini'])
def test_left_before_its_report(logger, base, side):
    "Who breaks off when all is said, but not what was used, leaves it in part"
    read(base, 'gemini', side, 'silent', until=lambda o: 'finishReason' in str(o))
    assert row(logger, 'partial', 'estimated', kinds['gemini'][1]).completion_tokens==counted('gemini', None)

@pytest.mark.parametrize('side', [s for k,s in both if k=='gemini'])
def test_gemini_not_streamed(logger, base, side):
    "Gemini's own API, not streamed"
    async def go(): await ask(base, 'gemini', side, 'whole', False)
    if side=='async': asyncio.run(go())
    else: ask(base, 'gemini', side, 'whole', False)
    assert logger.flush()==[]
    u, = logger.ledger.rows()
    price = litellm.model_cost['gemini-2.5-flash']
    assert (u.status, u.usage_source, u.prompt_tokens, u.completion_tokens)==('ok', 'reported', 21, 33)
    assert u.cost==pytest.approx(21*price['input_cost_per_token'] + 33*price['output_cost_per_token'], rel=1e-9)

# Who stated a cost

@pytest.mark.parametrize('stream', [True,False], ids=['stream','whole'])
@pytest.mark.parametrize('side', sides)
@pytest.mark.parametrize('text', ['stated','free'])
def test_stated(logger, base, text, side, stream):
    "What OpenRouter says that it charged is the cost, streamed or not, and nothing if it says nothing"
    kw = dict(model='openrouter/some/model', api_base=f'{base}/v1', api_key='k', **words(text), **(dict(stream=True, **asked) if stream else {}))
    async def go():
        r = await litellm.acompletion(**kw)
        if stream: [o async for o in r]
    if side=='async': asyncio.run(go())
    else: [*litellm.completion(**kw)]
    assert logger.flush()==[]
    u, = logger.ledger.rows()
    assert (u.cost, u.cost_source, u.usage_source, u.prompt_tokens)==(faults[text]['cost'], 'provider', 'reported', 21)

@pytest.mark.parametrize('kind,side', both)
def test_stamped(logger, base, monkeypatch, kind, side):
    "LiteLLM can be told to write its own cost into the usage; that is no statement of the provider's"
    monkeypatch.setattr(litellm, 'include_cost_in_streaming_usage', True)
    read(base, kind, side, 'whole', **(asked if kind in chunked else {}))
    row(logger, 'ok', 'reported', kinds[kind][1])

# Asking on behalf of the caller

def shown(os): return [([(c.index, c.finish_reason, getattr(c,'text',None) or getattr(getattr(c,'delta',None),'content',None)) for c in o.choices], str(getattr(o,'usage',None))) for o in os]

@pytest.mark.parametrize('side', sides)
@pytest.mark.parametrize('kind', chunked)
def test_ask_usage(p, base, kind, side):
    "A logger may ask for the usage of a stream; its reader sees the same chunks as without"
    plain = read(base, kind, side, 'whole')
    with UsageLogger(p, ask_usage=True) as logger:
        assert shown(read(base, kind, side, 'whole'))==shown(plain)
        u = row(logger, 'ok', 'reported', kinds[kind][1])
    assert (u.prompt_tokens, u.completion_tokens)==(21, 33)

@pytest.mark.parametrize('options,source', [(dict(include_usage=True),'reported'), (dict(include_usage=False),'estimated')])
def test_the_callers_word_counts(p, base, options, source):
    "With options of his own the caller gets what he asked for"
    with UsageLogger(p, ask_usage=True) as logger:
        got = read(base, 'chat', 'sync', 'whole', stream_options=options)
        row(logger, 'ok', source, kinds['chat'][1])
    assert any(getattr(o, 'usage', None) for o in got)==options['include_usage']

@pytest.mark.parametrize('options,source', [(dict(include_usage=False),'estimated'), (None,'reported')])
def test_options_that_litellm_leaves_out(p, base, options, source):
    "So it is where LiteLLM does not send them"
    with UsageLogger(p, ask_usage=True) as logger:
        [*litellm.completion('morph/morph-v3-large', **words('whole'), api_base=f'{base}/v1', api_key='k', stream=True, stream_options=options)]
        assert logger.flush()==[]
        assert [u.usage_source for u in logger.ledger.rows()]==[source]

def test_asked_no_more(tmp_path, base):
    "Who does not ask changes no request, nor does one who asked once"
    old = litellm.main.get_optional_params
    a,b = UsageLogger(tmp_path/'a.db', ask_usage=True).install(),UsageLogger(tmp_path/'b.db').install()
    a.uninstall()
    read(base, 'chat', 'sync', 'whole')
    row(b, 'ok', 'estimated', kinds['chat'][1])
    b.uninstall()
    assert litellm.main.get_optional_params is old

# Another takes over

@pytest.mark.parametrize('side', sides)
def test_fallback(logger, base, side):
    "A stream that breaks before its first word is gone on with by another model: two rows, each with its own tokens"
    of = lambda name,model,end: dict(model_name=name, litellm_params=dict(model=model, api_base=base+end, api_key='k'))
    r  = litellm.Router(model_list=[of('a','openai/gpt-5.6-luna','/v1'), of('b','anthropic/claude-haiku-5-5','')], fallbacks=[dict(a=['b'])], num_retries=0)
    async def go(): return [o async for o in await r.acompletion('a', stream=True, **words('taken'))]
    assert asyncio.run(go()) if side=='async' else [*r.completion('a', stream=True, **words('taken'))]
    gc.collect()
    assert logger.flush()==[]
    a,b = sorted(logger.ledger.rows(), key=lambda u: u.provider=='anthropic')
    assert (a.provider, a.status, a.usage_source, a.completion_tokens)==('openai', 'failed', 'estimated', 0) and a.cost > 0
    assert (b.provider, b.status, b.usage_source, b.prompt_tokens, b.completion_tokens)==('anthropic', 'ok', 'reported', 21, 33)

@pytest.mark.parametrize('kw', [{}, dict(stream_options=dict(include_usage=True))])
def test_a_mock_is_whole(kw):
    "A stream of LiteLLM's mock that is read to its end is whole, although it says no last word, and its tokens are counted here; one that is left is partial"
    with UsageLogger(':memory:') as l:
        ask = lambda: litellm.completion('gpt-4o-mini', [dict(role='user', content='hello')], mock_response='one two three', stream=True, **kw)
        [*ask()]
        l.flush()
        s = ask(); next(s); del s
    whole,left = l.ledger.rows()
    assert (whole.status, whole.usage_source, left.status, left.usage_source)==('ok', 'estimated', 'partial', 'estimated') and whole.cost > left.cost > 0
