"""What logging costs: in LiteLLM's hooks and in a whole call, rows a second, imports, memory, reports.

    python tools/bench.py [--quick | --full] [--only NAME ...] [--save FILE]

Loggers take turns in one process, in random order, so their ratios say more than their times. LiteLLM answers with
`mock_response`, for which it calls the hooks of a real call; nothing waits for a model, so this is logging at its busiest. In
threads, a hook that writes has to wait for the interpreter afterwards: that is in its wall time, and no caller waits for it.
Files are made in the temporary folder, which `TMPDIR` may put on another disk. What is compared:

- ours: `UsageLogger`, whose row a kill cannot reach once the caller has the reply
- no-op: hooks that do nothing, which is what the clocks and LiteLLM's own machinery take
- naive: what one writes first, a fastlite table and an insert for each call
- locked: the same, with a lock and with `synchronous=NORMAL`, so that it neither loses rows nor waits for the disk
"""
import argparse, asyncio, gc, json, logging, os, platform, random, re, subprocess, sys, tempfile, time
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from importlib.metadata import version
from inspect import iscoroutinefunction
from itertools import product
from math import hypot
from multiprocessing import get_context
from pathlib import Path
from sqlite3 import connect
from statistics import mean, median, quantiles
from threading import Lock
from types import SimpleNamespace as NS
from uuid import uuid4

os.environ.pop('PYTHONDONTWRITEBYTECODE', None) # users import what was compiled once
os.environ.setdefault('LITELLM_LOCAL_MODEL_COST_MAP', 'True') # read on import of litellm, which else fetches its price map
import llm_usage
from llm_usage import Ledger, Usage

sizes = dict( # calls of a kind with each logger; rounds of rows, rows that a process adds singly and in batches; imports; calls for the memory; rows to report
    quick   = NS(streams=(False,),     calls=512,  rounds=1, single=500,   batched=4_000,  imports=1, memory=2_000,  reports=60_000),
    default = NS(streams=(False,True), calls=512,  rounds=1, single=1_000, batched=8_000,  imports=1, memory=5_000,  reports=100_000),
    full    = NS(streams=(False,True), calls=2048, rounds=3, single=5_000, batched=50_000, imports=5, memory=20_000, reports=1_000_000))


# The loggers

class Silent:
    "Does nothing"
    def log_pre_api_call(self, model, messages, kwargs): pass
    def log_success_event(self, kwargs, response_obj, start_time, end_time): pass
    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time): pass

@dataclass
class Row:
    "What a naive logger keeps of a call"
    id:int=None; timestamp:float=None; model:str=None; user_id:str=None; prompt_tokens:int=None; completion_tokens:int=None
    total_tokens:int=None; cached_tokens:int=None; web_search_requests:int=None; response_cost:float=None

class Naive:
    "Inserts a row for each call, as fastlite does it by default"
    def __init__(self, path):
        from fastlite import Database
        super().__init__()
        self.db = Database(path)
        self.usage = self.db.create(Row, name='usage', pk='id')

    def insert(self, row): self.usage.insert(row)

    def log_success_event(self, kwargs, response_obj, start_time, end_time):
        us = response_obj.usage
        ptd,web = getattr(us, 'prompt_tokens_details', None),getattr(us, 'server_tool_use', None)
        self.insert(Row(timestamp=time.time(), model=response_obj.model, user_id='u1', prompt_tokens=us.prompt_tokens,
            completion_tokens=us.completion_tokens, total_tokens=us.total_tokens, cached_tokens=ptd.cached_tokens if ptd else 0,
            web_search_requests=web.web_search_requests if web else None, response_cost=kwargs['response_cost']))

    async def async_log_success_event(self, *args, **kw): Naive.log_success_event(self, *args, **kw)

class Locked(Naive):
    "One thread at a time, and without waiting for the disk"
    def __init__(self, path):
        super().__init__(path)
        self.lock = Lock()
        self.db.execute('PRAGMA synchronous=NORMAL')

    def insert(self, row):
        with self.lock: super().insert(row)

loggers = { # name: what makes one for a path, given what makes a LiteLLM callback of a class
    'no-op':  lambda path, of: of(Silent)(),
    'ours':   lambda path, of: of(llm_usage.UsageLogger)(path),
    'naive':  lambda path, of: of(Naive)(path),
    'locked': lambda path, of: of(Locked)(path)}

@cache
def base():
    from litellm.integrations.custom_logger import CustomLogger
    return CustomLogger

def callback(cls):
    "`cls` as a LiteLLM callback"
    return type(cls.__name__, (cls,base()), {})

moments = dict(before='before the call', reply='when the reply is handed over, or a stream begins or ends', after='after a success')
hooks   = dict(log_pre_api_call='before', _replied='reply', _stream='reply', log_success_event='after', async_log_success_event='after')

def clocked(f, moment):
    "The hook `f`, which notes its microseconds, by the wall and of its thread's CPU"
    def note(self, c, t):
        t = time.perf_counter_ns()-t
        self.took[moment].append((t/1e3, (time.thread_time_ns()-c)/1e3))
    @wraps(f)
    def sync(self, *args, **kw):
        c,t = time.thread_time_ns(),time.perf_counter_ns()
        try: return f(self, *args, **kw)
        finally: note(self, c, t)
    @wraps(f)
    async def coro(self, *args, **kw):
        c,t = time.thread_time_ns(),time.perf_counter_ns()
        try: return await f(self, *args, **kw)
        finally: note(self, c, t)
    return coro if iscoroutinefunction(f) else sync

def watched(cls):
    "`cls` as a LiteLLM callback whose own hooks are clocked"
    cls = callback(cls)
    own = {k:clocked(getattr(cls,k), v) for k,v in hooks.items() if getattr(cls,k,None) is not getattr(base(),k,None)}
    return type(cls.__name__, (cls,), own | dict(took=defaultdict(list)))

@contextmanager
def open_all(names, of):
    "{name: a logger} and {name: its file}; the files go away"
    with tempfile.TemporaryDirectory(prefix='llm-usage-bench-') as d:
        paths = {k:f'{d}/{k}.db' for k in names}
        ls = {k:loggers[k](p, of) for k,p in paths.items()}
        try: yield ls,paths
        finally:
            for o in ls.values(): getattr(getattr(o,'ledger',None), 'close', lambda: None)()

pending = deque() # what LiteLLM does in threads

def settle(o):
    "Wait until LiteLLM's threads are done, and the logger or ledger `o` has written what it was given"
    while pending: wait([pending.popleft()])
    for part in (o, getattr(o,'ledger',None)): getattr(part, 'flush', lambda: None)()

def found(path):
    "How many rows are in the file at `path`, according to another library; None if there is no file"
    if not os.path.exists(path): return
    with closing(connect(path)) as con: return con.execute('SELECT count(*) FROM usage').fetchone()[0]


# Calls through LiteLLM

settings = {f'{a}, {s}, {k} at once': NS(is_async=a=='async', stream=s=='stream', k=k) for a,s,k in product(('sync','async'), ('whole','stream'), (1,64))}
ask  = dict(model='gpt-4o-mini', messages=[dict(role='user', content='How much is it?')], mock_response='hi')
pool = cache(ThreadPoolExecutor)

few,turn = 8,256 # calls to begin with, and until it is another logger's turn: few, since the machine's speed drifts, but so many that to wake a thread is one in a hundred

@cache
def lite():
    "LiteLLM, quiet, and with its threads' work in `pending`"
    import litellm
    from litellm.litellm_core_utils.thread_pool_executor import executor
    def submit(*args, of=executor.submit, **kw):
        pending.append(f := of(*args, **kw))
        return f
    executor.submit,litellm.suppress_debug_info = submit,True
    logging.getLogger('LiteLLM').setLevel(logging.CRITICAL)
    gc.freeze()
    return litellm

def call(stream):
    res = lite().completion(**ask, stream=stream)
    if stream: list(res)

def calls(s, n):
    "Make `n` calls, and return the time when all replies were there"
    list(pool(s.k).map(call, [s.stream]*n))
    return time.perf_counter()

async def acall(stream, free):
    async with free:
        res = await lite().acompletion(**ask, stream=stream)
        if stream: [o async for o in res]

async def acalls(s, n):
    "The same in an event loop, which goes on until LiteLLM has told its callbacks"
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
    free = asyncio.Semaphore(s.k)
    await asyncio.gather(*[acall(s.stream, free) for _ in range(n)])
    back = time.perf_counter()
    await GLOBAL_LOGGING_WORKER.flush()
    return back

def hear(logger):
    if hasattr(logger, 'install'): logger.install()
    elif logger: lite().callbacks.append(logger)

def forget(logger):
    if hasattr(logger, 'uninstall'): logger.uninstall()
    elif logger: lite().logging_callback_manager._reset_all_callbacks() # to remove one leaves it in `input_callback`

def play(s, logger, n):
    "Microseconds a call of the kind `s`: CPU of all threads until all is written, wall until the reply is there"
    hear(logger)
    gc.collect()
    c,t = time.process_time(),time.perf_counter()
    back = asyncio.run(acalls(s, n)) if s.is_async else calls(s, n)
    settle(logger)
    c = time.process_time()-c
    forget(logger)
    return c/n*1e6, (back-t)/n*1e6

def take_turns(n, s, ls):
    "{name: what `play` says of each turn}, for `n` calls with each logger"
    res = defaultdict(list)
    for o in ls.values():
        play(s, o, few) # for what is made only once
        getattr(o, 'took', {}).clear()
    for _ in range(n//turn):
        for k in random.sample([*ls], len(ls)): res[k].append(play(s, ls[k], turn))
    return res

def summary(took):
    "Median, 99th percentile and mean CPU of a hook; None if it was not called"
    if not took: return
    ws,cs = zip(*took)
    return median(ws), sorted(ws)[int(.99*len(ws))], mean(cs)

def hook_table(moment, what, tooks):
    "What the hook of a moment takes, for the kinds of calls and the loggers that have it"
    rows = {name:{k:summary(t[moment]) for k,t in took.items()} for name,took in tooks.items()}
    rows = {name:r for name,r in rows.items() if any(r.values())}
    cols = [k for k in loggers if any(r.get(k) for r in rows.values())]
    return table(f'Hook {what}, µs: median / 99th percentile / CPU of its thread, mean', ['', *cols], [[name, *[r[k] for k in cols]] for name,r in rows.items()])

compared = [('naive','ours'), ('locked','ours')]

def clock_writer(o):
    "Note the CPU of storing the rows that wait in the journal of logger `o`"
    if not (journal := getattr(getattr(o,'ledger',None), 'journal', None)): return
    flush = journal.flush
    def clocked_flush():
        c = time.thread_time_ns()
        try: flush()
        finally: o.took['writer'].append((0, (time.thread_time_ns()-c)/1e3))
    journal.flush = clocked_flush

def in_all(tooks, n, cpu):
    "The CPU of all hooks of a call and of storing its row, how many times ours is in the others, and what part of LiteLLM's own it is"
    rows = {name:{k:sum(c for ts in took.values() for _,c in ts)/n for k,took in ts.items()} for name,ts in tooks.items()}
    ks = [*next(iter(rows.values()))]
    rows['mean of these'] = {k:mean(r[k] for r in rows.values()) for k in ks}
    return table('All hooks of a call, and the thread that stores its row, µs of CPU; in per cent of the whole call without a logger',
        ['', *ks, *[f'{a} : {b}' for a,b in compared], 'ours %'],
        [[name, *r.values(), *[r[a]/r[b] for a,b in compared], 100*r['ours']/cpu[name]['none'].us] for name,r in rows.items()])

def added(turns, i):
    "What each logger adds to measure `i`: the median of its differences to no logger, its error, and the width of their middle half"
    none = [o[i] for o in turns['none']]
    for k in turns:
        ds = [o[i] - (k!='none')*n for o,n in zip(turns[k],none)]
        q  = quantiles(ds, n=4)
        yield k, NS(us=median(ds), err=.93*(q[2]-q[0])/len(ds)**.5, width=q[2]-q[0])

def mean_of(rs):
    "The mean of the rows `rs` of what is added"
    col = lambda k,a: [getattr(r[k],a) for r in rs]
    return {k:NS(us=mean(col(k,'us')), err=hypot(*col(k,'err'))/len(rs), width=mean(col(k,'width'))) for k in rs[0]}

def add_up(played, i):
    "{kind of calls: what each logger adds to measure `i`}, and the mean"
    rows = {name:dict(added(turns, i)) for name,turns in played.items()}
    return rows | {'mean of these':mean_of([*rows.values()])}

def add_table(what, rows, ks):
    "What each logger adds to a call"
    cells = lambda r: [(r[k].us, r[k].err, 100*r[k].us/r['none'].us) for k in ks]
    return table(f'{what} of a call, µs: without a logger, and what each adds: median / its error / per cent; width of the middle half of the differences',
        ['', 'without', *[f'+ {k}' for k in ks], 'width'], [[name, r['none'].us, *cells(r), mean(r[k].width for k in ks)] for name,r in rows.items()])

def times(a, b):
    "How many times `b` is in `a`, if `b` is more than noise"
    return a.us/b.us if b.us > 2*b.err else None

def times_table(rows):
    "How many times what ours adds is in what the others add"
    return table('CPU that is added, where it is more than noise: times', ['', *[f'{a} : {b}' for a,b in compared]],
        [[name, *[times(r[a],r[b]) for a,b in compared]] for name,r in rows.items()])

def call_section(size):
    "What the hooks take while LiteLLM runs, and what a logger adds to a whole call"
    played,tooks,kinds = {},{},{k:s for k,s in settings.items() if s.stream in size.streams}
    with open_all(loggers, watched) as (ls,paths):
        for o in ls.values(): clock_writer(o)
        for name,s in kinds.items():
            played[name] = take_turns(size.calls, s, dict(none=None) | ls)
            tooks [name] = {k:{m:[*o.took[m]] for m in (*moments,'writer')} for k,o in ls.items()}
        for k,what in moments.items(): yield hook_table(k, what, tooks)
        cpu,wall = add_up(played, 0),add_up(played, 1)
        yield in_all(tooks, size.calls, cpu)
        yield from (add_table('CPU', cpu, ls), times_table(cpu), add_table('Wall time', wall, ls))
        n,rows = len(kinds)*(size.calls+few), {k:r for k,p in paths.items() if (r := found(p)) is not None}
        yield table(f'Rows of these {n:,} calls', ['', *rows], [['found', *rows.values()], ['lost', *[n-r for r in rows.values()]]])


# Rows into one file

models = {'gpt-5-mini':'openai', 'claude-sonnet-4-5':'anthropic', 'gemini-2.5-flash':'gemini', 'mistral-large-latest':'mistral'}

def usages(n):
    "`n` rows such as a busy application writes"
    for i in range(n):
        m,a,b = random.choice([*models]), random.randint(50,20_000), random.randint(1,2_000)
        yield Usage(call_id=str(uuid4()), response_id=f'chatcmpl-{uuid4()}', timestamp=time.time()+i/1000, latency=1.5, model=m, provider=models[m],
            requested_model=m, call_type='completion', stream=i%2==0, user_id=f'u{i%100}', tags='["bench"]', prompt_tokens=a, completion_tokens=b,
            total_tokens=a+b, cache_read_tokens=a//3, usage_source='reported', response_cost=a*2e-6+b*8e-6, inp_usd=a*2e-6, out_usd=b*8e-6, cost_source='litellm')

def meet(barrier):
    "Let this process know where it waits for the others"
    global start
    start = barrier

def tried(errors, f, *args, **kw):
    "What `f` returns; what it raises goes to `errors`"
    try: return f(*args, **kw)
    except Exception as e: errors.append(f'{f.__name__}: {type(e).__name__}: {e}')

def add_rows(path, n, together):
    "Add `n` rows when the others do: the times of begin and end, and the errors"
    us,errors = [*usages(n)],[]
    ledger = tried(errors, Ledger, path)
    start.wait(60)
    t = time.time()
    for i in range(0, n if ledger else 0, together):
        if together==1: tried(errors, ledger.add, us[i])
        else:           tried(errors, ledger.insert_all, us[i:i+together])
    settle(ledger)
    return t, time.time(), errors

def race(workers, k, n, together):
    "Rows found a second of `k` processes with one file, those rows, and the errors"
    with tempfile.TemporaryDirectory(prefix='llm-usage-bench-') as d:
        begin,end,errors = zip(*workers.starmap(add_rows, [(f'{d}/rows.db', n, together)]*k, chunksize=1))
        rows = found(f'{d}/rows.db')
        return rows/(max(end)-min(begin)), rows, sum(errors, [])

def race_rows(workers, k, rounds, n, together):
    "What `k` processes write, as a row of the table"
    rate,rows,errors = zip(*[race(workers, k, n, together) for _ in range(rounds)])
    name,errors = f'{k} process{"es"*(k>1)}, ' + ('add' if together==1 else f'insert_all of {together:,}'), sum(errors, [])
    return [name, (median(rate), min(rate), max(rate)), rounds*k*n, sum(rows), len(errors), '; '.join(sorted({*errors}))]

def row_section(size):
    "Rows a second into one file, until they are there"
    rows,spawn = [],get_context('spawn')
    for k in (1,8):
        with spawn.Pool(k, meet, [spawn.Barrier(k)]) as workers:
            for n,together in [(size.single,1), (size.batched,1000)]: rows.append(race_rows(workers, k, size.rounds, n, together))
    yield table('Rows a second into one file: median / least / most', ['', 'rows/s', 'sent', 'found', 'errors', 'which'], rows)


# Imports

modules = 'llm_usage llm_usage.ledger llm_usage.logger litellm pandas fastlite'.split()

def run(code):
    "Milliseconds that a Python process takes for `code`: wall and CPU"
    t = time.perf_counter()
    _,status,used = os.wait4(subprocess.Popen([sys.executable, '-P', '-c', code]).pid, 0)
    if status: raise RuntimeError(f'python -c {code!r} failed')
    return (time.perf_counter()-t)*1e3, (used.ru_utime+used.ru_stime)*1e3

def import_section(size):
    "What imports take"
    codes,took = {m:f'import {m}' for m in modules} | dict(bare=''), defaultdict(list)
    for _ in range(size.imports):
        for m in random.sample([*codes], len(codes)): took[m].append(run(codes[m]))
    bare,*ms = ([median(o) for o in zip(*took[m])] for m in ('bare',*modules))
    yield table(f'Import in a fresh process, ms beyond bare Python: median of {size.imports}', ['', 'wall', 'CPU'],
        [[m, *[a-b for a,b in zip(o,bare)]] for m,o in zip(modules,ms)])


# Memory

class Keep:
    "Keeps what it is told"
    def log_success_event(self, kwargs, response_obj, start_time, end_time): self.told = kwargs,response_obj

def event():
    "What LiteLLM tells its callbacks of a call"
    play(settings['sync, whole, 1 at once'], o := callback(Keep)(), 1)
    return o.told

def again(kw):
    "The call `kw` under another id"
    new = dict(litellm_call_id=str(uuid4()))
    return kw | new | dict(standard_logging_object=kw['standard_logging_object'] | new)

def peak(name, n):
    "MiB that this process held at most after `n` calls, and the rows found"
    told,res = event()
    with open_all([name], callback) as (ls,paths):
        for kw in (again(told) for _ in range(n)):
            ls[name].log_pre_api_call(kw['model'], kw['messages'], kw)
            ls[name].log_success_event(kw, res, kw['start_time'], kw['end_time'])
        settle(ls[name])
        most = re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text()) # `ru_maxrss` would include the parent's
        return int(most[1])/1024, found(paths[name])

def memory_section(size):
    "The most memory that a process holds"
    ks = ['no-op','ours']
    with get_context('spawn').Pool(1, maxtasksperchild=1) as fresh: res = fresh.starmap(peak, [(k,size.memory) for k in ks], chunksize=1)
    yield table(f'Most memory of a process that logs {size.memory:,} calls', ['', 'MiB', 'beyond no-op', 'rows found'],
        [[k, mib, mib-res[0][0], n] for k,(mib,n) in zip(ks,res)])


# Reports

def spread(n, days=90):
    "`n` calls to thirty models in so many days"
    for i in range(n): yield Usage(call_id=f'c{i}', timestamp=1.78e9 + i*days*86400/n, latency=1., provider='openai', model=f'model-{i*i%30}', user_id=f'user-{i%97}', usage_source='reported',
        prompt_tokens=1000, completion_tokens=100, total_tokens=1100, response_cost=.002, inp_usd=.001, cache_read_usd=0., cache_write_usd=0., out_usd=.001)

def lasts(f, n):
    "Milliseconds that `f` takes: median of `n`"
    def once(): t = time.perf_counter(); f(); return (time.perf_counter()-t)*1e3
    return median(once() for _ in range(n))

_daily = r"""
import atexit, re, sys
atexit.register(lambda: print(re.search(r'VmHWM:\s*(\d+)', open('/proc/self/status').read())[1], file=sys.stderr)) # `ru_maxrss` would be the parent's
from llm_usage.cli import main
main(['daily', '--db', sys.argv[1]])"""

def daily(path):
    "Milliseconds and MiB that `llm-usage daily` takes, all of the process"
    t = time.perf_counter()
    kib = subprocess.run([sys.executable, '-P', '-c', _daily, path], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True).stderr
    return (time.perf_counter()-t)*1e3, int(kib)/1024

def report_section(size):
    "What reports take, beside pandas with all rows"
    with tempfile.TemporaryDirectory() as d, closing(Ledger(f'{d}/usage.db')) as l:
        l.insert_all(spread(size.reports))
        first,again = daily(l.path),[daily(l.path) for _ in range(5)]
        res = [['llm-usage daily, the first time', *first], ['llm-usage daily', *map(median, zip(*again))]]
        l.spend('user')
        ways = {"spend('day','model')": lambda: l.spend('day','model'), "the same for Europe/Berlin": lambda: l.spend('day','model', tz='Europe/Berlin'), "spend('user')": lambda: l.spend('user'),
            "spend('day','model'), from the rows": lambda: l.spend('day','model', where='1=1'), 'latency()': l.latency}
        res += [[k, lasts(f, 5), None] for k,f in ways.items()]
        pandas = lasts(lambda: l.df().assign(day=lambda o: o.time.dt.date).groupby(['day','model']).cost.sum(), 1)
    yield table(f'Reports of {size.reports:,} rows', ['', 'ms', 'MiB', 'times less than pandas'], [[k, ms, mib, pandas/ms] for k,ms,mib in res] + [['ledger.df() and groupby', pandas, None, 1.]])


# The report

def table(title, cols, rows): return dict(title=title, cols=cols, rows=rows)

def num(v):
    "About three digits of `v`, which may be several numbers or none"
    if v is None or isinstance(v, str): return v or '-'
    if isinstance(v, (tuple,list)): return ' / '.join(map(num, v))
    if isinstance(v, int): return f'{v:,}'
    return f'{v/1000:.3g}k' if abs(v)>=1e4 else f'{v:.0f}' if abs(v)>=100 else f'{v:.1f}'

def show(t):
    "Print the table `t`"
    cells = [t['cols'], *[[*map(num, r)] for r in t['rows']]]
    first,*ws = [max(map(len, c)) for c in zip(*cells)]
    print(f'\n{t["title"]}')
    for name,*r in cells: print('  '.join([name.ljust(first), *[c.rjust(w) for c,w in zip(r,ws)]]), flush=True)

def file_system(path):
    "The kind of file system that `path` is on"
    mounts = [o.split()[1:3] for o in Path('/proc/mounts').read_text().splitlines()]
    return max((len(m),kind) for m,kind in mounts if Path(path).is_relative_to(m))[1]

def machine():
    "Where this runs, and with what"
    import apsw
    cpu = re.search(r'model name\s*: (.*)', Path('/proc/cpuinfo').read_text())
    return dict(cpu=cpu[1] if cpu else platform.machine(), cores=os.cpu_count(), system=platform.system(), disk=file_system(tempfile.gettempdir()),
        python=platform.python_version(), sqlite=apsw.sqlite_lib_version()) | {k:version(k) for k in 'litellm apsw fastlite pandas'.split()}

sections = dict(calls=call_section, rows=row_section, imports=import_section, memory=memory_section, reports=report_section)

def main(size, names, save):
    "Measure, print, and save if asked to"
    here,tables = machine(),[]
    print(', '.join(f'{k} {v}' for k,v in here.items()))
    for t in (t for k in names for t in sections[k](sizes[size])):
        show(t)
        tables.append(t)
    if save: Path(save).write_text(json.dumps(dict(machine=here, size=size, tables=tables), indent=1))

if __name__=='__main__':
    ap = argparse.ArgumentParser(description='What logging costs')
    how = ap.add_mutually_exclusive_group()
    how.add_argument('--quick', dest='size', action='store_const', const='quick', default='default', help='only calls and rows, and few of them')
    how.add_argument('--full',  dest='size', action='store_const', const='full', help='many rounds')
    ap.add_argument('--only', nargs='+', choices=sections, metavar='NAME', help=', '.join(sections))
    ap.add_argument('--save', metavar='FILE', help='JSON of the tables and the machine')
    a = ap.parse_args()
    main(a.size, a.only or [*sections][:2 if a.size=='quick' else None], a.save)
