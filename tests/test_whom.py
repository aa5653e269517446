"""For whom a call is, and who counts it: generators that others close, threads of every kind, callbacks that others take away, and calls that are given up."""
import asyncio, gc, inspect, threading, time, warnings
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext, suppress
from contextvars import copy_context
from multiprocessing.pool import ThreadPool
from queue import SimpleQueue
from types import SimpleNamespace as NS
import litellm, pytest
from litellm.constants import MAX_CALLBACKS
from litellm.integrations.custom_logger import CustomLogger
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
from standins import Say, says
from helpers import Handler, ran, served
from llm_usage import Ledger, UsageLogger, measure, test_cost
from llm_usage.block import Block, blocks

pytestmark = pytest.mark.filterwarnings('error:llm_usage', 'error::pytest.PytestUnraisableExceptionWarning')

quick,held = 'A question that is answered at once.','A question whose answer is held back.'
says.update({o:Say('As you like.', 12, 3) for o in (quick,held)})

class Holding(Handler):
    "The stand-ins, which hold back the answers to `held` until they are let go"
    arrived,let_go = threading.Event(),threading.Event()
    def _play(self, *args, **kw):
        if self.held: self.arrived.set(); self.let_go.wait(60)
        super()._play(*args, **kw)
    def _fault(self, req):
        self.held = held.encode() in req.content
        return super()._fault(req)

@pytest.fixture(scope='module')
def base():
    with served(Holding) as url:
        yield url
        Holding.let_go.set()

@pytest.fixture
def ask(base):
    def ask(i=0, text=quick, fn=litellm.completion, **kw):
        return fn(model='openai/gpt-5.6-luna', messages=[dict(role='user', content=text)], api_base=f'{base}/v1', api_key='none', max_retries=0, **kw)
    return ask

@pytest.fixture
def hold(ask):
    "Begin a call, and return it when the server has it"
    Holding.let_go.clear()
    async def hold(make):
        Holding.arrived.clear()
        t = asyncio.create_task(make)
        assert await asyncio.to_thread(Holding.arrived.wait, 20)
        return t
    yield hold
    Holding.let_go.set()

def users(logger):
    logger.flush()
    return [u.user_id for u in sorted(logger.ledger.rows(), key=lambda u: u.timestamp)]

# Generators

def in_thread(fn):
    with ThreadPoolExecutor(1) as pool: return pool.submit(fn).result()

def elsewhere(fn): return copy_context().run(fn)

async def in_task(fn): return fn()

closes = {'here': lambda f: f(), 'another context': elsewhere, 'a thread': in_thread, 'another task': lambda f: asyncio.run(in_task(f))}

def steps(ask, block):
    with block:
        ask()
        yield 1
        yield 2

@pytest.fixture(params=['who','measure','nested'])
def block(request, logger):
    @contextmanager
    def nested():
        with logger.who(user_id='bob'), measure(), logger.who(tags=['x']): yield
    return dict(who=lambda: logger.who(user_id='bob'), measure=measure, nested=nested)[request.param]

@pytest.mark.parametrize('begin', ['here','another context'])
@pytest.mark.parametrize('end', closes)
@pytest.mark.parametrize('by', ['close','next','throw','del'])
def test_generator(logger, ask, block, begin, end, by):
    "Wherever a generator begins and ends, nothing is raised, and its block is over"
    g = [steps(ask, block())]
    inside = []
    def first(): next(g[0]); inside.append(copy_context())
    closes[begin](first)
    def last():
        if by=='close': g[0].close()
        elif by=='next': [*g[0]]
        elif by=='throw':
            with pytest.raises(KeyError): g[0].throw(KeyError())
        else: g.clear(); gc.collect()
    closes[end](last)
    assert blocks()==()
    if not begin==end=='here': assert inside[0].run(blocks)==()
    ask()
    assert users(logger)[-1]=='ada'

def test_consumer_keeps_its_own(logger, ask):
    "A consumer's block, opened between two steps and open when the generator ends, stays"
    g = steps(ask, logger.who(user_id='bob', team_id='maths'))
    next(g)
    with logger.who(user_id='eve'):
        g.close()
        ask()
    ask()
    assert users(logger)==['bob','eve','ada'] and [u.team_id for u in logger.ledger.rows("user_id!='bob'")]==[None]*2

def test_async_generator_left_to_the_loop(logger, ask):
    "One that nobody closes is closed by the loop, in a task of its own"
    async def gen():
        with logger.who(user_id='bob'), measure() as s:
            await ask(fn=litellm.acompletion)
            while True: yield s
    async def main():
        async for s in gen(): break
        gc.collect()
        for _ in range(10): await asyncio.sleep(0)
        await ask(fn=litellm.acompletion)
        await logger.aflush()
        return s
    s = asyncio.run(main())
    assert users(logger)==['bob','ada'] and (s.calls, s.elsewhere)==(1, 0)

# Threads

def by_thread(fn, cls=threading.Thread, **kw):
    t = cls(target=fn, **kw)
    t.start(), t.join()

def by_timer(fn):
    t = threading.Timer(0, fn)
    t.start(), t.join()

class Own(threading.Thread):
    def __init__(self, target): super().__init__(); self.fn = target
    def run(self): self.fn()

def by_pool(fn):
    with ThreadPoolExecutor(2) as pool: wait([pool.submit(fn)])

def by_nested(fn): by_pool(lambda: by_thread(fn))

async def by_loop(fn): await asyncio.get_running_loop().run_in_executor(None, fn)

ways = {'Thread': by_thread, 'a subclass': lambda f: by_thread(f, Own), 'a daemon': lambda f: by_thread(f, daemon=True), 'Timer': by_timer, 'pool': by_pool, 'nested': by_nested,
        'ThreadPool': lambda f: [ThreadPool(2).map(lambda _: f(), [0])], 'by name': lambda f: ThreadPool(2).apply_async(func=f).get(), 'run_in_executor': lambda f: asyncio.run(by_loop(f)), 'to_thread': lambda f: asyncio.run(asyncio.to_thread(f))}

@pytest.mark.parametrize('way', ways)
def test_threads(logger, ask, way):
    with logger.who(user_id='bob', tags=['hw']), measure() as s: ask(); ways[way](ask)
    ways[way](ask)
    assert users(logger)==['bob','bob','ada'] and (s.calls, s.elsewhere)==(2, 0)
    with pytest.raises(AssertionError, match='made 1 calls, and may make 0'): test_cost(lambda: ways[way](ask), max_calls=0)

@pytest.mark.parametrize('name,n', [('batch_completion',3), ('batch_completion_models',1), ('batch_completion_models_all_responses',2)])
def test_batches(logger, base, name, n):
    msg  = [dict(role='user', content=quick)]
    what = dict(model='openai/gpt-5.6-luna', messages=[msg]*3) if n==3 else dict(models=['openai/gpt-5.6-luna']*n, messages=msg)
    with logger.who(user_id='bob'), measure() as s: getattr(litellm, name)(**what, api_base=f'{base}/v1', api_key='none')
    assert users(logger)==['bob']*n and s.calls==n

def test_pool_keeps_no_block(logger, ask):
    "A pool that one request filled serves the others too, and each has its own"
    with ThreadPoolExecutor(1) as pool:
        for name in ('bob','cy'):
            with logger.who(user_id=name): pool.submit(ask).result()
        pool.submit(ask).result()
    assert users(logger)==['bob','cy','ada']

def test_all_as_before():
    "Without a logger and a block, Python's classes are as they were; so they are after one"
    names = [(threading.Thread,'start'), (ThreadPoolExecutor,'submit'), *[(ThreadPool,o) for o in ('__init__','apply_async','_map_async','imap','imap_unordered')]]
    now = lambda: [vars(c).get(n) for c,n in names]
    was = now()
    with measure(): inside = now()
    assert now()==was and all(a is not b for a,b in zip(was, inside))
    assert [inspect.signature(o) for o in inside if o]==[inspect.signature(getattr(c,n)) for c,n in names]

def test_thread_that_does_not_start(logger, monkeypatch):
    "What Python raises, the caller gets, and may try again"
    import llm_usage.block as b
    t = threading.Thread(target=lambda: None)
    def no(*args, **kw): raise RuntimeError("can't start new thread")
    with logger.who(user_id='bob'):
        with monkeypatch.context() as m:
            m.setattr(threading, '_start_new_thread', no, raising=False)
            m.setattr(threading, '_start_joinable_thread', no, raising=False)
            with pytest.raises(RuntimeError): t.start()
        t.start()
        t.join()
        with pytest.raises(RuntimeError, match='once'): t.start()

@contextmanager
def worker():
    "A thread that was there before; hand it a function"
    jobs = SimpleQueue()
    def work():
        for f,r in iter(jobs.get, None): r.set_result(f())
    def hand_over(f):
        jobs.put((f, r := Future()))
        return r.result(20)
    t = threading.Thread(target=work)
    t.start()
    try: yield hand_over
    finally: jobs.put(None), t.join()

def test_elsewhere(logger, ask):
    "Calls that a job has made by others are counted, named, and fail its test; those that another block counts are its own"
    with worker() as hand_over:
        def job(): ask(); hand_over(ask); hand_over(ask)
        with measure() as s: job()
        assert (s.calls, s.elsewhere)==(1, 2) and repr(s).endswith(' · + 2 calls elsewhere')
        with pytest.raises(AssertionError, match='2 calls were made meanwhile'): test_cost(job, max_calls=9)
        with pytest.raises(AssertionError, match='1 calls were made meanwhile'): test_cost(lambda: hand_over(ask), max_usd=1)
        def other():
            with measure() as s: ask()
            return s
        with measure() as s: ask(); theirs = hand_over(other)
        assert (s.calls, s.elsewhere, theirs.calls, theirs.elsewhere)==(1, 0, 1, 0)
        with measure() as s: pass
        hand_over(ask)
        assert s.elsewhere==0

def test_forked(p, base):
    "A process that a job forks cannot be counted, and the job does not pass"
    out = ran('''
import litellm, multiprocessing, sys
from llm_usage import *
litellm.suppress_debug_info = True
def ask(): litellm.completion('openai/gpt-5.6-luna', [dict(role='user', content=sys.argv[3])], api_base=sys.argv[2], api_key='none')
def job():
    ask()
    ps = [multiprocessing.get_context('fork').Process(target=ask) for _ in range(2)]
    for o in ps: o.start(); o.join()
UsageLogger(sys.argv[1], user_id='ada').install()
with measure() as s: job()
print(s.calls, s.elsewhere)
try: test_cost(job, max_usd=1)
except AssertionError as e: print(str(e).splitlines()[0])''', p, f'{base}/v1', quick)
    assert out.splitlines()==['1 2', 'job does not see all: 2 calls were made meanwhile, in a thread that was there before, in another process, or by other code']

def test_elsewhere_in_an_outer_block(logger, ask):
    "A thread that an outer block began counts for that one, and an inner block says that it may have missed it"
    with measure() as day, worker() as hand_over:
        with measure() as hour: hand_over(ask)
    assert (day.calls, day.elsewhere, hour.calls, hour.elsewhere)==(1, 0, 0, 1)

def test_two_tests_at_once(logger, ask):
    "Tests that run beside each other in threads do not see each other's calls"
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(test_cost, lambda n=n: [ask() for _ in range(n)], max_calls=n) for n in (2,5)]
        assert [f.result().calls for f in both]==[2,5]

# Callbacks that another program takes away

class Other(CustomLogger): "Another program's"

def assign(name, to=()): return lambda l: setattr(litellm, name, [*to])
def reset(l): litellm.logging_callback_manager._reset_all_callbacks()

takes = {'assigned': assign('callbacks', [Other()]), 'emptied': assign('callbacks'), 'cleared': lambda l: litellm.callbacks.clear(), 'removed': lambda l: litellm.callbacks.remove(l),
         'reset': reset, 'success': assign('success_callback'), 'async success': assign('_async_success_callback'), 'failure': assign('failure_callback'),
         'everywhere': lambda l: litellm.logging_callback_manager.remove_callback_from_all_lists(l), 'full': lambda l: (reset(l), [setattr(litellm, o, [(lambda *args: None) for _ in range(MAX_CALLBACKS)]) for o in ('success_callback','_async_success_callback')])}

def by_who(l):
    with l.who(): pass
def by_measure(l):
    with measure(): pass

notices = dict(who=by_who, measure=by_measure, flush=lambda l: l.flush(), aflush=lambda l: asyncio.run(l.aflush()), check=lambda l: l.ledger.check())

@pytest.fixture
def clean():
    yield
    reset(None)

@pytest.mark.parametrize('called', [0,1])
@pytest.mark.parametrize('take,notice', [*((o,'flush') for o in takes), *(('assigned',o) for o in notices if o!='flush')])
def test_taken_out(p, ask, clean, take, notice, called):
    "The next call is a row, and there is a warning if one may be missing"
    logger = UsageLogger(p).install()
    for _ in range(called): ask(); logger.flush()
    with warnings.catch_warnings(record=True) as ws:
        warnings.simplefilter('always')
        takes[take](logger)
        lost = not called and logger not in litellm.callbacks
        notices[notice](logger)
    said = [str(w.message) for w in ws if 'llm_usage' in str(w.message)]
    assert logger in litellm.callbacks and len(said)==bool(logger.lost)<=1
    if lost: assert logger.lost==1 and 'may be missing' in said[0]
    ask()
    asyncio.run(asyncio.wait_for(awaited(ask, logger), 20))
    assert [u.status for u in logger.ledger.rows()]==['ok']*(called+2) and bool(logger.ledger.check())==bool(logger.lost)
    logger.uninstall()
    assert logger not in litellm.callbacks

async def awaited(ask, logger):
    await ask(fn=litellm.acompletion)
    await logger.aflush()

def test_uninstalled_stays_out(p, ask, clean):
    "A logger that was uninstalled, or replaced, does not come back"
    one = UsageLogger(p).install()
    litellm.callbacks = []
    two = UsageLogger(p).install()
    one.flush(), by_who(one)
    assert litellm.callbacks==[two]
    two.uninstall()
    two.flush(), by_who(two)
    assert litellm.callbacks==[] and two.ledger.check()==[]

# Calls that are given up

async def arrived():
    Holding.arrived.clear()
    await asyncio.to_thread(Holding.arrived.wait, 20)

async def by_wait_for(make, hold): await asyncio.wait_for(await hold(make), .01)

async def by_cancel(make, hold):
    (t := await hold(make)).cancel()
    await t

async def by_timeout(make, hold):
    async with asyncio.timeout(None) as o:
        async def soon(): await arrived(); o.reschedule(asyncio.get_running_loop().time())
        soon = asyncio.create_task(soon())
        await make

async def by_group(make, hold):
    async def fail(): await arrived(); raise KeyError
    async with asyncio.TaskGroup() as g: g.create_task(make); g.create_task(fail())

async def by_gather(make, hold):
    g = asyncio.gather(await hold(make), return_exceptions=True)
    g.cancel()
    await g

gives = dict(wait_for=by_wait_for, cancel=by_cancel, timeout=by_timeout, group=by_group, gather=by_gather)
ends  = asyncio.TimeoutError,asyncio.CancelledError,BaseExceptionGroup

def msgs(): return [dict(role='user', content=held)]
calls = {'chat':      lambda b: litellm.acompletion('openai/gpt-5.6-luna', msgs(), api_base=b+'/v1', api_key='x'),
         'claude':    lambda b: litellm.acompletion('anthropic/claude-haiku-5-5', msgs(), api_base=b, api_key='x'),
         'stream':    lambda b: litellm.acompletion('openai/gpt-5.6-luna', msgs(), api_base=b+'/v1', api_key='x', stream=True),
         'router':    lambda b: litellm.Router([dict(model_name='m', litellm_params=dict(model='openai/gpt-5.6-luna', api_base=b+'/v1', api_key='x'))]).acompletion('m', msgs()),
         'responses': lambda b: litellm.aresponses(model='openai/gpt-5.4-mini', input=held, api_base=b+'/v1', api_key='x'),
         'messages':  lambda b: litellm.anthropic.messages.acreate(model='anthropic/claude-haiku-5-5', max_tokens=9, messages=msgs(), api_base=b, api_key='x'),
         'embedding': lambda b: litellm.aembedding('openai/text-embedding-3-small', input=[held], api_base=b+'/v1', api_key='x')}

@pytest.mark.parametrize('give', gives)
@pytest.mark.parametrize('call', calls)
def test_given_up(logger, base, hold, give, call):
    "A call that was sent and given up is in the total while the process lives, and is not late"
    async def main():
        with measure() as s:
            with suppress(*ends): await gives[give](calls[call](base), hold)
            await asyncio.sleep(0) # until then asyncio holds the exception
        if (call,give)==('embedding','gather'): gc.collect() # LiteLLM announces it on a thread, and `gather` makes a cycle
        total = logger.ledger.total()
        return s, total, await logger.aflush(5)
    s,t,late = asyncio.run(main())
    u, = logger.ledger.rows()
    assert (u.status, u.error, u.usage_source, u.response_cost, u.prompt_tokens, u.user_id)==('partial', 'CancelledError', 'missing', None, None, 'ada')
    assert (repr(t), late, [o.uid for o in s.rows], s.elsewhere)==('≥ $0 · 0 of 1 calls priced', [], [u.uid], 0) and 0 < u.latency < 20
    Holding.let_go.set()
    assert len(logger.ledger.rows())==1

@pytest.mark.parametrize('then', ['uninstall','replace'])
@pytest.mark.parametrize('call', ['chat','stream','responses','messages'])
def test_under_way_when_its_logger_goes(p, base, hold, then, call):
    "A call that is under way when its logger is uninstalled, or replaced, is one row all the same, with its tokens"
    l = UsageLogger(p, user_id='ada').install()
    async def main():
        t = await hold(calls[call](base))
        l.uninstall() if then=='uninstall' else UsageLogger(p).install()
        Holding.let_go.set()
        r = await t
        if call=='stream': [o async for o in r]
        assert l.flush()==[]
        await GLOBAL_LOGGING_WORKER.flush()
    asyncio.run(main())
    for o in [*litellm.callbacks]: o.uninstall()
    u, = l.ledger.rows()
    assert (u.status, u.user_id, u.prompt_tokens > 0)==('ok', 'ada', True)

def test_while_its_exception_is_there(logger, base, hold):
    "An exception that is being handled keeps the call alive, and `flush` finds it all the same"
    async def main():
        t = await hold(calls['chat'](base))
        try: await asyncio.wait_for(t, .01)
        except asyncio.TimeoutError: return await logger.aflush(5), repr(logger.ledger.total())
    assert asyncio.run(main())==([], '≥ $0 · 0 of 1 calls priced')

def test_answered_after_all(logger, ask, hold):
    "A sync call in a thread goes on when its waiter is cancelled; it is one row, with its price"
    async def main():
        t = await hold(asyncio.to_thread(ask, text=held))
        t.cancel()
        with pytest.raises(asyncio.CancelledError): await t
        before = len(logger.ledger.rows())
        Holding.let_go.set()
        return before
    assert asyncio.run(main())==0
    assert logger.flush()==[]
    u, = logger.ledger.rows()
    assert (u.status, u.prompt_tokens, u.completion_tokens)==('ok', 12, 3) and u.cost > 0

bridged = {'responses of claude': lambda b: litellm.aresponses(model='anthropic/claude-haiku-5-5', input=held, api_base=b, api_key='x'),
           'messages of openai':  lambda b: litellm.anthropic.messages.acreate(model='openai/gpt-5.6-luna', max_tokens=9, messages=msgs(), api_base=b+'/v1', api_key='x')}

@pytest.mark.parametrize('call', [*(o for o in calls if o!='router'), *bridged])
def test_cancelled_after_its_answer(logger, base, call):
    "A task that is cancelled when it has its answer gives up nothing; a stream that was begun is one row"
    async def main():
        r = await (calls | bridged)[call](base)
        if call=='stream': await r.__anext__()
        asyncio.current_task().cancel()
        await asyncio.sleep(60)
    async def watch():
        await asyncio.wait([asyncio.create_task(main())])
        await logger.aflush()
    Holding.let_go.set()
    asyncio.run(watch())
    u, = logger.ledger.rows()
    assert u.status==('partial' if call=='stream' else 'ok') and u.prompt_tokens > 0

def test_a_thread_goes_on(logger, ask):
    "A call is not given up while a thread goes on with it, whatever an exception has left"
    def fails(log): raise LookupError
    Holding.arrived.clear(), Holding.let_go.clear()
    t = threading.Thread(target=lambda: ask(text=held))
    t.start()
    assert Holding.arrived.wait(20)
    c, = logger._open
    try: fails(NS(model_call_details=dict(llm_usage={logger._carried: c})))
    except LookupError: logger.give_up()
    Holding.let_go.set()
    t.join()
    logger.flush()
    assert [u.status for u in logger.ledger.rows()]==['ok']

def test_given_up_then_asked_again(logger, ask, hold):
    "Of one call id, each try that was sent is a row"
    async def main():
        t = await hold(ask(text=held, fn=litellm.acompletion, litellm_call_id='same'))
        t.cancel()
        with suppress(asyncio.CancelledError): await t
        await ask(fn=litellm.acompletion, litellm_call_id='same')
        await logger.aflush()
    asyncio.run(main())
    assert [(u.call_id, u.status) for u in logger.ledger.rows()]==[('same','partial'),('same','ok')]

def test_interrupted(p):
    "Ctrl-C in a sync call, in a process that goes on, and which keeps the exception as a console keeps the last one"
    out = ran('''
import httpx, litellm, sys
from llm_usage import UsageLogger
litellm.suppress_debug_info = True
def interrupted(*args, **kw): raise KeyboardInterrupt
httpx.Client.send = interrupted
logger = UsageLogger(sys.argv[1]).install()
try: litellm.completion('openai/gpt-5.6-luna', [dict(role='user', content='hi')], api_key='none')
except KeyboardInterrupt as e: sys.last_value = e
print(logger.flush(), logger.ledger.total())''', p)
    assert out.strip()=='[] ≥ $0 · 0 of 1 calls priced'
    assert [u.error for u in Ledger(p).rows()]==['KeyboardInterrupt']

@pytest.mark.parametrize('what', ['a thread', 'a stream', 'a task'])
def test_how_long_a_block_waits(logger, ask, hold, what):
    "Not for what may never end: a call on another thread and a stream have a second, a task none; it counts once it has ended"
    async def main():
        with measure(timeout=60) as s:
            if what=='a stream': kept = ask(stream=True)
            else: t = await hold(asyncio.to_thread(ask, text=held) if what=='a thread' else ask(text=held, fn=litellm.acompletion))
            end = time.monotonic()
        quick = time.monotonic()-end < 20
        Holding.let_go.set()
        if what=='a stream': [*kept]
        else: await t
        await logger.aflush()
        return quick, s.wait(), s.calls
    assert asyncio.run(main())==(True, True, 1)

def test_cost_of_what_is_given_up(ask, hold):
    "A job that gives up a call, or leaves one under way, has no cost that could be tested"
    tasks = []
    async def gives_up():
        with suppress(asyncio.CancelledError): await by_cancel(ask(text=held, fn=litellm.acompletion), hold)
    async def leaves(): tasks.append(await hold(ask(text=held, fn=litellm.acompletion)))
    with pytest.raises(AssertionError, match='made 1 calls that have no price'): asyncio.run(test_cost(gives_up, max_usd=1))
    with pytest.raises(AssertionError, match='left 1 calls under way'): asyncio.run(test_cost(leaves, max_usd=1))

# What goes wrong in a hook

class Panic(BaseException): "As Rust raises it"

class Broken(Ledger):
    def __init__(self, e): super().__init__(':memory:'); self.e = e
    def enqueue(self, u, call=None): raise self.e

@pytest.mark.parametrize('e', [RuntimeError('no'), MemoryError(), RecursionError(), Panic('no')], ids=repr)
def test_a_ledger_that_raises(ask, e):
    "Whatever a ledger raises, the caller has an answer, and there is one warning"
    with pytest.warns(UserWarning, match='a row is lost') as ws, UsageLogger(Broken(e)): answers = [ask() for _ in range(2)]
    assert len(answers)==2 and len([w for w in ws if 'llm_usage' in str(w.message)])==1

@pytest.mark.parametrize('e', [KeyboardInterrupt, SystemExit])
def test_what_is_meant_for_the_process(e):
    "Ctrl-C and an exit are not swallowed"
    with pytest.raises(e): UsageLogger(Broken(e())).log_success_event(kwargs=dict(litellm_call_id='c'), response_obj=None, start_time=None, end_time=None)

def test_who_raises(p, ask):
    "A function that should say who calls, and raises, leaves the defaults"
    def nobody(): raise LookupError('nobody is logged in')
    with pytest.warns(UserWarning, match='nobody is logged in'), UsageLogger(p, user_id='ada', user_id_fn=nobody) as l: ask()
    assert users(l)==['ada']

def test_frames_are_read_while_garbage_is_collected():
    "Threads come and go, and each allocation collects garbage that lets others run: reading the frames of all threads does not lock up"
    code = '''
import faulthandler, gc, threading, time
from llm_usage.calls import running_frames
faulthandler.dump_traceback_later(60, exit=True) # else it would hang
class Odd:
    def __init__(self): self.me = self
    def __del__(self): time.sleep(0)
def churn():
    while True: t = threading.Thread(target=lambda: None); t.start(); t.join()
for _ in range(8): threading.Thread(target=churn, daemon=True).start()
gc.set_threshold(1)
for _ in range(2000): Odd(); n = len([*running_frames()])
print(n > 0, gc.isenabled())'''
    assert ran(code).strip()=='True True'
