"""How fast rows go out to files, and come in again, beside reading them bare.

    python tools/bench_exports.py [--rows N] [--rounds N] [--back]

A ledger is made by SQL, with 34 of its columns filled. Each format has a process of its own, so that its peak of memory is its own;
formats take turns, and each ratio is to `SELECT *` of the same round, which Python's sqlite3 reads and forgets. Where the shell
`sqlite3` is at hand, its CSV is there to compare with. Files go to the temporary folder, which `TMPDIR` may put on another disk.
"""
import argparse, os, resource, shutil, sqlite3, subprocess, sys, tempfile, time
from contextlib import closing
from pathlib import Path
from statistics import median

varied = dict(uid="printf('%012x-%016x', 1700000000000+i*31, i*7919)", call_id="printf('call-%016x-%016x', i*104729, i)", response_id="printf('msg_%020x', i*15485863)",
    trace_id="printf('trace-%012x', i/5)", session_id="printf('s-%08x', i/50)", timestamp='1.7e9+i*31.0173', latency='0.1+(i%997)/131.0', ttft='iif(i%3, (i%17)/10.0, NULL)',
    provider="'anthropic'", model="'claude-sonnet-5-5'", requested_model="'claude-sonnet-5-5'", call_type="'completion'", stream='i%2', status="'ok'", origin="'live'", user_id="'user-'||(i%200)",
    team_id="'team-7'", end_user="'customer-1'", api_key_hash=f"'{'88dc28d0'*8}'", agent="iif(i%2, 'planner', NULL)", tags="""'["desk"]'""", meta="""iif(i%3, '{"k": 1}', NULL)""", prompt_tokens='1000+i%7001',
    completion_tokens='i%4001', total_tokens='1000+i%7001+i%4001', cache_read_tokens='i%1000', cache_creation_tokens='i%20', reasoning_tokens='0', usage_source="'reported'",
    response_cost='(i%70001)/9999991.0', inp_usd='(i%70001)/29999991.0', out_usd='(i%70001)/19999991.0', cost_source="'litellm'", price_key="'claude-sonnet-5-5'")

def make(path, n):
    "A ledger of `n` rows"
    from llm_usage import Ledger
    with closing(Ledger(path)) as l:
        l.write(lambda con: con.execute(f'''WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<{n})
            INSERT INTO usage ({', '.join(varied)}) SELECT {', '.join(varied.values())} FROM n''').fetchall())

def bare(db, file):
    with closing(sqlite3.connect(db)) as con: return sum(1 for _ in con.execute('SELECT * FROM usage'))

def shell(db, file): subprocess.run(['sqlite3', '-csv', '-header', db, 'SELECT * FROM usage'], stdout=open(file, 'wb'), check=True)

def out(db, file):
    from llm_usage import Ledger, exports
    with closing(Ledger(db)) as l: l.export(file)

def back(db, file):
    from llm_usage import Ledger, restores
    with closing(Ledger(f'{file}.db')) as l: assert not l.import_rows(file)[2]

def timed(what, db, file):
    "Seconds of wall and of processor, and MB at the peak, of a process that does it"
    p = subprocess.run([sys.executable, __file__, '--do', what, db, file], capture_output=True, text=True)
    if p.returncode: sys.exit(p.stderr)
    return [*map(float, p.stdout.split())]

def do(what, db, file):
    t,c = time.perf_counter(),time.process_time()
    globals()[what](db, file)
    t,c = time.perf_counter()-t,time.process_time()-c
    print(t, c, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024)

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--rows', type=int, default=1_000_000)
    ap.add_argument('--rounds', type=int, default=3)
    ap.add_argument('--back', action='store_true', help='take the files in again, too')
    ap.add_argument('--do', nargs=3, help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.do: return do(*a.do)
    with tempfile.TemporaryDirectory() as d:
        db,n = f'{d}/usage.db',a.rows
        make(db, n)
        jobs = [('SELECT *','bare','x')] + [('sqlite3 -csv','shell','s.csv')]*bool(shutil.which('sqlite3')) + [(k,'out',f'x.{k}') for k in ('jsonl','csv','parquet','jsonl.gz','csv.gz')]
        if a.back: jobs += [(f'{k}, in','back',f'x.{k}') for k in ('jsonl','csv','parquet')]
        rounds = []
        for _ in range(a.rounds):
            for o in Path(d).glob('x.*.db*'): o.unlink()
            rounds.append({nm:timed(what, db, f'{d}/{file}') for nm,what,file in jobs})
        print(f'{n:,} rows, medians of {a.rounds} rounds\n{"":14}{"rows/s":>10}{"rows/s of CPU":>15}{"time to SELECT *":>18}{"peak MB":>9}{"file MB":>9}')
        for nm,what,file in jobs:
            t,c,mb = (median(r[nm][i] for r in rounds) for i in range(3))
            size = os.path.getsize(f'{d}/{file}')/1e6 if what in ('out','shell') else 0
            print(f'{nm:14}{n/t:10,.0f}{n/c if what!="shell" else 0:15,.0f}{median(r[nm][0]/r["SELECT *"][0] for r in rounds):17.1f}×{mb:9.0f}{size:9.0f}')

if __name__=='__main__': main()
