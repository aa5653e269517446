"A chain's calls, answered by stand-ins on a loopback port: each row is the one that the same bytes give through LiteLLM"
import asyncio, gc, json
import litellm, pytest, standins
from langchain_anthropic import ChatAnthropic
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel
from llm_usage import Ledger, UsageHandler, UsageLogger, trace
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
    handler.rec.ledger.flush()
    return handler.rec.ledger.rows()

def only(handler):
    r, = rows(handler)
    return r

same = 'provider','model','service_tier','details','status','usage_source','cost_lacks',*count_columns,'response_cost',*[usd for _,usd in parts.values()]
def figures(u): return {k:round(v,12) if isinstance(v := getattr(u, k), float) else v or 0 for k in same}

def through_litellm(tmp_path, url, kind, messages, **kw):
    "The row of the same call through LiteLLM"
    fns = dict(gpt=litellm.completion, claude=litellm.completion, responses=litellm.responses, old=litellm.text_completion)
    ask = dict(messages=messages) if kind in ('gpt','claude') else dict(input=messages[-1]['content']) if kind=='responses' else dict(prompt=messages[-1]['content'])
    if kind=='claude': kw |= dict(max_tokens=400)
    if kw.get('stream') and kind!='responses': kw |= dict(stream_options=dict(include_usage=True))
    m = dict(claude=f'anthropic/{claude}', old=f'text-completion-openai/{old}').get(kind, f'openai/{gpt}')
    with UsageLogger(tmp_path/'litellm.db') as l:
        res = fns[kind](model=m, api_base=url if kind=='claude' else f'{url}/v1', api_key='k', max_retries=0, **ask, **kw)
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
def test_each_kind(tmp_path, url, handler, loop, kind, way):
    "Tokens, cost and its parts are those of LiteLLM's row"
    which,messages = kinds[kind]
    said = ways[way](models(url, handler)[which], messages[-1]['content'] if which=='old' else messages)
    if asyncio.iscoroutine(said): loop.run(said)
    r,streamed = only(handler),'stream' in way
    lite = through_litellm(tmp_path, url, which, messages, **dict(stream=True) if streamed else {})
    if way in ('stream','astream') or which=='old': r.model,r.provider = lite.model,lite.provider # where LiteLLM has names of its own
    assert figures(r)==figures(lite)
    assert (r.user_id, bool(r.stream), r.ttft is not None)==('ada', streamed, streamed) and r.latency > 0
