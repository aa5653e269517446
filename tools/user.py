"""A user's machine: a new environment, `pip install .` with the newest of everything, and all that the README promises.

    python tools/user.py    exit 1 if something does not hold"""

import json,os,re,subprocess,sys,venv
from pathlib import Path
from tempfile import TemporaryDirectory

root   = Path(__file__).resolve().parent.parent
widths = 60,80,120
smoke  = 'light demo logger faults'.split() # tests that need pytest alone
args   = {'daily': '--by user,model', 'tail': '-n 99', 'what-if': 'gpt-5.6-luna claude-haiku-5-5', 'price': 'claude-sonnet-5-5', 'completion': 'bash',
          'backup': 'copy{}.db', 'merge': 'demo.db --db copy{}.db', 'copy': 'demo.db copied{}.db', 'ddl': 'clickhouse', 'report': '--html report{}.html', 'export': 'csv calls{}.csv', 'import': 'csv calls60.csv --db new{}.db', 'purge': '2020-01-01 --db copy{}.db',
          'keys': 'add --user ada --db demo.db'}
free   = 'completion','ddl','path','statusline','proxy-config' # one line, a script or a file: as long as it is

# Run README code from stdin as a notebook would, answered from the package's cassette
notebook = '''
import ast,asyncio,inspect,sys
from llm_usage import replaying
async def main(code, ns={}):
    for o in ast.parse(code).body:
        shown = isinstance(o, ast.Expr)
        tree  = ast.Expression(o.value) if shown else ast.Module([o], [])
        v = eval(compile(tree, 'README', 'eval' if shown else 'exec', ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), ns)
        if inspect.isawaitable(v): v = await v
        if shown: print(getattr(v, '_repr_markdown_', v.__repr__)())
with replaying(live=True): asyncio.run(main(sys.stdin.read()))'''

def clean():
    "This environment without keys, and without what steers Python, pip, LiteLLM or us"
    return {k:v for k,v in os.environ.items() if not k.endswith('_API_KEY') and not k.startswith(('LITELLM','LLM_USAGE','PYTHON','PIP_CONSTRAINT'))}

class Home:
    "A folder with an environment of its own, where commands run as a user's do"
    def __init__(self, d): self.d,self.bin = Path(d),Path(d)/'venv/bin'

    def run(self, *cmd, input=None, **env):
        "What a command prints; it has to end well, and without a word of trouble"
        path = os.pathsep.join([str(self.bin), os.environ['PATH']])
        r = subprocess.run(cmd, cwd=self.d, env=clean() | dict(PATH=path) | env, input=input, capture_output=True, text=True)
        if r.returncode or 'Traceback' in r.stderr: sys.exit(f'{cmd} {env}\n{r.stdout}{r.stderr}exit code {r.returncode}')
        return r.stdout

def installed(h):
    "A new environment has the package, and the newest of all that it needs"
    venv.create(h.d/'venv', with_pip=True, symlinks=True)
    h.run('pip', 'install', '-q', root)
    vs = dict(o.split('==') for o in h.run('pip', 'freeze').split() if '==' in o)
    mb = sum(o.stat().st_size for o in (h.d/'venv/lib').rglob('*') if o.is_file())/1e6
    return ' '.join(f'{k} {vs[k]}' for k in 'litellm openai rich pandas fastcore'.split()) + f', {mb:.0f} MB'

def ten_lines(h):
    "The README's ten lines print what the README says that they do"
    text = (root/'README.md').read_text().split('## Ten lines')[1].split('\nIn a notebook')[0]
    _,*both = re.split(r'```python\n(.*?)```', text, flags=re.S)
    said = h.run('python', '-c', notebook, input='\n'.join(both[::2]))
    want = [o.removeprefix('    ') for o in '\n'.join(both[1::2]).splitlines() if o.startswith(('|','    '))]
    assert len(want)>10 and set(want) <= {*said.splitlines()}, (want, said)
    return f'{len(want)} lines as printed there'

def script(h):
    "The README's script runs as a file, and prints what the call cost"
    text = (root/'README.md').read_text()
    (h.d/'spend.py').write_text(re.search(r'```python\n(# spend.py\n.*?)```', text, flags=re.S)[1])
    run = "import runpy; from llm_usage import replaying\nwith replaying(live=True): runpy.run_path('spend.py')"
    said = h.run('python', '-c', run, LLM_USAGE_DB='script.db')
    assert said=='$0.000138 · 1 call\n', said
    return said.strip()

def commands(h): return re.findall(r'^  ([a-z-]+) ', h.run('llm-usage', '--help'), re.M)

def fits(out, width, cmd):
    "No line is wider than the terminal"
    wide = [o for o in out.splitlines() if len(o)>width]
    assert cmd in free or not wide, (cmd, width, wide)

def sums(out):
    "The last words of the lines of a table, where they are money"
    return [o.split()[-1] for o in out.splitlines() if re.search(r'\d$|(unpriced|failed)$', o)]

def helps(h):
    "Every command explains itself"
    for n in widths:
        for c in (cs := commands(h)): fits(h.run('llm-usage', c, '--help', COLUMNS=str(n)), n, c)
    return f'{len(cs)} commands'

def asked(h):
    "Every command answers, in lines that fit, with the same money in any width"
    for c in [o for o in commands(h) if o not in ('demo','serve','outbox','reconcile','budgets')]: # the last three need another system, a bill and a limit
        outs = [h.run('llm-usage', c, *args.get(c, '').format(n).split(), COLUMNS=str(n)) for n in widths]
        for n,o in zip(widths, outs): fits(o, n, c)
        assert c in ('keys','merge','purge','completion','unpriced','what-if') or sums(outs[0])==sums(outs[1])==sums(outs[2]), outs
    t = json.loads(h.run('llm-usage', 'total', '--json'))
    last = next(o for o in h.run('llm-usage', 'users', COLUMNS='60').splitlines() if o.startswith('Total')).split()
    assert (last[-2], float(last[-1].strip('$')))==('≥', round(t['amount'], 6)) and t['unpriced']==1, last
    return f'{" ".join(last[-2:])} in {len(widths)} widths'

def demo(h):
    "The demo needs neither a key nor a setting"
    for n in widths: fits(h.run('llm-usage', 'demo', '--db', 'demo.db', COLUMNS=str(n)), n, 'demo')
    return h.run('llm-usage', 'models', '--db', 'demo.db').splitlines()[-1]

def tests(h):
    "The tests that need nothing but pytest pass"
    h.run('pip', 'install', '-q', 'pytest')
    files = [root/f'tests/test_{o}.py' for o in smoke]
    return h.run('pytest', '-q', '-p', 'no:cacheprovider', '--rootdir', root, '-c', root/'pyproject.toml', *files).splitlines()[-1]

if __name__=='__main__':
    with TemporaryDirectory() as d:
        h = Home(d)
        for f in (installed, demo, ten_lines, script, helps, asked, tests): print(f'{f.__name__}: {f(h)}', flush=True)
