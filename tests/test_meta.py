"The project's name, version and paths are written in three places, and say the same in all of them"
import ast, json, re, tomllib
from configparser import ConfigParser
from pathlib import Path
import pytest
from packaging.requirements import Requirement
from nbdev.config import get_config
import llm_usage

root = Path(__file__).parent.parent
toml = tomllib.loads((root/'pyproject.toml').read_text())
project = toml['project']
nbdev = get_config(root)

@pytest.fixture(scope='module')
def old():
    cfg = ConfigParser()
    cfg.read(root/'settings.ini')
    return cfg['DEFAULT']

def test_version(old): assert old['version'] == nbdev.version == llm_usage.__version__

@pytest.mark.parametrize('key', ['lib_name', 'title', 'description', 'author', 'user', 'repo', 'branch', 'git_url', 'doc_host'])
def test_same(old, key): assert old[key] == nbdev[key]

@pytest.mark.parametrize('key', ['nbs_path', 'lib_path', 'doc_path'])
def test_paths(old, key): assert old[key] == nbdev.d[key]

def test_doc_baseurl(old): assert old['doc_baseurl'].rstrip('/') == nbdev.doc_baseurl

def test_license(old): assert {'apache2': 'Apache-2.0'}[old['license']] == project['license']

def test_python(old):
    assert project['requires-python'].split(',')[0] == f">={old['min_python']}"
    assert f"Programming Language :: Python :: {old['min_python']}" in project['classifiers']

def test_one_quarto_config():
    link = root/'nbs/_quarto.yml'
    assert link.is_symlink() and link.resolve() == root/'_quarto.yml'

def test_constraints():
    "What is pinned is what the project asks for, and the command that pins it stands where it is looked for"
    pins = (root/'constraints.txt').read_text()
    have = {o.name.lower():[*o.specifier][0].version for o in map(Requirement, [l for l in pins.splitlines() if l[0]!='#'])}
    for o in map(Requirement, [*project['dependencies'], *sum(project['optional-dependencies'].values(), [])]): assert have[o.name.lower()] in o.specifier, o
    command = toml['tool']['uv']['pip']['custom-compile-command']
    assert command in pins.splitlines()[1] and command in (root/'README.md').read_text()

def test_imports_have_cells_of_their_own():
    "To show a symbol's documentation, nbdev runs each cell with an import in it, and no other"
    mixed = []
    for p in sorted((root/'nbs/api').glob('*.ipynb')):
        for c in json.loads(p.read_text())['cells'][:-1]: # the last one exports
            if c['cell_type']!='code' or c['source'][:1] in (['#| export\n'], ['#| exports\n']): continue
            code = ast.parse(''.join(l for l in c['source'] if l[0]!='%')).body
            if len({isinstance(o, (ast.Import, ast.ImportFrom)) for o in code})==2: mixed.append((p.name, c['id']))
    assert mixed==[]

def test_arrows_point_one_way():
    "A module imports, lazily too, only those whose page has a smaller number, and no two pages have the same"
    pages  = {m[2]:m[1] for p in (root/'nbs/api').glob('*.ipynb') if (m := re.fullmatch(r'(\d\d[a-z]?)_(\w+)', p.stem))}
    named  = lambda o: [o.module or ''] if isinstance(o, ast.ImportFrom) else [a.name for a in o.names] if isinstance(o, ast.Import) else []
    theirs = lambda p: {n.removeprefix('llm_usage.') for o in ast.walk(ast.parse(p.read_text())) for n in named(o)}
    up = [(p.stem, o) for p in (root/'llm_usage').glob('[a-z]*.py') for o in theirs(p) & pages.keys() if pages[o] >= pages[p.stem]]
    assert up==[] and len({*pages.values()})==len(pages)

def test_nothing_private_crosses_a_module():
    "A name that another module uses has no underscore"
    private = lambda p: [a.name for o in ast.walk(ast.parse(p.read_text())) if isinstance(o, ast.ImportFrom) and o.level for a in o.names if a.name[0]=='_']
    assert {p.stem:ns for p in (root/'llm_usage').glob('[a-z]*.py') if (ns := private(p))}=={}

long = dict( # pages of more than 250 exported lines, and why
    core='each column of the row has a line, and each place where a provider keeps it', rates='tables of kinds, tiers and regions', cost='parts, receipts and totals need one another',
    store='one class, whose locks, copies and forks meet in the same attributes', ledger='a table of what must hold', rollup='to cut a period and to read the pieces is one thought',
    plot='a function for each picture', clients='requests, answers and streams of three clients meet in one call', logger='one class, from a call to its row', cli='a function for each command',
    alerts='a sentence, what it finds, and whom it refuses', event='each column has the places where LiteLLM may say it',
    dashboard='a function for each part of a page', budgets='a rule, what it has cost, and the transaction that holds', outbox='an event, from its row to its delivery, and the thread that sends')

def test_pages_are_short():
    "A page exports at most 250 lines, or says why"
    def lines(p):
        cells = [''.join(c['source']) for c in json.loads(p.read_text())['cells'] if c['cell_type']=='code']
        return sum(bool(l.strip()) for s in cells if s.startswith('#| export') for l in s.splitlines()[1:])
    assert {p.stem.partition('_')[2] for p in (root/'nbs/api').glob('*.ipynb') if lines(p) > 250}=={*long}
