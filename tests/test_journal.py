"""What lies beside a ledger, and what others do to it: copies, another SQLite, other spellings of its path, files that are no journals, calls by the ten thousand, and ends of all kinds."""
import asyncio, json, os, resource, socket, sqlite3, threading
from contextlib import closing
from pathlib import Path
import litellm, pytest
from helpers import ids, python, ran, row
from llm_usage import Ledger, UsageLogger
from llm_usage.journal import line

def fds(): return len(os.listdir('/proc/self/fd'))
def journals(p): return [*p.parent.glob('*.journal')]

# Others in the same process

_others = '''
import os, shutil, sqlite3, sys
from pathlib import Path
from llm_usage import Ledger, Usage
p = Path(sys.argv[1])
l = Ledger(p)
l.begin(call_id='under way', timestamp=1.8e9)
(p.parent.parent/'link').symlink_to(p.parent)
twice = Ledger(p.parent.parent/'link'/p.name)
for i in range(30):
    twice.enqueue(Usage(call_id=f'r{i}')) if i%2 else l.add(Usage(call_id=f'r{i}'))
    twice.flush()
    con = sqlite3.connect(p); con.execute('SELECT count(*) FROM usage').fetchall(); con.close()
shutil.copytree(p.parent, p.parent.parent/'copy')
shutil.make_archive(p.parent.parent/'zip', 'zip', p.parent)
for o in p.parent.iterdir(): o.read_bytes()
print('ready', flush=True)
sys.stdin.readline()
os.kill(os.getpid(), 9)'''

def test_copies_spellings_and_another_sqlite(tmp_path):
    "The process that writes also copies, zips and reads the folder, opens the ledger by a link, and asks it by sqlite3: it is not taken for dead, and its rows survive a kill"
    p = tmp_path/'ledger'/'usage.db'
    p.parent.mkdir()
    o = python(_others, p)
    assert o.stdout.readline()=='ready\n', o.communicate()[1]
    said = sorted(f'r{i}' for i in range(30))
    with closing(Ledger(p)) as l: assert ids(l)==said and l.check()==[] and l.recover()==(0, {})
    o.communicate('\n')
    with closing(Ledger(p)) as l:
        assert ids(l)==[*said, 'under way'] and l.rows("call_id='under way'")[0].status=='orphaned' and l.check()==[]
    assert not journals(p)

def test_a_name_that_begins_like_another(tmp_path):
    "Of two ledgers in a folder, whose names begin alike, each takes over its own files"
    for name in ('usage.db','usage.db.old','usage.db.1-x'):
        Path(f'{tmp_path/name}.1-dead.journal').write_bytes(line(row=vars(row(name, uid=name)), ends=None))
        (tmp_path/f'{name}.2-odd.journal').write_bytes(b'odd')
    for name in ('usage.db','usage.db.old','usage.db.1-x'):
        with closing(Ledger(tmp_path/name)) as l: assert ids(l)==[name] and [o.split()[0] for o in l.check()]==[f'{tmp_path/name}.2-odd.journal.left']

def test_two_take_over_one_file(p):
    "Eight processes open the ledger of one that was killed: each row is there once, and nothing is left beside it"
    Path(f'{p}.1-dead.journal').write_bytes(b''.join([line(begin=1, call=dict(call_id='u', timestamp=1.8e9)), *[line(row=vars(row(f'{i}', uid=f'u{i}')), ends=None) for i in range(3000)]]))
    code = 'import sys; from llm_usage import Ledger; sys.stdin.readline(); l = Ledger(sys.argv[1]); print(len(l.rows()), l.check())'
    ps = [python(code, p) for _ in range(8)]
    outs = [o.communicate('\n', timeout=60) for o in ps]
    assert not any(o.returncode for o in ps), outs
    with closing(Ledger(p)) as l: assert len(l.rows())==3001 and l.check()==[] and not journals(p)

# Files that are none

def sparse(f): f.touch(); os.truncate(f, 1<<40)
def a_socket(f):
    with closing(socket.socket(socket.AF_UNIX)) as s: s.bind(str(f))

odd = {
    'empty':    lambda f: f.touch(),
    'zeros':    lambda f: f.write_bytes(bytes(5000)),
    'huge':     sparse,
    'a folder': lambda f: f.mkdir(),
    'a pipe':   os.mkfifo,
    'a device': lambda f: f.symlink_to('/dev/zero'),
    'a link':   lambda f: f.symlink_to('/etc/hostname'),
    'nowhere':  lambda f: f.symlink_to(f.parent/'nothing'),
    'a socket': a_socket,
    'lines':    lambda f: f.write_bytes(b'\n'*3_000_000),
    'foreign':  lambda f: f.write_bytes(b'SQLite format 3\0' + bytes(range(256))*40),
    'other':    lambda f: f.write_bytes(line(version=9, kind='row', data=[1,2,3])),
    'deep':     lambda f: f.write_bytes(b'['*500_000 + b'\n'),
    'long':     lambda f: f.write_bytes(b'{"row":{"model":"' + b'x'*5_000_000),
    'numbers':  lambda f: f.write_bytes(b'{"row":{"uid":"n","prompt_tokens":1e999,"response_cost":-1e308}}\n7\nnull\n"x"\n'),
    'cut':      lambda f: f.write_bytes(line(row=vars(row('half', uid='half')), ends=1)[:-30]),
    'begins':   lambda f: f.write_bytes(b''.join(b'{"begin":%d,"call":{}}\n{"ends":%d}\n' % (i,i) for i in range(100_000)))}
gone = {('cut','journal'), ('begins','journal'), ('zeros','calls'), ('lines','spool'), *(('empty',o) for o in ('journal','calls','spool'))} # in which nothing is missing
kept = {'a folder','nowhere','a socket'} # cannot be opened

_open = '''
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
from llm_usage.ledger import Ledger
l = Ledger(sys.argv[1])
print(json.dumps([sorted(str(u.call_id) for u in l.rows()), l.check()]))'''

@pytest.mark.parametrize('ext', ['journal','calls','spool'])
@pytest.mark.parametrize('what', odd)
def test_what_is_no_journal(tmp_path, what, ext):
    "Whatever lies beside a ledger, it opens with little memory, the rows of others are taken over, and what is not understood stays and is named"
    p = tmp_path/'usage.db'
    f = tmp_path/f'usage.db.{"spool.jsonl" if ext=="spool" else f"1-odd.{ext}"}'
    odd[what](f)
    Path(f'{p}.2-dead.journal').write_bytes(line(row=vars(row('good', uid='good')), ends=1))
    names,said = json.loads(ran(_open, p, 700<<20))
    left = [o.name for o in tmp_path.iterdir() if o.name.startswith(f.name)]
    assert 'good' in names and 'half' not in names
    assert bool(left)==((what,ext) not in gone)
    if left and what not in kept: assert len(said)==1 and f.name in said[0], said

# Ten thousands of calls

def test_many_calls_in_flight(p):
    "Of 70,000 calls that began at once, and ended, nothing is kept: no descriptor, no line, no file"
    l,before = Ledger(p),fds()
    ns = [l.begin(call_id=f'c{i}', timestamp=1.8e9) for i in range(70_000)]
    assert len(l.journal.begun)==70_000 and fds()==before+1
    for n in ns: l.journal.forget(n)
    l.flush()
    assert os.path.getsize(l.journal.name)==0 and not l.journal.begun
    l.close()
    assert not journals(p) and fds() <= before

def test_cancelled_calls_are_given_back(p):
    "Each of 800 calls that were cancelled is a row at once, and nothing of it is kept"
    async def main():
        here,all_here = [],asyncio.Event()
        async def silent(reader, writer):
            here.append(writer)
            if len(here)%50==0: all_here.set()
        srv = await asyncio.start_server(silent, '127.0.0.1', 0, backlog=200)
        url = 'http://{}:{}'.format(*srv.sockets[0].getsockname())
        for _ in range(16):
            ts = [asyncio.create_task(litellm.acompletion('openai/gpt-5.6-luna', [dict(role='user', content='hi')], api_base=url, api_key='x', max_retries=0)) for _ in range(50)]
            await all_here.wait()
            all_here.clear()
            for t in ts: t.cancel()
            await asyncio.wait(ts)
        del ts, t
        n = len(l.ledger.rows()),len(l.ledger.journal.begun),len(l._open)
        srv.close()
        return n, await l.aflush()
    with UsageLogger(p) as l: n,late = asyncio.run(main())
    assert (n, late)==((800, 0, 0), []) and {u.status for u in l.ledger.rows()}=={'partial'}

def test_a_backlog_is_handed_on(p, monkeypatch):
    "More rows than there is room for in memory, while the ledger cannot be written: they go to whoever opens it next, and none is lost"
    import llm_usage.journal as j
    monkeypatch.setattr(j, 'MAX_ROWS', 500)
    with closing(sqlite3.connect(p)) as con:
        l = Ledger(p)
        l.add(row('first'))
        con.execute('BEGIN IMMEDIATE')
        n = l.begin(call_id='under way', timestamp=1.8e9)
        for i in range(2000): l.enqueue(row(f'{i}'))
        assert len(l.journal.rows) <= 500 and l.dropped==0 and len(journals(p)) > 3
        con.execute('COMMIT')
    assert len(l.rows())==2001-1500 and l.recover()[0]==1500 and len(l.rows())==2001
    l.enqueue(row('under way'), n)
    assert [u.status for u in l.rows("call_id='under way'")]==['ok'] and l.check()==[]
    l.close()
    assert not journals(p)

def test_the_file_stays_small(p):
    "While some calls are always under way, a journal is written anew before it has grown far beyond what is needed"
    l = Ledger(p)
    n = l.begin(call_id='long', timestamp=1.8e9)
    most = 0
    for i in range(40):
        for k in range(200): l.enqueue(row(f'{i}-{k}', error='x'*400))
        l.flush()
        most = max(most, os.path.getsize(l.journal.name))
    assert most < 14_000_000 and b'"begin"' in Path(l.journal.name).read_bytes()[:20] and len(l.rows())==8000
    l.journal.forget(n)
    l.close()

# Ends

_ask   = "dict(model='gpt-4o-mini', messages=[dict(role='user', content='What is 2+2?')], mock_response='4')"
_kinds = {
    'sync':         f'litellm.completion(**{_ask})',
    'stream':       f'[*litellm.completion(**{_ask}, stream=True)]',
    'thread':       f't = threading.Thread(target=lambda: litellm.completion(**{_ask})); t.start(); t.join()',
    'async':        f'end(await litellm.acompletion(**{_ask}))',
    'async stream': f'end([o async for o in await litellm.acompletion(**{_ask}, stream=True)])'}
_ends  = {'kill -9': 'os.kill(os.getpid(), 9)', 'SIGTERM': 'os.kill(os.getpid(), 15)', 'os._exit': 'os._exit(0)'}

def test_the_first_call_of_a_process(tmp_path):
    "A process ends without notice when the caller of its first call has the reply: the row is there, with its tokens and its cost, whatever the kind of call and the end"
    cases = [(k,e) for k in _kinds for e in _ends if e=='kill -9' or k in ('sync','async stream')]
    ps = {}
    for k,e in cases:
        body = f'async def main(): {_kinds[k]}\nasyncio.run(main())' if 'await' in _kinds[k] else f'{_kinds[k]}\nend(0)'
        code = f'import asyncio, litellm, os, sys, threading\nfrom llm_usage import UsageLogger\ndef end(_): {_ends[e]}\nUsageLogger(sys.argv[1], user_id="ada").install()\n{body}'
        ps[k,e] = python(code, tmp_path/f'{k}-{e}.db')
    for (k,e),o in ps.items():
        _,err = o.communicate(timeout=200)
        with closing(Ledger(tmp_path/f'{k}-{e}.db')) as l: us = l.rows()
        assert [(u.status, u.user_id, u.prompt_tokens) for u in us]==[('ok','ada',us[0].prompt_tokens)] and us[0].prompt_tokens > 0 and us[0].cost > 0, (k, e, err)

def test_opening_imports_no_litellm(p):
    "To take over what others left, of whatever kind, nobody has to import litellm"
    Path(f'{p}.1-dead.journal').write_bytes(line(begin=1, call=dict(call_id='u')) + line(row=vars(row('r', uid='r')), ends=None))
    out = ran('import sys; from llm_usage.ledger import Ledger; print(len(Ledger(sys.argv[1]).rows()), "litellm" in sys.modules)', p)
    assert out.split()==['2','False']

# What goes wrong in the process

@pytest.mark.parametrize('kw', [dict(trace_id='t'), dict(end_user='bob'), dict(provider='mine'), dict(model='m'), dict(call_type='x', stream=True)], ids=str)
def test_a_block_may_name_any_column(p, kw):
    "A call is noted, and recorded when it is given up, whatever its block or its logger says of it"
    l,call = UsageLogger(p, agent='a'),dict(litellm_call_id='c', model='x', call_type='completion', litellm_trace_id='z', user='u')
    with l.who(**kw): l.log_pre_api_call('x', [], call)
    assert len(l.ledger.journal.begun)==1
    del call
    assert l.flush()==[] and [(u.status, u.call_id, u.agent) for u in l.ledger.rows()]==[('partial','c','a')]

def test_a_thread_that_cannot_be_started(p, monkeypatch):
    "For a while no thread can be started: rows wait in the journal, no call waits for the ledger, and a thread stores them later"
    def no(*args, **kw): raise RuntimeError("can't start new thread")
    l = Ledger(p)
    with monkeypatch.context() as m:
        for o in ('_start_new_thread','_start_joinable_thread'): m.setattr(threading, o, no, raising=False)
        l.enqueue(row('a'))
    assert len(l.journal.rows)==1 and not l.journal.ended and l.journal.thread is None
    l.enqueue(row('b'))
    assert l.journal.thread.is_alive() and ids(l)==['a','b']

def test_no_descriptor_is_free(p, monkeypatch):
    "A journal that cannot be made smaller is used as it is"
    import llm_usage.journal as j
    monkeypatch.setattr(j, 'SLACK', 10_000)
    l = Ledger(p)
    l.begin(call_id='under way', timestamp=1.8e9)
    l.enqueue(row('a', error='x'*50_000))
    l.flush()
    name,limits = l.journal.name,resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        for o in 'bc': l.enqueue(row(o, error='x'*50_000)); l.journal.flush()
        assert not l.journal.behind and l.journal.name==name
    finally: resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    l.flush()
    assert ids(l)==['a','b','c'] and l.journal.name!=name and l.dropped==0

def test_a_block_gives_all_back(p):
    "A logger that is used as a block, again and again, leaves no descriptor, no thread and no file"
    others = {*threading.enumerate()}
    mine = lambda: [t for t in threading.enumerate() if t.name=='llm_usage' and t not in others]
    with UsageLogger(p): litellm.completion(**ask)
    before = fds()
    for _ in range(10):
        with UsageLogger(p) as l: litellm.completion(**ask)
    for t in mine(): t.join(5)
    assert fds() <= before and not mine() and not journals(p) and len(l.ledger.rows())==11

ask = dict(model='gpt-4o-mini', messages=[dict(role='user', content='What is 2+2?')], mock_response='4')

def test_a_child_inherits_no_call(p):
    "A process forks while it reads a stream, and the child ends: the stream is one row, its parent's"
    out = ran('''
import litellm, os, sys
from llm_usage import UsageLogger
l = UsageLogger(sys.argv[1]).install()
s = litellm.completion('gpt-4o-mini', [dict(role='user', content='hi')], mock_response='one two three four five', stream=True)
next(s)
if not (pid := os.fork()): sys.exit()
os.waitpid(pid, 0)
[*s]
l.flush()
print([u.status for u in l.ledger.rows()])''', p)
    assert out.strip()=="['ok']"
