"A LiteLLM proxy in a process of its own, on loopback, with the stand-ins as its providers: for the tests and the tutorial"
import os, secrets, signal, socket, subprocess, sys, time
from pathlib import Path
import httpx

def _free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def _providers(url):
    "What tells a proxy to ask the stand-ins at `url`"
    return dict(OPENAI_API_BASE=f'{url}/v1', OPENAI_API_KEY='sk-stand-in', ANTHROPIC_API_BASE=url, ANTHROPIC_API_KEY='sk-stand-in')

class Proxy:
    "`litellm --config` in folder `d` with the text `config`; its master key is random, and its ledger `usage.db` in the folder"
    def __init__(self, d, config, upstream, *args, **env):
        self.key,port = f'sk-{secrets.token_hex(16)}',_free_port()
        self.url,self.ledger,self.log = f'http://127.0.0.1:{port}',Path(d)/'usage.db',Path(d)/'proxy.log'
        (Path(d)/'config.yaml').write_text(config)
        env  = os.environ | _providers(upstream) | dict(PYTHONPATH=os.pathsep.join(filter(None, sys.path)), XDG_CONFIG_HOME=str(d),
            LITELLM_MASTER_KEY=self.key, LITELLM_LOCAL_MODEL_COST_MAP='True', LLM_USAGE_DB=str(self.ledger)) | env
        cmd  = [Path(sys.executable).with_name('litellm'), '--config', 'config.yaml', '--host', '127.0.0.1', '--port', port, *args]
        with self.log.open('a') as out: # where writers append, none overwrites another
            self.process = subprocess.Popen([*map(str, cmd)], cwd=d, env=env, stdout=out, stderr=out, start_new_session=True)

    def ready(self):
        "Wait until it answers; raises an error with its log if it ends before"
        while self.process.poll() is None:
            try:
                if httpx.get(f'{self.url}/health/liveliness').is_success: return self
            except httpx.TransportError: time.sleep(.1)
        raise RuntimeError(self.log.read_text())

    def end(self, sig=signal.SIGTERM):
        "End it, and the processes that it started"
        if self.process.poll() is None: os.killpg(self.process.pid, sig)
        return self.process.wait(60)

    def __enter__(self): return self.ready()
    def __exit__(self, *_): self.end()
