"Spans as rows: odd attributes, real instrumentations against the stand-ins, other layers that report the same call, and spans that end nowhere"
import asyncio, gc, json, random, signal, threading
import anthropic, httpx2, litellm, openai, pytest, standins
from hypothesis import given, settings, strategies as st
from opentelemetry.context import attach, detach
from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor
from opentelemetry.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import set_span_in_context
from helpers import python
from llm_usage import Ledger, Usage, UsageLogger, UsageSpanProcessor, measure, trace
from llm_usage.core import count_columns
from llm_usage.spans import MAX_OPEN, as_attributes, span_counts, span_texts, span_values

def says(s): return [dict(role='user', content=s)]
def said(**kw): return {'gen_ai.operation.name':'chat', 'gen_ai.request.model':'claude-haiku-5-5', 'gen_ai.usage.input_tokens':500, 'gen_ai.usage.output_tokens':20} | {k.replace('__','.'):v for k,v in kw.items()}
agent = {'gen_ai.operation.name':'invoke_agent', 'gen_ai.agent.name':'clerk', 'gen_ai.request.model':'claude-haiku-5-5',
    'gen_ai.aggregated_usage.input_tokens':500, 'gen_ai.aggregated_usage.output_tokens':20}

@pytest.fixture
def ledger(p):
    "A ledger that is sound when all is done"
    l = Ledger(p)
    yield l
    assert l.check()==[] and l.dropped==0
    l.close()

@pytest.fixture
def provider(ledger):
    o = TracerProvider()
    o.add_span_processor(UsageSpanProcessor(ledger))
    yield o
    o.shutdown()

def processor(provider): return provider._active_span_processor._span_processors[0]

@pytest.fixture
def tracer(provider): return provider.get_tracer('test')

@pytest.fixture(scope='module')
def url():
    with standins.serve() as u: yield u

@pytest.fixture
def instrumented(provider):
    for o in (OpenAIInstrumentor(), AnthropicInstrumentor()): o.instrument(tracer_provider=provider)
    yield
    for o in (OpenAIInstrumentor(), AnthropicInstrumentor()): o.uninstrument()


# Attributes

_names = [n for t in (span_counts,span_texts,span_values) for ns in t.values() for n in ns]
_names += [n.replace('.usage.', '.aggregated_usage.') for n in _names if '.usage.' in n] + ['gen_ai.input.messages', 'gen_ai.usage.details.odd']
_odd = st.one_of(st.none(), st.booleans(), st.integers(), st.integers(0, 10**5), st.just(10**1000), st.just('9'*5000), st.floats(), st.text(max_size=9), st.integers(0, 9999).map(str),
    st.sampled_from(['claude-sonnet-5-5', 'gpt-5.6-luna', 'gemini-3.5-flash-lite', 'text-embedding-3-small', 'whisper-1', 'anthropic', 'chat', 'embeddings', 'invoke_agent', 'flex', 'true', '-4', '4.0', '1e3', '٤', 'nan']),
    st.lists(st.text(max_size=3), max_size=3).map(tuple), st.lists(st.integers(), max_size=3).map(tuple), st.binary(max_size=3),
    st.fixed_dictionaries(dict(intValue=st.integers().map(str))), st.just({}))
_attrs = st.dictionaries(st.sampled_from(_names), _odd, max_size=14)

@settings(max_examples=1500, deadline=None)
@given(_attrs, _odd, _odd, st.booleans())
def test_odd_attributes(a, start, end, failed):
    "Whatever a span says, its row is sound, has the same uid twice, and no part of its cost is below zero"
    u = Usage.from_span(a, 'a'*32, 'b'*16, start, end, failed)
    assert u.problem()=='' and (u.cost is None or u.cost >= 0)
    assert all(v is None or 0 <= v <= 10**12 for v in (getattr(u,k) for k in count_columns))
    assert u.uid==Usage.from_span([dict(key=k, value=v) for k,v in a.items()], 'a'*32, 'b'*16, start, end, failed).uid
    assert (u.usage_source=='missing') is (u.prompt_tokens is None) and (u.usage_source!='missing' or u.cost in (None,0))
    if (u.cost or 0) > 0: assert abs(sum(u.cost_parts().values())-u.cost) < 1e-12
    json.dumps(vars(u), allow_nan=False)

@given(st.integers(0, 10**4), st.integers(0, 10**4), st.integers(0, 10**4), st.integers(1, 10**4))
def test_caches_beside_the_input(fresh, read, write, out):
    "The input is the same whether caches are counted inside it, or beside it with a total that shows so"
    whole = fresh+read+write
    spoken = lambda p,t: {'gen_ai.usage.input_tokens':p, 'gen_ai.usage.output_tokens':out, 'gen_ai.usage.total_tokens':t,
        'gen_ai.usage.cache_read.input_tokens':read, 'gen_ai.usage.cache_creation.input_tokens':write}
    inside,beside = (Usage.from_span(spoken(p, whole+out)) for p in (whole, fresh))
    assert inside.prompt_tokens==beside.prompt_tokens==(whole or None)

def test_a_count_that_is_none_takes_all_with_it():
    "A cost that is made of the other counts would be wrong"
    for bad in (10**1000, '9'*5000, -1, '-1', 4.5, True, 'many', (4,), float('nan'), float('inf')):
        assert Usage.from_span(said(gen_ai__usage__output_tokens=bad)).usage_source=='missing', bad
    assert Usage.from_span(said(gen_ai__usage__output_tokens='20', gen_ai__usage__input_tokens='500')).cost==Usage.from_span(said()).cost

class KeyValue:
    "As protobuf has it"
    class Value:
        def __init__(self, v): self.int_value = self.string_value = v
        def WhichOneof(self, _): return None if self.int_value is None else 'int_value' if isinstance(self.int_value, int) else 'string_value'
    def __init__(self, k, v): self.key,self.value = k,self.Value(v)

def test_protobuf():
    a = said(gen_ai__response__id=None)
    assert as_attributes([KeyValue(*o) for o in a.items()])==a
    assert Usage.from_span([KeyValue(*o) for o in a.items()]).cost==Usage.from_span(a).cost

def test_no_words():
    "Neither prompts nor replies nor the text of an error is in the row"
    a = said(gen_ai__input__messages='secret', gen_ai__prompt='secret', error__type='Error code: 401 - secret', exception__message='secret')
    u = Usage.from_span(a, 'a'*32, 'b'*16, failed=True)
    assert 'secret' not in str(vars(u)) and u.error=='Error'

def test_pydantic_ai():
    "Attributes as pydantic-ai 2.68 wrote them of the stand-ins: 3,200 read, 820 written of which 640 for an hour; one search"
    a = {'gen_ai.operation.name':'chat', 'gen_ai.agent.name':'archivist', 'gen_ai.agent.call.id':'01a2', 'gen_ai.conversation.id':'01a3', 'gen_ai.provider.name':'anthropic',
        'gen_ai.system':'anthropic', 'server.address':'127.0.0.1', 'gen_ai.request.model':'claude-sonnet-5-5', 'gen_ai.response.model':'claude-sonnet-5-5',
        'operation.cost':.5, 'gen_ai.response.finish_reasons':('stop',), 'gen_ai.response.id':'msg_1', 'gen_ai.client.operation.time_to_first_chunk':.01}
    both = {'input_tokens':4045, 'output_tokens':30, 'cache_creation.input_tokens':820, 'cache_read.input_tokens':3200, 'details.cache_creation_input_tokens':820,
        'details.cache_read_input_tokens':3200, 'details.ephemeral_1h_input_tokens':640, 'details.cache_write_tokens':820, 'details.cache_read_tokens':3200}
    find = {'input_tokens':12012, 'output_tokens':318, 'details.cache_creation_input_tokens':0, 'details.cache_read_input_tokens':0, 'details.web_search_requests':1}
    u,s = (Usage.from_span(a | {f'gen_ai.usage.{k}':v for k,v in c.items()}) for c in (both,find))
    want = 25*2e-6 + 3200*1e-7 + 180*2.5e-6 + 640*4e-6 + 30*1e-5
    assert abs(u.cost-want) < 1e-12 and u.cost_lacks is None and (u.agent, u.session_id, u.stream)==('archivist', '01a3', True)
    assert (s.web_search_requests, s.web_cost, s.usage_source)==(1, .01, 'reported')


# The same bytes through OpenLLMetry and through LiteLLM

_seen = 'prompt_tokens completion_tokens cache_read_tokens cache_creation_tokens'.split()
claude,mini = dict(model='claude-sonnet-5-5', max_tokens=9),dict(model='gpt-5.4-mini')
_same = [ # prompt, model, streamed?, what differs: faults of OpenLLMetry 0.62
    ('What is 2+2?',                       claude, False, {}),
    ('Who may open the archive?',          claude, False, {}),
    ('Who may open the archive at night?', claude, False, {}),
    ('When does the archive close?',       claude, False, {}),
    ('When does the archive close?',       claude, True,  dict(completion_tokens=36)),
    ('Summarise the minutes.',             mini,   False, {}),
    ('Summarise the minutes again.',       mini,   False, dict(cache_creation_tokens=0)),
    ('How many primes are below 100?',     mini,   False, {}),
    ('Summarise the minutes.',             mini,   True,  {})]

@pytest.mark.parametrize('q,kw,stream,fault', _same)
def test_as_litellm(p, ledger, instrumented, url, q, kw, stream, fault):
    "The row of a span has the tokens of LiteLLM's row, but for a fault that is known; and the cost of it, or one that is marked"
    more = dict(stream=True, stream_options=dict(include_usage=True)) if stream else {}
    if kw is claude: r = anthropic.Anthropic(base_url=url, api_key='k', max_retries=0).messages.create(messages=says(q), **kw, **dict(stream=True) if stream else {})
    else:            r = openai.OpenAI(base_url=f'{url}/v1', api_key='k', max_retries=0).chat.completions.create(messages=says(q), **kw, **more)
    if stream: list(r)
    with UsageLogger(p.with_name('other.db')) as l:
        r = litellm.completion(**kw | dict(model=f"{'anthropic' if kw is claude else 'openai'}/{kw['model']}"), messages=says(q), api_base=url if kw is claude else f'{url}/v1', api_key='k', **more)
        if stream: list(r)
    (u,),(w,) = ledger.rows(),l.ledger.rows()
    counts = lambda o: {k:getattr(o,k) or 0 for k in _seen}
    assert counts(u)==counts(w) | fault and (u.provider, u.status, u.usage_source)==(w.provider, 'ok', 'reported')
    rest = fault.get('completion_tokens', u.completion_tokens) - w.completion_tokens
    if u.cost_lacks: assert u.cost_lacks=='one-hour cache writes' and u.cost <= w.cost+1e-12
    else: assert abs(u.cost - w.cost - rest*1e-5) < 1e-12

def test_streams_of_openllmetry(ledger, instrumented, url):
    "One without its usage is unpriced; one that is left is partial, or its span never ends"
    c,a = openai.OpenAI(base_url=f'{url}/v1', api_key='k', max_retries=0),anthropic.Anthropic(base_url=url, api_key='k', max_retries=0)
    list(c.chat.completions.create(messages=says('Name three primes.'), stream=True, **mini))
    s = c.chat.completions.create(messages=says('Name three primes.'), stream=True, **mini)
    next(iter(s))
    s.close()
    s = a.messages.create(messages=says('When does the archive close?'), stream=True, **claude)
    next(s)
    del s
    gc.collect()
    assert [(o.status, o.usage_source, o.cost) for o in ledger.rows()]==[('ok','missing',None), ('partial','missing',None), ('partial','missing',None)]

def test_responses_and_errors(ledger, instrumented, url):
    "Responses, whose spans say that they are calls only at their end; embeddings; a model that is not there"
    c = openai.OpenAI(base_url=f'{url}/v1', api_key='k', max_retries=0)
    with trace(ledger=ledger, agent='clerk'): c.responses.create(model='gpt-5.4-mini', input='How many seconds are in a week?')
    c.embeddings.create(model='text-embedding-3-small', input=['The ledger never loses a call.'])
    with pytest.raises(openai.NotFoundError): c.chat.completions.create(model='gpt-5.6-absent', messages=says('Is anybody there?'))
    rows = ledger.rows()
    assert [(o.call_type, o.prompt_tokens, o.reasoning_tokens, o.status, o.error) for o in rows]==[
        ('completion',9,141,'ok',None), ('embedding',8,None,'ok',None), ('completion',None,None,'failed','NotFoundError')]
    assert rows[0].agent=='clerk' and rows[2].cost==0 and rows[1].cost_lacks is None


# Parents

def test_only_leaves_count(ledger, tracer):
    "An agent's sum is a row only if nothing below it has tokens, however many plain spans lie between"
    with tracer.start_as_current_span('server'), tracer.start_as_current_span('run', attributes=agent), tracer.start_as_current_span('graph'):
        for _ in range(2):
            with tracer.start_as_current_span('chat', attributes=said()): pass
        with tracer.start_as_current_span('tool', attributes={'gen_ai.operation.name':'execute_tool'}): pass
    with tracer.start_as_current_span('run', attributes=agent), tracer.start_as_current_span('graph'): pass
    a,b,c = ledger.rows()
    assert (a.call_type, b.call_type, c.call_type)==('completion', 'completion', 'invoke_agent') and c.usage_source=='estimated'
    assert a.agent==b.agent=='clerk' and a.trace_id!=c.trace_id and [o.partition('#')[0] for o in a.step.split('/')]==['server','run','graph']

def test_a_call_around_a_call(ledger, tracer):
    "A framework's span of a call around that of a client is one row: the inner one if it has tokens or failed too"
    with tracer.start_as_current_span('outer', attributes=said()), tracer.start_as_current_span('inner', attributes=said(gen_ai__usage__output_tokens=21)): pass
    bare = {k:v for k,v in said().items() if 'usage' not in k}
    with pytest.raises(KeyError), tracer.start_as_current_span('outer', attributes=bare), tracer.start_as_current_span('inner', attributes=bare): raise KeyError('x')
    assert [(o.completion_tokens, o.status, o.error) for o in ledger.rows()]==[(21,'ok',None), (None,'failed','KeyError')]

def test_out_of_order(ledger, tracer):
    "Spans that end in another thread, after their parent, or that began before the processor was there"
    root = tracer.start_span('run', attributes=agent)
    late = tracer.start_span('chat', context=set_span_in_context(root), attributes=said())
    root.end()
    t = threading.Thread(target=late.end)
    t.start()
    t.join()
    bare = TracerProvider()
    early = bare.get_tracer('x').start_span('chat', attributes=said(gen_ai__usage__output_tokens=22))
    bare.add_span_processor(UsageSpanProcessor(ledger))
    early.end()
    bare.shutdown()
    assert [(o.call_type, o.completion_tokens) for o in ledger.rows()]==[('invoke_agent',20), ('completion',20), ('completion',22)] # who ends first cannot know

def test_two_at_a_time(ledger, tracer):
    "Agents that work at the same time keep apart"
    async def run(name):
        with tracer.start_as_current_span(name, attributes=agent | {'gen_ai.agent.name':name}):
            await asyncio.sleep(0)
            with tracer.start_as_current_span('chat', attributes=said()): await asyncio.sleep(0)
    async def all_(): await asyncio.gather(*map(run, 'abc'))
    asyncio.run(all_())
    assert sorted((o.agent, o.step[0]) for o in ledger.rows())==[(o,o) for o in 'abc']


# Other layers

class Spanning(httpx2.BaseTransport):
    "A gateway's transport, which records a span of each call that passes it"
    def __init__(self, tracer): self.tracer,self.to = tracer,httpx2.HTTPTransport()
    def handle_request(self, req):
        with self.tracer.start_as_current_span('gateway', attributes=said()) as s:
            r = self.to.handle_request(req)
            s.set_attribute('gen_ai.response.id', json.loads(r.read())['id'])
            return r

def test_within_litellm(p, ledger, tracer, url):
    "A span of a call that LiteLLM makes is no row if a logger of this ledger has one; that of another ledger is"
    c = openai.OpenAI(base_url=f'{url}/v1', api_key='k', http_client=httpx2.Client(transport=Spanning(tracer)), max_retries=0)
    call = lambda: litellm.completion('openai/gpt-5.4-mini', says('Name three primes.'), client=c, num_retries=0)
    with UsageLogger(p), measure() as s: call()
    assert [o.completion_tokens for o in ledger.rows()]==[9] and s.calls==1
    with UsageLogger(p.with_name('other.db')): call()
    assert [o.completion_tokens for o in ledger.rows()]==[9,20]

@pytest.mark.parametrize('current', [True, False])
def test_around_litellm(p, ledger, tracer, url, current):
    "A span around LiteLLM's call is none, be it current or known by the id of the reply"
    call = lambda **kw: litellm.completion('openai/gpt-5.4-mini', says('Name three primes.'), api_base=f'{url}/v1', api_key='k', num_retries=0, **kw)
    with UsageLogger(ledger):
        for kw in ({}, dict(stream=True, stream_options=dict(include_usage=True))):
            s = tracer.start_span('ChatLiteLLM', attributes=said())
            tok = attach(set_span_in_context(s)) if current else None
            r = call(**kw)
            rid = [*r][-1].id if kw else r.id
            if current: detach(tok)
            else: s.set_attribute('gen_ai.response.id', rid)
            s.end()
    assert [o.completion_tokens for o in ledger.rows()]==[9,9]

def test_around_litellm_of_another_ledger(p, ledger, tracer, url):
    with UsageLogger(p.with_name('other.db')), tracer.start_as_current_span('ChatLiteLLM', attributes=said()):
        litellm.completion('openai/gpt-5.4-mini', says('Name three primes.'), api_base=f'{url}/v1', api_key='k', num_retries=0)
    assert [o.completion_tokens for o in ledger.rows()]==[20]

def test_an_agent_around_litellm(ledger, tracer, url):
    "The sum of a framework whose calls LiteLLM makes"
    with UsageLogger(ledger), tracer.start_as_current_span('run', attributes=agent), tracer.start_as_current_span('graph'):
        litellm.completion('openai/gpt-5.4-mini', says('Name three primes.'), api_base=f'{url}/v1', api_key='k', num_retries=0)
    assert [o.call_type for o in ledger.rows()]==['completion']

def test_within_a_stream_of_litellm(ledger, tracer, instrumented, url):
    "A call of one's own while a stream of LiteLLM is read is a call"
    c = openai.OpenAI(base_url=f'{url}/v1', api_key='k', max_retries=0)
    with UsageLogger(ledger):
        chunks = litellm.completion('openai/gpt-5.4-mini', says('Name three primes.'), stream=True, stream_options=dict(include_usage=True), api_base=f'{url}/v1', api_key='k', num_retries=0)
        next(chunks)
        c.chat.completions.create(messages=says('What is the capital of France?'), **mini)
        list(chunks)
    assert [o.completion_tokens for o in ledger.rows()]==[6,9]

def test_the_same_id_for_each_reply(ledger, tracer):
    "Two spans at the same time whose server gives each reply the same id are two calls"
    a,b = (tracer.start_span('chat', attributes=said(gen_ai__response__id='x')) for _ in 'ab')
    a.end()
    b.end()
    with trace(ledger=ledger) as t: t.response = dict(id='x', usage=dict(input_tokens=500, output_tokens=20), model='claude-haiku-5-5')
    with tracer.start_as_current_span('chat', attributes=said(gen_ai__response__id='x')): pass # a later one
    assert len(ledger.rows())==4

def test_instrumented_within_a_trace(ledger, instrumented, url):
    "The span, the block and the reply that is set are one row; a stream too"
    c = openai.OpenAI(base_url=f'{url}/v1', api_key='k', max_retries=0)
    with trace(ledger=ledger, agent='clerk') as t: t.response = c.chat.completions.create(messages=says('Name three primes.'), **mini)
    with trace(ledger=ledger, agent='clerk') as t: list(t.stream(c.chat.completions.create(messages=says('Name three primes.'), stream=True, stream_options=dict(include_usage=True), **mini)))
    assert [(o.completion_tokens, o.agent) for o in ledger.rows()]==[(9,'clerk')]*2


# What may go wrong

class Odd:
    "Attributes of a class that raises whatever it is asked"
    def __getattr__(self, k): raise RuntimeError(k)

def test_odd_spans(ledger, tracer, provider, recwarn):
    "No attribute that the SDK lets through makes a row go missing, or a span stay"
    rnd = random.Random(7)
    odd = [None, True, -1, 10**1000, '9'*5000, 4.5, '4', (1,2), ('a',), '', float('nan'), 'chat', 'invoke_agent', b'x', dict(a=1)]
    for i in range(2000):
        with tracer.start_as_current_span('s', attributes={rnd.choice(_names):rnd.choice(odd) for _ in range(8)}) as s:
            for _ in range(4): s.set_attribute(rnd.choice(_names), rnd.choice(odd))
    assert processor(provider).open=={} and len(ledger.rows()) > 500
    assert not [o for o in recwarn if 'llm_usage' in str(o.message)]

def test_never_raises(provider):
    "What is no span at all is a warning"
    with pytest.warns(UserWarning, match='llm_usage: a row may be missing: on_'):
        for f in (processor(provider).on_start, processor(provider).on_end): f(Odd())

def test_spans_that_never_end_are_bounded(ledger, tracer, provider):
    keep = [tracer.start_span('s') for _ in range(MAX_OPEN+50)]
    assert len(processor(provider).open)==MAX_OPEN
    for s in keep: s.end()
    assert ledger.rows()==[]

def test_alerts_refuse_no_span(ledger, tracer):
    "The call was made: its row stays, and its caller has the reply"
    ledger.alert('day > $0.00001', 'raise')
    for _ in range(3):
        with tracer.start_as_current_span('chat', attributes=said()): pass
        ledger.flush()
    with tracer.start_as_current_span('chat') as s: s.set_attributes(said())
    assert len(ledger.rows())==4

_kill = '''
import sys, os, signal
from opentelemetry.sdk.trace import TracerProvider
from llm_usage import UsageSpanProcessor
o = TracerProvider()
o.add_span_processor(UsageSpanProcessor(sys.argv[1]))
t,a = o.get_tracer('x'),{'gen_ai.operation.name':'chat', 'gen_ai.request.model':'claude-haiku-5-5'}
with t.start_as_current_span('chat', attributes=a | {'gen_ai.usage.input_tokens':500, 'gen_ai.usage.output_tokens':20}): pass
with t.start_as_current_span('chat', attributes=a): os.kill(os.getpid(), signal.SIGKILL)
'''

def test_kill(p):
    "A call that has ended is there after a kill; one in the middle is orphaned"
    with python(_kill, p) as o: assert o.wait(60)==-signal.SIGKILL, o.stderr.read()
    l = Ledger(p)
    assert sorted((u.status, u.completion_tokens, u.model) for u in l.rows())==[('ok',20,'claude-haiku-5-5'), ('orphaned',None,'claude-haiku-5-5')]
    l.close()

def test_without_the_sdk():
    "The error says what to install"
    code = "import sys; sys.modules['opentelemetry.sdk.trace'] = None\nfrom llm_usage import UsageSpanProcessor\ntry: UsageSpanProcessor(':memory:')\nexcept ImportError as e: print(e)"
    with python(code) as o: assert "pip install 'llm-usage-ledger[otel]'" in o.communicate(timeout=60)[0]
