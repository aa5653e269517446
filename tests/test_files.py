"""Files of JSON lines, which many processes write: kills, forks, a disk that is full, and days that end."""
import gzip, json, logging, os, resource, time
from contextlib import closing
import pytest
from standins import serve
from helpers import ids, python, ran, row
from llm_usage import JSONLSink, Ledger
from llm_usage.files import take_jsonl, jsonl_files

yesterday = time.time()-86400

def lines(folder):
    "The lines of all files in a folder"
    return [o for f in jsonl_files(folder) for o in (gzip.open if f.endswith('.gz') else open)(f, 'rb').read().splitlines()]

def call_ids(folder): return sorted(json.loads(o)['call_id'] for o in lines(folder))

def test_many_writers(tmp_path):
    "Six processes of four threads write to one file: each line is whole, each row is there once, and a ledger gets them all"
    code = '''
import sys, threading
from llm_usage import JSONLSink, Usage
s = JSONLSink(sys.argv[1])
def write(t):
    for i in range(50): s.enqueue(Usage(call_id=f'{sys.argv[2]}-{t}-{i}', timestamp=1.8e9, meta=dict(note='x'*(i*40))))
ts = [threading.Thread(target=write, args=(t,)) for t in range(4)]
for o in ts: o.start()
for o in ts: o.join()
print(s.dropped)'''
    ps = [python(code, tmp_path, i) for i in range(6)]
    assert [o.communicate(timeout=100) for o in ps]==[('0\n','')]*6
    assert call_ids(tmp_path)==sorted(f'{p}-{t}-{i}' for p in range(6) for t in range(4) for i in range(50))
    with closing(Ledger(':memory:')) as l: assert [l.read_jsonl(tmp_path) for _ in range(2)]==[1200,0]

_calls = dict(
    plain  = 'litellm.completion(**kw)',
    stream = 'for o in litellm.completion(stream=True, **kw): pass',
    wait   = 'asyncio.run(litellm.acompletion(**kw))',
    failed = '''
try: litellm.completion(**kw | dict(messages=[dict(role='user', content='Is anybody there?')]))
except litellm.NotFoundError: pass''')

@pytest.mark.parametrize('how', _calls)
def test_killed_with_the_reply(tmp_path, how):
    "A process that is killed as soon as it has the reply leaves the row in the file"
    code = f'''
import asyncio, os, sys, litellm
from llm_usage import UsageLogger
UsageLogger(jsonl=sys.argv[1], user_id='ada').install()
kw = dict(model='openai/gpt-5.6-luna', messages=[dict(role='user', content='What is 2+2?')], api_base=sys.argv[2]+'/v1', api_key='k', max_tokens=9, num_retries=0, max_retries=0)
{_calls[how]}
os.kill(os.getpid(), 9)'''
    with serve() as url, python(code, tmp_path/'logs', url) as p: _,err = p.communicate(timeout=100)
    o, = map(json.loads, lines(tmp_path/'logs'))
    assert (p.returncode, o['user_id'], o['status'])==(-9, 'ada', 'failed' if how=='failed' else 'ok'), err

def limited(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def test_full_disk(tmp_path, caplog):
    "A disk takes half a line, then none: the rows wait, one warning says so, and all are there when it has room, beside the half line"
    s = JSONLSink(tmp_path/'logs')
    s.enqueue(row('a', timestamp=1.8e9))
    f, = (tmp_path/'logs').iterdir()
    limited(f.stat().st_size + 20)
    try:
        for o in 'bc': s.enqueue(row(o, timestamp=1.8e9))
        assert (s.dropped, len(lines(f)))==(2,2)
    finally: limited(resource.RLIM_INFINITY)
    s.enqueue(row('d', timestamp=1.8e9))
    with closing(Ledger(':memory:')) as l:
        assert take_jsonl(l, [str(f)])==(4, 0, f'1 line is no row, and was left out: {f}, line 2')
        assert (ids(l), s.dropped, len(caplog.records))==([*'abcd'], 0, 1)

def test_full_disk_to_the_end(tmp_path):
    "A process ends while the disk is full, and says what is lost"
    code = '''
import resource, sys
from llm_usage import JSONLSink, Usage
s = JSONLSink(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
for i in range(3): s.enqueue(Usage(call_id=str(i)))'''
    with python(code, tmp_path) as p: _,err = p.communicate(timeout=100)
    assert p.returncode==0 and [o.partition(': ')[0] for o in err.splitlines()]==[f'rows for {tmp_path} wait in memory', '3 rows are lost']

def test_fork(tmp_path):
    "A forked child writes its own rows, and not those that wait in its parent"
    s = JSONLSink(tmp_path/'logs')
    os.rmdir(s.path); (tmp_path/'logs').touch()
    s.enqueue(row('parent', timestamp=1.8e9))
    os.unlink(s.path)
    if not (pid := os.fork()):
        try: s.enqueue(row('child', timestamp=1.8e9))
        finally: os._exit(0)
    os.waitpid(pid, 0)
    assert call_ids(s.path)==['child']
    s.flush()
    assert call_ids(s.path)==['child','parent']

_midnight = '''
import sys, time
from llm_usage import JSONLSink, Usage
s = JSONLSink(sys.argv[1], compress=True)
for i in range(200):
    for day in (0,1): s.enqueue(Usage(call_id=f'{sys.argv[2]}-{day}-{i}', timestamp=time.time()-86400*day))
    if i%5==0: s.tidy()
    print(i, flush=True)
s.close()'''

def test_midnight(tmp_path):
    "Two processes compress a day that is over, while both still get rows of it: each row is there once"
    ps = [python(_midnight, tmp_path, i) for i in range(2)]
    assert {o.communicate(timeout=100)[1] for o in ps}=={''}
    JSONLSink(tmp_path).tidy()
    said = sorted(f'{p}-{day}-{i}' for p in range(2) for day in (0,1) for i in range(200))
    assert call_ids(tmp_path)==said
    assert [o.suffix for o in sorted(tmp_path.iterdir())]==['.gz','.jsonl'] # yesterday and today, and nothing left over

@pytest.mark.parametrize('n', [3,40,97])
def test_killed_while_compressing(tmp_path, n):
    "A process is killed while it compresses again and again: what it wrote is there, and the next one goes on"
    with python(_midnight, tmp_path, 0) as p:
        for _ in range(n): said = int(p.stdout.readline())
        p.kill()
    s = JSONLSink(tmp_path, compress=True)
    s.enqueue(row('next', timestamp=yesterday))
    s.close()
    with closing(Ledger(':memory:')) as l:
        l.read_jsonl(tmp_path)
        assert {f'0-{day}-{i}' for day in (0,1) for i in range(said+1)} | {'next'} <= {*ids(l)}
    assert not [*tmp_path.glob('*.new')]

def test_one_compresses_at_a_time(tmp_path):
    "While another process has the lock on the folder, a writer goes on, and compresses nothing"
    code = '''
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(fd, fcntl.LOCK_EX)
print('locked', flush=True)
sys.stdin.readline()'''
    s = JSONLSink(tmp_path)
    with python(code, tmp_path) as p:
        assert p.stdout.readline()=='locked\n'
        s.enqueue(row('a', timestamp=yesterday))
        assert s.tidy()==0
        p.communicate('\n')
    assert s.tidy()==1 and call_ids(tmp_path)==['a']

def test_a_large_file_needs_little_memory(tmp_path):
    "A file of 40 MB is read with less than 20 MB of memory"
    out = ran('''
import json, sys, tracemalloc
from pathlib import Path
from llm_usage import Ledger
f = Path(sys.argv[1])/'a.jsonl'
with f.open('w') as o: o.writelines(json.dumps(dict(uid=f'u{i}', timestamp=1.8e9+i, meta=json.dumps(dict(note='x'*2000))))+'\\n' for i in range(20_000))
l = Ledger(Path(sys.argv[1])/'usage.db')
tracemalloc.start()
print(f.stat().st_size > 40e6, l.read_jsonl(f), tracemalloc.get_traced_memory()[1] < 20e6)''', tmp_path)
    assert out=='True 20000 True\n'
