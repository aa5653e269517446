"What several files of tests share: scripts in processes of their own, servers with a handler of one's own, and other callbacks of LiteLLM's"
import os, subprocess, sys, threading
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
import litellm, standins
from llm_usage import Usage

litellm.suppress_debug_info = True

def row(cid, **kw):
    "A row of a call"
    return Usage(call_id=cid, **dict(model='m', prompt_tokens=1, completion_tokens=1, usage_source='reported', response_cost=.25) | kw)

def ids(l): return sorted(o.call_id for o in l.rows())

def python(code, *args, **kw):
    "Another process, which runs `code` and can import what this one can"
    env,pipe = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))),subprocess.PIPE
    return subprocess.Popen([sys.executable, '-c', code, *map(str, args)], stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env, **kw)

def ran(code, *args, timeout=100, **kw):
    "What a process printed that ran `code`, which has to end well, and without a warning of ours"
    with python(code, *args, **kw) as p:
        try: out,err = p.communicate(timeout=timeout)
        finally: p.kill()
    assert p.returncode==0 and 'llm_usage:' not in err, err
    return out

class Handler(standins._Handler):
    "The stand-ins, who do not mind if somebody hangs up; an answer that is held back waits until the tests are `over`"
    over = threading.Event()
    def handle(self):
        try: super().handle()
        except ConnectionError: pass

class _Server(ThreadingHTTPServer): request_queue_size = 200

@contextmanager
def served(handler):
    "The URL of a server with that handler, on loopback"
    handler.over.clear()
    srv = _Server(('127.0.0.1', 0), handler)
    threading.Thread(target=srv.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{srv.server_port}'
    finally: handler.over.set(), srv.shutdown(), srv.server_close()

def callbacks():
    "LiteLLM's lists of callbacks, by name"
    return {k:v for k,v in vars(litellm).items() if k.endswith(('callback','callbacks')) and isinstance(v, list)}

@contextmanager
def called(cb):
    "LiteLLM reports to the callback `cb` as well, until the block ends"
    litellm.callbacks.append(cb)
    try: yield cb
    finally:
        for l in callbacks().values(): l[:] = [o for o in l if o is not cb]
