"A chain's calls, answered by stand-ins on a loopback port: each row is the one that the same bytes give through LiteLLM"
import asyncio, json
from functools import cache, partial
from pathlib import Path
from uuid import uuid4
import frameworks, litellm, pytest, standins
from helpers import ran
from langchain_anthropic import ChatAnthropic
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult, Generation, LLMResult
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel
from llm_usage import Ledger, UsageHandler, UsageLogger, instrument, langchain, trace, uninstrument
from llm_usage.alerts import AlertRaised
from llm_usage.core import count_columns, parts

gpt,claude,old = 'gpt-5.4-mini','claude-sonnet-5-5','gpt-3.5-turbo-instruct'
slow,cut,mute = 'Tell me slowly.','Break off.','Do not count.'
faults = {slow: dict(delay=.05), cut: dict(cut=3), mute: dict(silent=True)}

@pytest.fixture(scope='module')
def url():
    with standins.serve(faults) as u: yield u

@pytest.fixture
def ledger(p):
    l = Ledger(p)
    yield l
    assert l.check()==[]
    l.close()

@pytest.fixture
def handler(ledger): return UsageHandler(ledger, user_id='ada')

def models(url, handler, **kw):
    "The three models of LangChain, all of which tell `handler`"
    kw = dict(callbacks=[handler], api_key='k', max_retries=0) | kw
    return dict(gpt=ChatOpenAI(model=gpt, base_url=f'{url}/v1', stream_usage=True, **kw),
        claude=ChatAnthropic(model=claude, base_url=url, max_tokens=400, **kw),
        responses=ChatOpenAI(model=gpt, base_url=f'{url}/v1', use_responses_api=True, **kw),
        old=OpenAI(model=old, base_url=f'{url}/v1', **kw))

def rows(handler):
    handler.ledger.flush()
    return handler.ledger.rows()

def only(handler):
    r, = rows(handler)
    return r

same = 'provider','model','service_tier','details','status','usage_source','cost_lacks',*count_columns,'response_cost',*[usd for _,usd in parts.values()]
def figures(u): return {k:round(v,12) if isinstance(v := getattr(u, k), float) else v or 0 for k in same}

@pytest.fixture(scope='module')
def through_litellm(url, tmp_path_factory): return cache(partial(_through_litellm, tmp_path_factory, url))

def _through_litellm(tmp, url, kind, **kw):
    "The row of the same call through LiteLLM"
    which,messages = kinds[kind]
    fns = dict(gpt=litellm.completion, claude=litellm.completion, responses=litellm.responses, old=litellm.text_completion)
    ask = dict(messages=messages) if which in ('gpt','claude') else {dict(responses='input', old='prompt')[which]: messages[-1]['content']}
    if which=='claude': ask |= dict(max_tokens=400)
    if kw.get('stream') and which!='responses': ask |= dict(stream_options=dict(include_usage=True))
    m = dict(claude=f'anthropic/{claude}', old=f'text-completion-openai/{old}').get(which, f'openai/{gpt}')
    with UsageLogger(tmp.mktemp('litellm')/'usage.db') as l:
        res = fns[which](model=m, api_base=url if which=='claude' else f'{url}/v1', api_key='k', max_retries=0, **ask, **kw)
        if kw.get('stream'): [*res]
        l.flush()
        r, = l.ledger.rows()
    return r

def cached(ttl=None): return dict(role='system', content=[dict(type='text', text='The rules.', cache_control=dict(type='ephemeral') | (dict(ttl=ttl) if ttl else {}))])
def says(s): return dict(role='user', content=s)

kinds = dict( # the model, and what it is asked
    plain=('gpt', [says('What is 3+3?')]), read=('gpt', [says('Summarise the minutes.')]), write=('gpt', [says('Summarise the minutes again.')]),
    reasoning=('gpt', [says('How many primes are below 100?')]), tool=('gpt', [says('Add 17 and 25 with your tool.')]),
    claude=('claude', [says('What is 2+2?')]), claude_read=('claude', [cached(), says('When does the archive close?')]),
    write_5m=('claude', [cached(), says('Who may open the archive?')]), write_1h=('claude', [cached('1h'), says('Who may open the archive at night?')]),
    thinking=('claude', [says('How many primes are below 1000?')]), search=('claude', [says('What is the weather like in NYC? Search web.')]),
    responses=('responses', [says('How many seconds are in a week?')]), responses_search=('responses', [says('Which city hosts the next Olympics? Search the web.')]),
    text=('old', [says('Roses are red,')]))
silent = [('text',way) for way in ('stream','astream')] # LangChain asks for no usage there

async def read(it): return [o async for o in it]
ways = dict( # how a model is asked
    invoke=lambda m, ask: m.invoke(ask), stream=lambda m, ask: [*m.stream(ask)], batch=lambda m, ask: m.batch([ask]),
    ainvoke=lambda m, ask: m.ainvoke(ask), astream=lambda m, ask: read(m.astream(ask)))

@pytest.mark.parametrize('kind,way', [(k,w) for k in kinds for w in ways if (k,w) not in silent])
def test_each_kind(through_litellm, url, handler, loop, kind, way):
    "Tokens, cost and its parts are those of LiteLLM's row"
    which,messages = kinds[kind]
    said = ways[way](models(url, handler)[which], messages[-1]['content'] if which=='old' else messages)
    if asyncio.iscoroutine(said): loop.run(said)
    r,streamed = only(handler),'stream' in way
    lite = through_litellm(kind, **dict(stream=True) if streamed else {})
    if streamed or which=='old': r.model,r.provider = lite.model,lite.provider # where LiteLLM has names of its own
    assert figures(r)==figures(lite)
    assert (r.user_id, bool(r.stream), r.ttft is not None)==('ada', streamed, streamed) and r.latency > 0

def test_of_a_stream_the_request_says_for_how_long_it_wrote(url, handler):
    "If it asks for two lifetimes, nobody knows how much is for which: the row says that it is a guess"
    m = models(url, handler)['claude']
    for ttls in (['1h'], ['1h',None]): [*m.stream([dict(cached(ttls[0]), content=[o for t in ttls for o in cached(t)['content']]), says('What did the last visitor ask for?')])]
    a,b = rows(handler)
    assert (a.cache_creation_tokens, a.cache_creation_1h_tokens, a.usage_source)==(820, 820, 'reported')
    assert (b.cache_creation_tokens, b.cache_creation_1h_tokens, b.usage_source)==(820, 0, 'estimated')

@pytest.mark.parametrize('kind', ['gpt','old'])
def test_a_stream_without_usage_is_counted(url, handler, kind):
    m = models(url, handler)[kind]
    words = ''.join(o if kind=='old' else o.content for o in m.stream(mute))
    r = only(handler)
    assert words==f'You said: {mute}' and (r.usage_source, r.status)==('estimated', 'ok') and r.response_cost > 0
    assert (r.prompt_tokens, r.completion_tokens)==(4 if kind=='old' else 4+1+3+3, 7) # a message costs its role, and three; so does the answer

def test_a_reader_who_leaves(url, handler, loop):
    "What came is counted, and the row says that it is a part"
    m = models(url, handler)['gpt']
    s = m.stream('Summarise the minutes.')
    while not next(s).content: pass
    s.close()
    async def leave():
        s = m.astream('Summarise the minutes.')
        async for o in s:
            if o.content: break
        await s.aclose()
    loop.run(leave())
    assert {(r.status, r.usage_source, r.completion_tokens) for r in rows(handler)}=={('partial','estimated',3)} and not handler.open # The board me

def test_errors_go_on(url, handler, loop):
    "The row has their class and code, and no text; a provider that refuses bills nothing"
    ms = models(url, handler)
    for kind,q,code in (('gpt','Is anybody there?',404), ('claude','Write as much as you can.',400)):
        with pytest.raises(Exception) as e: ms[kind].invoke(q)
        with pytest.raises(type(e.value)): loop.run(ms[kind].ainvoke(q))
        a,b = rows(handler)[-2:]
        assert (a.error, b.error)==(f'{type(e.value).__name__} {code}',)*2 and (a.status, a.response_cost)==('failed', 0)
    with pytest.raises(Exception): [*ms['claude'].stream(cut)]
    assert rows(handler)[-1].status in ('failed','partial')

def test_a_call_that_is_cancelled(url, handler, loop):
    "LangChain tells no callback of it; the row comes with the end of the task, or with the next call"
    m = models(url, handler)['gpt']
    async def timed(ask):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(.05): await ask.ainvoke(slow)
    async def task():
        t = asyncio.ensure_future(m.ainvoke(slow))
        await asyncio.sleep(.05)
        t.cancel()
        await asyncio.gather(t, return_exceptions=True)
    async def next_one():
        await timed(m)
        await m.ainvoke('What is 3+3?')
    @RunnableLambda
    async def node(x, config): await timed(models(url, handler, callbacks=[])['gpt'].with_config(config))
    for go in (task(), timed(m), next_one(), node.ainvoke(0, dict(callbacks=[handler]))): loop.run(go)
    assert [(r.status, r.error, r.total_tokens) for r in rows(handler)]==[('partial','CancelledError',None)]*3 + [('ok',None,27), ('partial','CancelledError',None)]
    assert not handler.open and not handler.steps

def test_two_layers_give_one_row(url, handler, loop, tmp_path):
    "LiteLLM's logger or `instrument` has the row, with the run's columns; in a ledger of its own, each has one"
    class Lite(BaseChatModel):
        _llm_type = property(lambda self: 'lite')
        def _generate(self, messages, stop=None, run_manager=None, **kw):
            r = litellm.completion(model=f'openai/{gpt}', api_base=f'{url}/v1', api_key='k', messages=[says(messages[-1].content)])
            return ChatResult(generations=[ChatGeneration(message=AIMessage(r.choices[0].message.content))])
    def seen(**kw): return [(r.user_id, r.step.split('#')[0], r.total_tokens) for r in rows(handler)[-1:]]
    conf,ms = dict(callbacks=[handler]),models(url, handler, callbacks=[])
    chain = lambda m: (RunnableLambda(lambda x: x) | m).with_config(run_name='desk')
    with UsageLogger(handler.ledger) as l:
        chain(Lite()).invoke('What is 3+3?', conf)
        l.flush()
    assert len(rows(handler))==1 and seen()==[('ada','desk',27)]
    instrument(handler.ledger)
    try:
        for n,(way,kind) in enumerate([(w,k) for w in ways for k in ('gpt','claude','responses')], 2):
            said = ways[way](chain(ms[kind]).with_config(conf), 'What is 3+3?')
            if asyncio.iscoroutine(said): loop.run(said)
            assert len(rows(handler))==n and seen()==[('ada','desk',27)], (way,kind)
        instrument(tmp_path/'other.db')
        chain(ms['gpt']).invoke('What is 3+3?', conf)
        assert len(rows(handler))==n+1
    finally: uninstrument()

def test_one_call_may_have_many_replies(url, handler):
    "Two choices are one call; a batch is as many as its questions, each with its own way"
    m = models(url, handler, callbacks=[])['gpt']
    conf = dict(callbacks=[handler])
    m.bind(n=2).invoke('What is 3+3?', conf)
    assert only(handler).total_tokens==27
    desk = RunnableParallel(a=m, b=RunnableLambda(lambda x: x) | m).with_config(run_name='desk')
    desk.batch(['What is 3+3?']*5, conf)
    rs = rows(handler)[1:]
    assert len(rs)==10 and len({r.trace_id for r in rs})==5
    assert sorted(len(r.step.split('/')) for r in rs)==[1]*5 + [2]*5 and not handler.steps

def test_a_reply_of_langchains_cache(url, handler):
    m = models(url, handler, cache=InMemoryCache())['gpt']
    for _ in range(2): m.invoke('What is 3+3?')
    assert [(r.origin, r.total_tokens, bool(r.billed)) for r in rows(handler)]==[('live',27,True), ('cache',27,False)]

def test_tools_and_structured_output(url, handler):
    "The second call of a loop has the tool's reply; both are below the agent, and the tool's own call is below the tool"
    class Sum(BaseModel):
        "Add"
        a: int
        b: int
    m = models(url, handler, callbacks=[])
    @tool
    def add(a: int, b: int) -> str:
        "Add"
        return m['claude'].invoke('What is 2+2?').content
    @RunnableLambda
    def agent(q, config):
        ms = [HumanMessage(q)]
        ms.append(m['gpt'].bind_tools([add]).invoke(ms, config))
        ms += [add.invoke(c, config) for c in ms[-1].tool_calls]
        return m['gpt'].bind_tools([add]).invoke([*ms, HumanMessage('What is 3+3?')], config)
    agent.invoke('Add 17 and 25 with your tool.', dict(callbacks=[handler]))
    a,b,c = [[o.split('#')[0] for o in r.step.split('/')] for r in rows(handler)]
    assert (a,b,c)==(['agent'], ['agent','add'], ['agent']) and len({r.trace_id for r in rows(handler)})==1
    m['gpt'].with_structured_output(Sum, method='function_calling', include_raw=True).invoke('Add 17 and 25 with your tool.', dict(callbacks=[handler]))
    assert rows(handler)[-1].total_tokens==85

def test_a_trace_around_is_the_first_of_its_way(url, handler):
    m = models(url, handler)['gpt']
    with trace(agent='clerk', ledger=handler.ledger, session_id='visit-7') as t: m.invoke('What is 3+3?')
    r = only(handler)
    assert (r.step, r.trace_id, r.session_id, r.user_id)==(t.who['step'], t.who['trace_id'], 'visit-7', 'ada')
    m.invoke('What is 3+3?')
    assert (rows(handler)[-1].step, rows(handler)[-1].session_id)==(None, None)

def test_nothing_is_within_a_stream_but_its_call(url, handler):
    "What is asked between two chunks has a way of its own"
    m = models(url, handler)['gpt']
    s = m.stream('Summarise the minutes.')
    next(s)
    m.invoke('What is 3+3?')
    [*s]
    a,b = rows(handler)
    assert a.trace_id!=b.trace_id and {a.total_tokens,b.total_tokens}=={27,2306}

@pytest.mark.parametrize('res', [None, object(), LLMResult(generations=[]), LLMResult(generations=[[Generation(text='x')]], llm_output=dict(token_usage='?'))])
def test_a_shape_that_nobody_knows(handler, res):
    "The row has no tokens, and the chain goes on"
    i = uuid4()
    handler.on_llm_start(None, ['?'], run_id=i, metadata=dict(session_id=7), odd=1)
    handler.on_llm_end(res, run_id=i)
    assert (only(handler).usage_source, only(handler).status)==('missing','ok') and not handler.open

def test_names_are_litellms(url, handler):
    "The host shows who bills, where LangChain only names the protocol"
    k = langchain._known
    assert k(dict(ls_provider='google_genai', ls_model_name='gemini-3.1-flash'), {}, {})==dict(provider='gemini', model='gemini-3.1-flash')
    assert k(dict(ls_provider='openai'), dict(model='gpt'), dict(openai_api_base='https://openrouter.ai/api/v1'))['provider']=='openrouter'
    assert k({}, dict(_type='azure-openai-chat'), {})['provider']=='azure'

def test_a_chain_whose_reader_leaves(url, handler):
    s = (RunnableLambda(lambda x: x) | models(url, handler, callbacks=[])['gpt']).stream('Summarise the minutes.', dict(callbacks=[handler]))
    while not next(s).content: pass
    s.close()
    assert (only(handler).status, only(handler).usage_source)==('partial','estimated') and not handler.open and not handler.steps

def test_a_task_that_outlives_its_chain(url, handler, loop):
    "A call that goes on behind the chain is not cancelled by the chain's end"
    m,tasks = models(url, handler, callbacks=[])['gpt'],[]
    @RunnableLambda
    async def node(x, config): tasks.append(asyncio.ensure_future(m.ainvoke('What is 3+3?', config)))
    async def run():
        await node.ainvoke(0, dict(callbacks=[handler]))
        await tasks[0]
    loop.run(run())
    assert (only(handler).status, only(handler).total_tokens)==('ok',27)

def test_without_langchain():
    "The module can be imported, and its use says what to install; it imports neither litellm nor pandas"
    ran('''
import sys
sys.modules['langchain_core.callbacks'] = None
from llm_usage import UsageHandler
try: UsageHandler()
except ImportError as e: assert 'pip install langchain-core' in str(e)
else: raise AssertionError
assert not {'litellm','pandas'} & {*sys.modules}''')

def test_the_page_of_frameworks_shows_what_was_run():
    page = (Path(__file__).parent.parent/'nbs/explanations/frameworks.ipynb').read_text()
    shown = ''.join(''.join(c['source']) for c in json.loads(page)['cells'])
    assert [k for k,(_,door,call) in frameworks.tries.items() if call not in shown or f'`{door}`' not in shown]==[]

def test_an_alert_refuses_a_call(url, handler, loop):
    "It is the one error of ours that a caller gets, since it was asked for; nothing is sent"
    m = models(url, handler)['gpt']
    handler.ledger.alert('session > $0.000001', do='raise')
    conf = dict(metadata=dict(thread_id='visit-7'))
    m.invoke('What is 3+3?', conf)
    handler.ledger.flush()
    for go in (lambda: m.invoke('What is 3+3?', conf), lambda: [*m.stream('What is 3+3?', conf)], lambda: loop.run(m.ainvoke('What is 3+3?', conf))):
        with pytest.raises(AlertRaised): go()
    m.invoke('What is 3+3?')
    assert [r.session_id for r in rows(handler)]==['visit-7', None] and not handler.open
