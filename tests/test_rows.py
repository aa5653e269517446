"""One event, one row: deliveries that double, calls that are retried, replayed, cached, forked, cancelled or killed."""
import asyncio, os, signal, threading, time, warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
import litellm, pytest, standins, vcr
from litellm.integrations.custom_logger import CustomLogger
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
from helpers import Handler, called, python, ran, served
from llm_usage import Ledger, UsageLogger, replaying
from llm_usage.replay import able, case, cases, play
from llm_usage.replay import says

pytestmark = pytest.mark.filterwarnings('error:llm_usage', 'ignore::DeprecationWarning')
secret = 'sk-proj-NOBODYMAYREADTHIS0123456789'
mute   = 'Say nothing at all, ever.'

class Moody(Handler):
    "The stand-ins, but a key `fail-n-…` is refused n times with status 500, and `mute` is never answered"
    hits,asked = Counter(),threading.Semaphore(0)

    def _fault(self, req):
        how,n,*_ = (self.headers.get('authorization') or '').removeprefix('Bearer ').split('-')
        self.hits[self.headers.get('authorization')] += 1
        if standins.asked(standins.body(req))==mute: self.asked.release(), self.over.wait(120)
        return dict(status=500) if how=='fail' and self.hits[self.headers.get('authorization')] <= int(n) else {}

@pytest.fixture(scope='module')
def base():
    with served(Moody) as url: yield f'{url}/v1'

async def last_words():
    GLOBAL_LOGGING_WORKER.start()
    await GLOBAL_LOGGING_WORKER.flush()

@pytest.fixture
def logger(logger, loop):
    "A logger, whose rows are all there; what LiteLLM reports late, in another loop, adds none"
    yield logger
    n = len(logger.ledger.rows())
    loop.run(last_words())
    assert logger.flush()==[] and len(logger.ledger.rows())==len({u.uid for u in logger.ledger.rows()})==n

_no = count()
def key(fails=0): return f'fail-{fails}-{next(_no)}'
def hits(k): return Moody.hits[f'Bearer {k}']

luna,mini = 'openai/gpt-5.6-luna','openai/gpt-5.4-mini'

def ask(base, k, text='Name three primes.', fn=litellm.completion, model=luna, **kw):
    "Make a call, which LiteLLM's client does not try again by itself"
    return fn(model=model, messages=says(text), api_base=base, api_key=k, **dict(max_retries=0, num_retries=0) | kw)

def embed(base, **kw):
    return litellm.embedding('openai/text-embedding-3-small', input=['The ledger never loses a call.'], api_base=base, api_key=key(), **kw)

def rows(logger):
    "The rows once nothing is under way, by their start, and the status and model of each, sorted"
    assert logger.flush()==[]
    us = sorted(logger.ledger.rows(), key=lambda u: u.timestamp)
    return us,sorted((u.status, u.model) for u in us)

# The same event twice, and two events that look the same

def test_double_delivery(logger, base):
    "LiteLLM calls two hooks for a sync stream of Responses, and both are one row"
    for _ in litellm.responses(model=mini, input='Name three primes.', api_base=base, api_key=key(), stream=True): pass
    us,_ = rows(logger)
    assert [(u.status, u.prompt_tokens, u.completion_tokens) for u in us]==[('ok', 12, 9)]

@pytest.mark.parametrize('kind', ['chat', 'embedding'])
def test_delivered_again_later(logger, base, kind):
    "An event that is told ten times, by either hook and from other threads, is one row, whether or not the reply has an id"
    kept = []
    class Copy(CustomLogger):
        def log_success_event(self, kwargs, response_obj, start_time, end_time):
            kept.append((kwargs, response_obj, start_time, end_time))
            done.set()
    done = threading.Event()
    with called(Copy()):
        if kind=='chat': ask(base, key())
        else: embed(base)
        assert done.wait(10)
    (kw,res,a,b), = kept
    with ThreadPoolExecutor(8) as ex: list(ex.map(lambda _: logger.log_success_event(kwargs=kw, response_obj=res, start_time=a, end_time=b), range(10)))
    asyncio.run(logger.async_log_success_event(kwargs=kw, response_obj=res, start_time=a, end_time=b))
    assert rows(logger)[1]==[('ok', dict(chat='gpt-5.6-luna', embedding='text-embedding-3-small')[kind])]

def test_same_call_id(logger, base):
    "Who uses a call id again makes another call: two rows, for a chat and for an embedding, which has no id of its own"
    for t in ('Name three primes.', 'What is 2+2?'): ask(base, key(), t, litellm_call_id='twice')
    for _ in range(2): embed(base, litellm_call_id='again')
    logger.wait(4)
    us = logger.ledger.rows()
    assert Counter(u.call_id for u in us)==dict(twice=2, again=2) and all(u.cost > 0 for u in us)

# Calls that are tried again

@pytest.mark.parametrize('kw', [dict(num_retries=2), dict(max_retries=2, num_retries=None)], ids=['num_retries','max_retries'])
def test_retried(logger, base, loop, kw):
    "What LiteLLM tries again by itself is billed once, and is one row; the refusal before it is none"
    ks = key(1),key(1)
    ask(base, ks[0], **kw)
    async def go(): await ask(base, ks[1], fn=litellm.acompletion, **kw); return await logger.aflush()
    assert loop.run(go())==[]
    us,what = rows(logger)
    assert [hits(k) for k in ks]==[2, 2] and what==[('ok', 'gpt-5.6-luna')]*2 and all(u.cost > 0 and u.completion_tokens==9 for u in us)

def test_retries_fail(logger, base):
    "A call that fails each time is one failed row, and `flush` does not wait for what will not come"
    with pytest.raises(litellm.InternalServerError): ask(base, k := key(9), num_retries=1)
    start = time.monotonic()
    us,what = rows(logger)
    assert hits(k) > 1 and what==[('failed', 'gpt-5.6-luna')] and us[0].cost==0 and time.monotonic()-start < 5

def test_retries_fail_async(logger, base, loop):
    "So in async code"
    async def go():
        with pytest.raises(litellm.InternalServerError): await ask(base, key(9), fn=litellm.acompletion, num_retries=1)
        await logger.aflush()
    start = time.monotonic()
    loop.run(go())
    assert rows(logger)[1]==[('failed', 'gpt-5.6-luna')] and time.monotonic()-start < 8

both = [('failed', 'gpt-5.6-luna'), ('ok', 'gpt-5.4-mini-2026-03-17')]

def test_fallbacks(logger, base, loop):
    "The call that failed and the one that answered in its place are a row each, with one call id; the sync one runs in a loop of LiteLLM's own"
    kw = lambda: dict(fallbacks=[dict(model=mini, api_key=key())])
    with logger.who(agent='sync'): ask(base, key(9), **kw())
    us,what = rows(logger)
    assert what==both and len({u.call_id for u in us})==1 and {u.agent for u in us}=={'sync'} and all((u.cost > 0)==(u.status=='ok') for u in us)
    async def go(): await ask(base, key(9), fn=litellm.acompletion, **kw()); return await logger.aflush()
    assert loop.run(go())==[] and rows(logger)[1]==sorted(both*2)
    ask(base, k := key(), **kw())
    assert rows(logger)[1]==sorted(both*2 + [('ok', 'gpt-5.6-luna')]) and hits(k)==1

def router(base, fails, **kw):
    one = lambda name,model,k: dict(model_name=name, litellm_params=dict(model=model, api_base=base, api_key=k, max_retries=0))
    return litellm.Router(model_list=[one('a', luna, key(fails)), one('b', mini, key())], retry_after=0, **kw)

@pytest.mark.parametrize('kw,want', [(dict(num_retries=1), [both[0], ('ok', 'gpt-5.6-luna')]), (dict(num_retries=0, fallbacks=[dict(a=['b'])]), both)], ids=['retry','fallback'])
def test_router(logger, base, loop, kw, want):
    "Each attempt of a router is a call of its own, and a row; the request is its trace"
    m = dict(model='a', messages=says('Name three primes.'))
    router(base, 1 if kw['num_retries'] else 9, **kw).completion(**m)
    us,what = rows(logger)
    assert what==want and len({u.call_id for u in us})==2 and len({u.trace_id for u in us})==1
    async def go(): await router(base, 1 if kw['num_retries'] else 9, **kw).acompletion(**m); return await logger.aflush()
    assert loop.run(go())==[] and rows(logger)[1]==sorted(want*2)

# What is not billed

def test_litellm_cache(logger, base, loop, monkeypatch):
    "A reply from LiteLLM's cache is a row that cost nothing, and says what it saved"
    monkeypatch.setattr(litellm, 'cache', litellm.Cache())
    k = key()
    for _ in range(3): ask(base, k, caching=True); assert logger.flush()==[]
    async def go():
        for _ in range(2): await ask(base, k, 'What is 2+2?', fn=litellm.acompletion, caching=True); await logger.aflush()
    loop.run(go())
    us,_ = rows(logger)
    assert [u.origin for u in us]==['live', 'cache', 'cache', 'live', 'cache'] and hits(k)==2
    bill = [us[0].cost, us[3].cost]
    assert all(u.cost==0 for u in us if u.origin=='cache') and logger.ledger.total().amount==pytest.approx(sum(bill), rel=1e-12)
    assert logger.ledger.total().saved==pytest.approx(2*bill[0]+bill[1], rel=1e-9)

def test_replays(logger, loop):
    "Every kind of call that is played from a cassette is one row, marked as a replay, and nothing of it is billed"
    cs = [c for c in cases if able(c)]
    async def go(c):
        with logger.who(agent=c.name): await play(c)
        return await logger.aflush()
    with replaying():
        for c in cs: assert loop.run(go(c))==[], c.name
    us,_ = rows(logger)
    assert Counter(u.agent for u in us)==Counter(c.name for c in cs) and {u.origin for u in us}=={'replay'}
    assert {u.agent for u in us if u.status=='failed'}=={c.name for c in cs if c.raises} and {u.status for u in us}=={'ok','failed'}
    t = logger.ledger.total()
    assert t.amount==0 and t.saved > 0 and t.calls==len(cs)

def test_said_to_be_replays(logger, base):
    "Within `logger.replaying()` calls are replays, and after it they are not"
    with logger.replaying(): ask(base, key())
    ask(base, key())
    us,_ = rows(logger)
    assert [u.origin for u in us]==['replay', 'live'] and logger.ledger.total().amount==us[1].cost > 0

@pytest.mark.parametrize('way', ['sync', 'async', 'stream', 'async on httpx'])
def test_vcr(logger, base, loop, tmp_path, monkeypatch, way):
    "What VCR records is live, and what it plays is a replay"
    monkeypatch.setattr(litellm, 'disable_aiohttp_transport', way=='async on httpx')
    litellm.in_memory_llm_clients_cache.flush_cache()
    k = key()
    async def go():
        if 'async' in way: await ask(base, k, fn=litellm.acompletion)
        elif way=='stream': list(ask(base, k, stream=True, stream_options=dict(include_usage=True)))
        else: ask(base, k)
        return await logger.aflush()
    for _ in range(2):
        with vcr.use_cassette(str(tmp_path/'cassette.yaml'), record_mode='once', ignore_localhost=False): assert loop.run(go())==[]
    us,_ = rows(logger)
    assert hits(k)==1 and [(u.origin, u.status) for u in us]==[('live', 'ok'), ('replay', 'ok')]
    assert logger.ledger.total().amount==us[0].cost > 0

# Many at once

def test_at_once(p, base, loop):
    "Sixty-four threads, each of which calls twice, and as many tasks: every call is a row of the one who made it"
    with UsageLogger(p) as l:
        def one(i):
            with l.who(user_id=f'thread {i}'): ask(base, 'k-0')
        with ThreadPoolExecutor(64) as ex: list(ex.map(one, range(128)))
        assert l.flush(30)==[]
        async def task(i):
            with l.who(user_id=f'task {i}'): await ask(base, 'k-0', fn=litellm.acompletion)
        async def go(): await asyncio.gather(*map(task, range(128))); return await l.aflush(30)
        assert loop.run(go())==[]
    us = l.ledger.rows()
    assert sorted(u.user_id for u in us)==sorted(f'{o} {i}' for o in ('thread','task') for i in range(128))
    assert all(u.cost > 0 and u.status=='ok' for u in us) and len({u.uid for u in us})==256

_code = """
import multiprocessing, sys
from test_rows import *
base,folder = sys.argv[1],Path(sys.argv[2])
def logger(name, **kw): return UsageLogger(folder/f'{name}.db', user_id='ada', **kw).install()

# asyncio.run, again and again
l = logger('loops')
async def one(): await ask(base, 'k-0', fn=litellm.acompletion)
async def serial(n, flush):
    with l.who(agent=f'serial {flush}'):
        for _ in range(n): await one()
        if flush: assert await l.aflush()==[]
async def gathered(n, flush):
    with l.who(agent=f'gathered {flush}'):
        await asyncio.gather(*[one() for _ in range(n)])
        if flush: assert await l.aflush()==[]
for fn in (serial, gathered):
    for flush in (True, False): asyncio.run(fn(75, flush))
l.uninstall()

# a call that its task gives up
l = logger('given up')
with l.who(tags=['a tag']):
    try: asyncio.run(asyncio.wait_for(ask(base, 'k-0', mute, fn=litellm.acompletion), 1))
    except asyncio.TimeoutError: pass
l.uninstall()

# forks, last of all
def child(l, name):
    with l.who(user_id=name):
        ask(base, 'k-0')
        asyncio.run(one())
l = logger('forks')
ask(base, 'k-0')
p = multiprocessing.get_context('fork').Process(target=child, args=(l, 'multiprocessing'))
p.start()
p.join()
assert p.exitcode==0
if not (pid := os.fork()):
    child(l, 'os.fork')
    os._exit(0) # without a word to the logger
assert os.waitpid(pid, 0)[1]==0
ask(base, 'k-0')
assert l.flush()==[]
l.uninstall()
"""

@pytest.fixture(scope='module')
def folder(base, tmp_path_factory):
    "The folder of the ledgers of a process that has ended"
    d = tmp_path_factory.mktemp('process')
    ran(_code, base, d)
    return d

def test_loops(folder):
    "`asyncio.run` ends with the last call, and all rows are there, whether or not anybody waited for them"
    us = Ledger(folder/'loops.db').rows()
    assert Counter(u.agent for u in us)=={f'{o} {f}':75 for o in ('serial','gathered') for f in (True,False)}
    assert len({u.uid for u in us})==300 and all(u.cost > 0 and u.status=='ok' for u in us)

def test_given_up(folder):
    "A call that was cancelled before there was an answer is partial, and has no price"
    u, = Ledger(folder/'given up.db').rows()
    assert (u.status, u.user_id, u.model, u.tags, u.cost)==('partial', 'ada', 'gpt-5.6-luna', '["a tag"]', None)

def test_forks(folder):
    "A forked child has rows of its own; none is there twice, and none of the parent's is lost"
    l = Ledger(folder/'forks.db')
    us = l.rows()
    assert Counter((u.user_id, u.status) for u in us)=={('ada','ok'):2, ('multiprocessing','ok'):2, ('os.fork','ok'):2}
    assert len({u.uid for u in us})==6 and l.check()==[]

_killed = """
import sys
from test_rows import *
base,folder = sys.argv[1],Path(sys.argv[2])
noting = UsageLogger(folder/'noting.db', user_id='ada').install()
with noting.who(team_id='red'): ask(base, secret, mute, user='customer', metadata=dict(headers=dict(authorization=f'Bearer {secret}')))
"""

def test_killed(base, tmp_path):
    "A call in the middle of which the process is killed is an orphan when the ledger is opened again; its key is nowhere"
    p = python(_killed, base, tmp_path)
    while Moody.asked.acquire(blocking=False): pass
    assert Moody.asked.acquire(timeout=60)
    p.send_signal(signal.SIGKILL)
    assert p.wait(10)==-signal.SIGKILL
    data = b''.join(o.read_bytes() for o in tmp_path.iterdir())
    assert any(o.suffix=='.journal' for o in tmp_path.iterdir()) and secret.encode() not in data and b'customer' in data
    u, = Ledger(tmp_path/'noting.db').rows()
    assert (u.status, u.user_id, u.team_id, u.end_user, u.model, u.call_type, u.cost)==('orphaned', 'ada', 'red', 'customer', 'gpt-5.6-luna', 'completion', None)
    assert len(Ledger(tmp_path/'noting.db').rows())==1

def test_no_secret_anywhere(tmp_path, base):
    "No key, header or secret field is in any file beside the ledger: not in notes of calls under way, nor in rows that the ledger refused"
    l = UsageLogger(tmp_path/'usage.db', user_id='ada').install()
    about = dict(headers={'authorization':f'Bearer {secret}'}, secret_fields=dict(raw_headers=secret), requester_metadata=dict(k=secret), tags=['t'])
    kw = dict(user='customer', metadata=about, extra_headers={'Authorization':f'Bearer fail-0-{secret}'})
    ask(base, secret, **kw)
    leave = iter(ask(base, secret, stream=True, **kw))
    next(leave)
    with pytest.raises(litellm.InternalServerError): ask(base, f'fail-9-{secret}', extra_headers=None)
    held = dict(litellm_call_id='c', model='m', optional_params=dict(secret_fields=dict(raw_headers=dict(authorization=secret))), api_key=secret,
        litellm_params=dict(api_key=secret, metadata=about, secret_fields=dict(raw_headers=secret)), additional_args=dict(headers=dict(authorization=secret)))
    l.log_pre_api_call(model='m', messages=[], kwargs=held)
    def files(): return {o.name:o.read_bytes() for o in tmp_path.iterdir()}
    under_way = files()
    l.ledger.flush()
    l.ledger.con.execute('PRAGMA query_only=1')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        ask(base, secret, **kw)
        slo = dict(litellm_call_id='c', status='success', metadata=about, model_parameters=held['optional_params'])
        l.log_success_event(kwargs=dict(held, standard_logging_object=slo, response_cost=.5), response_obj=None, start_time=None, end_time=None)
        del leave
        l.flush()
    refused = files()
    l.ledger.con.execute('PRAGMA query_only=0')
    l.uninstall()
    assert any(n.endswith('.journal') and b'customer' in v for n,v in under_way.items()) and any(n.endswith('.journal') and b'"row"' in v for n,v in refused.items())
    assert l.ledger.check()==[] and len(l.ledger.rows())==5
    l.ledger.close()
    for fs in (under_way, refused, files()):
        data = b''.join(fs.values())
        assert b'customer' in data
        for s in (secret, 'Bearer', 'three primes'): assert s.encode() not in data, s

# What is not ours

def test_all_as_before(p):
    "What a logger changes outside of LiteLLM, threads and the players of cassettes, is as it was when it is uninstalled, and changes again with the next"
    import cachy.core, vcr.cassette
    now = lambda: [threading.Thread.start, ThreadPoolExecutor.submit, cachy.core._resp_from_cache, vcr.cassette.Cassette.play_response]
    was,l = now(),UsageLogger(p)
    for n in (1,2):
        with l:
            with replaying(): asyncio.run(play(case('chat')))
            inside = now()
        assert now()==was and not any(a is b for a,b in zip(was, inside))
        assert [u.origin for u in l.ledger.rows()]==['replay']*n

def test_what_another_has_wrapped_since(p, monkeypatch):
    "What another program wraps while a logger is installed is left to it, of LiteLLM, of Python and of the players of cassettes, and does what it did"
    import cachy.core, functools, vcr.cassette
    from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper
    def wrap(o, name):
        old = getattr(o, name)
        @functools.wraps(old)
        def theirs(*args, **kw): return old(*args, **kw)
        setattr(o, name, theirs)
        return theirs
    places = [(threading.Thread,'start'), (CustomStreamWrapper,'__next__'), (cachy.core,'_resp_from_cache'), (vcr.cassette.Cassette,'play_response')]
    for o,name in places: monkeypatch.setattr(o, name, getattr(o, name)) # as it was, once the test is over
    with UsageLogger(p) as l:
        with replaying(): asyncio.run(play(case('chat')))
        theirs = [wrap(o, name) for o,name in places]
    assert [getattr(o, name) for o,name in places]==theirs
    with l, replaying(): asyncio.run(play(case('chat stream')))
    assert [getattr(o, name) for o,name in places]==theirs and [u.origin for u in l.ledger.rows()]==['replay']*2
