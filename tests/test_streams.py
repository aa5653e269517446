"""Streams before stand-ins that stop in the middle of a reply: however one is left or read, it is one row."""
import asyncio, gc, sys
from collections import Counter
from contextlib import suppress
from importlib.util import find_spec
from math import fsum
from operator import attrgetter
import litellm, pytest
from litellm.integrations.custom_logger import CustomLogger
from litellm.litellm_core_utils.litellm_logging import Logging
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper
from litellm.responses.streaming_iterator import ResponsesAPIStreamingIterator, SyncResponsesAPIStreamingIterator
from standins import Say, says
from helpers import Handler, called, callbacks, ran, served
from llm_usage import Ledger, UsageLogger

pytestmark = pytest.mark.filterwarnings('error:llm_usage', 'error::pytest.PytestUnraisableExceptionWarning',
    'ignore:litellm.llms.anthropic.pass_through moved')

whole = Say('One word after another, so that there is something to be left behind when the reader goes.', 21, 33)
stops,flows,breaks = [f'A question whose answer {o}, and which is of the same length.' for o in ('stops in the middle', 'is all of one piece', 'is never quite done')]
says.update({stops:whole, flows:whole, breaks:whole})

class Stopping(Handler):
    "The stand-ins, but an answer to `stops` stops after six events until the tests are over; one to `breaks` is cut off there"
    faults = {stops:dict(delay=1e-9), breaks:dict(cut=6)}

    def _play(self, *args, **kw):
        self.sent = 0
        super()._play(*args, **kw)

    def _chunk(self, e, delay=0):
        self.sent += 1
        if delay and self.sent > 6: self.over.wait(60)
        super()._chunk(e)

@pytest.fixture(scope='module')
def base():
    with served(Stopping) as url: yield url

@pytest.fixture
def quiet(caplog, capfd):
    "Neither we nor asyncio say anything, and no traceback is shown"
    gc.collect() # a sync stream of OpenAI's that was left is part of a cycle, and closing it while another call begins locks up httpcore
    caplog.clear(), capfd.readouterr()
    yield
    assert [o for o in caplog.records if o.name in ('llm_usage','asyncio')]==[]
    err = capfd.readouterr().err
    assert 'Traceback' not in err or 'AnthropicResponsesStreamWrapper: upstream' in err, err # LiteLLM's own report of a stream that breaks off

@pytest.fixture
def logger(quiet, logger): return logger

# How a stream is asked for: the function, the model, and where the text goes

def words(s): return dict(messages=[dict(role='user', content=s)])

chats = {'chat openai':      ('completion',      'openai/gpt-5.6-luna',        words),
         'chat claude':      ('completion',      'anthropic/claude-haiku-5-5', words),
         'responses':        ('responses',       'openai/gpt-5.4-mini',        lambda s: dict(input=s)),
         'responses claude': ('responses',       'anthropic/claude-haiku-5-5', lambda s: dict(input=s))}
texts = {'text openai':      ('text_completion', 'text-completion-openai/gpt-3.5-turbo-instruct', lambda s: dict(prompt=s)),
         'text claude':      ('text_completion', 'anthropic/claude-haiku-5-5', lambda s: dict(prompt=s))}
msgs  = {'messages':         ('anthropic.messages.acreate', 'anthropic/claude-haiku-5-5', lambda s: words(s) | dict(max_tokens=90)),
         'messages openai':  ('anthropic.messages.acreate', 'openai/gpt-5.6-luna',        lambda s: words(s) | dict(max_tokens=90))}
if not find_spec('fastapi'): msgs = {} # newer LiteLLM has the native APIs with its proxy only
native = next(iter(msgs), 'responses')
syncs,asyncs = {**chats, **texts}, {**{k:(f'a{f}',*o) for k,(f,*o) in {**chats, **texts}.items()}, **msgs}

def start(base, kinds, kind, text, **kw):
    "Ask for that kind of stream"
    fn,model,arg = kinds[kind]
    return attrgetter(fn)(litellm)(model=model, api_base=base if 'claude' in model else f'{base}/v1', api_key='k', stream=True, **arg(text), **kw)

def begun(c):
    "Is this chunk the first with words? Those before it have none"
    return 'One word' in str(c)

def of(base, kinds, kind, u, status='partial', asked=None):
    "Row `u` is what a stream of that kind came to, whose tokens are those that were seen, at their price"
    model,price = kinds[kind][1],litellm.model_cost[u.model]
    assert (u.status, u.origin, bool(u.stream), u.requested_model)==(status, 'live', True, asked or model.split('/')[1])
    assert u.cost==pytest.approx(u.prompt_tokens*price['input_cost_per_token'] + u.completion_tokens*price['output_cost_per_token'], rel=1e-9)
    assert u.provider==model.split('/')[0] and u.cost > 0 and fsum(u.cost_parts().values())==pytest.approx(u.cost, rel=1e-12) and u.latency >= 0
    if status=='ok': assert (u.usage_source, u.prompt_tokens, u.completion_tokens)==('reported', 21, 33) and u.ttft is not None
    else:
        assert u.usage_source=='estimated' and u.total_tokens==u.prompt_tokens+u.completion_tokens
        assert u.prompt_tokens==21 if 'claude' in model else 15 <= u.prompt_tokens <= 27

# Left before the end

closing = {'chat openai':CustomStreamWrapper, 'chat claude':CustomStreamWrapper, 'responses':SyncResponsesAPIStreamingIterator}
aclosing = closing | {'responses':ResponsesAPIStreamingIterator}
lefts  = [(k,w) for k in syncs  for w in ('break','raise','close') if w!='close' or hasattr(closing.get(k), 'close')]
alefts = [(k,w) for k in asyncs for w in ('break','aclose','cancel','wait_for') if w!='aclose' or k in msgs or hasattr(aclosing.get(k), 'aclose')]

def leave(s, way):
    "Read stream `s` to its first words, and leave it; returned is one that was closed, which is over though it is kept"
    for c in s:
        if not begun(c): continue
        if way=='raise': raise KeyError
        if way=='close': s.close(); return s
        return

@pytest.mark.parametrize('kind,way', lefts)
def test_left(logger, base, kind, way):
    "A stream that is left is one row of what was seen of it, for whom it was asked; nothing is waited for any more"
    with logger.who(user_id='bob'):
        try: kept = leave(start(base, syncs, kind, stops), way)
        except KeyError: pass
    assert logger.flush()==[]
    u, = logger.ledger.rows()
    of(base, syncs, kind, u)
    assert 0 < u.completion_tokens < 19 and u.user_id=='bob'

async def begin(s):
    async for c in s:
        if begun(c): return

async def read(s, started=None):
    "Read `s` to its end, saying when it has begun"
    async for c in s:
        if started and begun(c): started.set()

async def aleave(ask, way):
    "Read the stream that is asked for to its first words, and leave it; returned is one that was closed"
    if way=='cancel':
        async def call(): await read(await ask, started)
        started = asyncio.Event()
        t = asyncio.create_task(call())
        await started.wait()
        t.cancel()
        with pytest.raises(asyncio.CancelledError): await t
        return
    s = await ask
    await begin(s)
    if way=='aclose': await s.aclose(); return s if isinstance(s, (*aclosing.values(),)) else None # others do not close what they read
    if way=='wait_for':
        with pytest.raises(asyncio.TimeoutError): await asyncio.wait_for(read(s), .01)

async def settled(logger, coro):
    "What `logger` has once `coro` is done for bob, and all that LiteLLM does after it"
    with logger.who(user_id='bob'): kept = await coro
    assert await logger.aflush()==[]
    for _ in range(3): await asyncio.sleep(0) # what closes the generators of a stream that is gone is a task by then
    if rest := [t for t in asyncio.all_tasks() if t is not asyncio.current_task() and '_worker_loop' not in repr(t)]: await asyncio.wait(rest, timeout=10)
    await GLOBAL_LOGGING_WORKER.flush()
    return logger.ledger.rows()

@pytest.mark.parametrize('kind,way', alefts)
def test_left_async(logger, base, loop, kind, way):
    "The same in async code, with its two more ways to leave a stream"
    u, = loop.run(settled(logger, aleave(start(base, asyncs, kind, stops), way)))
    of(base, asyncs, kind, u)
    assert 0 < u.completion_tokens < 19 and u.user_id=='bob'

class Spy(CustomLogger):
    "Another logger, which hears when LiteLLM reports a stream"
    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time): self.heard.set()

@pytest.mark.parametrize('kind', [*msgs][:1])
def test_left_and_reported_as_whole(logger, base, loop, kind):
    "LiteLLM reports a stream of Anthropic's API that was left as if it were whole; that is not a second row, and not the first"
    async def go():
        spy.heard = asyncio.Event()
        await aleave(start(base, asyncs, kind, stops), 'break')
        await asyncio.wait_for(spy.heard.wait(), 10)
    with called(Spy()) as spy: u, = loop.run(settled(logger, go()))
    of(base, asyncs, kind, u)

@pytest.mark.parametrize('kind', chats)
def test_never_read(logger, base, kind):
    "A stream that nobody reads has been asked for all the same, and is a row without an answer"
    start(base, syncs, kind, stops)
    assert logger.flush()==[]
    u, = logger.ledger.rows()
    assert (u.status, u.usage_source, u.completion_tokens)==('partial', 'estimated', 0) and 15 <= u.prompt_tokens <= 27 and u.cost > 0

@pytest.mark.parametrize('kind', [*chats, *msgs])
def test_never_read_async(logger, base, loop, kind):
    "Nor may an async one be read: its row has what was asked, and no answer"
    async def go(): await start(base, asyncs, kind, stops)
    u, = loop.run(settled(logger, go()))
    assert (u.status, u.usage_source, u.completion_tokens)==('partial', 'estimated', 0) and 15 <= u.prompt_tokens <= 27 and u.cost > 0

def test_in_a_cycle(logger, base):
    "A stream that is part of a cycle is left when the garbage collector finds it"
    s = start(base, syncs, 'chat claude', stops)
    next(s)
    ring = [s]
    ring.append(ring)
    del s, ring
    gc.collect()
    assert logger.flush()==[]
    assert [u.status for u in logger.ledger.rows()]==['partial']

def ended(c): return getattr(c, 'choices', None) and c.choices[0].finish_reason

@pytest.mark.parametrize('kind', ['chat openai', 'chat claude'])
def test_left_after_the_last_word(logger, base, kind):
    "Who breaks off when all is said, as a chat loop does, leaves one row, with all of the words in it; Anthropic has said by then what was used"
    for c in start(base, syncs, kind, flows):
        if ended(c): break
    assert logger.flush()==[]
    u, = logger.ledger.rows()
    of(base, syncs, kind, u, 'ok' if kind=='chat claude' else 'partial')
    assert u.completion_tokens==33 if kind=='chat claude' else u.completion_tokens >= 17

@pytest.mark.parametrize('kind', sorted({'responses', native}))
def test_left_after_the_last_event(logger, base, loop, kind):
    "A provider that has said its last word has been read to the end, whether or not the reader asks once more"
    async def go():
        async for c in await start(base, asyncs, kind, flows):
            if 'response.completed' in str(c) or 'message_stop' in str(c): return
    u, = loop.run(settled(logger, go()))
    of(base, asyncs, kind, u, 'ok')

# Read to the end

def usage(kind): return dict(stream_options=dict(include_usage=True)) if kind.split()[0] in ('chat','text') else {}

@pytest.mark.parametrize('kind', syncs)
def test_whole(logger, base, kind):
    "A stream that is read to its end is one row, with the provider's counts"
    for c in start(base, syncs, kind, flows, **usage(kind)): pass
    assert logger.flush()==[]
    u, = logger.ledger.rows()
    of(base, syncs, kind, u, 'ok')

@pytest.mark.parametrize('kind', asyncs)
def test_whole_async(logger, base, loop, kind):
    "So is an async one"
    async def go(): await read(await start(base, asyncs, kind, flows, **usage(kind)))
    u, = loop.run(settled(logger, go()))
    of(base, asyncs, kind, u, 'ok')

@pytest.mark.parametrize('kind', syncs)
def test_error_midway(logger, base, kind):
    "A stream that breaks off by itself is one failed row"
    with pytest.raises(Exception): list(start(base, syncs, kind, breaks))
    assert logger.flush()==[]
    assert [u.status for u in logger.ledger.rows()]==['failed']

@pytest.mark.parametrize('kind', asyncs)
def test_error_midway_async(logger, base, loop, kind):
    "So is an async one"
    async def go():
        with suppress(Exception): await read(await start(base, asyncs, kind, breaks)) # LiteLLM may make an event of the error
    assert [u.status for u in loop.run(settled(logger, go()))]==['failed']

# In a process of its own, which ends without waiting for any row

_code = """
from test_streams import *
base,db = sys.argv[1:]
logger = UsageLogger(db, user_id='ada').install()

async def one(kind, text=flows): await read(await start(base, asyncs, kind, text, **usage(kind)))
async def many(kind, n): await asyncio.gather(*[one(kind) for _ in range(n)])
for kind in asyncs:
    with logger.who(agent='alone'): asyncio.run(one(kind))
for kind in {'chat claude', 'responses', native}:
    with logger.who(agent='together'): asyncio.run(many(kind, 70))
for kind in asyncs:
    with suppress(Exception), logger.who(agent='broken', tags=[kind]): asyncio.run(one(kind, breaks))

async def keep():
    kept.append(s := await start(base, asyncs, 'chat claude', stops))
    await begin(s)
with logger.who(agent='kept'):
    kept = [start(base, syncs, kind, stops) for kind in chats if kind!='chat openai'] # with one of these CPython 3.13.0 crashes at its end, logged or not
    for s in kept:
        for c in s:
            if begun(c): break
    asyncio.run(keep())
"""

@pytest.fixture(scope='module')
def after(base, tmp_path_factory):
    "The rows after that process, by agent"
    db = tmp_path_factory.mktemp('script')/'usage.db'
    ran(_code, base, db, timeout=60)
    l,found = Ledger(db),{}
    assert l.check()==[]
    for u in l.rows(): found.setdefault(u.agent, []).append(u)
    return found

@pytest.mark.parametrize('agent,n', [('alone', 2), ('together', 70)])
def test_loop_ends(after, agent, n):
    "`asyncio.run` ends the loop with the last chunk; a row of each kind is there all the same, and of hundreds read at once"
    us = after[agent]
    want = dict(acompletion=n, aresponses=n) | (dict(anthropic_messages=n) if msgs else {})
    assert Counter(u.call_type for u in us)==(want if n>2 else want | dict(atext_completion=2))
    assert {(u.status, u.usage_source, u.prompt_tokens, u.completion_tokens) for u in us}=={('ok', 'reported', 21, 33)}
    assert len({u.uid for u in us})==len(us) and all(u.cost > 0 for u in us)

def test_loop_ends_with_an_error(after):
    "So is the row of a stream that broke off, and took the loop with it"
    assert sorted((u.tags, u.status) for u in after['broken'])==sorted((f'["{k}"]', 'failed') for k in asyncs)

def test_left_at_exit(after):
    "Streams that were left, but still had a name when the process ended, are one row each"
    assert Counter(u.call_type for u in after['kept'])==dict(completion=1, responses=2, acompletion=1)
    assert {(u.status, u.usage_source) for u in after['kept']}=={('partial', 'estimated')}
    assert all(u.cost > 0 and u.completion_tokens > 0 for u in after['kept'])

# What is patched, and for how long

def methods():
    "Every method of every class of LiteLLM that was imported"
    cs = {o for n,m in [*sys.modules.items()] if n.startswith('litellm.') for o in [*vars(m).values()] if isinstance(o, type) and o.__module__.startswith('litellm')}
    return {(c,k):v for c in cs for k,v in vars(c).items() if callable(v)}

def changed(before):
    "The classes that have other methods than before"
    now = methods()
    return {c for (c,k),v in before.items() if now.get((c,k)) is not v}

def lists(): return {k:[*v] for k,v in callbacks().items()}

def test_uninstall(tmp_path, base, loop):
    "Nothing is left in LiteLLM of a logger that was uninstalled; while there are two, both have every row"
    async def api(): return type(await start(base, asyncs, native, flows))
    patched = {Logging, CustomStreamWrapper, ResponsesAPIStreamingIterator, SyncResponsesAPIStreamingIterator, loop.run(api())}
    before,called = methods(),lists()
    a,b = (UsageLogger(tmp_path/f'{o}.db').install() for o in 'ab')
    loop.run(settled(b, aleave(start(base, asyncs, native, stops), 'break')))
    leave(start(base, syncs, 'chat claude', stops), 'break')
    list(start(base, syncs, 'chat claude', flows))
    assert (a.flush(), b.flush())==([], []) and changed(before) >= patched
    during = methods()
    a.uninstall()
    assert changed(during)==set()
    leave(start(base, syncs, 'responses', stops), 'break')
    assert b.flush()==[]
    b.uninstall()
    assert changed(before)==set() and lists()==called
    leave(start(base, syncs, 'chat claude', stops), 'break')
    loop.run(aleave(start(base, asyncs, native, stops), 'break'))
    assert [sorted(u.status for u in o.ledger.rows()) for o in (a,b)]==[['ok','partial','partial'], ['ok','partial','partial','partial']]

def test_installed_twice(tmp_path, base):
    "Installed and uninstalled again and again, a logger still writes one row for a stream, and leaves nothing behind"
    before,l = methods(),UsageLogger(tmp_path/'usage.db')
    for _ in range(3): l.install().uninstall()
    l.install().install()
    leave(start(base, syncs, 'chat claude', stops), 'break')
    assert l.flush()==[] and len(l.ledger.rows())==1
    l.uninstall()
    assert changed(before)==set()

def test_begun_before(tmp_path, base):
    "A stream that was begun before the logger was installed is read as ever"
    early = start(base, syncs, 'chat claude', flows)
    l = UsageLogger(tmp_path/'usage.db').install()
    try: assert ''.join(o.choices[0].delta.content or '' for o in early)==whole.text
    finally: l.uninstall()
    assert l.flush()==[] and {u.status for u in l.ledger.rows()} <= {'ok'}

@pytest.mark.parametrize('kind', ['chat openai', 'chat claude', 'responses'])
def test_track(tmp_path, base, loop, kind):
    "`track` has the row of a stream where the logger is not installed, left or whole; what is read is the same"
    l = UsageLogger(tmp_path/'usage.db')
    leave(l.track(start(base, syncs, kind, stops)), 'break')
    async def go(): await aleave(tracked(start(base, asyncs, kind, stops)), 'cancel')
    async def tracked(ask): return l.track(await ask)
    loop.run(go())
    gc.collect()
    async def broke(): await begin(await tracked(start(base, asyncs, kind, stops)))
    asyncio.run(broke())
    us = l.ledger.rows()
    assert len(us)==3 and us[0].completion_tokens==us[2].completion_tokens # as much was read of both
    for u in us: of(base, syncs, kind, u)
    text = lambda s: [str(getattr(o,'choices',None) or o.type) for o in s]
    assert (said := text(l.track(start(base, syncs, kind, flows))))==text(start(base, syncs, kind, flows)) and len(said) > 6
    assert l.ledger.rows()[:3]==us and [u.status for u in l.ledger.rows()[3:]]==['ok']

def test_track_messages(tmp_path, base, loop):
    "So with Anthropic's own API; what is no stream is refused"
    l = UsageLogger(tmp_path/'usage.db')
    async def tracked(): return l.track(await start(base, asyncs, native, stops))
    loop.run(settled(l, aleave(tracked(), 'cancel')))
    u, = l.ledger.rows()
    of(base, asyncs, native, u)
    with pytest.raises(TypeError, match='no stream'): l.track(litellm.Usage())

def test_unchanged_for_its_reader(logger, base, loop):
    "A watched stream is what it was to its reader: its type, its attributes, its chunks, and its end"
    s = start(base, syncs, 'chat claude', flows)
    assert type(s) is CustomStreamWrapper and iter(s) is s and logger.track(s) is s
    assert (s.model, s.custom_llm_provider, s.logging_obj.call_type)==('claude-haiku-5-5', 'anthropic', 'completion')
    first,*rest = s
    assert s.chunks[0].id==first.id and ''.join(o.choices[0].delta.content or '' for o in [first,*rest])==whole.text
    with pytest.raises(StopIteration): next(s)
    r = start(base, syncs, 'responses', flows)
    assert type(r) is SyncResponsesAPIStreamingIterator and [o.type for o in r][-1]=='response.completed'
    async def go():
        s = await start(base, asyncs, 'chat claude', flows)
        assert type(s) is CustomStreamWrapper and s.__aiter__() is s
        assert ''.join([o.choices[0].delta.content or '' async for o in s])==whole.text
        with pytest.raises(StopAsyncIteration): await s.__anext__()
        assert type(await start(base, asyncs, 'responses', flows)) is ResponsesAPIStreamingIterator
    assert [u.status for u in loop.run(settled(logger, go()))]==['ok']*3 + ['partial']

# A router wraps streams in streams

def router(base):
    of = lambda name,model,end='': dict(model_name=name, litellm_params=dict(model=model, api_base=base+end, api_key='k'))
    return litellm.Router(model_list=[of('c', 'anthropic/claude-haiku-5-5'), of('r', 'openai/gpt-5.4-mini', '/v1')], num_retries=0)

routed = {'chat claude':('acompletion', 'c', words), 'responses':('aresponses', 'r', lambda s: dict(input=s))}
if msgs: routed['messages'] = 'aanthropic_messages', 'c', msgs['messages'][2]

def test_router(logger, base):
    "A stream through a router is one row as well, left or whole; where the router ties it into a cycle, once that is collected"
    leave(router(base).completion(model='c', stream=True, **words(stops)), 'break')
    gc.collect()
    assert logger.flush()==[]
    for _ in router(base).completion(model='c', stream=True, **words(flows)): pass
    assert logger.flush()==[]
    left,read = logger.ledger.rows()
    of(base, syncs, 'chat claude', left, asked='c')
    of(base, syncs, 'chat claude', read, 'ok', asked='c')

@pytest.mark.parametrize('kind', routed)
def test_router_async(logger, base, loop, kind):
    "So is an async one, of each API"
    fn,model,arg = routed[kind]
    ask = lambda t: getattr(router(base), fn)(model=model, stream=True, **arg(t))
    async def go(): 
        await aleave(ask(stops), 'break')
        gc.collect()
        await logger.aflush()
        await read(await ask(flows))
    left,whole = loop.run(settled(logger, go()))
    of(base, asyncs, kind, left, asked=model)
    of(base, asyncs, kind, whole, 'ok', asked=model)
