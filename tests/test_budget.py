"Limits that hold: for every kind of call, through every door, for many processes and after kills."
import asyncio, gc, inspect, json, os, sqlite3, threading, time
from contextlib import closing
from contextvars import copy_context
from math import fsum
import anthropic, litellm, llm_usage.budgets, openai, pytest
from google import genai
from helpers import Handler, python, ran, row, served
from llm_usage.proxy import CONFIG
from proxies import Proxy
from llm_usage import Ledger, Usage, UsageLogger, instrument, model_prices, trace, uninstrument
from llm_usage.budgets import BudgetExceeded, BudgetUnknown, MAX_HOLD, budget
from llm_usage.loops import LoopFound
from llm_usage.rates import price_map
from llm_usage.request import Worst

hits,sent = [],[] # paths, and the models that were asked

class Upstream(Handler):
    "Stand-ins that note what is asked of them; they fail if told to"
    def do_POST(self): hits.append(self.path); super().do_POST()
    def _request(self):
        req = super()._request()
        sent.append(json.loads(req.content).get('model') if req.content[:1]==b'{' else None)
        return req

@pytest.fixture(scope='module')
def url():
    with served(Upstream) as url: yield url

@pytest.fixture(autouse=True)
def none(): hits.clear()

M   = [dict(role='user', content='What is the capital of Peru?')]
wav = ('seven.wav', b'RIFF0000' + bytes(4000)) # at most eight seconds
gpt,claude,gemini,text,emb = 'openai/gpt-5.6-luna','anthropic/claude-sonnet-5-5','gemini/gemini-2.5-flash','text-completion-openai/gpt-3.5-turbo-instruct','openai/text-embedding-3-small'
chat = dict(messages=M, max_tokens=50)

kinds = { # name: (LiteLLM's function, its arguments, at the root of the stand-ins?)
    'completion':         ('completion',  dict(model=gpt, **chat)),
    'completion_stream':  ('completion',  dict(model=gpt, stream=True, **chat)),
    'completion_retries': ('completion',  dict(model=gpt, num_retries=2, **chat)),
    'claude':             ('completion',  dict(model=claude, **chat)),
    'claude_stream':      ('completion',  dict(model=claude, stream=True, **chat)),
    'gemini':             ('completion',  dict(model=gemini, **chat)),
    'acompletion':        ('acompletion', dict(model=gpt, **chat)),
    'acompletion_stream': ('acompletion', dict(model=gpt, stream=True, **chat)),
    'aclaude':            ('acompletion', dict(model=claude, **chat)),
    'agemini_stream':     ('acompletion', dict(model=gemini, stream=True, **chat)),
    'text':               ('text_completion',  dict(model=text, prompt='Roses are red,', max_tokens=50)),
    'atext':              ('atext_completion', dict(model=text, prompt='Roses are red,', max_tokens=50)),
    'embedding':          ('embedding',  dict(model=emb, input=['one'])),
    'aembedding':         ('aembedding', dict(model=emb, input=['one'])),
    'responses':          ('responses',  dict(model=gpt, input='hi', max_output_tokens=50)),
    'responses_stream':   ('responses',  dict(model=gpt, input='hi', max_output_tokens=50, stream=True)),
    'aresponses':         ('aresponses', dict(model=gpt, input='hi', max_output_tokens=50)),
    'aresponses_stream':  ('aresponses', dict(model=gpt, input='hi', max_output_tokens=50, stream=True)),
    'amessages':          ('anthropic_messages', dict(model=claude, **chat)),
    'amessages_stream':   ('anthropic_messages', dict(model=claude, stream=True, **chat)),
    'image':              ('image_generation',  dict(model='openai/gpt-image-1', prompt='A red square')),
    'aimage':             ('aimage_generation', dict(model='openai/gpt-image-1', prompt='A red square')),
    'speech':             ('speech',     dict(model='openai/tts-1', input='hello', voice='alloy')),
    'aspeech':            ('aspeech',    dict(model='openai/tts-1', input='hello', voice='alloy')),
    'transcription':      ('transcription',  dict(model='openai/whisper-1', file=wav)),
    'atranscription':     ('atranscription', dict(model='openai/whisper-1', file=wav)),
    'rerank':             ('rerank',  dict(model='cohere/rerank-v3.5', query='Which page is about money?', documents=['a','b'])),
    'arerank':            ('arerank', dict(model='cohere/rerank-v3.5', query='Which page is about money?', documents=['a','b'])),
    'router':             ('router.completion',  dict(model='g', **chat)),
    'arouter':            ('router.acompletion', dict(model='g', **chat)),
    'arouter_stream':     ('router.acompletion', dict(model='g', stream=True, **chat))}

def at(url, model): return dict(api_base=url if model.split('/')[0] in ('anthropic','gemini','cohere') else f'{url}/v1', api_key='stand-in')

async def drained(o):
    if inspect.isawaitable(o): o = await o
    return [x async for x in o] if hasattr(o, '__aiter__') else o

def call(loop, url, kind, **more):
    "Make a call of a kind, and read all of its answer"
    name,kw = kinds[kind]
    if name.startswith('router.'):
        r = litellm.Router([dict(model_name='g', litellm_params=dict(model=more.pop('model', gpt), **at(url, gpt)))], num_retries=2, retry_after=0)
        fn,kw = getattr(r, name[7:]),kw | more
    else: fn,kw = getattr(litellm, name),at(url, kw['model']) | kw | more
    if inspect.iscoroutinefunction(inspect.unwrap(fn)): return loop.run(drained(fn(**kw)), context=copy_context())
    res = fn(**kw)
    return [*res] if kw.get('stream') else res

def holds(l): return l.q('SELECT * FROM budget_holds') if l.q("SELECT 1 FROM sqlite_master WHERE name='budget_holds'") else []

unpriced = {k: dict(model=kw['model'].rpartition('/')[0] + '/nobody-prices' if '/' in kw['model'] else 'openai/nobody-prices') for k,(_,kw) in kinds.items()}

@pytest.mark.parametrize('kind', kinds)
def test_every_kind_of_call(logger, loop, url, kind):
    "A cap that is too small stops every kind of call before it is sent, one that is large enough stops none, and nothing stays reserved"
    l = logger.ledger
    with budget(1e-9, per='total'):
        with pytest.raises(BudgetExceeded) as e: call(loop, url, kind)
    assert isinstance(e.value, litellm.BudgetExceededError) and e.value.status_code==422 and hits==[]
    logger.flush()
    assert holds(l)==[] and l.rows()==[]
    with budget(5.) as b:
        call(loop, url, kind)
        logger.flush()
        assert len(hits)==len(l.rows())==1 and holds(l)==[]
        spent, = [o['nano'] for o in l.q("SELECT nano FROM budget_spent WHERE rule LIKE :r", r=f'{b.token}%')]
        assert spent==round((l.rows()[0].response_cost or 0)*1e9)
        assert l.over_held()==[] # the worst case was none too small
    call(loop, url, kind) # without a cap
    assert len(hits)==2

@pytest.mark.parametrize('kind', [k for k in kinds if 'rerank' not in k])
def test_a_model_without_a_price(logger, loop, url, kind):
    "Under a cap nobody may call a model whose price is not known, unless the budget says so, or says what to count"
    with budget(1.):
        with pytest.raises(BudgetExceeded, match='no known price'): call(loop, url, kind, **unpriced[kind])
    assert hits==[]
    with budget(1., unpriced='allow'): call(loop, url, kind, **unpriced[kind])
    with budget(.5, unpriced=.3):
        call(loop, url, kind, **unpriced[kind])
        logger.flush()
    assert len(hits)==2

script = '''
import sys, litellm
from llm_usage import UsageLogger
from llm_usage.budgets import BudgetExceeded
litellm.suppress_debug_info = True
path,url,n = sys.argv[1:4]
model = dict(model='openai/gpt-5.6-luna', api_base=url+'/v1', api_key='stand-in', messages=[dict(role='user', content='word '*2400)], max_tokens=3100)
sent = refused = 0
with UsageLogger(path) as logger:
    logger.budget(float(sys.argv[4]), 'day', tz='UTC')
    for _ in range(int(n)):
        try: litellm.completion(**model); sent += 1
        except BudgetExceeded: refused += 1
print(sent, refused)
'''

def shared(p, url, k, n, usd):
    "What `k` processes sent and were refused, of `n` calls each under one cap, and what that cost in all"
    ps = [python(script, p, url, n, usd) for _ in range(k)]
    outs = [o.communicate(timeout=300) for o in ps]
    assert all(o.returncode==0 for o in ps), outs
    with closing(Ledger(p)) as l: return [sum(int(o.split()[i]) for o,_ in outs) for i in (0,1)],l.total().amount,holds(l)

def test_eight_processes(p, url):
    "Eight processes share a cap: they spend nearly all of it, and no more"
    (sent,refused),usd,held = shared(p, url, 8, 12, .1)
    assert sent+refused==96 and refused > 0 and len(hits)==sent and held==[]
    assert .9*.1 <= usd <= .1

def test_eight_threads(logger, url):
    "Eight threads of one process share a cap of a cent"
    from concurrent.futures import ThreadPoolExecutor
    def one(i):
        try: return litellm.completion(**at(url, gpt), model=gpt, messages=[dict(role='user', content='word '*40)], max_tokens=60)
        except BudgetExceeded: pass
    logger.budget(.01, 'total')
    with ThreadPoolExecutor(8) as ex: replies = [o for o in ex.map(one, range(400)) if o]
    logger.flush()
    assert len(hits)==len(replies) < 400 and holds(logger.ledger)==[]
    assert .009 <= logger.ledger.total().amount <= .01

killed = '''
import sys, litellm
from llm_usage import UsageLogger
logger = UsageLogger(sys.argv[1]).install()
logger.budget(1., 'day')
print('go', flush=True)
litellm.completion(model='openai/gpt-5.6-luna', api_base=sys.argv[2]+'/v1', api_key='stand-in', messages=[dict(role='user', content='wait')], max_tokens=100)
'''

class Slow(Upstream):
    "Stand-ins who answer when the tests are over"
    def do_POST(self): hits.append(self.path); self.over.wait(60); Handler.do_POST(self)

def test_killed_in_the_middle(p):
    "A process that is killed while its call is under way leaves a hold, which ends with the row that recovery makes"
    with served(Slow) as url:
        with python(killed, p, url) as o:
            while not hits: assert o.poll() is None; time.sleep(.01)
            with closing(sqlite3.connect(p)) as con: assert len(con.execute('SELECT * FROM budget_holds').fetchall())==1
            o.kill()
    with closing(Ledger(p)) as l: assert [u.status for u in l.rows()]==['orphaned'] and holds(l)==[]

def test_behind_a_proxy(tmp_path, url):
    "A proxy refuses on every route, with the status 422 and a row, once its model is known"
    (tmp_path/'llm_usage.toml').write_text('[[budgets]]\nusd = 0.000001\nper = "day"\nprovider = "openai"\n')
    with Proxy(tmp_path, CONFIG, url) as p:
        at = dict(api_key=p.key, max_retries=0)
        o,a = openai.OpenAI(base_url=f'{p.url}/v1', **at),anthropic.Anthropic(base_url=p.url, **at)
        asks = [lambda: o.chat.completions.create(model='gpt', **chat), lambda: o.chat.completions.create(model='gpt', stream=True, **chat),
                lambda: o.responses.create(model='gpt', input='hi', max_output_tokens=50), lambda: o.embeddings.create(model='embed', input='word '*5000)]
        for f in asks:
            with pytest.raises(openai.APIStatusError) as e: f()
            assert e.value.status_code==422 and 'a day for provider=openai' in str(e.value)
        assert hits==[] and a.messages.create(model='claude', **chat).usage.output_tokens==6
    with closing(Ledger(p.ledger)) as l:
        assert [(u.status, u.error) for u in l.rows()]==[('failed','CallOverBudget 422')]*4 + [('ok',None)] and holds(l)==[] and l.check()==[]

def test_a_fallback_behind_a_proxy(tmp_path, url):
    "A proxy gives the call to the cheaper model, and its row says which one was asked for; a limit of requests waits, and the proxy goes on"
    (tmp_path/'llm_usage.toml').write_text('[[budgets]]\nusd = 0.0003\nper = "total"\nfallback = "gpt-5.6-luna"\n\n[[budgets]]\nrequests = 3\nwait = 0.2\n')
    with Proxy(tmp_path, CONFIG.replace('openai/gpt-5.6-luna', 'openai/gpt-5.6-sol'), url) as p:
        o = openai.OpenAI(base_url=f'{p.url}/v1', api_key=p.key, max_retries=0)
        assert o.chat.completions.create(model='gpt', **chat).usage
        assert [*o.chat.completions.create(model='gpt', stream=True, **chat)] and o.responses.create(model='gpt', input='hi', max_output_tokens=50)
        with pytest.raises(openai.APIStatusError, match='3 requests a minute') as e: o.chat.completions.create(model='gpt', **chat)
        assert e.value.status_code==422 and len(hits)==3 and {*sent[-3:]}=={'gpt-5.6-luna'}
    with closing(Ledger(p.ledger)) as l:
        us = l.rows()
        assert [json.loads(u.meta)['fallback_from'] for u in us[:3]]==['openai/gpt-5.6-sol']*3 and us[3].status=='failed' and l.check()==[]
        assert [o['ended'] is None for o in holds(l)]==[False]*3

def clients(url):
    "Calls of the vendors' own clients, each a function without arguments"
    o,ao = (c(base_url=f'{url}/v1', api_key='k', max_retries=2) for c in (openai.OpenAI, openai.AsyncOpenAI))
    a,aa = (c(base_url=url, api_key='k', max_retries=2) for c in (anthropic.Anthropic, anthropic.AsyncAnthropic))
    g = genai.Client(api_key='k', http_options=dict(base_url=url))
    few = dict(max_output_tokens=50)
    return {'openai': lambda: o.chat.completions.create(model='gpt-5.6-luna', **chat), 'openai stream': lambda: [*o.chat.completions.create(model='gpt-5.6-luna', stream=True, **chat)],
        'openai async': lambda: ao.chat.completions.create(model='gpt-5.6-luna', **chat), 'openai responses': lambda: o.responses.create(model='gpt-5.6-luna', input='hi', **few),
        'openai embeddings': lambda: o.embeddings.create(model='text-embedding-3-small', input='hi'), 'anthropic': lambda: a.messages.create(model='claude-sonnet-5-5', **chat),
        'anthropic stream': lambda: [*a.messages.create(model='claude-sonnet-5-5', stream=True, **chat)], 'anthropic async': lambda: aa.messages.create(model='claude-sonnet-5-5', **chat),
        'google': lambda: g.models.generate_content(model='gemini-2.5-flash', contents='hi', config=few), 'google stream': lambda: [*g.models.generate_content_stream(model='gemini-2.5-flash', contents='hi', config=few)],
        'google async': lambda: g.aio.models.generate_content(model='gemini-2.5-flash', contents='hi', config=few)}

@pytest.mark.parametrize('kind', clients('http://127.0.0.1:9'))
def test_the_vendors_clients(p, loop, url, kind):
    "A cap stops a client's call before it is sent, once, and the client gets our error; nothing stays reserved"
    l,ask = Ledger(p),clients(url)[kind]
    def go():
        r = ask()
        return loop.run(drained(r), context=copy_context()) if inspect.isawaitable(r) else r
    instrument(l)
    try:
        with budget(1e-9):
            with pytest.raises(BudgetExceeded, match=r'a block: \$0 spent'): go()
        assert hits==[] and l.rows()==[] and holds(l)==[]
        with budget(1.): go()
        l.flush()
        assert len(hits)==len(l.rows())==1 and holds(l)==[]
    finally: uninstrument(), l.close()

def test_a_trace(p):
    "A call by hand is refused when nothing is left, and its cost counts"
    l = Ledger(p)
    with budget(.01) as b:
        with trace(model='gpt-5.6-luna', provider='openai', ledger=l) as t:
            t.response = dict(model='gpt-5.6-luna', usage=dict(prompt_tokens=100_000, completion_tokens=10, total_tokens=100_010))
        l.flush()
        with pytest.raises(BudgetExceeded, match=r'\$0.020012 spent'):
            with trace(model='gpt-5.6-luna', provider='openai', ledger=l): pass
    assert holds(l)==[] and l.check()==[]
    l.close()

def test_a_cached_reply(logger, url):
    "A reply that LiteLLM's cache has costs nothing, so no budget refuses it"
    kw = at(url, gpt) | dict(model=gpt, **chat)
    litellm.enable_cache()
    try:
        litellm.completion(**kw)
        with budget(1e-9):
            litellm.completion(**kw)
            with pytest.raises(BudgetExceeded): litellm.completion(**kw | dict(messages=[dict(role='user', content='Name three primes.')]))
    finally: litellm.disable_cache()
    logger.wait(2)
    assert len(hits)==1 and [u.origin for u in logger.ledger.rows()]==['live','cache'] and holds(logger.ledger)==[]

def test_a_call_that_fails(logger, url):
    "Whatever ends a call, nothing stays reserved: an error of the server, a request that LiteLLM refuses, a task that is cancelled, a stream that is left"
    async def cancelled():
        with budget(1.):
            t = asyncio.create_task(litellm.acompletion(**at(url, gpt), model=gpt, **chat))
            await asyncio.sleep(0)
            t.cancel()
            with pytest.raises(asyncio.CancelledError): await t
    with budget(1.):
        for kw in (dict(model=gpt, messages=[dict(role='user', content='Is anybody there?')]), dict(model='nowhere/at-all', **chat), dict(model=gpt, messages='no messages', max_tokens=9)):
            with pytest.raises(Exception): litellm.completion(**at(url, gpt) | kw)
        s = litellm.completion(**at(url, gpt), model=gpt, stream=True, **chat)
        next(iter(s))
        del s
    asyncio.run(cancelled())
    gc.collect()
    logger.flush()
    assert holds(logger.ledger)==[]

@pytest.mark.parametrize('bad', [dict(usd=-1, per='day'), dict(usd=float('nan'), per='day'), dict(usd='5', per='day'), dict(usd=5, per='dayly'), dict(usd=5, per='block')])
def test_bad_rules(p, bad):
    with closing(Ledger(p)) as l, pytest.raises(ValueError): l.budget(**bad)

@pytest.mark.parametrize('unsure', ['refuse','allow'])
def test_a_ledger_that_is_locked(p, unsure, monkeypatch):
    "Nobody knows what is left: the caller has chosen whether calls go on"
    monkeypatch.setattr(llm_usage.budgets, '_PATIENCE', .2)
    locks = "import sqlite3,sys\ncon = sqlite3.connect(sys.argv[1], isolation_level=None)\ncon.execute('BEGIN IMMEDIATE')\nprint('locked', flush=True)\nsys.stdin.read()"
    with closing(Ledger(p)) as l:
        l.budget(1, 'total', unsure=unsure)
        l.reserve('a', {}, .1)
        with python(locks, p) as o:
            assert o.stdout.readline()=='locked\n'
            if unsure=='allow': assert l.reserve('b', {}, .1)
            else:
                with pytest.raises(BudgetUnknown, match="unsure='allow' would let calls go on"): l.reserve('b', {}, .1)
            o.communicate()

def test_a_clock_that_jumps(p):
    "A call belongs to the period in which it begins, whichever way the clock goes; a hold ends after two hours of any clock"
    with closing(Ledger(p)) as l:
        l.budget(1, 'day', tz='UTC')
        day = 1795737600. # 27 November 2026
        l.reserve('a', {}, 1., day+86399)
        assert l.reserve('b', {}, 1., day+86400) # tomorrow
        with pytest.raises(BudgetExceeded): l.reserve('c', {}, .1, day+86398) # the clock was put back
        l.add(Usage(call_id='a', timestamp=day+86399, latency=7200., response_cost=.5, prompt_tokens=1, usage_source='reported')) # it ends tomorrow, and is of today
        assert l.reserve('c', {}, .5, day+86399) and [o.spent for o in l.rooms(day)]==[.5]

def test_a_cap_that_is_raised(p):
    "Another amount for the same keeps what was spent, and calls go on at once"
    with closing(Ledger(p)) as l:
        l.budget(1, 'total')
        l.add(row('a', response_cost=1.))
        with pytest.raises(BudgetExceeded): l.reserve('b', {}, .5)
        l.budget(2, 'total')
        assert l.reserve('b', {}, .5) and [(o.limit, o.spent) for o in l.rooms()]==[(2., 1.)]

def test_every_rule_holds(p):
    "A team's cap does not switch off a user's, nor the other way round; the error is about the tightest"
    with closing(Ledger(p)) as l:
        l.budget(10, 'total', team_id='red'), l.budget(1, 'total', user_id='ada'), l.budget(5, 'total', tags='batch')
        who = dict(team_id='red', user_id='ada', tags='["batch"]')
        with pytest.raises(BudgetExceeded, match=r'\$1.00 in all for user_id=ada'): l.reserve('a', who, 20.)
        l.budget(100, 'total', user_id='ada')
        with pytest.raises(BudgetExceeded, match=r'\$5.00 in all for tags=batch'): l.reserve('a', who, 6.)
        assert l.q('SELECT * FROM budget_holds')==[]

def test_limits_of_a_call(p):
    "Calls at the same time do not take each other's limit of a call"
    with closing(Ledger(p)) as l:
        l.budget(1, 'call')
        assert l.reserve('a', {}, .6) and l.reserve('b', {}, .6) and holds(l)==[]
        with pytest.raises(BudgetExceeded, match=r'a call: the call can cost \$2.00'): l.reserve('c', {}, 2.)

def test_a_function_that_refuses(p):
    "What a function of yours refuses is not held"
    def no(e): raise e
    with closing(Ledger(p)) as l:
        l.budget(1, 'total', on_exceed=no)
        with pytest.raises(BudgetExceeded): l.reserve('a', {}, 5.)
        assert holds(l)==[] and l.reserve('b', {}, 1.)

def test_unpriced_calls_of_a_block(p):
    "Each call without a price counts what the budget says, in a block as in a period"
    with closing(Ledger(p)) as l:
        with budget(1., unpriced=.5):
            for i in (1,2):
                l.reserve(str(i), {}, None)
                l.add(Usage(call_id=str(i), timestamp=time.time()+1, latency=1., prompt_tokens=1, usage_source='reported'))
            with pytest.raises(BudgetExceeded, match=r'\$1.00 spent'): l.reserve('3', {}, None)

def test_what_cannot_be_wrapped():
    def g(): yield 1
    async def h(): yield 1
    for f in (g,h):
        with pytest.raises(TypeError, match='yields'): budget(1.)(f)

def test_an_error_goes_to_another_process(p):
    import pickle
    with closing(Ledger(p)) as l:
        l.budget(0, 'total')
        with pytest.raises(BudgetExceeded) as e: l.reserve('a', {}, 1.)
    assert str(pickle.loads(pickle.dumps(e.value)))==str(e.value)

def test_a_schema_as_a_class(logger, url):
    "A class for the answer's form is a part of the request"
    from pydantic import BaseModel
    class City(BaseModel): name: str
    with budget(1.): litellm.completion(**at(url, gpt), model=gpt, response_format=City, **chat)
    assert len(hits)==1

@pytest.mark.parametrize('caps', [(5,1e-9), (1e-9,5)])
def test_two_loggers(tmp_path, url, caps):
    "If one logger's budget refuses a call, the other's holds nothing for it, also while somebody keeps the error"
    with UsageLogger(tmp_path/'a.db') as a, UsageLogger(tmp_path/'b.db') as b:
        for l,usd in zip((a,b), caps): l.budget(usd, 'day')
        with pytest.raises(BudgetExceeded) as e: litellm.completion(**at(url, gpt), model=gpt, **chat)
        assert holds(a.ledger)==holds(b.ledger)==[] and hits==[] and e.value.limit==1e-9

sol,luna = 'openai/gpt-5.6-sol','openai/gpt-5.6-luna'
between = .0001 # US dollars: luna's call costs less, and sol's can cost more

@pytest.mark.parametrize('kind', ['completion','acompletion','completion_stream','acompletion_stream','responses','aresponses','router','arouter'])
def test_a_cheaper_model_gets_the_call(logger, loop, url, kind):
    "The upstream is asked for the fallback, and the row says which model the caller asked for"
    with budget(between, fallback='gpt-5.6-luna'):
        call(loop, url, kind, model=sol)
        logger.flush()
        with pytest.raises(BudgetExceeded): [call(loop, url, kind, model=sol) for _ in range(50)] # not even the fallback has room any more
    logger.flush()
    us = logger.ledger.rows()
    assert len(hits)==len(us) and holds(logger.ledger)==[] and all('luna' in u.model and json.loads(u.meta)['fallback_from']==sol for u in us)
    assert us[0].requested_model==('g' if 'router' in kind else 'gpt-5.6-sol') and fsum(u.response_cost for u in us) <= between

def test_a_fallback_and_the_cache(logger, url):
    "The reply of the cheaper model is not kept as one of the dearer model"
    kw = at(url, sol) | dict(model=sol, **chat)
    litellm.enable_cache()
    try:
        with budget(between, fallback=luna): litellm.completion(**kw)
        litellm.completion(**kw)
    finally: litellm.disable_cache()
    logger.flush()
    assert len(hits)==2 and [u.origin for u in logger.ledger.rows()]==['live','live']

def test_a_model_by_position(logger, url):
    "Only a model that is given by name can be another: else the call is refused"
    with budget(between, fallback=luna), pytest.raises(BudgetExceeded): litellm.completion(sol, M, max_tokens=50, **at(url, sol))
    assert hits==[]

@pytest.mark.parametrize('asynchronous', [False,True])
@pytest.mark.parametrize('vendor', ['openai','anthropic'])
def test_a_cheaper_model_for_a_client(p, loop, url, vendor, asynchronous):
    c = dict(openai=(openai.OpenAI,openai.AsyncOpenAI), anthropic=(anthropic.Anthropic,anthropic.AsyncAnthropic))[vendor][asynchronous]
    dear,cheap = dict(openai=('gpt-5.6-sol','gpt-5.6-luna'), anthropic=('claude-sonnet-5-5','claude-haiku-4-5'))[vendor]
    c = c(base_url=f'{url}/v1' if vendor=='openai' else url, api_key='k', max_retries=0)
    def ask(): return c.chat.completions.create(model=dear, **chat) if vendor=='openai' else c.messages.create(model=dear, **chat)
    l = Ledger(p)
    instrument(l)
    try:
        with budget((Worst(dict(model=dear, **chat), vendor).high() + Worst(dict(model=cheap, **chat), vendor).high())/2, fallback=cheap):
            r = ask()
            r = loop.run(drained(r), context=copy_context()) if asynchronous else r
        l.flush()
        u, = l.rows()
        assert u.requested_model==dear and json.loads(u.meta)['fallback_from']==dear and sent[-1]==cheap
    finally: uninstrument(), l.close()

def test_a_call_waits_for_room(logger, url):
    "A call waits until another one leaves room; its row begins when it was sent"
    l = logger.ledger
    l.budget(1, 'total', wait=60)
    l.reserve('other', {}, 1.)
    t0 = time.time()
    threading.Timer(.5, lambda: l.release('other')).start()
    litellm.completion(**at(url, gpt), model=gpt, **chat)
    logger.flush()
    u, = l.rows()
    assert u.timestamp-t0 >= .5 and u.latency < time.time()-u.timestamp+.1 and holds(l)==[]

@pytest.mark.parametrize('door', ['litellm','openai','google','trace'])
def test_an_event_loop_goes_on(p, loop, url, door):
    "While a call waits, the loop that it waits in makes the room"
    g,o = genai.Client(api_key='k', http_options=dict(base_url=url)),openai.AsyncOpenAI(base_url=f'{url}/v1', api_key='k')
    async def traced(l):
        async with trace(model='gpt-5.6-luna', provider='openai', ledger=l) as t: t.response = dict(model='gpt-5.6-luna', usage=dict(prompt_tokens=1, completion_tokens=1, total_tokens=2))
    asks = dict(litellm=lambda l: litellm.acompletion(**at(url, gpt), model=gpt, **chat), openai=lambda l: o.chat.completions.create(model='gpt-5.6-luna', **chat),
        google=lambda l: g.aio.models.generate_content(model='gemini-2.5-flash', contents='hi', config=dict(max_output_tokens=50)), trace=traced)
    async def main(l):
        l.reserve('other', {}, 1.)
        async def frees(): await asyncio.sleep(.2); l.release('other')
        await asyncio.gather(asks[door](l), frees())
    with closing(Ledger(p)) as l:
        l.budget(1, 'total', wait=60)
        if door!='litellm': instrument(l)
        try:
            if door!='litellm': loop.run(main(l))
            else:
                with UsageLogger(l) as logger: loop.run(main(l)); logger.flush()
        finally: uninstrument()
        l.flush()
        assert len(l.rows())==1 and holds(l)==[]

def test_a_wait_that_is_too_long(logger, url):
    l = logger.ledger
    l.budget(1, 'total', wait=.1)
    l.reserve('other', {}, 1.)
    with pytest.raises(BudgetExceeded): litellm.completion(**at(url, gpt), model=gpt, **chat)
    assert hits==[]

def test_requests_a_minute(logger, loop, url):
    "Of many calls at once, through two doors, as many are sent as the limit says; a cached reply and a refusal do not count"
    l = logger.ledger
    logger.rate_limit(5)
    async def some(): return await asyncio.gather(*[litellm.acompletion(**at(url, gpt), model=gpt, **chat) for _ in range(8)], return_exceptions=True)
    rs = loop.run(some())
    assert sum(isinstance(r, BudgetExceeded) for r in rs)==3 and len(hits)==5
    logger.flush()
    with pytest.raises(BudgetExceeded, match='5 requests a minute: 5 requests spent, 0 requests reserved') as e: litellm.completion(**at(url, gpt), model=gpt, **chat)
    assert e.value.status_code==422 and len(hits)==5

def test_tokens_a_minute(logger, url):
    "A call holds what it can take, and counts what it took"
    r = logger.rate_limit(200, 'tokens')
    litellm.completion(**at(url, gpt), model=gpt, **chat)
    logger.flush()
    u, = logger.ledger.rows()
    room = logger.ledger.read(lambda con: r.room(con, '{}', time.time()))
    assert (room.spent,room.reserved)==(u.total_tokens,0.)
    with pytest.raises(BudgetExceeded, match='tokens a minute'): litellm.completion(**at(url, gpt) | dict(model=gpt, messages=M, max_tokens=200))

def test_eight_processes_and_requests(p, url):
    "Processes share a limit of requests, too"
    s = script.replace("logger.budget(float(sys.argv[4]), 'day', tz='UTC')", "logger.rate_limit(int(sys.argv[4]))")
    outs = [o.communicate(timeout=300) for o in [python(s, p, url, 20, 30) for _ in range(8)]]
    sent = sum(int(o.split()[0]) for o,_ in outs)
    with closing(Ledger(p)) as l: ts = sorted(u.timestamp for u in l.rows())
    assert sent==len(ts)==len(hits) and all(b-a >= 59 for a,b in zip(ts, ts[30:])) and sent >= 30

def test_prices_that_come_with_a_call(logger, url):
    "A budget reckons with the prices that a call brings along"
    dear,cheap = (dict(model=f'openai/ours-{v}', input_cost_per_token=v, output_cost_per_token=v) for v in (1e-3,1e-5)) # LiteLLM keeps them for the name
    with budget(.01):
        with pytest.raises(BudgetExceeded, match='the call can cost'): litellm.completion(**at(url, gpt), **chat, **dear)
        litellm.completion(**at(url, gpt), **chat, **cheap)
    with budget(1.): litellm.completion(**at(url, gpt), **chat, **dear)
    assert len(hits)==2

def test_a_call_that_costs_more_than_was_held(p):
    "It is noted, with what was held"
    with closing(Ledger(p)) as l:
        l.budget(1, 'total')
        for i,v in enumerate((.2,.1)):
            l.reserve(str(i), {}, .1)
            l.add(row(str(i), timestamp=time.time()+1, response_cost=v))
        assert [(o['held'],o['nano']) for o in l.q('SELECT held,nano FROM budget_over')]==[(10**8,2*10**8)] and l.rooms()[0].spent==.3

def test_a_trace_with_its_request(p):
    "A call by hand whose request is known is refused if it can cost too much"
    with closing(Ledger(p)) as l, budget(.01):
        with pytest.raises(BudgetExceeded):
            with trace(model='gpt-5.6-luna', provider='openai', ledger=l, request=dict(model='gpt-5.6-luna', messages=M, max_tokens=100_000)): pass
        assert l.rows()==[] and holds(l)==[]

def test_a_runaway(logger, url):
    "47 calls that would cost $2.30 are stopped under ten cents by one line"
    logger.budget(.10, 'minute')
    kw,n = at(url, gpt) | dict(model='openai/of-the-tickets', **chat, input_cost_per_token=2e-3, output_cost_per_token=0.),0
    for _ in range(47):
        try: litellm.completion(**kw); n += 1
        except BudgetExceeded: pass
    logger.flush()
    assert len(hits)==n and 0 < logger.ledger.total().amount <= .10*2 and n < 10 # the minute may end in between

def test_upkeep_costs_nothing(logger, url):
    "A cap refuses neither files nor lists; a batch, whose cost nobody knows, it refuses"
    kw = dict(custom_llm_provider='openai', api_base=f'{url}/v1', api_key='k')
    with budget(1.):
        for f in (lambda: litellm.list_batches(**kw), lambda: litellm.retrieve_batch(batch_id='b', **kw), lambda: litellm.file_content(file_id='f', **kw)):
            with pytest.raises(Exception) as e: f() # no stand-in answers
            assert not isinstance(e.value, BudgetExceeded)
        with pytest.raises(BudgetExceeded, match='no known price'): litellm.create_batch(completion_window='24h', endpoint='/v1/chat/completions', input_file_id='f', **kw)
    assert holds(logger.ledger)==[]

def test_a_free_model_falls_back_to_a_paid_one(logger, loop, url):
    "Each attempt is asked about, on the model that bills: a free model has room where there is nothing, its fallback has none"
    free = dict(input_cost_per_token=0., output_cost_per_token=0.)
    r = litellm.Router([dict(model_name='free', litellm_params=dict(model='openai/our-own', **free, **at(url, gpt))),
        dict(model_name='broken', litellm_params=dict(model='openai/our-own', api_base='http://127.0.0.1:9/v1', api_key='k', **free)), dict(model_name='paid', litellm_params=dict(model=gpt, **at(url, gpt)))],
        fallbacks=[dict(broken=['paid'])], num_retries=0)
    with budget(0.):
        r.completion('free', **chat)
        assert len(hits)==1
        with pytest.raises(Exception, match='a block: .0 spent'): r.completion('broken', **chat)
    assert len(hits)==1 and holds(logger.ledger)==[]

def test_a_call_belongs_to_the_period_of_its_start(p):
    midnight = 1795824000. # 28 November 2026, UTC
    with closing(Ledger(p)) as l:
        l.budget(1, 'day', tz='UTC')
        l.reserve('a', {}, .6, midnight-1)
        assert l.reserve('b', {}, 1., midnight+1)
        l.release('b')
        l.add(row('a', timestamp=midnight-1, latency=5., response_cost=.6))
        assert l.reserve('b', {}, 1., midnight+5)
        with pytest.raises(BudgetExceeded): l.reserve('c', {}, .5, midnight-.5)

def test_large_holds_and_small_calls(p):
    "A cap of thirty cents, holds of eight, calls that cost $0.0002: the hundredth has room"
    with closing(Ledger(p)) as l:
        l.budget(.3, 'total')
        for i in range(100):
            assert l.reserve(str(i), {}, .08)
            l.add(row(str(i), timestamp=time.time()+1, response_cost=.0002))
        assert l.rooms()[0].spent==.02

def test_loops_at_the_doors(logger, loop, url):
    "A loop is stopped before the sixth call is sent, also in an event loop; another user's calls are not"
    logger.find_loops('raise')
    kw = at(url, gpt) | dict(model=gpt, **chat)
    for _ in range(3): litellm.completion(**kw)
    for _ in range(2): loop.run(litellm.acompletion(**kw))
    for f in (lambda: litellm.completion(**kw), lambda: loop.run(litellm.acompletion(**kw))):
        with pytest.raises(BudgetExceeded, match='this looks like a loop: the same prompt 6 times') as e: f()
        assert isinstance(e.value, litellm.BudgetExceededError) and e.value.sign=='prompt'
    with logger.who(user_id='bob'): litellm.completion(**kw)
    logger.flush()
    assert len(hits)==len(logger.ledger.rows())==6

def test_loops_of_a_client(p, url):
    "A client's loop is stopped in the same way, and a retry of the client itself is none"
    c = openai.OpenAI(base_url=f'{url}/v1', api_key='k', max_retries=2)
    with closing(Ledger(p)) as l:
        l.find_loops('raise', prompts=3)
        instrument(l)
        try:
            for _ in range(2): c.chat.completions.create(model='gpt-5.6-luna', **chat)
            with pytest.raises(LoopFound): c.chat.completions.create(model='gpt-5.6-luna', **chat)
        finally: uninstrument()
        l.flush()
        assert len(hits)==len(l.rows())==2

def test_a_warning_of_a_loop(logger, url, caplog):
    "By default a loop only gives a warning, which has nothing of the prompt"
    logger.find_loops(prompts=2)
    for _ in range(3): litellm.completion(**at(url, gpt), model=gpt, **chat)
    said = [o.getMessage() for o in caplog.records if o.name=='llm_usage']
    assert len(hits)==3 and len(said)==2 and all('the same prompt' in o and 'Peru' not in o for o in said)

def test_no_paid_model_is_held_at_nothing():
    "For each model of LiteLLM's map that has a price above zero, the worst case is above zero, or unknown"
    modes = dict(audio_transcription=dict(file=('a.mp3', bytes(5000))), chat=dict(messages=M), responses=dict(input='hi'))
    def high(k, v): return Worst(dict(model=k, max_tokens=50) | modes.get(v.get('mode'), dict(prompt='A red square', input='hello')), None, v.get('mode')).high()
    def paid(v): return any('cost' in k and isinstance(x, (int,float)) and x > 0 for k,x in v.items())
    known = {k:high(k, v) for k,v in price_map().items() if paid(v)}
    assert [k for k,x in known.items() if x==0]==[]
    assert sum(x is not None for x in known.values()) > .9*len(known)

def test_a_model_with_its_provider(logger, p, url):
    "A rule that names a provider and a model holds at every door, and counts the rows that say the two apart"
    rule = dict(usd=1.2e-4, per='total', model='openai/gpt-5.6-luna')
    logger.budget(**rule)
    n = 0
    with pytest.raises(BudgetExceeded):
        for n in range(40): litellm.completion(**at(url, gpt), model=gpt, **chat); logger.flush()
    assert 0 < n < 40 and logger.ledger.rooms()[0].spent > 0
    with closing(Ledger(f'{p}.2')) as l:
        l.budget(**rule | dict(usd=1e-9))
        instrument(l)
        try:
            with pytest.raises(BudgetExceeded): openai.OpenAI(base_url=f'{url}/v1', api_key='k').chat.completions.create(model='gpt-5.6-luna', **chat)
        finally: uninstrument()

def test_calls_that_are_cancelled(logger, loop, url):
    "A call that was sent and cancelled was a request, and counts what was held, as nobody knows its cost"
    slow = dict(extra_headers={'x-stand-in': json.dumps(dict(delay=30))})
    logger.rate_limit(3)
    logger.budget(1, 'day')
    async def one():
        t = asyncio.create_task(litellm.acompletion(**at(url, gpt), model=gpt, **chat, **slow))
        while len(hits)==n and not t.done(): await asyncio.sleep(.01)
        t.cancel()
        try: await t
        except asyncio.CancelledError: return True
    for n in range(3): assert loop.run(one())
    n = 3
    with pytest.raises(BudgetExceeded, match='3 requests a minute'): loop.run(one())
    logger.flush()
    most = Worst(dict(model=gpt, **chat)).high()
    assert len(hits)==3 and [o.spent for o in logger.ledger.rooms() if not o.rule.kept]==[pytest.approx(3*most, rel=1e-4)]
    assert [o['ended'] is None for o in holds(logger.ledger)]==[False]*3

def test_a_call_by_position_waits(logger, loop, url):
    "A call whose arguments have no names waits, too, and is refused for what it asks"
    for rule,kw in ((dict(usd=1e-9), {}), (dict(usd=1e-9, model='gpt-5.6-luna'), {}), (dict(usd=between, fallback='gpt-5.6-luna'), dict(model=sol))):
        with budget(per='total', wait=.1, **rule), pytest.raises(BudgetExceeded): loop.run(drained(litellm.acompletion(kw.get('model', gpt), M, max_tokens=50, **at(url, gpt))), context=copy_context())
    assert hits==[]

def test_a_cache_that_is_not_read(logger, url):
    kw = at(url, gpt) | dict(model=gpt, **chat)
    litellm.enable_cache()
    try:
        litellm.completion(**kw)
        with budget(1e-9):
            for o in (dict(caching=False), dict(cache={'no-cache':True})):
                with pytest.raises(BudgetExceeded): litellm.completion(**kw, **o)
    finally: litellm.disable_cache()
    assert len(hits)==1

def test_a_call_that_waits_is_one_prompt(logger, url):
    "The tries of a call that waits are one call"
    logger.find_loops('raise', prompts=3)
    logger.budget(1, 'total', wait=60)
    logger.ledger.reserve('other', {}, 1.)
    threading.Timer(1, lambda: logger.ledger.release('other')).start()
    for _ in range(2): litellm.completion(**at(url, gpt), model=gpt, **chat)
    with pytest.raises(BudgetExceeded, match='the same prompt 3 times'): litellm.completion(**at(url, gpt), model=gpt, **chat)
    assert len(hits)==2

def test_a_ledger_that_is_removed(logger, url, tmp_path):
    "Budgets hold in the file that is there now"
    logger.budget(1, 'day')
    litellm.completion(**at(url, gpt), model=gpt, **chat)
    logger.flush()
    for o in tmp_path.glob('*.db*'): o.unlink()
    for _ in range(2): litellm.completion(**at(url, gpt), model=gpt, **chat)
    logger.flush()
    assert len(hits)==3 and holds(logger.ledger)==[]

@pytest.mark.parametrize('stream', [False,True])
def test_times_after_a_wait(logger, loop, url, stream):
    "A row begins when its call was sent: neither latency nor the time to the first token has the wait in it"
    l = logger.ledger
    l.budget(1, 'total', wait=60)
    for k in ('completion','acompletion'):
        l.reserve('other', {}, l.rooms()[0].left if l.rooms() else 1.)
        t0 = time.time()
        threading.Timer(1, lambda: l.release('other')).start()
        kw = at(url, gpt) | dict(model=gpt, stream=stream, **chat)
        if k[0]=='a': loop.run(drained(litellm.acompletion(**kw)))
        else: [*litellm.completion(**kw)] if stream else litellm.completion(**kw)
        t1 = time.time()
        logger.flush()
        u = l.rows()[-1]
        assert u.timestamp-t0 >= 1 and u.timestamp+u.latency <= t1+.1 and (u.ttft or 0) <= u.latency+1e-3

def test_which_rule_refuses(p):
    "A rule that never has room refuses at once, beside one that would wait; a function is called only if no rule refuses"
    said = []
    with closing(Ledger(p)) as l:
        l.budget(1e-5, 'total'), l.rate_limit(1, wait=60), l.budget(0, 'day', on_exceed=said.append)
        l.reserve('a', {}, 1e-6)
        for v in (1.,1e-6):
            with pytest.raises(BudgetExceeded) as e: l.reserve('b', {}, v)
            assert (e.value.wait==0)==(v==1.)
        assert len(said)==1 # of the call that went

@pytest.mark.parametrize('bad', [dict(fallback=5), dict(fallback=''), dict(fallback='openai/'), dict(user_id=None), dict(tags=['a','b']), dict(wait=-1), dict(on_exceed='warn', wait=1), dict(per='call', wait=1)])
def test_rules_that_cannot_be(bad):
    with pytest.raises(ValueError): budget(**dict(usd=1, per='day') | bad)

def test_calls_whose_cost_nobody_knows(p):
    "A call that its caller cancelled counts what was held; one that failed, or whose process is gone, counts nothing"
    with closing(Ledger(p)) as l:
        l.budget(1, 'day')
        for s in ('partial','failed','orphaned'):
            l.reserve(s, {}, .25)
            l.add(Usage(call_id=s, timestamp=time.time()+1, latency=1., status=s, model='gpt-5.6-luna'))
        assert [(o.spent, o.reserved) for o in l.rooms()]==[(.25, 0.)] and l.total().unpriced==3

@pytest.mark.parametrize('asynchronous', [False,True])
def test_fallbacks_of_litellm(logger, loop, url, asynchronous):
    "Where LiteLLM falls back on another model by itself, that one is asked about, too"
    kw = at(url, gpt) | dict(model=gpt, messages=[dict(role='user', content='Is anybody there?')], max_tokens=50, num_retries=0, max_retries=0, fallbacks=[dict(model=sol, messages=M)])
    cap = 2*Worst(dict(model=gpt, **chat)).high()
    logger.budget(cap, 'day')
    try: loop.run(litellm.acompletion(**kw)) if asynchronous else litellm.completion(**kw); assert False
    except BaseException as e: assert 'spent' in str(e)
    logger.flush()
    assert hits and 'gpt-5.6-sol' not in sent[-len(hits):] and holds(logger.ledger)==[]
    logger.budget(1, 'day')
    assert loop.run(litellm.acompletion(**kw)) if asynchronous else litellm.completion(**kw)
    logger.flush()
    assert sent[-1]=='gpt-5.6-sol' and holds(logger.ledger)==[] and logger.ledger.rooms()[0].spent==pytest.approx(logger.ledger.total().amount, abs=1e-9)

def test_one_id_for_many_calls(logger, loop, url):
    "Calls at the same time that share an id hold something each"
    logger.budget(1.5*Worst(dict(model=gpt, **chat)).high(), 'day')
    async def some(): return await asyncio.gather(*[litellm.acompletion(**at(url, gpt), model=gpt, litellm_call_id='same', **chat) for _ in range(8)], return_exceptions=True)
    rs = loop.run(some())
    logger.flush()
    assert sum(not isinstance(r, Exception) for r in rs)==len(hits)==1 and holds(logger.ledger)==[]

def test_dated_names(p):
    "A reply by a model's dated name counts for the rule of the model, also if an alias was asked for; another model's does not"
    with closing(Ledger(p)) as l:
        l.budget(1, 'day', model='gpt-5.6-luna')
        for i,m in enumerate(('gpt-5.6-luna-2026-03-01','gpt-5.6-luna-20260301','gpt-5.6-luna-mini')): l.add(row(str(i), timestamp=time.time(), model=m, requested_model='g', provider='openai', response_cost=.2))
        l.reserve('a', dict(model='openai/gpt-5.6-luna'), .1)
        assert [(o.spent, o.reserved) for o in l.rooms()]==[(.4, .1)]

def test_a_bare_name_has_a_provider(logger, url):
    logger.budget(1e-9, 'day', provider='OpenAI')
    with pytest.raises(BudgetExceeded): litellm.completion(model='gpt-5.6-luna', **at(url, gpt), **chat)
    assert hits==[]

@pytest.mark.parametrize('door', ['litellm','client'])
def test_a_function_with_an_error_of_its_own(logger, url, door):
    "What a function raises refuses the call at every door, with the function's error as the cause"
    class Stop(Exception): pass
    def stop(e): raise Stop
    logger.budget(0, 'day', on_exceed=stop)
    instrument(logger.ledger)
    try:
        with pytest.raises(BudgetExceeded):
            if door=='litellm': litellm.completion(**at(url, gpt), model=gpt, **chat)
            else: openai.OpenAI(base_url=f'{url}/v1', api_key='k').chat.completions.create(model='gpt-5.6-luna', **chat)
    finally: uninstrument()
    assert hits==[] and holds(logger.ledger)==[]
    async def later(e): pass
    with pytest.raises(ValueError): budget(1, on_exceed=later)

def test_a_timeout_counts_what_was_held(p):
    "Nobody knows what a call cost that its caller did not wait for"
    with closing(Ledger(p)) as l:
        l.budget(1, 'day')
        l.reserve('a', {}, .25)
        l.add(Usage(call_id='a', timestamp=time.time(), latency=1., status='failed', error='Timeout 408', model='gpt-5.6-luna'))
        assert l.rooms()[0].spent==.25

def test_a_step_makes_room_for_its_call(p, url):
    "A trace, and one around it, hold nothing beside the call within them"
    c = openai.OpenAI(base_url=f'{url}/v1', api_key='k')
    with closing(Ledger(p)) as l:
        l.rate_limit(1)
        instrument(l)
        try:
            with trace(agent='planner'), trace(agent='writer'): c.chat.completions.create(model='gpt-5.6-luna', **chat)
            with pytest.raises(BudgetExceeded): c.chat.completions.create(model='gpt-5.6-luna', **chat)
        finally: uninstrument()
        assert len(hits)==1

def test_files_of_a_client(p, url):
    "A client's sound has a worst case: a call for it is sent if there is room, and refused if there is not"
    c = openai.OpenAI(base_url=f'{url}/v1', api_key='k', max_retries=0)
    with closing(Ledger(p)) as l:
        instrument(l)
        try:
            with budget(1.): c.audio.transcriptions.create(model='whisper-1', file=wav)
            assert len(hits)==1
            with budget(1e-4), pytest.raises(BudgetExceeded, match='the call can cost'): c.audio.transcriptions.create(model='whisper-1', file=wav)
        finally: uninstrument()
        assert len(hits)==1 and holds(l)==[]

def test_settings_hold_for_instrument(tmp_path, url, monkeypatch):
    "Budgets and loops of the settings hold for instrumented clients, as for a logger"
    (tmp_path/'llm_usage.toml').write_text('[[budgets]]\nusd = 0.000000001\nper = "day"\n')
    s = '''
import sys, openai
from llm_usage import instrument
from llm_usage.budgets import BudgetExceeded
instrument(sys.argv[1])
try: openai.OpenAI(base_url=sys.argv[2]+'/v1', api_key='k').chat.completions.create(model='gpt-5.6-luna', messages=[dict(role='user', content='hi')], max_tokens=9)
except BudgetExceeded as e: print('refused')
'''
    monkeypatch.setenv('XDG_CONFIG_HOME', str(tmp_path))
    o = python(s, tmp_path/'u.db', url)
    assert o.communicate(timeout=60)[0].split()==['refused'] and hits==[]

def test_a_response_in_the_background(p):
    "What is held for a response that goes on ends with the row of its answer"
    from llm_usage import clients as ours
    from llm_usage.recorder import OwnCall, Recorder
    with closing(Ledger(p)) as l:
        l.budget(1, 'day')
        l.reserve('first', {}, .25)
        c = OwnCall(Recorder(l), call_id='first', call_type='responses', model='gpt-5.6-luna', provider='openai')
        c.holds = True
        ours._go_on(c, 'resp_1')
        assert [o['call_id'] for o in holds(l)]==['first']
        late = OwnCall(Recorder(l), call_type='responses', model='gpt-5.6-luna', provider='openai')
        l.add(ours._late_row(late, dict(id='resp_1', object='response', created_at=int(time.time()), model='gpt-5.6-luna', status='completed', usage=dict(input_tokens=1, output_tokens=1, total_tokens=2))))
        assert holds(l)==[]
