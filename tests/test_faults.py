"""What may happen to a ledger while it is in use: kills, forks, full disks, files that go away, others who hold it. No row is lost, and no call fails."""
import asyncio, json, logging, os, pickle, random, resource, shutil, signal, subprocess, sys, tempfile, threading, time, warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from logging.handlers import BufferingHandler
from multiprocessing import get_context
from multiprocessing.util import _exit_function
from pathlib import Path
import apsw, litellm, pytest
from kill import ask, fork, kills, revive, warm
from helpers import ids, python, ran, row
from llm_usage import Ledger, Usage, UsageLogger
from llm_usage.journal import line


# Helpers

def rows(n, name='r'): return [row(f'{name}{i}') for i in range(n)]
def names(n, name='r'): return sorted(f'{name}{i}' for i in range(n))

class Child:
    "A fork of this process that does `f`; what it returns, and what was on its stderr"
    def __init__(self, f, *args):
        self.out = tempfile.NamedTemporaryFile(delete=False).name
        self.pid = fork(self._do, f, args)

    def _do(self, f, args):
        revive()
        signal.alarm(60)
        os.dup2(os.open(f'{self.out}-err', os.O_CREAT|os.O_RDWR|os.O_TRUNC), 2)
        sys.stderr = open(2, 'w', buffering=1, closefd=False) # what pytest has in its place is not shown
        with open(self.out, 'wb') as o: pickle.dump(f(*args), o)
        sys.stderr.flush()
        os._exit(0)

    def end(self, status=0):
        got = os.waitpid(self.pid, 0)[1]
        err = Path(f'{self.out}-err').read_text()
        assert got==status, (got, err)
        return err if status else (pickle.loads(Path(self.out).read_bytes()), err)

def killed(f, *args):
    "Do `f` in a process which is killed when that is done"
    def g(): f(*args); os.kill(os.getpid(), signal.SIGKILL)
    return Child(g).end(signal.SIGKILL)

@contextmanager
def held(path):
    "Another process has the ledger for itself, until the block ends, or the function that is yielded is called"
    o = python('''
import apsw, sys
c = apsw.Connection(sys.argv[1]); c.set_busy_timeout(10000); c.execute('BEGIN IMMEDIATE'); print('held', flush=True)
sys.stdin.readline(); c.execute('COMMIT')''', path)
    assert o.stdout.readline().strip()=='held'
    try: yield lambda: os.write(o.stdin.fileno(), b'\n')
    finally: o.communicate('\n', 20)

def asked(l):
    "An event which is set when the ledger asks SQLite for leave to write"
    e = threading.Event()
    def trace(cur, sql, args):
        if sql.startswith(('BEGIN','INSERT')): e.set()
        return True
    l.con.set_exec_trace(trace)
    return e

def calls(l, n, k=0):
    "Make `n` calls, threads and tasks in turn, each of which has to get its answer; returns when all are in the ledger, or wherever they can be"
    def said(res): assert res.choices[0].message.content=='hi'; return res
    async def many(m):
        for o in await asyncio.gather(*[litellm.acompletion(**ask) for _ in range(m)]): said(o)
        return await l.aflush(30)
    assert asyncio.run(many(n//2))==[]
    for _ in range(n-n//2): said(litellm.completion(**ask))
    assert l.flush(30)==[]

@contextmanager
def installed(path, **kw):
    "A logger, and the warnings given while it is installed"
    with warnings.catch_warnings(record=True) as ws:
        warnings.simplefilter('ignore')
        warnings.filterwarnings('always', 'llm_usage')
        with UsageLogger(path, **kw) as l: yield l,ws

def n_rows(l): return l.ledger.q('SELECT count(*) n, count(DISTINCT uid) u FROM usage')[0]
def same(n): return dict(n=n, u=n)

def journals(p): return [o for o in Path(p).parent.iterdir() if o.suffix=='.journal']

@pytest.fixture(scope='module', autouse=True)
def warmed(): warm()


# Kills

def test_kill_loses_nothing_acknowledged(p):
    "A process is killed while it adds rows as fast as it can: each whose `add` had returned is there"
    o = python('''
import sys
from llm_usage import Ledger, Usage
l = Ledger(sys.argv[1])
for i in range(100_000): print(l.add(Usage(call_id=f'{i}')).call_id, flush=True)''', p)
    said = [o.stdout.readline().strip() for _ in range(300)]
    o.kill()
    said += o.communicate()[0].splitlines()
    assert o.returncode==-signal.SIGKILL and {*said[:-1]} <= {*ids(Ledger(p))} and Ledger(p).check()==[] # of the last, half may have been said

def test_kills(p):
    "Processes are killed at random moments while they log: see tools/kill.py"
    each,wrong = kills(str(p), 8)
    assert wrong==[]
    assert sum(c['acknowledged']-c['direct'] for c in each) and sum(c['orphaned'] for c in each)
    assert not any(c['lost'] for c in each)

def test_a_note_has_its_tags(p):
    "What is found of a call that was under way says who made it, in columns of any kind"
    kw = dict(litellm_call_id='c', model='m') # as long as it is there, somebody goes on with the call
    killed(lambda: UsageLogger(p, tags=['b','a'], meta=dict(k=[1]), user_id='ada').log_pre_api_call('m', [], kw))
    u, = Ledger(p).rows()
    assert (u.status, u.tags, u.meta, u.user_id)==('orphaned', '["a", "b"]', '{"k": [1]}', 'ada')

def test_events_that_share_a_call_id(p):
    "A call fails and is tried again under its id; the process is killed when both are acknowledged"
    def event(rid, **kw): return dict(litellm_call_id='c', standard_logging_object=dict(litellm_call_id='c', id=rid, status='success', startTime=1.8e9, endTime=1.8e9+1) | kw)
    def f():
        l = UsageLogger(p)
        with held(p):
            for rid in 'ab':
                l.log_pre_api_call('m', [], dict(litellm_call_id='c'))
                l.log_success_event(event(rid), None, None, None)
            os.kill(os.getpid(), signal.SIGKILL)
    l = Ledger(p)
    Child(f).end(signal.SIGKILL)
    l.check()
    assert sorted(o.response_id for o in l.rows() if o.status=='ok')==['a','b']

def test_what_was_purged_stays_away(p):
    "A process is killed after rows that its journal had were purged: they do not come back"
    def f():
        l = Ledger(p)
        for i in range(9): l.enqueue(row(f'r{i}', timestamp=1.7e9+i), l.begin(call_id=f'r{i}'))
        l.flush()
        l.add(row('new'))
        assert l.purge(1.8e9)==9
    killed(f)
    assert ids(Ledger(p))==['new']

def test_long_texts(p):
    "Rows whose texts are long, in any alphabet, are in the journal whole"
    texts = 'response_id trace_id session_id provider model requested_model call_type error user_id team_id end_user api_key_hash agent price_key service_tier'
    long = {k:'雪'*500 for k in texts.split()}
    more = dict(details=json.dumps(dict(saved_usd=.5, x='y'*5000)), origin='cache', tags=json.dumps(['t'*3000]))
    def f():
        l = Ledger(p)
        with held(p):
            for i in range(6): l.enqueue(row(f'x{i}', timestamp=1.8e9+i, **long, **more) if i%2 else row(f'r{i}'))
            os.kill(os.getpid(), signal.SIGKILL)
    Ledger(p).close()
    Child(f).end(signal.SIGKILL)
    l = Ledger(p)
    assert len(l.rows())==6 and l.total().calls==6 and all(o.model=='雪'*500 and o.details==more['details'] for o in l.rows("origin='cache'"))

def test_the_journal_is_given_back(p):
    "It does not grow with the calls, and goes away with the process"
    l = UsageLogger(p)
    for i in range(300):
        l.log_pre_api_call('m', [], kw := dict(litellm_call_id=f'c{i}'))
        l.log_success_event(kw, None, None, None)
        if i%30==29: l.flush()
    assert os.path.getsize(l.ledger.journal.name)==0
    l.ledger.close()
    assert os.listdir(p.parent)==['usage.db']

def test_sweeps_at_once(p):
    "Six processes open a ledger at once in which several were killed: none fails, and every call is there once"
    Ledger(p).close()
    def leave(k): Ledger(p).begin(call_id=k, timestamp=1.8e9)
    gate = get_context('fork').Barrier(6)
    def opens(r): gate.wait(20); Ledger(p).close()
    for r in range(4):
        for k in range(4): killed(leave, f'{r}-{k}')
        for c in [Child(opens, r) for _ in range(6)]: assert c.end()==(None, '')
    assert len(ids(l := Ledger(p)))==16 and l.check()==[] and not journals(p)

def as_nobody():
    "Be an ordinary user, to whom permissions apply"
    if os.getuid()==0: os.setgroups([]); os.setgid(65534); os.setuid(65534)

@pytest.fixture
def anybodys():
    "A folder that everybody can reach and that an ordinary user owns"
    d = Path(tempfile.mkdtemp())
    if os.getuid()==0: os.chown(d, 65534, 65534)
    yield d
    shutil.rmtree(d)

def test_notes_of_another_user(anybodys):
    "A ledger that users share can be opened while one of them has calls under way, and after a kill"
    p = anybodys/'usage.db'
    l = Ledger(p)
    note = lambda l,k: l.begin(call_id=k, timestamp=1.8e9)
    note(l, 'ours')
    killed(lambda: note(Ledger(p), 'killed'))
    notes = journals(p)
    for o in anybodys.iterdir(): o.chmod(0 if o in notes else 0o666) # without another user, what one may not read oneself is another's
    def f(): as_nobody(); l = Ledger(p); l.add(row('theirs')); return l.check()
    assert Child(f).end()==([], '')
    assert ids(l)==['theirs']
    for o in notes: o.chmod(0o600)
    assert ids(Ledger(p))==['killed','theirs'] # whose note it is can read it
    l.close()


# Many processes

def test_many_processes(p):
    "Eight processes, with threads and tasks, begin at once on a file that is not there: every row is there, nothing is raised, nothing is said"
    gate = get_context('fork').Barrier(8)
    def logs():
        with UsageLogger(p) as l:
            gate.wait(20)
            async def tasks():
                await asyncio.gather(*[litellm.acompletion(**ask) for _ in range(100)])
                return await l.aflush(30)
            late = asyncio.run(tasks())
            with ThreadPoolExecutor(2) as ex: list(ex.map(lambda _: litellm.completion(**ask), range(100)))
            late += l.flush(30)
        l.ledger.close()
        return late
    def adds(i):
        gate.wait(20)
        l = Ledger(p)
        with ThreadPoolExecutor(4) as ex: list(ex.map(l.add, rows(200, f'{i}-')))
        l.close()
        return []
    for c in [Child(adds, i) if i%2 else Child(logs) for i in range(8)]: assert c.end()==([], '')
    l = Ledger(p)
    assert l.q('SELECT count(*) n, count(DISTINCT uid) u FROM usage')==[same(1600)] and l.check()==[]
    assert l.total("model='m'").amount==4*200*.25

def test_opening_while_others_write(p):
    "Six processes open, write to and close a ledger again and again while two write: nobody fails"
    gate = get_context('fork').Barrier(8)
    def opens(i):
        gate.wait(20)
        for k in range(20):
            l = Ledger(p)
            l.enqueue(row(f'{i}-{k}'))
            l.close()
    def writes(i):
        l = Ledger(p)
        gate.wait(20)
        for k in range(300): l.add(row(f'{i}-{k}'))
    for c in [*[Child(opens, i) for i in range(6)], *[Child(writes, i) for i in (6,7)]]: assert c.end()==(None, '')
    assert len(Ledger(p).rows())==6*20+2*300

def test_first_opens_at_once(p):
    "Eight processes open the same new file at the same moment, fifteen times over"
    gate = get_context('fork').Barrier(8)
    def opens(i):
        for k in range(15): gate.wait(20); Ledger(f'{p}-{k}').add(row(f'{i}'))
    for c in [Child(opens, i) for i in range(8)]: assert c.end()==(None, '')
    assert [len(Ledger(f'{p}-{k}').rows()) for k in range(15)]==[8]*15


# Disks and files

def full(is_full):
    "Let this process write to no file, or to any"
    resource.setrlimit(resource.RLIMIT_FSIZE, (0 if is_full else resource.RLIM_INFINITY, resource.RLIM_INFINITY))

def test_full_disk(p):
    "No file can be written to for a while: calls go on, what is in memory only is counted, and it is stored when there is room"
    def f():
        with installed(p) as (l,ws):
            calls(l, 4)
            full(True)
            calls(l, 10)
            said = l.dropped, n_rows(l)
            full(False)
            l.flush()
            calls(l, 2)
            return said, l.dropped, n_rows(l), l.ledger.check()
    assert Child(f).end()[0]==((10, same(4)), 0, same(16), [])

@pytest.mark.parametrize('end', ['exit','full exit'])
def test_full_disk_at_the_end(p, end):
    "The process ends while rows are in memory only: what there is room for is stored, and the rest is said"
    def f():
        with installed(p, tags=['t'], meta=dict(x='y'*900)) as (l,ws):
            calls(l, 2)
            full(True)
            calls(l, 20)
            assert l.dropped==20
            if end=='exit': full(False)
            logging.getLogger('llm_usage').addHandler(heard := BufferingHandler(100)) # stderr is a file here, and full
            _exit_function() # what is run when a process of multiprocessing ends
            os._exit(3 + any('20 rows' in o.getMessage() and 'are lost' in o.getMessage() for o in heard.buffer))
    Child(f).end((3 + (end=='full exit'))<<8)
    l = Ledger(p)
    assert len(l.rows())==(22 if end=='exit' else 2) and l.check()==[] and not journals(p)

@pytest.mark.parametrize('what', ['file', 'folder'])
def test_read_only(anybodys, what):
    "The file cannot be written to any more, and rows are in the journal; or nothing can be made in the folder, and they are in memory, counted. They are stored when that is over"
    p = anybodys/'usage.db'
    o,off,on = (p, 0o444, 0o644) if what=='file' else (anybodys, 0o555, 0o755)
    def f():
        as_nobody()
        with installed(p) as (l,ws):
            calls(l, 4)
            l.ledger.close()
            o.chmod(off)
            calls(l, 4)
            said = l.dropped, len(l.ledger.journal.rows)
            o.chmod(on)
            return said, l.ledger.check(), n_rows(l), l.dropped
    assert Child(f).end()[0]==((0 if what=='file' else 4, 4), [], same(8), 0)

def test_folder_removed(tmp_path):
    "The folder is removed: rows that were added afterwards, in whichever way, are in a new file"
    p = tmp_path/'a'/'b'/'usage.db'
    with installed(p) as (l,ws):
        calls(l, 4)
        shutil.rmtree(tmp_path/'a')
        calls(l, 4)
        l.ledger.insert_all(rows(3))
        with l.ledger.batch(): l.ledger.add(row('batch'))
        l.ledger.close()
        calls(l, 2)
        assert n_rows(l)==same(10) and l.ledger.check()==[] and (l.dropped, len(ws))==(0, 0)
    assert {*names(3), 'batch'} < {*ids(Ledger(p))}

def test_folder_removed_at_the_end(tmp_path):
    "The folder is removed, and the process ends soon: what it added afterwards is there"
    p = tmp_path/'a'/'usage.db'
    ran('''
import shutil, sys
from llm_usage import Ledger, Usage
l = Ledger(sys.argv[1]); l.add(Usage(call_id='a')); shutil.rmtree(sys.argv[2]); l.add(Usage(call_id='b'))''', p, p.parent)
    assert ids(Ledger(p))==['b']

def test_folder_in_the_way(tmp_path):
    "Where the folder was, there is a file for a while"
    d = tmp_path/'a'
    with installed(d/'usage.db') as (l,ws):
        calls(l, 4)
        shutil.rmtree(d)
        d.write_text('')
        calls(l, 4)
        assert l.dropped==4
        d.unlink()
        calls(l, 2)
        assert n_rows(l)==same(6) and l.dropped==0 and l.ledger.check()==[]

def test_file_replaced(p, tmp_path):
    "Another ledger takes the place of the file: its rows stay, and those that follow are in it"
    other = Ledger(tmp_path/'other.db')
    other.insert_all(rows(3))
    other.close()
    with installed(p) as (l,ws):
        calls(l, 4)
        os.replace(tmp_path/'other.db', p)
        calls(l, 4)
        calls(l, 2)
        assert n_rows(l)==same(9) and l.ledger.check()==[] and (l.dropped, len(ws))==(0, 0)

def test_no_ledger_any_more(p):
    "Something else takes the place of the file: it is left alone, and rows wait in the spool until it goes"
    with installed(p) as (l,ws):
        calls(l, 4)
        os.replace(shutil.copy(__file__, f'{p}-new'), p)
        calls(l, 4)
        assert l.dropped==0 and p.read_text()==Path(__file__).read_text()
        with pytest.raises(ValueError, match='not a SQLite database, and was left as it is'): Ledger(p)
        p.unlink()
        calls(l, 2)
        assert n_rows(l)==same(6) and l.ledger.check()==[]

def test_corrupt_pages(p):
    "Pages in the middle are overwritten while the file is in use: calls go on, `check` says what is wrong, and what came afterwards is not lost"
    with installed(p) as (l,ws):
        l.ledger.insert_all(rows(3000))
        l.ledger.close()
        l.ledger.add(row('x'))
        n = p.stat().st_size
        with open(p, 'r+b') as f: f.seek(4096*2); f.write(random.Random(1).randbytes(n-4096*4))
        calls(l, 6)
        said = l.ledger.check()
        assert said and any('SQLite says' in o for o in said) and l.dropped==0
        got = {u.call_id for u,_ in l.ledger.journal.rows.values()}
        try: got |= {o['call_id'] for o in l.ledger.q('SELECT call_id FROM usage NOT INDEXED WHERE id > 3001')}
        except apsw.Error: pass
        assert len(got)==6

def test_busy(p):
    "Another process holds the ledger: no hook waits for it, rows wait in the journal, and are stored"
    with installed(p) as (l,ws):
        calls(l, 2)
        with held(p):
            for _ in range(20): litellm.completion(**ask)
            assert len(l.ledger.journal.rows)==20 and l.dropped==0 and os.path.getsize(l.ledger.journal.name) > 2000
        assert n_rows(l)==same(22) and l.ledger.check()==[]

def test_busy_ledger_is_waited_for(p):
    "Another process holds the ledger while four threads add rows: they wait, and none fails"
    l = Ledger(p)
    waits = asked(l)
    with ThreadPoolExecutor(4) as ex, held(p) as release:
        fs = [ex.submit(l.add, u) for u in rows(4)]
        assert waits.wait(10) and not any(f.done() for f in fs)
        release()
        assert all(f.result(20).id for f in fs)
    assert ids(l)==names(4)

odd = [b'\xff\xfe\x00 no text', b'{"call_id": "half', b'['*50_000, b'7', b'\r', b'null', '"☃"'.encode(), b'{"call": 7}', b'{"row": []}']

def test_odd_lines(p):
    "Lines that are not understood stay beside the ledger, whatever they are, and hold up nothing"
    Path(left := f'{p}.1-dead.journal').write_bytes(b'\n'.join([line(row=dict(uid='a', tags='["☃"]'), ends=1), *odd, line(row=dict(uid='b', meta='{"x":"\ud800"}', prompt_tokens='many'), ends=2)]))
    Ledger(p).add(row('c'))
    l = Ledger(p)
    said, = l.check()
    assert sorted(o.uid for o in l.rows("uid IN ('a','b')"))==['a','b'] and said.startswith(f'{left}.left stays beside the ledger')
    data = Path(f'{left}.left').read_bytes()
    assert all(o in data for o in odd)

@pytest.mark.parametrize('name', ['with space', '100%25', 'a#b', 'what?mode=ro', 'ünï ☃', '[x]*', "it's; --", 'file:x', '.calls'])
def test_odd_names(tmp_path, name):
    "A folder and a file of any name are found again: by a kill, a spool, a backup and a merge"
    p = tmp_path/name/f'{name}.db'
    def f(): l = Ledger(p); l.add(row('a')); l.begin(call_id='b', timestamp=1.8e9); l.journal.thread = 'none'; l.enqueue(row('c'))
    killed(f)
    l = Ledger(p)
    assert ids(l)==['a','b','c'] and l.check()==[]
    assert ids(b := l.backup(tmp_path/name/'copy.db'))==['a','b','c'] and b.merge(p)==0
    l.close(); b.close()
    assert sorted(o.name for o in p.parent.iterdir() if o.stat().st_size)==sorted([p.name, 'copy.db'])


# Threads, forks and ends

@pytest.mark.parametrize('path', ['usage.db', ':memory:'])
def test_threads_and_upkeep(tmp_path, path):
    "Sixteen threads write in four ways and four read, while another closes the ledger, copies it, purges, vacuums and merges: nobody fails, every row is there"
    p = tmp_path/path if path!=':memory:' else path
    l,done,n = Ledger(p),threading.Event(),30
    other = Ledger(tmp_path/'other.db')
    other.insert_all(rows(20, 'o'))
    other.close()
    def writes(i):
        for k in range(n):
            u = row(f'{i}-{k}')
            if   i%4==0: assert l.add(u).id
            elif i%4==1: assert l.insert_all([u, row(f'{i}-{k}-old', timestamp=1e9)])==2
            elif i%4==2:
                with l.batch(): l.add(u)
            else: l.enqueue(u)
    def reads():
        while not done.is_set():
            us = [o.uid for o in l.rows()]
            assert len({*us})==len(us)
    def tends():
        for k in range(10**6):
            l.close() if path!=':memory:' else l.flush()
            l.backup(tmp_path/f'{k}.db').close()
            l.purge(1.5e9)
            l.vacuum()
            l.merge(tmp_path/'other.db')
            if done.is_set(): return
    with ThreadPoolExecutor(21) as ex:
        ws,rs = [ex.submit(writes, i) for i in range(16)],[ex.submit(o) for o in (reads,reads,reads,reads,tends)]
        for f in ws: f.exception()
        done.set()
    for f in ws+rs: f.result()
    l.purge(1.5e9)
    assert sorted(o for o in ids(l) if not o.endswith('-old'))==sorted([*[f'{i}-{k}' for i in range(16) for k in range(n)], *names(20, 'o')])
    assert l.check()==[]

def test_threads_migrate(p):
    "Eight threads open an old file at the same time, each with a `Ledger` of its own, and read its row"
    old(p)
    with ThreadPoolExecutor(8) as ex: ls = list(ex.map(lambda _: Ledger(p), range(8)))
    assert [[o.prompt_tokens for o in l.rows()] for l in ls]==[[3]]*8

def test_a_batch_that_fails_takes_no_other_row_along(p):
    "Rows of other threads that are acknowledged while a batch reads, and then fails, are there"
    l = Ledger(p)
    with pytest.raises(ZeroDivisionError):
        with l.batch():
            l.add(row('undone'))
            with ThreadPoolExecutor(1) as ex: ex.submit(l.enqueue, row('kept')).result()
            l.rows()
            l.insert_all([row('undone too')])
            1/0
    l.close()
    assert ids(Ledger(p))==['kept']

def test_fork_while_logging(p):
    "Children are forked while threads log and read: each has its own connection, none waits for ever, and no row is lost"
    l,stop = Ledger(p),threading.Event()
    def logs(i):
        k = 0
        while not stop.wait(.002): l.add(row(f't{i}-{k}')); k += 1
        return k
    def reads():
        while not stop.wait(.002): l.q('SELECT count(*) FROM usage'); Ledger(p).close()
    def child(i):
        for u in rows(5, f'c{i}-'): l.add(u)
        return l.q('SELECT count(*) n FROM usage WHERE call_id GLOB :name', name=f'c{i}-*')==[dict(n=5)]
    with ThreadPoolExecutor(3) as ex:
        ts,r = [ex.submit(logs, i) for i in range(2)],ex.submit(reads)
        try:
            for i in range(20): assert Child(child, i).end()==(True, '')
        finally: stop.set()
        r.result()
        ns = [t.result() for t in ts]
    l.flush()
    assert ids(l)==sorted([*[f't{i}-{k}' for i,n in enumerate(ns) for k in range(n)], *[f'c{i}-{k}' for i in range(20) for k in range(5)]]) and l.check()==[]

def test_forked_child_outlives_its_parents_ledger(p):
    "The parent closes its ledger while a child goes on: SQLite does not take the child's log away"
    l = Ledger(p)
    l.add(row('parent'))
    l.rows()
    (r1,w1),(r2,w2) = os.pipe(),os.pipe()
    def child():
        l.add(row('before'))
        os.write(w1, b'.'); os.read(r2, 1)
        for u in rows(5): l.add(u)
        return len(l.rows())
    c = Child(child)
    os.read(r1, 1)
    l.close()
    Ledger(p).close()
    os.write(w2, b'.')
    assert c.end()==(7, '')
    assert ids(Ledger(p))==sorted(['parent', 'before', *names(5)]) and Ledger(p).check()==[]

_script = '''
import atexit, os, signal, sys, time
from multiprocessing import get_context
from llm_usage.core import Usage
from llm_usage.ledger import Ledger
def log(l, name, n=200):
    for i in range(n): l.enqueue(Usage(call_id=f'{{name}}{{i}}'))
def child(name): log(Ledger({path!r}), name)
def inherits(name): log(l, name)
if __name__=='__main__':
    l = Ledger({path!r})
    {end}
'''

_ends = {
    'return':    ("log(l, 'r')",                                                                                0, ['r']),
    'sys.exit':  ("log(l, 'r'); sys.exit(3)",                                                                    3, ['r']),
    'exception': ("log(l, 'r'); 1/0",                                                                            1, ['r']),
    'SIGINT':    ("signal.signal(signal.SIGINT, signal.default_int_handler); log(l, 'r'); os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT, ['r']),
    'SIGTERM':   ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(4)); log(l, 'r'); os.kill(os.getpid(), signal.SIGTERM)", 4, ['r']),
    'flush in a handler': ("signal.signal(signal.SIGTERM, lambda *_: (l.flush(), os._exit(5))); log(l, 'r'); os.kill(os.getpid(), signal.SIGTERM)", 5, ['r']),
    'fork':      ("log(l, 'r'); p = get_context('fork').Process(target=inherits, args='f'); p.start(); p.join()", 0, ['r','f']),
    'spawn':     ("log(l, 'r'); p = get_context('spawn').Process(target=child, args='s'); p.start(); p.join()",   0, ['r','s'])}

def test_ends(tmp_path):
    "However a process ends, other than by a kill, its rows are there, and those of its children; nothing is left beside the ledger"
    ps = {}
    for k,(end,_,_) in _ends.items():
        (d := tmp_path/k).mkdir()
        (d/'script.py').write_text(_script.format(path=str(d/'usage.db'), end=end))
        ps[k] = subprocess.Popen([sys.executable, d/'script.py'], stderr=subprocess.PIPE, text=True)
    for k,(_,code,who) in _ends.items():
        err = ps[k].communicate()[1]
        assert ps[k].returncode==code, (k, err)
        assert ids(Ledger(tmp_path/k/'usage.db'))==sorted(o for w in who for o in names(200, w)), k

@pytest.mark.parametrize('what', ['insert_all','flush'])
def test_ctrl_c_while_waiting(p, what):
    "Ctrl-C while the ledger is waited for: no transaction stays open, no row that waits is lost, and other processes can write"
    def f():
        l,(r,w) = Ledger(p),os.pipe()
        os.set_blocking(w, False)
        signal.set_wakeup_fd(w) # is written to when a signal comes, even if no handler can run yet
        signal.signal(signal.SIGALRM, signal.default_int_handler) # which raises KeyboardInterrupt in whatever is under way
        if what=='flush':
            l.journal.thread = 'none' # this thread is the one that writes
            for u in rows(50): l.enqueue(u)
        def waits(cur, sql, args):
            if sql.startswith('BEGIN'): signal.setitimer(signal.ITIMER_REAL, .05)
            return True
        try:
            with held(p) as release:
                threading.Thread(target=lambda: (os.read(r,1), release()), daemon=True).start()
                l.con.set_exec_trace(waits)
                l.flush() if what=='flush' else l.insert_all(rows(50))
        except KeyboardInterrupt: pass
        else: return 'not interrupted'
        was = l.con.in_transaction
        l.flush()
        return was, bool(Ledger(p).add(row('other')))
    assert Child(f).end()[0]==(False, True)
    assert set(ids(Ledger(p)))-{'other'} == ({*names(50)} if what=='flush' else set())


# Upkeep

def old(path):
    "A file of an older version, which has a row and fewer columns"
    con = apsw.Connection(str(path))
    con.execute("CREATE TABLE usage (id INTEGER PRIMARY KEY, timestamp FLOAT, model TEXT, prompt_tokens INTEGER); INSERT INTO usage VALUES (7, 1.5, 'm', 3)")
    con.close()

def test_merge(tmp_path):
    "A∪A=A, A∪B=B∪A, an older file with fewer columns is taken in and is only read, and a ledger can be merged into itself"
    a,b = Ledger(tmp_path/'a.db'),Ledger(tmp_path/'b.db')
    a.insert_all(rows(30)); b.insert_all([*a.rows()[:10], *rows(20, 'b')])
    assert a.merge(a.path)==0 and a.merge(a.path)==0 and len(a.rows())==30
    old(tmp_path/'old.db')
    x,y = Ledger(tmp_path/'x.db'),Ledger(tmp_path/'y.db')
    assert [x.merge(o) for o in (a.path, b.path, tmp_path/'old.db', a.path)]==[30,20,1,0]
    assert y.merge(tmp_path/'old.db', b.path, a.path, b.path)==51
    facts = lambda l: sorted(str(vars(o) | dict(id=0)) for o in l.rows())
    assert facts(x)==facts(y) and x.check()==y.check()==[] and {*facts(a), *facts(b)} < {*facts(x)}

def test_backup_while_four_threads_write(p, tmp_path):
    "A copy made meanwhile has every row up to some point, and none after it, of each thread"
    l,stop = Ledger(p),threading.Event()
    def writes(i):
        k = 0
        while not stop.is_set(): l.add(row(f'{i}-{k}')); k += 1
        return k
    with ThreadPoolExecutor(4) as ex:
        fs = [ex.submit(writes, i) for i in range(4)]
        try: copies = [(l.q('SELECT max(id) n FROM usage')[0]['n'] or 0, l.backup(tmp_path/f'{k}.db')) for k in range(8)]
        finally: stop.set()
    total = sum(f.result() for f in fs)
    all_ = [vars(o) for o in l.rows()]
    assert len(all_)==total
    for n,c in copies:
        got = [vars(o) for o in c.rows()]
        assert got==all_[:len(got)] and len(got) >= n and c.check()==[]

def test_purge_and_vacuum(p):
    "What is left after a purge is whole, and no number is given twice"
    l = Ledger(p)
    l.insert_all(row(f'r{i}', timestamp=1e9+i) for i in range(500))
    seen = {o.id for o in l.rows()}
    for k in range(4):
        l.purge(1e9+100*(k+1) if k<3 else 3e9)
        if k%2: l.vacuum(); l.close()
        new = l.add(row(f'n{k}')).id
        assert new not in seen and l.check()==[]
        seen.add(new)
    assert max(o.id for o in l.rows())==max(seen) and l.read(lambda con: con.execute('PRAGMA integrity_check').fetchall())==[('ok',)]


# Asking changes nothing

questions = dict(total=lambda l: l.total(), rows=lambda l: l.rows(), q=lambda l: l.q('SELECT count(*) n FROM usage'), usage=lambda l: l.usage(), df=lambda l: l.df(),
    spend=lambda l: l.spend('day','model'), user=lambda l: l.spend('user', where="user_id='ada'"), tag=lambda l: l.spend('tag'), cell=lambda l: l.spend('notebook','cell'), top=lambda l: l.top(3, 'model'),
    latency=lambda l: l.latency('tag'), sessions=lambda l: l.sessions(), tree=lambda l: l.tree('user model'), cache_report=lambda l: l.cache_report(), compare=lambda l: l.compare('2026-10', '2026-11'),
    forecast=lambda l: l.forecast(until='2026-11-30', now=1795500000.), unpriced=lambda l: l.unpriced(), reprice=lambda l: l.reprice(), what_if=lambda l: l.what_if('gpt-5.6-luna'), repr=repr, check=lambda l: l.check())
commands = [*'daily weekly monthly sessions models users teams tags total tail statusline unpriced reprice check'.split(), 'daily --json', 'users -b', 'what-if gpt-5.6-luna']

def state(d):
    "The files in the folder `d`: what is in each, when it was written to, and its mode; SQLite keeps its locks in one of them"
    return {o.name: '-shm' if o.name.endswith('-shm') else (o.read_bytes(), o.stat().st_mtime_ns, o.stat().st_mode) for o in d.iterdir() if o.is_file()}

def days(n=20): return [row(f'd{i}', timestamp=1795500000.-i*86400, model='claude-sonnet-5-5', provider='anthropic', user_id='ada', session_id='s', tags='["t"]',
                            latency=1., prompt_tokens=100, cache_read_tokens=50, total_tokens=101) for i in range(n)]

def command(argv):
    "The exit code of the command line"
    from llm_usage.cli import main
    with pytest.raises(SystemExit) as e: main(argv)
    return e.value.code

def interviewed(p):
    "Ask the ledger at `p` all there is to ask, each with a ledger of its own and with one for all; returns how many calls it has"
    l = Ledger(p)
    for f in questions.values():
        for o in (l, Ledger(p)): f(o); o is l or o.close()
    for o in commands: assert command([*o.split(), '--db', str(p)])==0, o
    l.close()
    return l.total().calls

@pytest.mark.parametrize('make', [os.mkdir, os.mkfifo])
def test_what_is_no_file(tmp_path, make):
    "A folder or a pipe is no ledger, and nobody waits for it"
    make(p := tmp_path/'usage.db')
    with pytest.raises(ValueError, match='not a ledger: it is no file'): Ledger(p)

def test_asking_makes_no_folder(tmp_path):
    with pytest.raises(OSError): Ledger(tmp_path/'a'/'usage.db', asking=True)
    assert not (tmp_path/'a').exists()

@pytest.mark.parametrize('how', ['closed','open','killed','old','read-only'])
def test_asking_changes_nothing(anybodys, how, capsys):
    "Not a byte of a ledger changes, nor its time, nor what lies beside it, while it is asked all there is to ask: one that nobody has open, that another writes to, whose writer was killed, of an older version, or that may only be read"
    p = anybodys/'usage.db'
    if how=='old':
        with closing(Ledger(p)) as l, l.writing() as con: con.execute('ALTER TABLE usage DROP COLUMN cost_lacks'); con.execute('DROP INDEX usage_asks'); con.execute('ALTER TABLE usage DROP COLUMN error')
    (l := Ledger(p)).insert_all(days()) if how!='old' else None
    if how=='old':
        with closing(apsw.Connection(str(p))) as con: con.executemany('INSERT INTO usage (uid, timestamp, model, provider, prompt_tokens, response_cost, usage_source) VALUES (?,?,?,?,?,?,?)',
            [(u.call_id, u.timestamp, u.model, u.provider, u.prompt_tokens, u.response_cost, 'reported') for u in days()])
    else: l.close()
    writer = python("import sys; from llm_usage import *; l = Ledger(sys.argv[1]); l.add(Usage(call_id='w', timestamp=1795500000., model='m', response_cost=.5)); print('.', flush=True); sys.stdin.readline()", p) if how in ('open','killed') else None
    if writer: assert writer.stdout.read(1)=='.'
    if how=='killed': writer.kill(); writer.communicate()
    if how=='read-only': p.chmod(0o444); anybodys.chmod(0o555)
    was = state(anybodys)
    def f(): as_nobody() if how=='read-only' else None; return interviewed(p)
    n = Child(f).end()[0] if how=='read-only' else interviewed(p)
    assert state(anybodys)==was and n==20+bool(writer)
    if how=='open': writer.communicate('\n'); assert ids(Ledger(p))[-1]=='w'

def others(p):
    "Make the database of another program"
    with closing(apsw.Connection(str(p))) as con: con.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO users VALUES (1, 'ada')")

def other_usage(p):
    "Make a database of another program, which has a table of our name"
    with closing(apsw.Connection(str(p))) as con: con.execute('PRAGMA journal_mode=WAL').fetchall(); con.execute('CREATE TABLE usage (id INTEGER PRIMARY KEY, bytes INTEGER)')

def no_numbers(p):
    "Make a database of another program, which has a table of our name, and columns as ours"
    with closing(apsw.Connection(str(p))) as con: con.execute('CREATE TABLE usage (timestamp, model, prompt_tokens)')

@pytest.mark.parametrize('kind', [lambda p: p.write_text('no database '*99), others, other_usage, no_numbers, lambda p: p.write_bytes(b'')], ids=['text','others','usage','no numbers','empty'])
def test_no_ledger(p, kind, capsys):
    "A file that is no ledger is left as it is, whatever is asked of it, and the error says so; only an empty one becomes one, when a row is stored in it"
    kind(p)
    was,empty = state(p.parent),p.stat().st_size==0
    for k,f in questions.items():
        if k=='check' and empty: assert any('not a ledger' in o for o in Ledger(p).check()); continue
        with pytest.raises((ValueError,FileNotFoundError), match='not a ledger'): f(Ledger(p))
    with pytest.raises((ValueError,FileNotFoundError), match='not a ledger'): Ledger(':memory:').merge(p)
    for o in commands:
        assert command([*o.split(), '--db', str(p)])==(1 if o=='check' and empty else 2), o
        assert 'not a ledger' in ''.join(capsys.readouterr())
    assert state(p.parent)==was
    if empty: assert Ledger(p).add(row('a')).id==1; return
    with pytest.raises(ValueError, match='not a ledger'): Ledger(p).add(row('a'))
    assert state(p.parent)==was

@pytest.mark.parametrize('what', ['pages','end','a byte','half','a page','all but the first'])
def test_damaged(p, what, capsys):
    "Pages are overwritten, or the file is cut: `check` says so in words, and whatever else is asked raises one error that does, or answers"
    with closing(Ledger(p)) as l: l.insert_all(days(15)+rows(3000))
    n,r = p.stat().st_size,random.Random(1)
    with open(p, 'r+b') as f:
        if   what=='end': f.truncate(n-4096*3-100)
        elif what=='a byte': f.truncate(n-1)
        elif what=='half': f.truncate(n//2)
        elif what=='all but the first': f.truncate(4096)
        elif what=='a page': f.seek(4096); f.write(r.randbytes(4096))
        else: f.seek(4096*3); f.write(r.randbytes(n-4096*6))
    was = state(p.parent)
    said = Ledger(p).check()
    assert said and all(o.startswith('SQLite says: ') for o in said)
    for k,f in questions.items():
        try: f(Ledger(p))
        except apsw.CorruptError: assert k=='usage' # which is fastlite's
        except (OSError,ValueError) as e: assert 'usage.db cannot be read: ' in str(e) and '`check` says' in str(e), (k, e)
    assert command(['check', '--db', str(p)])==1 and 'SQLite says' in capsys.readouterr().out
    for o in commands: assert command([*o.split(), '--db', str(p)]) in (0,1,2)
    assert state(p.parent)==was

def test_private_files(p, monkeypatch):
    "What is made is for its owner only, whatever the umask; what is there keeps its mode"
    from llm_usage import rollup
    def f():
        os.umask(0)
        rollup._beyond = 0
        l = Ledger(p)
        l.insert_all(rows(9)); l.spend('model'); l.begin(call_id='c'); l.backup(p.with_name('copy.db'))
        return {o.suffix if o.suffix=='.journal' else o.name: o.stat().st_mode & 0o777 for o in p.parent.iterdir()}
    made = Child(f).end()[0]
    assert {*made.values()}=={0o600} and {'usage.db','usage.db-wal','usage.db-shm','usage.db-rollups','copy.db','.journal'} <= {*made}, made
    p.chmod(0o640)
    l = Ledger(p)
    l.add(row('x'))
    assert p.stat().st_mode & 0o777==0o640

lies = [dict(prompt_tokens=2**62, completion_tokens=2**63-1), dict(prompt_tokens=-2**63), dict(response_cost=1e300, inp_usd=-1e300), dict(response_cost='9e999'), dict(response_cost='many'), dict(response_cost=-5.),
        dict(details='[broken', origin='cache', response_cost=None), dict(details='{"saved_usd": 1e999}', origin='cache'), dict(details='{"seconds": 1e30}', response_cost=None), dict(meta='{broken'), dict(meta='{"notebook": NaN}'),
        dict(meta='{"notebook": {"a": [1]}, "cell": true}', response_cost=None), dict(meta='[1]', response_cost=None), dict(tags='{broken'), dict(tags='"docs"'), dict(tags='5', response_cost=None), dict(tags='[["a"], null]'),
        dict(timestamp=1e300), dict(timestamp=-1e9), dict(timestamp='soon'), dict(timestamp=None), dict(latency=1e300, ttft='x'), dict(latency=float('inf'), session_id='s'), dict(adjusts='lie0', origin='adjustment', response_cost=1e300),
        dict(model=b'\xff', provider=b'\xfe', user_id=b'\xff', service_tier=b'\x00', status=None)]

def test_text_that_is_no_text(p):
    "Text that another program wrote, and that is not UTF-8: the error says so, and of which file"
    l = Ledger(p)
    l.add(row('a'))
    with l.writing() as con: con.execute("UPDATE usage SET model=CAST(x'ff41' AS TEXT)")
    with pytest.raises(OSError, match='usage.db cannot be read: it has text that is not UTF-8'): l.rows()
    assert l.total().calls==1 and l.check()==['rows that have text that is not UTF-8: id 1']

def test_the_latest_time(p):
    "What `add` refuses, `check` finds"
    l = Ledger(p)
    l.insert_all([row('a'), row('b')])
    with l.writing() as con: con.execute('UPDATE usage SET timestamp=9e9 WHERE id=2')
    assert 'rows that have a time that cannot be: id 2' in l.check()

@pytest.mark.parametrize('beyond', [0, 50_000])
def test_lies_in_the_file(p, beyond, monkeypatch, capsys):
    "Rows that another program wrote, and that cannot be, are found by `check`, in words; every report goes on, counts all calls, and adds up to a number"
    from llm_usage import rollup
    monkeypatch.setattr(rollup, '_beyond', beyond)
    l = Ledger(p)
    l.insert_all(days(15))
    with l.writing() as con:
        for i,o in enumerate([*lies, *lies]): con.execute(f"INSERT INTO usage (uid, call_id, {', '.join(r := dict(model='claude-sonnet-5-5', provider='anthropic', timestamp=1795400000., prompt_tokens=9, cache_read_tokens=1, response_cost=.5) | o)}) VALUES ({', '.join('?'*(len(r)+2))})",
            (f'lie{i}', f'lie{i}', *r.values()))
    said = ' '.join(l.check())
    for o in ('a count that cannot be','an amount that cannot be','details, meta or tags that are not JSON','a time that cannot be','have no time'): assert o in said, o
    assert next(o for o in l.check() if 'a time that cannot be' in o).endswith(' and 1 more') # three of the lies, each told twice, of which five are named
    for k,f in questions.items(): k=='what_if' or f(l)
    assert all(repr(u) and repr(u.receipt()) for u in l.rows())
    n = 15+2*(len(lies)-1)
    for by in ('model','day','tag','notebook','cell','user','session'):
        t = l.spend(by).attrs['total']
        w = l.total()
        assert (t.calls, t.priced)==(n, w.priced) and t.amount==pytest.approx(w.amount) and t.saved==pytest.approx(w.saved) and 0 < t.amount < 1e3
    assert l.spend('notebook').priced.min() >= 0 and l.spend('tag').priced.min() >= 0
    assert l.total().unpriced >= 2*3 # the amounts that cannot be
    for o in commands: assert 'what-if' in o or command([*o.split(), '--db', str(p)])==(1 if o=='check' else 0), (o, capsys.readouterr())
    for by in ('model','user'): assert l.spend(by).calls.sum()==n
    assert l.purge(1795450000., keep=True) and l.total().calls==n and l.spend('model').calls.sum()==n
