"""Record the cassette that the demo, the lessons and the tests replay: `python tools/record.py [NAME ...] [--live]`.

Every case of `llm_usage.replay` is played once, through the real LiteLLM, and `cachy` keeps the exchange in
`llm_usage/cassettes/cachy.jsonl`. Stand-ins answer (tools/standins.py), or with `--live` the real providers, who send a bill.
Beside it `recorded.json` says of each case which key it has, who answered, by which litellm, and when. With names, only those
are recorded; a case that fails keeps what was recorded before, and so does one whose packages are not installed.
"""
import asyncio, json, os, re, sys
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from pathlib import Path
from unittest.mock import patch

os.environ['LITELLM_LOCAL_MODEL_COST_MAP'] = 'True'   # read on import of litellm, which else fetches its price map
from importlib.metadata import version
import cachy.core
from standins import hosts, stand_in

folder = Path(__file__).resolve().parent.parent/'llm_usage'/'cassettes'
hdrs   = ['content-type', 'date', 'request-id', 'x-request-id']   # the response headers worth keeping
keys   = ['ANTHROPIC_API_KEY', 'OPENAI_API_KEY', 'GEMINI_API_KEY', 'COHERE_API_KEY']

secrets = dict(   # what must never be in a cassette
    key         =r'\b(sk-|sk_|pk-|AIza|gh[pousr]_|xox[abpr]-|AKIA)[\w-]{12,}',
    token       =r'\beyJ[\w-]{8,}\.[\w-]{8,}\.|\bbearer\s+\S',
    header      =r'"((proxy-)?authorization|(x-)?(goog-)?api-?key|(set-)?cookie)\\*"\s*:',
    organisation=r'"([\w-]*organi[sz]ation[\w-]*|openai-project)\\*"\s*:|\borg[-_]\w{8,}|\bproj_\w{8,}',
    account     =r'\buser-\w{16,}')

def leaks(line):
    "What in cassette line `line` must not be published: kinds of secret, headers nobody asked for, keys of this environment"
    seen  = [k for k,p in secrets.items() if re.search(p, line, re.I)]
    extra = [h for h in json.loads(line).get('headers') or {} if h.lower() not in hdrs]
    return seen + extra + [k for k in keys if len(v:=os.environ.get(k, ''))>9 and v in line]

def check(line):
    "Refuse a cassette line that holds a secret"
    if found := leaks(line): raise ValueError(f'refused to record exchange {json.loads(line)["key"]}: {", ".join(found)}')

def check_file(path):
    "Refuse a cassette with a secret in any of its lines"
    for l in Path(path).read_text().splitlines(): check(l)

_write = cachy.core._write_cache
def _checked(key, content, cfp, hs, *args, **kw):
    "cachy's own writer, behind the check"
    check(json.dumps(dict(key=key, response=content, headers=hs)))
    _write(key, content, cfp, hs, *args, **kw)

def _lines(path): return {json.loads(l)['key']:l for l in path.read_text().splitlines()} if path.exists() else {}
def _said (path): return json.loads(path.read_text()) if path.exists() else {}

def keep(path, ks):
    "Drop every exchange of the cassette whose key is not in `ks`"
    path.write_text(''.join(l+'\n' for k,l in _lines(path).items() if k in ks))

def renew(path, go, old=None):
    "Run `go` and return the one key it adds to the cassette; the exchange `old`, which it replaces, stays if that fails"
    was = path.read_text()
    keep(path, had := set(_lines(path)) - {old})
    try:
        go()
        if len(new := set(_lines(path)) - had)!=1: raise ValueError(f'a case should make one new request, and this made {len(new)}')
    except BaseException: path.write_text(was); raise
    return new.pop()

@contextmanager
def recording(folder, live):
    "Let cachy record into `folder` what the stand-ins say, or the providers"
    folder.mkdir(parents=True, exist_ok=True)
    cachy.core.resp_keep.clear()   # it prunes `service_tier`, which sets prices
    with patch.object(cachy.core, '_write_cache', _checked), nullcontext() if live else stand_in():
        with cachy.core.cachy(cache_dir=folder, doms=cachy.core.doms+hosts, hdrs=hdrs): yield folder/'cachy.jsonl'

def record(cases, play, live=False, known=(), folder=folder):
    "Record `cases` into `folder` and say beside the cassette where each came from; forget what is not `known`; return the failures"
    by  = dict(source='provider' if live else 'stand-in', litellm=version('litellm'), date=f'{datetime.now(timezone.utc):%Y-%m-%d}')
    log = folder/'recorded.json'
    said,lost = {n:r for n,r in _said(log).items() if n in known},{}
    with recording(folder, live) as path, asyncio.Runner() as loop:
        keep(path, {r['key'] for r in said.values()})
        for c in cases:
            try: said[c.name] = dict(key=renew(path, lambda: loop.run(play(c)), said.get(c.name, {}).get('key')), **by)
            except Exception as e: lost[c.name] = e
    check_file(path)
    path.chmod(0o644)   # cachy writes it for the owner alone
    log.write_text(json.dumps(said, indent=1)+'\n')
    return lost

def main(args):
    "Record the named cases, or all that the installed packages can make"
    live,names = '--live' in args,[a for a in args if a!='--live']
    if not live: os.environ.update({k:'stand-in' for k in keys if not os.environ.get(k)})
    from llm_usage.replay import able, cases, play
    todo = [c for c in cases if able(c) and (not names or c.name in names)]
    lost = record(todo, play, live, {c.name for c in cases})
    print(f'{len(todo)-len(lost)} of {len(cases)} cases recorded in {folder/"cachy.jsonl"}')
    for n,e in lost.items(): print(f'{n}: {type(e).__name__}: {e}')
    return bool(lost)

if __name__=='__main__': sys.exit(main(sys.argv[1:]))
