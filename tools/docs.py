"""Build the site and the README where Quarto is not installed: nbdev prepares the notebooks, smalldocs lays them out.

    python tools/docs.py                  build `_docs/`; exit 1 if there is a warning, a link that leads nowhere,
                                          a page that asks another host for anything, or one that the sidebar lacks
    python tools/docs.py readme           write README.md from the index notebook
    python tools/docs.py readme --check   write nothing; exit 1 if README.md would change"""

import ast,os,re,shutil,sys
os.environ.setdefault('LITELLM_LOCAL_MODEL_COST_MAP', 'True') # nbdev imports what the notebooks import: keep litellm off the network
from difflib import unified_diff
from html.parser import HTMLParser
from tempfile import TemporaryDirectory
from textwrap import indent
from urllib.parse import unquote, urlsplit

from fastcore.nbio import nb_frontmatter, read_nb, write_nb
from fastcore.utils import *
from nbdev.config import get_config, nbpath2html
from nbdev.doclinks import nbglob
from nbdev.quarto import refresh_quarto_yml
from nbdev.readme_filter import doc_link
from nbdev.serve import proc_nbs
from nbdev.showdoc import showdoc_nm
from smalldocs.notebook import cell_options
from smalldocs.site import build

os.chdir(Path(__file__).parent.parent)
cfg = get_config()

def stage(**kw):
    "The notebooks as `nbdev-docs` hands them to Quarto: hidden cells gone, `show_doc` run, backticked names linked"
    refresh_quarto_yml()
    return proc_nbs(force=True, **kw)

# --- the site

def bare(s): return re.sub(r'\b\d+[a-zA-Z0-9]*_([\w-]+\.ipynb)', r'\1', s)

def names(code):
    "What `code` defines, methods with their class"
    for o in ast.parse(code).body:
        if isinstance(o, ast.Assign): yield from (ast.unparse(t).strip('()') for t in o.targets)
        elif hasattr(o, 'name'):      yield from L(showdoc_nm(o))

def folded(src):
    "The cell `src`, closed where nbdev leaves the fold round a source open: it is named, and a short one stays open"
    opts,code = cell_options(src)
    if 'exports' not in opts: return src
    ns = [*names(code)]
    src = src.replace('"Exported source"', f'"Source: {", ".join(ns[:4])}{", …"*(len(ns)>4)}"', 1)
    return src.replace('code-fold: show', 'code-fold: true', 1) if code.count('\n')>4 else src

def ready(p):
    "Give page `p` the name nbdev links to (00_core.ipynb is core.html), fold sources, and treat Markdown cells as Quarto does"
    nb = read_nb(p)
    for c in nb.cells:
        if c.cell_type=='code': c.source = folded(c.source)
        if c.cell_type!='markdown': continue
        c.remove_directives()
        c.source = re.sub(r'\]\([^)\s]+', lambda m: bare(m[0]), c.source)
    p.unlink()
    write_nb(nb, p.with_name(nbpath2html(p).name).with_suffix('.ipynb'))

def at_home(p, root):
    "Make page `p`'s links to the published site lead to the same page of this copy"
    up = '../'*(len(p.relative_to(root).parts)-1) or './'
    p.write_text(p.read_text().replace(f'href="{cfg.doc_url}', f'href="{up}'))

_host = r'(?:(?:https?|wss?):)?//[\w.]'
_css  = re.compile(rf'(?:@import\s*(?:url\()?|url\()\s*["\']?({_host}[^"\')\s]+)')
_ask  = r'\b(?:fetch|import|importScripts|from|open|sendBeacon|Worker|WebSocket|EventSource)\s*\(?|\.(?:src|href)\s*='
_js   = re.compile(rf'(?:{_ask})\s*["\'`]({_host}[^"\'`]+)')

class Refs(HTMLParser):
    "What a page offers (`ids`), what it names (`refs`), and what it asks other hosts for (`asks`)"
    def __init__(self, p):
        super().__init__()
        self.ids,self.refs,self.asks = set(),[],[]
        self.feed(p.read_text())
    def handle_starttag(self, tag, attrs):
        d = dict(attrs)
        self.ids |= {d.get('id'), d.get('name')}
        self.refs += [d[k] for k in ('href','src') if d.get(k)]
        self.asks += _css.findall(d.get('style') or '')
        if tag=='a': return
        vs = [d[k] for k in ('href','xlink:href','src','srcset','data','poster') if d.get(k)]
        self.asks += [u for v in vs for u in re.split(r',?\s+', v) if re.match(_host, u)]
    def handle_data(self, s):
        if self.cdata_elem=='style':  self.asks += _css.findall(s)
        if self.cdata_elem=='script': self.asks += _js.findall(s)

def alone(root):
    "Take web fonts out of the stylesheets under `root`, so that no other host hears of a visit"
    for p in root.rglob('*.css'): p.write_text(re.sub(rf'@import\s+url\({_host}[^)]*\);?', '', p.read_text()))

def abroad(root):
    "What the pages, stylesheets and scripts under `root` ask other hosts for"
    for p in sorted(root.rglob('*.*')):
        match p.suffix:
            case '.html': us = Refs(p).asks
            case '.css':  us = _css.findall(p.read_text())
            case '.js':   us = _js.findall(p.read_text())
            case _:       us = []
        for u in uniqueify(us): yield f'{p.relative_to(root)}: asks another host for {u}'

def lost(root):
    "Links between the pages under `root` that lead to no file, or to no such place in it"
    pages = {p.resolve(): Refs(p) for p in root.rglob('*.html')}
    for p,page in pages.items():
        for ref in uniqueify(page.refs):
            u = urlsplit(ref)
            if u.scheme or u.netloc: continue
            to = (p.parent/unquote(u.path)).resolve() if u.path else p
            if to.is_dir(): to = to/'index.html'
            there = to.exists() and (not u.fragment or to not in pages or unquote(u.fragment) in pages[to].ids)
            if not there: yield f'{p.relative_to(root.resolve())}: broken link {ref}'

def unlisted():
    "Pages that the sidebar lacks"
    bar = re.findall(r'^ *- (\S+\.ipynb)$', (cfg.nbs_path/'sidebar.yml').read_text(), re.M)
    nbs = {p.relative_to(cfg.nbs_path).as_posix() for p in nbglob(as_path=True)}
    return [f'{o}: not in sidebar.yml' for o in sorted(nbs-{*bar})]

# options that only Quarto reads, and broken links, which `lost` finds with their anchors
_known = re.compile(r'format-links|commonmark|html\.grid|output-file|broken link')

def site():
    "Build `_docs/` and return what is wrong with it"
    with TemporaryDirectory() as d:
        src = Path(shutil.copytree(stage(), f'{d}/src'))
        for p in src.rglob('*.ipynb'): ready(p)
        bar = src/'sidebar.yml'
        bar.write_text(bare(bar.read_text()))
        res = build(src, quiet=True)
        shutil.rmtree(cfg.doc_path, ignore_errors=True)
        shutil.move(res.out, cfg.doc_path)
    for p in cfg.doc_path.rglob('*.html'): at_home(p, cfg.doc_path)
    alone(cfg.doc_path)
    bad = [w for w in res.warnings if not _known.search(w)] + [*unlisted(), *lost(cfg.doc_path), *abroad(cfg.doc_path)]
    print(*bad, f'docs: {len(res.pages)} pages, {len(bad)} problems', sep='\n')
    return bad

# --- the README

_callout = re.compile(r'^:{3,} *\{\.callout-(\w+)[^}\n]*\}\n+(.*?)\n+:{3,} *$', re.M|re.S)

def prose(s):
    "Markdown as GitHub reads it: links lead to the published site, callouts become alerts"
    s = re.sub(r'\]\(([^)\s]+)', lambda m: f']({doc_link(m[1], cfg.doc_url)}', s)
    return _callout.sub(lambda m: indent(f'[!{m[1].upper()}]\n{m[2]}', '> ', bool).replace('> \n', '>\n'), s)

def shown(o):
    "An output in its plainest good form: Markdown, else text, since GitHub strips the styles from HTML"
    if o.output_type=='stream': return indent(''.join(o.text).rstrip(), '    ')
    if md := o.data.get('text/markdown'): return prose(''.join(md))
    return indent(''.join(o.data['text/plain']), '    ')

def section(c):
    "A cell and its outputs as Markdown"
    if c.cell_type=='raw': return ''
    if c.cell_type=='markdown': c.remove_directives()
    if c.cell_type=='markdown': return prose(c.source)
    opts,code = cell_options(c.source)
    src = [f'```python\n{code}\n```'] if code.strip() and opts.get('echo', True) else []
    outs = L(c.outputs).map(shown) if opts.get('output', True) else []
    return '\n\n'.join([*src, *outs])

def readme():
    "The text of README.md"
    nb = read_nb(stage(file_glob=cfg.readme_nb)/cfg.readme_nb)
    fm = nb_frontmatter(nb)
    head = [f"# {fm['title']}", fm.get('description', '')]
    return '\n\n'.join(filter(None, [*head, *L(nb.cells).map(section)])) + '\n'

def stale():
    "How README.md differs from what would be written"
    old = Path('README.md').read_text() if Path('README.md').exists() else ''
    diff = [*unified_diff(old.splitlines(), readme().splitlines(), 'README.md', 'nbs/index.ipynb', lineterm='')]
    if diff: print(*diff, 'README.md is not what index.ipynb says: run `python tools/docs.py readme`', sep='\n')
    return diff

if __name__=='__main__':
    match sys.argv[1:]:
        case []:                   sys.exit(bool(site()))
        case ['readme']:           Path('README.md').write_text(readme())
        case ['readme','--check']: sys.exit(bool(stale()))
        case _:                    sys.exit(__doc__)
