"""What a kill loses: a process is killed with SIGKILL again and again while it logs, and each time its ledger is compared with what it had acknowledged.

    python tools/kill.py [N] [--seed SEED]

Everything heavy is imported once. Then N times, a fork of this process logs as fast as it can: LiteLLM calls from threads, streamed or
not, some of which fail, calls from tasks of an event loop, and rows that are added directly. It writes `p` and the id of a call to
a file when the call was announced, and `a` when its caller has the reply, or the end of its stream, or when `add` has returned. It is
killed at a random moment, one in eight before it has stored anything. Then, for all N in one ledger:

- what was acknowledged is a row, with its tokens, once the ledger is opened again
- what was announced is a row, or an orphaned row: one of them, and not both
- no row is half: it has its facts, its JSON can be read, its uid is its own
- SQLite finds the file sound, `check()` finds nothing, and nothing is left beside the ledger

LiteLLM answers with `mock_response`, for which it calls the hooks of a real call.
"""
import argparse, asyncio, json, os, random, re, signal, sys, tempfile, time, traceback
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from sqlite3 import connect
from statistics import median
from threading import Thread

os.environ.setdefault('LITELLM_LOCAL_MODEL_COST_MAP', 'True') # read on import of litellm, which else fetches its price map
import litellm
from litellm.litellm_core_utils.thread_pool_executor import executor
from llm_usage import Ledger, Usage, UsageLogger

litellm.suppress_debug_info = True
ask    = dict(model='gpt-4o-mini', messages=[dict(role='user', content='How much is it?')], mock_response='hi', num_retries=0, max_retries=0)
whose  = dict(user_id='ada', tags=['kill'], meta=dict(run=1))
facts  = 'uid call_id timestamp model status origin usage_source'.split()
counts = 'provider prompt_tokens completion_tokens total_tokens response_cost'.split() # of a call that went well
texts  = 'tags meta details'.split()


# The process that is killed

class Noting(UsageLogger):
    "A logger that writes down what it has announced, and which failures it has heard of"
    def to(self, fd): self.fd = fd; return self
    def note(self, what, cid): os.write(self.fd, f'{what} {cid}\n'.encode())

    def log_pre_api_call(self, model, messages, kwargs):
        super().log_pre_api_call(model, messages, kwargs)
        self.note('p', kwargs['litellm_call_id'])
    def log_failure_event(self, kwargs, response_obj, start_time, end_time):
        super().log_failure_event(kwargs, response_obj, start_time, end_time)
        self.note('a', kwargs['litellm_call_id'])

def name_of(res): return res._hidden_params['litellm_call_id']

def call(i, said=lambda cid: None):
    "One call: every fifth is streamed, every seventh fails; `said` hears of it when its caller has all of the reply"
    try: res = litellm.completion(**ask | (dict(mock_response=litellm.RateLimitError('no', 'openai', 'gpt-4o-mini')) if i%7==6 else {}), stream=i%5==4)
    except litellm.RateLimitError: return
    if i%5==4: list(res); said(res.logging_obj.litellm_call_id)
    else: said(name_of(res))

async def tasks(k, said=lambda cid: None):
    async def one(): said(name_of(await litellm.acompletion(**ask)))
    await asyncio.gather(*[one() for _ in range(k)])

def for_ever(f):
    i = 0
    while True: f(i); i += 1

async def tasks_for_ever(said):
    while True: await tasks(10, said)

def row(cid): return Usage(call_id=cid, model='gpt-4o-mini', provider='openai', prompt_tokens=5, completion_tokens=5, total_tokens=10, usage_source='reported', response_cost=.25, **{k:json.dumps(v) for k,v in whose.items() if k!='user_id'})

def revive():
    "Let LiteLLM start threads anew: those it has are another process's, or have ended"
    ThreadPoolExecutor.__init__(executor, executor._max_workers)

def live(path, fd, threads=2):
    "Log until killed"
    revive()
    sys.setswitchinterval(.0005) # threads take turns at more places
    l = Noting(path, **whose).to(fd).install()
    def add(i):
        l.ledger.add(u := row(f'direct-{os.getpid()}-{i}'))
        l.note('a', u.call_id)
        time.sleep(.003) # it would leave no time for the others
    def said(cid): l.note('a', cid)
    for f in (add, *[lambda i: call(i, said)]*threads): Thread(target=for_ever, args=(f,), daemon=True).start()
    asyncio.run(tasks_for_ever(said))

def warm():
    "Have LiteLLM load what it loads for the first calls, and end its threads, which a fork would not have"
    with UsageLogger(':memory:') as l:
        for i in range(14): call(i)
        asyncio.run(tasks(20))
    l.ledger.close()
    executor.shutdown()
    revive()

def fork(f, *args):
    "The id of a child that does `f`, and ends if it fails"
    sys.stdout.flush(); sys.stderr.flush()
    if pid := os.fork(): return pid
    try: f(*args)
    except BaseException: traceback.print_exc()
    finally: sys.stderr.flush(); os._exit(1)

def kill_one(path, notes, early, longest):
    "Kill a child at a random moment; what it has written down: {'p': ids of calls announced, 'a': ids acknowledged}"
    Path(notes).write_bytes(b'')
    fd  = os.open(notes, os.O_WRONLY|os.O_APPEND)
    pid = fork(live, path, fd)
    os.close(fd)
    alive = lambda: os.waitid(os.P_PID, pid, os.WEXITED|os.WNOHANG|os.WNOWAIT) is None
    until = time.monotonic()+30
    while not early and not re.search(b'a (?!direct)', Path(notes).read_bytes()) and alive() and time.monotonic() < until: time.sleep(.005)
    time.sleep(random.uniform(0, longest))
    os.kill(pid, signal.SIGKILL)
    if (status := os.waitpid(pid, 0)[1])!=signal.SIGKILL: raise RuntimeError(f'a process that should log ended by itself: {status}')
    got = defaultdict(list)
    for l in Path(notes).read_text().splitlines(): got[l[0]].append(l[2:])
    return got


# What is left of it

def rows_after(path, i):
    "The rows of the ledger whose number is above `i`, according to another library"
    if not os.path.exists(path): return []
    with closing(connect(path)) as con:
        con.row_factory = lambda c,r: dict(zip([o[0] for o in c.description], r))
        if not con.execute("SELECT 1 FROM sqlite_master WHERE name='usage'").fetchall(): return []
        return con.execute('SELECT * FROM usage WHERE id > ? ORDER BY id', (i,)).fetchall()

def is_whole(r):
    "Has the row `r` its facts, and JSON that can be read?"
    need = facts + (counts if r['status']=='ok' else [])
    try: return all(r[k] is not None for k in need) and all(r[k] is None or json.loads(r[k]) for k in texts) and 'kill' in json.loads(r['tags'])
    except (ValueError,TypeError): return False

def beside(path):
    "What is left in the ledger's folder that a ledger nobody has open should not leave"
    d,name = os.path.split(path)
    return [o for o in os.listdir(d) if o.startswith(f'{name}.')]

def inspect(path, got, last):
    "Compare the ledger with what was written down; what was counted, and what is wrong, in words"
    raw,acked = rows_after(path, last),set(got['a'])
    ledger = Ledger(path)
    said   = ledger.check()
    ledger.close()
    rows,wrong = rows_after(path, last),[]
    by = defaultdict(list)
    for r in rows: by[r['call_id']].append(r['status'])
    real,orphaned = ({k for k,v in by.items() if f(v)} for f in (lambda v: set(v)-{'orphaned'}, lambda v: 'orphaned' in v))
    announced = set(got['p'])
    direct = {o for o in acked if o.startswith('direct-')}
    lost   = acked-real
    def expect(ok, what): ok or wrong.append(what)
    expect(raw==rows[:len(raw)], 'rows changed after the kill')
    expect(not lost, f'{len(lost)} acknowledged rows are not there: {sorted(lost)[:3]}')
    expect(lost-direct <= orphaned, f'{len(lost-direct-orphaned)} acknowledged calls left no trace')
    expect(announced <= real|orphaned, f'{len(announced-real-orphaned)} announced calls left no trace: {sorted(announced-real-orphaned)[:3]}')
    expect(not real&orphaned, f'{len(real&orphaned)} calls have a row and an orphaned row: {sorted(real&orphaned)[:3]}')
    expect(all(v.count('orphaned') < 2 for v in by.values()), 'a call has two orphaned rows')
    expect(all(map(is_whole, rows)), f'half rows: {[r for r in rows if not is_whole(r)][:2]}')
    expect(said==[], f'check() says: {said}')
    expect(not (b := beside(path)), f'left beside the ledger: {b}')
    return Counter(announced=len(announced), acknowledged=len(acked), direct=len(direct), rows=len(real), orphaned=len(orphaned), late=len((acked & real) - {r['call_id'] for r in raw}),
        lost=len(lost-direct), direct_lost=len(lost&direct), unknown=len((real|orphaned)-announced-acked)), max([last, *[r['id'] for r in rows]]), wrong

def at_the_end(path):
    "What is wrong with the ledger as a whole, in words"
    with closing(connect(path)) as con:
        sound, = con.execute('PRAGMA integrity_check').fetchone()
        n,uids = con.execute('SELECT count(*), count(DISTINCT uid) FROM usage').fetchone()
    return [f'integrity_check says: {sound}']*(sound!='ok') + [f'{n-uids} uids are there twice']*(n!=uids)

def kills(path, n, longest=.4):
    "Kill `n` processes, each of which logs to the ledger at `path`: for each what was counted, and all that is wrong"
    warm()
    each,wrong,last = [],[],0
    for i in range(n):
        got = kill_one(path, f'{path}-notes', early=i%8==7, longest=.1 if i%8==7 else longest)
        c,last,bad = inspect(path, got, last)
        each.append(c)
        wrong += [f'kill {i}: {o}' for o in bad]
    return each, wrong+at_the_end(path)


# The report

cols = dict(announced='calls announced', acknowledged='rows acknowledged', direct='of these, added directly', rows='rows there', orphaned='orphaned rows', late='rows acknowledged, found in a journal',
    unknown='rows neither announced nor acknowledged', lost='acknowledged calls without a row of their own', direct_lost='acknowledged direct rows lost')

def main(n, seed):
    random.seed(seed)
    t = time.monotonic()
    with tempfile.TemporaryDirectory(prefix='llm-usage-kill-') as d: each,wrong = kills(f'{d}/usage.db', n)
    print(f'{n} kills in {time.monotonic()-t:.0f} s, seed {seed}; in each: median, most; and in all')
    for k,what in cols.items(): print(f'{what:<46}{median(c[k] for c in each):>8g}{max(c[k] for c in each):>8,}{sum(c[k] for c in each):>10,}')
    print(*wrong[:20] or ['nothing is wrong'], sep='\n')
    return len(wrong)

if __name__=='__main__':
    ap = argparse.ArgumentParser(description='What a kill loses')
    ap.add_argument('n', nargs='?', type=int, default=200, help='how many processes are killed')
    ap.add_argument('--seed', type=int, default=random.randrange(10**6), help='of the moments, which depend on the machine too')
    a = ap.parse_args()
    sys.exit(bool(main(a.n, a.seed)))
