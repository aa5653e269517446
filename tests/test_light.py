"""What an import loads and does: in processes of their own, since a notebook has imported everything already."""
import os, subprocess, sys
import pytest

_no_net = '''
import socket, sys
def no(*a, **k): raise AssertionError('a socket was opened')
socket.socket.__init__ = no
'''
_heavy = "loaded = [m for m in ('litellm','pandas','numpy','fastlite','apswutils','cachy','httpx','opentelemetry') if m in sys.modules]"

def run(code):
    r = subprocess.run([sys.executable, '-c', _no_net + code], capture_output=True, text=True)
    assert r.returncode==0, r.stderr
    return r.stdout.strip()

@pytest.mark.parametrize('mods', ['llm_usage', 'llm_usage.core', 'llm_usage.cost', 'llm_usage.ledger', 'llm_usage.alerts', 'llm_usage.spans', 'llm_usage.core, llm_usage.cost, llm_usage.ledger'])
def test_import_is_light(mods):
    assert run(f'import {mods}\n{_heavy}\nprint(loaded)')=='[]'

def test_reading_and_pricing_are_light(tmp_path):
    "A ledger is written, read, priced, added up and checked without litellm or pandas"
    code = f'''
from llm_usage import Usage, Ledger, price
l = Ledger({str(tmp_path/"usage.db")!r})
u = l.add(Usage(model='claude-sonnet-5-5', provider='anthropic', prompt_tokens=10, completion_tokens=5, usage_source='reported'))
assert l.rows()[0].receipt() and l.check()==[]
{_heavy}
print(loaded, l.total())'''
    assert run(code)=='[] $0.000070 · 1 call'

def test_names_resolve_on_first_use():
    "`import *` gives every public name, and each is the one of its module"
    code = '''
from llm_usage import *
import llm_usage
from importlib import import_module
for k,m in llm_usage._where.items(): assert globals()[k] is getattr(import_module(f'llm_usage.{m}'), k), k
print(len(llm_usage._where))'''
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert r.returncode==0 and int(r.stdout)>10, r.stderr

def test_unknown_name():
    import llm_usage
    with pytest.raises(AttributeError, match="no attribute 'Usages'"): llm_usage.Usages

@pytest.mark.parametrize('cmd', ['--help', 'total', 'statusline', 'check', 'path', 'daily', 'tail', 'price claude-sonnet-5-5'])
def test_commands_are_light(tmp_path, cmd, model='claude-sonnet-5-5', rich=False):
    "A command imports neither litellm nor pandas, and rich only for text beyond Latin letters"
    code = f'''
from llm_usage import Usage, Ledger
from llm_usage.cli import main
l = Ledger({str(tmp_path/"usage.db")!r})
l.add(Usage(model={model!r}, response_cost=.5))
l.close()
try: main({cmd.split()!r})
except SystemExit as e: assert not e.code, e.code
{_heavy}
print([*loaded, *[m for m in ('matplotlib','rich.progress') if m in sys.modules]], 'rich' in sys.modules)'''
    env = dict(os.environ, LLM_USAGE_DB=str(tmp_path/'usage.db'))
    r = subprocess.run([sys.executable, '-c', _no_net + code], capture_output=True, text=True, env=env)
    assert (r.returncode, r.stdout.splitlines()[-1:])==(0, [f'[] {rich}']), r.stderr

def test_rich_measures_wide_names(tmp_path): test_commands_are_light(tmp_path, 'models', '日本語', rich=True)
