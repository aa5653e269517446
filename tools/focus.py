"""FOCUS's own validator on what `ledger.focus` writes.

    python tools/focus.py --python PYTHON3.12 [--env FOLDER]

The validator needs Python 3.12 or newer and an older pyarrow than ours, so it runs in an environment of its own, which this makes
with pip and keeps in `--env`. Two ledgers are made and exported, as CSV and as Parquet, once a row an hour and once a row a call: with
meters of every kind, discounts, costs without parts, replies from a cache, corrections, two months, and texts of every kind. The
validator is told what a seller of models has: accounts, teams, price lists, meters, tags. Without being told, it skips those rules.

It always exits with 0, so this reads its last line. Rule InvoiceId-C-005 always fails, or else C-004 does: the validator cannot know
whether there is an invoice, and so wants the column both null and not null. Ours is null, as a ledger has no invoices. Exits with 1 if
another rule fails, or if BilledCost does not sum to the ledger's total.
"""
import argparse, csv, os, random, re, subprocess, sys, tempfile
from decimal import Decimal
from pathlib import Path

os.environ.setdefault('LITELLM_LOCAL_MODEL_COST_MAP', 'True')
from llm_usage import Ledger, Usage
import llm_usage.focus

wants = 'focus-validator==2.2.1', 'pyarrow<20'
has   = ('ACCOUNT_NAMING MULTIPLE_PRICING_CATEGORIES MULTIPLE_SUB_ACCOUNT_TYPES MULTIPLE_BILLING_ACCOUNT_TYPES NEGOTIATED_PRICING PUBLIC_PRICE_LIST '
         'USAGE_MEASUREMENT UNIT_PRICING SUB_ACCOUNT TAGGING').split()
known = {'InvoiceId-C-005-C'}

def validator(python, env):
    "The folder of the validator's packages, installed with `python` if they are not there"
    exe = env/'bin'/'python'
    if not exe.exists(): subprocess.run([python, '-m', 'venv', env], check=True)
    subprocess.run([exe, '-m', 'pip', 'install', '-q', '--disable-pip-version-check', *wants], check=True, stderr=subprocess.DEVNULL)
    return Path(subprocess.run([exe, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))'], check=True, capture_output=True, text=True).stdout.strip())

def validate(site, env, path):
    "(the line of its totals, the rules that fail) of the file at `path`"
    told = ','.join(f'{o}_SUPPORTED' for o in has)
    args = [env/'bin'/'focus-validator', '--data-file', path, '--validate-version', '1.2', '--block-download', '--applicability-criteria', told]
    p = subprocess.run(args, cwd=site, capture_output=True, text=True) # it finds its currency codes there only
    m = re.search(r'^Total: .*', p.stdout, re.M)
    if not m: raise SystemExit(f'the validator has no totals of {path}:\n{p.stdout[-2000:]}{p.stderr[-2000:]}')
    return m[0],{*re.findall(r'^- ([\w-]+): violations', p.stdout, re.M)}

start = 1793491200. # the first of November 2026, UTC
models = [('anthropic','claude-sonnet-4-5'), ('openai','gpt-4o-mini'), ('gemini','gemini-2.5-pro'), ('bedrock','anthropic.claude-3-5-haiku-20241022-v1:0'), ('attic','house-8b')]

def made(r, i):
    "The `i`th call of a made ledger"
    who,model = r.choice(models)
    p,o = r.randrange(10, 20000),r.randrange(1, 2000)
    read,write = r.randrange(p//2),r.randrange(p//2) if r.random()<.3 else 0
    u = Usage(call_id=f'c{i}', timestamp=start+i*1700+r.random(), latency=r.choice([None, 20*r.random()]), provider=who, model=model, prompt_tokens=p, completion_tokens=o,
        cache_read_tokens=read, cache_creation_tokens=write, cache_creation_1h_tokens=write//2, reasoning_tokens=r.randrange(o), usage_source=r.choice(['reported','estimated']),
        web_search_requests=r.randrange(2), origin=r.choice(['live']*9+['cache']), team_id=r.choice([None,'red','-1']), team_alias=r.choice([None,'Red, "the" team']),
        user_id=r.choice([None,'ada','=HYPERLINK("x")','Ωdå']), tags=r.choice([None,'["nightly"]','["a", "b"]']), service_tier=r.choice([None,'flex']))
    if r.random()<.2: u.response_cost,u.cost_source = r.random()/7,'provider'
    u.capture_cost()
    if u.inp_usd is not None and r.random()<.1: u.other_usd = -.1*u.response_cost; u.response_cost = .9*u.response_cost
    return u

def ledger(seed, n):
    "A ledger of `n` calls, some of them corrected"
    r,l = random.Random(seed),Ledger(':memory:')
    l.insert_all(made(r, i) for i in range(n))
    l.insert_all(Usage(uid=f'{u.uid}-1', adjusts=u.uid, origin='adjustment', timestamp=u.timestamp, provider=u.provider, model=u.model, response_cost=r.uniform(-.01, .01)) for u in r.sample(l.rows("origin='live'"), 20))
    return l

def main():
    a = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    a.add_argument('--python', required=True, help='an interpreter of Python 3.12 or newer')
    a.add_argument('--env', default=Path(tempfile.gettempdir())/'focus_env', type=Path, help='where the environment of the validator is kept')
    a = a.parse_args()
    env,bad = a.env.resolve(),0
    site = validator(a.python, env)
    with tempfile.TemporaryDirectory() as d:
        for seed,each,end in [(1,'hour','csv'), (1,'call','parquet'), (2,'call','csv'), (2,'day','parquet')]:
            l = ledger(seed, 3000)
            f = l.focus(Path(d)/f'{seed}-{each}.{end}', each=each)
            line,fails = validate(site, env, f[0])
            off = abs(float(f.cost)-l.total().amount)
            bad += bool(fails-known or off > 1e-9)
            print(f'{f}\n    {line}; fails: {", ".join(sorted(fails)) or "none"}; ledger {l.total()}')
    print('contradicts C-004:', *known)
    sys.exit(bool(bad))

if __name__=='__main__': main()
