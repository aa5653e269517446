"""The wheel and its command, as a stranger gets them: installed alone, run elsewhere, without keys and without a network."""
import os, subprocess, sys, zipfile
from pathlib import Path
import pytest
from llm_usage import Ledger, Total
from llm_usage.replay import able, cases

root = Path(__file__).resolve().parent.parent

@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "A folder with the installed wheel and nothing else, and a `sitecustomize` that forbids the network"
    d = tmp_path_factory.mktemp('wheel')
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w', d, root], check=True, cwd=d)
    whl, = d.glob('*.whl')
    zipfile.ZipFile(whl).extractall(d/'site')
    (d/'site'/'sitecustomize.py').write_text('import socket\ndef no(self, addr): raise OSError(f"the network was asked for {addr}")\nsocket.socket.connect = no\n')
    return d/'site'

def llm_usage(site, cwd, *args, **env):
    mine = {k:v for k,v in os.environ.items() if not k.endswith('_API_KEY') and not k.startswith(('LITELLM','LLM_USAGE'))}
    env = mine | dict(PYTHONPATH=str(site)) | env
    return subprocess.run([sys.executable, '-m', 'llm_usage.cli', *args], cwd=cwd, env=env, capture_output=True, text=True)

def test_demo(site, tmp_path):
    r = llm_usage(site, tmp_path, 'demo', '--db', 'demo.db')
    assert r.returncode==0, r.stderr
    assert 'network' not in r.stderr and 'Traceback' not in r.stderr, r.stderr
    l = Ledger(tmp_path/'demo.db')
    n = sum(map(able, cases))
    assert len(l.rows())==n and l.check()==[]
    assert {u.origin for u in l.rows()}=={'live'} and all('"demo"' in u.tags for u in l.rows()) and l.total().amount==pytest.approx(Total.of(l.rows(), 'cost').amount)
    assert f'of {n} calls priced' in r.stdout and 'recorded replies' in r.stdout and 'nobody was billed' in r.stdout and 'earlier runs' not in r.stdout
    assert max(map(len, r.stdout.splitlines())) <= 100

def test_demo_twice(site, tmp_path):
    "A second run adds its rows and shows only those"
    outs = [llm_usage(site, tmp_path, 'demo', '--db', 'demo.db').stdout for _ in range(2)]
    total = [next(o for o in s.splitlines() if o.startswith('Total')) for s in outs]
    assert total[0]==total[1] and 'those of earlier runs' in ' '.join(outs[1].split()) and len(Ledger(tmp_path/'demo.db').rows())==2*sum(map(able, cases))

def test_live_without_a_key(site, tmp_path):
    "A real call that fails says so in one line, and is a row"
    # where its fetch of prices fails at once, litellm 1.105 cannot always be imported: its retry thread imports half of it
    r = llm_usage(site, tmp_path, 'demo', '--db', 'live.db', '--live', 'claude-sonnet-5-5', LITELLM_LOCAL_MODEL_COST_MAP='True')
    assert r.returncode==2 and 'Traceback' not in r.stderr, r.stderr
    assert r.stderr.strip().splitlines()[-1].startswith('llm-usage: AuthenticationError')
    assert [u.status for u in Ledger(tmp_path/'live.db').rows()]==['failed']

def test_unwritable(site, tmp_path):
    (tmp_path/'file').write_text('x')
    r = llm_usage(site, tmp_path, 'demo', '--db', 'file/usage.db')
    assert r.returncode==2 and 'No ledger can be written at file/usage.db' in r.stderr and 'Traceback' not in r.stderr
