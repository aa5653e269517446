"""Several processes and one ledger, and what is left when one is killed: nothing that fits on a page."""
import os, signal, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from llm_usage.core import Usage
from llm_usage.ledger import Ledger

def python(code, **kw): return subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)

_writer = '''
import sys
from llm_usage.core import Usage
from llm_usage.ledger import Ledger
l = Ledger({path!r})
for i in range({n}):
    l.add(Usage(call_id=f'{name}-{{i}}', model='m', prompt_tokens=1, completion_tokens=1, usage_source='reported', response_cost=.001))
    print(i, flush=True)
'''

def test_processes_share_a_file(tmp_path):
    "Six processes start at once on a file that is not there, and every row of each is in it"
    p = str(tmp_path/'usage.db')
    ps = [python(_writer.format(path=p, n=200, name=f'p{i}')) for i in range(6)]
    outs = [o.communicate() for o in ps]
    assert [o.returncode for o in ps]==[0]*6, [e for _,e in outs]
    l = Ledger(p)
    assert l.q('SELECT count(*) n, count(DISTINCT uid) u FROM usage')==[dict(n=1200, u=1200)]
    assert abs(l.total().amount - 1.2) < 1e-9 and l.check()==[]

def test_kill_loses_nothing_acknowledged(tmp_path):
    "A process is killed while it writes: each row whose `add` had returned is there"
    p = str(tmp_path/'usage.db')
    w = python(_writer.format(path=p, n=100_000, name='w'))
    last = [int(w.stdout.readline()) for _ in range(300)][-1]
    w.send_signal(signal.SIGKILL)
    w.wait()
    last = max([last, *map(int, (o for o in w.stdout.read().split() if o))])
    l = Ledger(p)
    have = {o['call_id'] for o in l.q('SELECT call_id FROM usage')}
    assert {f'w-{i}' for i in range(last)} <= have
    assert l.q('PRAGMA integrity_check')[0]['integrity_check']=='ok'

def test_forked_child_has_its_own_connection(tmp_path):
    l = Ledger(tmp_path/'usage.db')
    l.add(Usage(call_id='parent'))
    if not (pid := os.fork()):
        try: ok = l.add(Usage(call_id='child')) is not None and len(l.rows())==2
        finally: os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1]==0
    l.add(Usage(call_id='parent again'))
    assert sorted(o.call_id for o in l.rows())==['child', 'parent', 'parent again']

def test_migration_races(tmp_path):
    "Eight threads open an old file at the same time, each with its own `Ledger`"
    import apsw
    p = str(tmp_path/'old.db')
    con = apsw.Connection(p)
    con.execute("CREATE TABLE usage (id INTEGER PRIMARY KEY, timestamp FLOAT, model TEXT, prompt_tokens INTEGER); INSERT INTO usage VALUES (1, 1.5, 'm', 3)")
    con.close()
    with ThreadPoolExecutor(8) as ex: ls = list(ex.map(lambda _: Ledger(p), range(8)))
    assert [l.rows()[0].prompt_tokens for l in ls]==[3]*8

def test_busy_ledger_is_waited_for(tmp_path):
    "Another process holds the write lock while rows are added: they wait, and none fails"
    p = str(tmp_path/'usage.db')
    l = Ledger(p)
    held = python(f'''
import apsw, sys
c = apsw.Connection({p!r}); c.set_busy_timeout(10000); c.execute('BEGIN IMMEDIATE'); print('held', flush=True)
sys.stdin.readline(); c.execute('COMMIT')''', stdin=subprocess.PIPE)
    assert held.stdout.readline().strip()=='held'
    with ThreadPoolExecutor(4) as ex:
        fs = [ex.submit(l.add, Usage(call_id=f'c{i}')) for i in range(4)]
        assert not any(f.done() for f in fs)
        held.communicate('\n')
        assert all(f.result().id for f in fs)
    assert len(l.rows())==4
