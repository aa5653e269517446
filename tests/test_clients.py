"""The official clients against stand-ins: each row is the one that the same bytes give through LiteLLM, once, however a stream ends."""
import asyncio, copy, gc, json, threading, weakref
import anthropic, httpx2, litellm, openai, pytest
from google import genai
from helpers import Handler, python, ran, served
from llm_usage import Ledger, UsageLogger, instrument, trace, uninstrument, wrap
from llm_usage.core import count_columns
from llm_usage.replay import _silence, says

mini,claude,flash = 'gpt-5.4-mini','claude-sonnet-5-5','gemini-3.5-flash-lite'
primes,weather = says('Name three primes.'),says('What is the weather like in NYC? Search web.')
usage = dict(stream=True, stream_options=dict(include_usage=True))

@pytest.fixture(scope='module')
def url():
    with served(Handler) as u: yield u

def client(url, kind, later=False):
    "A client of a vendor, sync or async, for the stand-ins at `url`"
    if kind=='google': return genai.Client(api_key='k', http_options=dict(base_url=url))
    mod,name,base = (openai,'OpenAI',f'{url}/v1') if kind=='openai' else (anthropic,'Anthropic',url)
    return getattr(mod, f'Async{name}'*later or name)(base_url=base, api_key='k', max_retries=0)

def lite(url, model, **kw):
    "The same call through LiteLLM"
    base = f'{url}/v1' if model.startswith(('openai','text-')) else url
    return dict(model=model, api_base=base, api_key='k', num_retries=0, max_retries=0, **kw)

def open_ai(path, fn='completion', prefix='openai/', **kw):
    "A call of OpenAI's client at `path`, and the same through LiteLLM"
    model = kw.pop('model', mini)
    return 'openai',path,dict(model=model, **kw),lambda url: getattr(litellm, fn)(**lite(url, prefix+model, **kw))

def messages(q, **kw):
    return 'anthropic','messages.create',dict(model=claude, max_tokens=9, messages=says(q), **kw),lambda url: litellm.completion(**lite(url, f'anthropic/{claude}', messages=says(q), **(usage if kw.get('stream') else {})))

def google(q, path='generate_content'):
    more = usage if 'stream' in path else {}
    return 'google',f'models.{path}',dict(model=flash, contents=q),lambda url: litellm.completion(**lite(url, f'gemini/{flash}', messages=says(q), **more))

kinds = {
    'chat':              open_ai('chat.completions.create', messages=primes),
    'chat cached':       open_ai('chat.completions.create', messages=says('Summarise the minutes.')),
    'chat reasoning':    open_ai('chat.completions.create', messages=says('How many primes are below 100?')),
    'chat stream':       open_ai('chat.completions.create', messages=says('Summarise the minutes.'), **usage),
    'chat without usage':open_ai('chat.completions.create', messages=primes, stream=True),
    'tool':              open_ai('chat.completions.create', messages=says('Add 17 and 25 with your tool.')),
    'unknown model':     open_ai('chat.completions.create', messages=primes, model='gpt-house-mini'),
    'text':              open_ai('completions.create', 'text_completion', 'text-completion-openai/', model='gpt-3.5-turbo-instruct-0914', prompt='Roses are red,'),
    'responses':         open_ai('responses.create', 'responses', input='What is the capital of Peru?'),
    'responses search':  open_ai('responses.create', 'responses', input='Which city hosts the next Olympics? Search the web.', tools=[dict(type='web_search')]),
    'responses stream':  open_ai('responses.create', 'responses', input='How many seconds are in a week?', stream=True),
    'embedding':         open_ai('embeddings.create', 'embedding', model='text-embedding-3-small', input=['The ledger never loses a call.']),
    'image':             open_ai('images.generate', 'image_generation', model='gpt-image-2', prompt='A red square', size='1024x1024', quality='low'),
    'transcription':     open_ai('audio.transcriptions.create', 'transcription', model='gpt-4o-mini-transcribe', file=_silence('seven.wav', 4.5)),
    'by the second':     open_ai('audio.transcriptions.create', 'transcription', model='whisper-1', file=_silence('eight.wav', 5.2)),
    'messages':          messages('What is 2+2?'),
    'cache write':       messages('Who may open the archive?'),
    'cache write 1h':    messages('Who may open the archive at night?'),
    'cache read, writes':messages('What did the last visitor ask for?'),
    'search':            messages('What is the weather like in NYC? Search web.'),
    'messages stream':   messages('When does the archive close?', stream=True),
    'search stream':     messages('What is the weather like in NYC? Search web.', stream=True),
    'gemini':            google('How many seconds are in a week?'),
    'gemini search':     google('What is the weather in New York? Search.'),
    'gemini stream':     google('What is the weather in New York now? Search.', 'generate_content_stream')}

def call(c, path, kw):
    "Make the call, and read it to the end if it streams"
    for k in path.split('.'): c = getattr(c, k)
    r = c(**kw)
    return list(r) if hasattr(r, '__next__') else r

async def acall(c, path, kw):
    for k in path.split('.'): c = getattr(c, k)
    r = await c(**kw)
    return [o async for o in r] if hasattr(r, '__anext__') else r

def only(l):
    "The one row of ledger `l`"
    l.flush()
    assert l.check()==[]
    u, = l.rows()
    return u

by_hand = {'by the second', 'image'} # LiteLLM's cost has no parts, or all in the output

def known(u, name):
    "What has to be equal: tokens, cost, parts"
    parts = {} if name in by_hand else {k:round(v,12) for k,v in u.cost_parts().items()}
    return [getattr(u,k) for k in count_columns if k!='total_tokens'], u.usage_source, u.cost_lacks, u.status, u.cost and round(u.cost,12), parts

@pytest.mark.parametrize('later', [False,True], ids=['sync','async'])
@pytest.mark.parametrize('name', kinds)
def test_as_through_litellm(name, later, url, loop):
    "Each kind of call gives the row that LiteLLM's logger gives"
    vendor,path,kw,through = kinds[name]
    a,b = Ledger(':memory:'),Ledger(':memory:')
    with UsageLogger(a): r = through(url); list(r) if hasattr(r, '__next__') else r
    c = wrap(client(url, vendor, later), b)
    if later: loop.run(acall(c.aio if vendor=='google' else c, path, kw))
    else: call(c, path, kw)
    theirs,ours = only(a),only(b)
    assert known(ours, name)==known(theirs, name)
    assert (ours.provider, ours.requested_model, ours.stream)==(theirs.provider.removeprefix('text-completion-'), theirs.requested_model, theirs.stream)
    assert (ours.ttft is not None)==bool(ours.stream) and ours.latency > 0

def test_speech(url):
    "Speech is billed by all of its characters"
    l = Ledger(':memory:')
    wrap(client(url, 'openai'), l).audio.speech.create(model='tts-1', voice='alloy', input='Every call becomes a row.')
    u = only(l)
    assert (json.loads(u.details), round(u.cost, 9))==(dict(characters=25), 25*15e-6)

# What the caller gets

raw = dict(
    raw     = lambda c: c.chat.completions.with_raw_response.create(model=mini, messages=primes).parse(),
    parsed  = lambda c: c.chat.completions.parse(model=mini, messages=primes),
    options = lambda c: c.with_options(timeout=9).chat.completions.create(model=mini, messages=primes),
    copy    = lambda c: c.copy(timeout=9).with_options(max_retries=1).chat.completions.create(model=mini, messages=primes))

@pytest.mark.parametrize('how', raw)
def test_as_it_was(how, url):
    "Raw, parsed and copied: the caller gets what a bare client gives, in the same types"
    l = Ledger(':memory:')
    bare,ours = (raw[how](c) for c in (client(url, 'openai'), wrap(client(url, 'openai'), l)))
    assert (type(bare), bare.model_dump())==(type(ours), ours.model_dump())
    assert only(l).completion_tokens==9

def streaming_body(c):
    with c.chat.completions.with_streaming_response.create(model=mini, messages=primes) as r: return r.parse()
def streaming_lines(c):
    with c.chat.completions.with_streaming_response.create(model=mini, messages=primes, **usage) as r: return [*r.iter_lines()]
def raw_stream(c): return [*c.chat.completions.with_raw_response.create(model=mini, messages=primes, **usage).parse()]
def manager(c):
    with c.chat.completions.stream(model=mini, messages=primes, stream_options=dict(include_usage=True)) as s: return [o.type for o in s]
def of_responses(c):
    with c.responses.stream(model=mini, input='Name three primes.') as s: return [o.type for o in s]
bodies = [streaming_body, streaming_lines, raw_stream, manager, of_responses]

@pytest.mark.parametrize('read', bodies, ids=[f.__name__ for f in bodies])
def test_bodies(read, url):
    "Whoever reads a body, and however: one row, with what came"
    l = Ledger(':memory:')
    bare,ours = read(client(url, 'openai')),read(wrap(client(url, 'openai'), l))
    assert type(bare) is type(ours) and len(str(bare))==len(str(ours))
    u = only(l)
    assert (u.prompt_tokens, u.completion_tokens, u.status, u.usage_source)==(12, 9, 'ok', 'reported')

def test_anthropic_stream_manager(url):
    "`messages.stream()`, its final message, and a stream that is left"
    l = Ledger(':memory:')
    c = wrap(client(url, 'anthropic'), l)
    with c.messages.stream(model=claude, max_tokens=9, messages=weather) as s: m = s.get_final_message()
    u = only(l)
    assert (u.prompt_tokens, u.completion_tokens, u.web_search_requests)==(12012, 318, 1) and m.usage.output_tokens==318

# How a stream ends

def stream_of(c, vendor):
    if vendor=='openai': return c.chat.completions.create(model=mini, messages=says('Summarise the minutes.'), **usage)
    return c.messages.create(model=claude, max_tokens=9, messages=says('When does the archive close?'), stream=True)

def finished(s): [*s]
def left(s):
    for i,_ in enumerate(s):
        if i==2: return
def closed(s): next(s), s.close()
def in_block(s):
    with s: next(s)
def unread(s): pass
ends = dict(finished='ok', left='partial', closed='partial', in_block='partial', unread='partial')

@pytest.mark.parametrize('vendor', ['openai','anthropic'])
@pytest.mark.parametrize('how', ends)
def test_ends(how, vendor, url):
    "A stream has one row, however its reader ends it"
    l = Ledger(':memory:')
    s = stream_of(wrap(client(url, vendor), l), vendor)
    globals()[how](s)
    del s
    gc.collect()
    u = only(l)
    assert (u.status, u.error)==(ends[how], None)
    if how=='finished': assert u.usage_source=='reported' and u.cost > 0

class Slow(Handler):
    "A stand-in that sends three events of a stream, and then waits until the tests are over, or hangs up"
    def _play(self, status, hdrs, body, delay=0, cut=None):
        if not isinstance(body, list): return super()._play(status, hdrs, body)
        self.send_response_only(status)
        for k,v in (hdrs | {'transfer-encoding':'chunked'}).items(): self.send_header(k, v)
        self.end_headers()
        for e in body[:4]: self._chunk(e)
        if 'cut' not in self.path: self.over.wait(60)
        self.close_connection = True

@pytest.fixture(scope='module')
def slow():
    with served(Slow) as u: yield u

async def _cancel(s, read):
    async def go():
        n = 0
        async for _ in s:
            if (n := n+1)==3: read.set()
    t = asyncio.create_task(go())
    await read.wait()
    t.cancel()
    try: await t
    except asyncio.CancelledError: pass

@pytest.mark.parametrize('vendor', ['openai','anthropic'])
def test_cancelled(vendor, slow, loop):
    "A task that is cancelled while it reads leaves one row, with what came"
    l = Ledger(':memory:')
    async def go():
        c = wrap(client(slow, vendor, True), l)
        await _cancel(await stream_of(c, vendor), asyncio.Event())
    loop.run(go())
    gc.collect()
    u = only(l)
    assert u.status=='partial' and u.usage_source=='estimated'

@pytest.mark.parametrize('vendor', ['openai','anthropic'])
def test_cut(vendor, slow):
    "A server that hangs up: the caller gets the error, and the row has its class and what came"
    l = Ledger(':memory:')
    c = wrap(client(f'{slow}/cut', vendor), l)
    with pytest.raises(Exception) as e: [*stream_of(c, vendor)]
    u = only(l)
    assert u.status=='failed' and u.error in (type(e.value).__name__, type(e.value.__cause__).__name__) and u.usage_source=='estimated'

# One call, one row

def test_litellms_calls_once(url, loop):
    "With `instrument` on, the calls that LiteLLM makes through these clients are its logger's; without a logger they are rows all the same"
    l = Ledger(':memory:')
    o = lite(url, f'openai/{mini}', messages=primes)
    try:
        with UsageLogger(l) as logger:
            instrument(logger)
            litellm.completion(**o)
            list(litellm.completion(**o, **usage))
            loop.run(litellm.acompletion(**o))
            litellm.embedding(**lite(url, 'openai/text-embedding-3-small', input=['x']))
            litellm.responses(**lite(url, f'openai/{mini}', input='What is the capital of Peru?'))
            client(url, 'openai').chat.completions.create(model=mini, messages=primes)
        assert len(l.rows())==6
        litellm.completion(**o)
        l.flush()
        assert len(l.rows())==7
    finally: uninstrument()

def test_within_a_trace(url):
    "A trace around calls with rows is a step, and no call; one with a call of its own as well is a call"
    l = Ledger(':memory:')
    c,bare = wrap(client(url, 'openai'), l),client(url, 'openai')
    ask = lambda c: c.chat.completions.create(model=mini, messages=primes)
    with trace(ledger=l, agent='plan') as plan: ask(c); ask(c)
    with trace(ledger=l, agent='both') as both: ask(c); both.response = dict(ask(bare).model_dump(), id='another')
    with trace(ledger=l, agent='read') as read: said = [*read.stream(c.chat.completions.create(model=mini, messages=primes, **usage))]
    l.flush()
    assert [o.agent for o in l.rows()]==['plan','plan','both','both','read'] and len(said) > 2

# Before, after, twice, never

late = """
import sys, warnings
from llm_usage import instrument, Ledger
rec = instrument(sys.argv[2])
assert not {'litellm','pandas','openai','anthropic','google.genai'} & {*sys.modules}
import openai, anthropic
from google import genai
ask = [dict(role='user', content='Name three primes.')]
openai.OpenAI(base_url=sys.argv[1]+'/v1', api_key='k').chat.completions.create(model='gpt-5.4-mini', messages=ask)
anthropic.Anthropic(base_url=sys.argv[1], api_key='k').messages.create(model='claude-sonnet-5-5', max_tokens=9, messages=ask)
google = genai.Client(api_key='k', http_options=dict(base_url=sys.argv[1])) # one that nothing refers to closes
google.models.generate_content(model='gemini-3.5-flash-lite', contents='Name three primes.')
assert not {'litellm','pandas'} & {*sys.modules}
rec.ledger.flush()
print(*[(o.provider, o.completion_tokens, o.cost is not None) for o in rec.ledger.rows()])
"""

def test_imported_later(url, p):
    "Clients that are imported after `instrument` are covered, and neither litellm nor pandas is imported"
    assert ran(late, url, p).split('\n')[0]=="('openai', 9, True) ('anthropic', 9, True) ('gemini', 9, True)"

killed = """
import os, signal, sys
from llm_usage import instrument
instrument(sys.argv[2])
import openai
openai.OpenAI(base_url=sys.argv[1]+'/v1', api_key='k').chat.completions.create(model='gpt-5.4-mini', messages=[dict(role='user', content='Name three primes.')])
os.kill(os.getpid(), signal.SIGKILL)
"""

def test_killed(url, p):
    "A kill right after the first reply: its row is there"
    with python(killed, url, p) as o: o.communicate(timeout=60)
    u, = Ledger(p).rows()
    assert (u.completion_tokens, u.status, u.cost > 0)==(9, 'ok', True)

def test_twice(url, p):
    "A second `instrument` takes over, and says so"
    a,b = Ledger(':memory:'),Ledger(p)
    try:
        instrument(a)
        with pytest.warns(UserWarning, match='instrument was called again'): instrument(b)
        client(url, 'openai').chat.completions.create(model=mini, messages=primes)
    finally: uninstrument()
    b.flush()
    assert (len(a.rows()), len(b.rows()))==(0, 1)

# What an attack found

def chat_reply(i=1, **more): return dict(id=f'c{i}', object='chat.completion', created=1, model=mini, choices=[dict(index=0, message=dict(role='assistant', content='hi'), finish_reason='stop')],
    usage=dict(prompt_tokens=1000, completion_tokens=100, total_tokens=1100)) | more

def answering(*answers, cls=openai.OpenAI, **kw):
    "A client whose requests these responses answer, one after the other, the last one for ever"
    left = list(answers)
    def answer(req): return httpx2.Response(200, **(left.pop(0) if len(left)>1 else left[0]))
    return cls(api_key='k', http_client=httpx2.Client(transport=httpx2.MockTransport(answer)), **kw)

def events(*es): return dict(headers={'content-type':'text/event-stream'}, content=b''.join(b'data: %b\n\n' % json.dumps(e).encode() for e in es))

def test_wrapped_many_times():
    "A client may be wrapped for each request; its copies stay its own, and it is freed when nobody refers to it"
    l,c = Ledger(':memory:'),answering(dict(json=chat_reply()))
    for _ in range(1500): wrap(c, l)
    c.with_options(timeout=3).chat.completions.create(model=mini, messages=primes)
    assert only(l).completion_tokens==100 and not {'copy','with_options'} & {*vars(c)}
    other = copy.copy(c)
    other.api_key = 'another'
    assert other.with_options(timeout=1).api_key=='another'
    gone = weakref.ref(c)
    del c, other
    gc.collect()
    assert gone() is None

def test_as_googles_client_calls_itself(url):
    "Google's client passes its arguments by name as well"
    l = Ledger(':memory:')
    c = wrap(client(url, 'google'), l)
    body = dict(contents=[dict(role='user', parts=[dict(text='Name three primes.')])])
    c._api_client.request(http_method='post', path=f'models/{flash}:generateContent', request_dict=body)
    assert only(l).completion_tokens==9

def test_content_types():
    "Speech may come as `octet-stream`, and a stream as plain text"
    l = Ledger(':memory:')
    c = wrap(answering(dict(headers={'content-type':'application/octet-stream'}, content=b'\xff\xf3'*100)), l)
    c.audio.speech.create(model='tts-1', voice='alloy', input='Every call becomes a row.')
    u = only(l)
    assert (u.status, json.loads(u.details))==('ok', dict(characters=25))
    l = Ledger(':memory:')
    said = events(dict(id='c', model=mini, choices=[dict(index=0, delta=dict(content='hi'), finish_reason='stop')]), dict(id='c', model=mini, choices=[], usage=dict(prompt_tokens=100, completion_tokens=50, total_tokens=150)))
    [*wrap(answering(said | dict(headers={'content-type':'text/plain'})), l).chat.completions.create(model=mini, messages=primes, stream=True)]
    assert (only(l).prompt_tokens, only(l).status)==(100, 'ok')

def test_a_background_stream_is_billed_once():
    "A response of the background is one row, whether it is read as a stream, later, or both"
    res = dict(id='resp_1', object='response', created_at=1767225600, model=mini, output=[], background=True, parallel_tool_calls=True, tool_choice='auto', tools=[], status='completed',
        usage=dict(input_tokens=100, output_tokens=50, total_tokens=150, input_tokens_details=dict(cached_tokens=0), output_tokens_details=dict(reasoning_tokens=0)))
    stream = events(dict(type='response.created', sequence_number=0, response=res | dict(status='in_progress', usage=None)), dict(type='response.completed', sequence_number=1, response=res))
    l = Ledger(':memory:')
    c = wrap(answering(stream, dict(json=res), stream), l)
    [*c.responses.create(model=mini, input='hi', background=True, stream=True)]
    c.responses.retrieve('resp_1')
    [*c.responses.retrieve('resp_1', stream=True)]
    assert (only(l).prompt_tokens, only(l).completion_tokens)==(100, 50)

def test_left_within_a_trace(url):
    "A stream that is left has one row, though a trace reads it and a client sends it; so has one that a helper of the client reads"
    l = Ledger(':memory:')
    c = wrap(client(url, 'openai'), l)
    with trace(ledger=l) as t:
        for o in t.stream(c.chat.completions.create(model=mini, messages=primes, **usage)): break
    del o
    gc.collect()
    assert only(l).status=='partial'
    l = Ledger(':memory:')
    with trace(ledger=l) as t, wrap(client(url, 'openai'), l).chat.completions.stream(model=mini, messages=primes, stream_options=dict(include_usage=True)) as s: [*t.stream(s)]
    assert only(l).completion_tokens==9

def test_uninstrument_during_a_call(p):
    "A call that is under way when the clients are restored has its row"
    asked,go = threading.Event(),threading.Event()
    def answer(req):
        asked.set()
        go.wait(60)
        return httpx2.Response(200, json=chat_reply())
    l = Ledger(':memory:')
    instrument(l)
    c = openai.OpenAI(api_key='k', http_client=httpx2.Client(transport=httpx2.MockTransport(answer)))
    t = threading.Thread(target=c.chat.completions.create, kwargs=dict(model=mini, messages=primes))
    t.start()
    asked.wait(60)
    uninstrument()
    go.set()
    t.join()
    assert only(l).completion_tokens==100

def test_own_responses():
    "A transport with a class of responses of its own"
    class Mine(httpx2.Response): pass
    l = Ledger(':memory:')
    said = events(dict(id='c', model=mini, choices=[dict(index=0, delta=dict(content='hi'), finish_reason='stop')], usage=dict(prompt_tokens=7, completion_tokens=2, total_tokens=9)))
    def answer(req): return Mine(200, headers=said['headers'], stream=httpx2.ByteStream(said['content']))
    c = wrap(openai.OpenAI(api_key='k', http_client=httpx2.Client(transport=httpx2.MockTransport(answer))), l)
    [*c.chat.completions.create(model=mini, messages=primes, stream=True)]
    assert only(l).completion_tokens==2

def test_an_answer_read_in_another_way():
    "A subclass that reads answers itself: the row has no tokens, but it is there"
    class Own(openai.OpenAI):
        def _process_response(self, *, response, **kw): return response.json()
    l = Ledger(':memory:')
    assert wrap(answering(dict(json=chat_reply()), cls=Own), l).chat.completions.create(model=mini, messages=primes)==chat_reply()
    u = only(l)
    assert (u.requested_model, u.usage_source, u.cost)==(mini, 'missing', None)

of_others = dict(azure=('gpt-4o-2024-08-06', lambda **kw: answering(cls=openai.AzureOpenAI, azure_endpoint='https://my.openai.azure.com', api_version='2024-10-21', azure_deployment='ours', *kw['a'])),
    deepseek=('deepseek-chat', lambda **kw: answering(*kw['a'], base_url='https://api.deepseek.com')))

@pytest.mark.parametrize('who', of_others)
def test_who_bills(who):
    "The class or the host of a client says who bills, and so what it costs"
    model,mk = of_others[who]
    l = Ledger(':memory:')
    wrap(mk(a=[dict(json=chat_reply(model=model))]), l).chat.completions.create(model='ours' if who=='azure' else model, messages=primes)
    u = only(l)
    assert (u.provider, u.model, u.price_key)==(who, model, f'{who}/{model}') and u.cost > 0

def test_vertex():
    "Claude at Google has its own names and prices"
    l = Ledger(':memory:')
    msg = dict(id='m1', type='message', role='assistant', content=[dict(type='text', text='hi')], model='claude-sonnet-4-5-20250929', stop_reason='end_turn', stop_sequence=None, usage=dict(input_tokens=1000, output_tokens=100))
    c = anthropic.AnthropicVertex(region='us-east5', project_id='p', access_token='t', http_client=httpx2.Client(transport=httpx2.MockTransport(lambda r: httpx2.Response(200, json=msg))))
    wrap(c, l).messages.create(model='claude-sonnet-4-5@20250929', max_tokens=9, messages=primes)
    u = only(l)
    assert u.provider=='vertex_ai' and u.cost==pytest.approx((1000*3 + 100*15)/1e6) # $3 and $15 a million
