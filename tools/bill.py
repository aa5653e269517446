"""Kill what sends a ledger to Lago, break its network, and compare what is billed: by the client that Lago gives, with a stand-in for its server.

    python tools/bill.py [RUNS] [FIRST SEED]    prints each run; exit 1 if a sum differs by anything"""
import os, random, signal, subprocess, sys, time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from lago import FAULTS, Lago

root,customers = Path(__file__).resolve().parent.parent,'acme globex initech'.split()

send = '''
import random, sys
from llm_usage.lago import LagoSink
from llm_usage.ledger import Ledger
from llm_usage.outbox import Outbox
path,url,many = sys.argv[1:]
l = Ledger(path)
code = {k:'llm' for k in ('input','cache read','cache write','output','call')} if many=='many' else 'llm'
print('ready', flush=True)
print(Outbox(l, LagoSink('key', url, code), sleep=lambda s: None).run())
l.close()
'''

def _row(rnd, i):
    from llm_usage import Usage
    n,cached = rnd.randrange(1, 50_000),rnd.choice([0, 0, rnd.randrange(0, 100)])
    return Usage(call_id=f'call-{i}', timestamp=1795678824.5+i*rnd.random(), model='gpt-5.6-luna', provider='openai', end_user=rnd.choice(customers), prompt_tokens=n+cached,
        cache_read_tokens=cached, completion_tokens=rnd.randrange(1, 3000), usage_source='reported').capture_cost()

def _fill(path, rnd, first, n):
    "Add rows, and adjustments to some of those before them"
    from llm_usage import Ledger, Usage
    with closing(Ledger(path)) as l:
        l.insert_all([_row(rnd, i) for i in range(first, first+n)])
        for u in rnd.sample(l.rows("origin='live'"), 3):
            l.add(Usage(call_id=f'adj-{first}-{u.id}', timestamp=u.timestamp, end_user=u.end_user, origin='adjustment', adjusts=u.uid, response_cost=round(rnd.uniform(-u.response_cost, .001), 9), model=u.model))

def owed(path):
    "{customer: cents of all rows}, as exact decimals"
    from llm_usage import Ledger
    from llm_usage.meters import exact
    with closing(Ledger(path)) as l: return {s:sum(exact(u.response_cost) for u in l.rows('end_user=:s', s=s))*100 for s in customers}

def run(seed, path, rows=250):
    "One run: returns (what is billed, what is owed, kills, requests)"
    rnd = random.Random(seed)
    env = os.environ | dict(PYTHONPATH=os.pathsep.join([str(root), *filter(None, sys.path)]), LITELLM_LOCAL_MODEL_COST_MAP='True')
    kills,many = 0,rnd.choice(['one','many'])
    with Lago('key', customers, {'llm':None}, older=rnd.random() < .3) as lago:
        for i in range(3):
            _fill(path, rnd, i*rows, rows)
            lago.faults = [rnd.choice([None, None, *FAULTS[:5]]) for _ in range(rnd.randrange(12))]
            for last in [False]*rnd.randrange(3) + [i==2]:
                p = subprocess.Popen([sys.executable, '-c', send, path, lago.url, many], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                p.stdout.readline()
                if last: out,err = p.communicate(timeout=120); assert p.returncode==0, err; continue
                before,want = lago.posts,rnd.randrange(1, 6)
                while p.poll() is None and lago.posts < before+want: time.sleep(.002)
                if p.poll() is None: p.send_signal(signal.SIGKILL); kills += 1
                p.communicate()
        lago.faults = [] # those that no request met
        subprocess.run([sys.executable, '-c', send, path, lago.url, many], env=env, check=True, capture_output=True, timeout=120)
        return lago.billed(),owed(path),kills,lago.posts

if __name__=='__main__':
    n,first = (int(a) if a else d for a,d in zip([*sys.argv[1:], '', ''], (50, 0)))
    bad = kills = 0
    for seed in range(first, first+n):
        with TemporaryDirectory() as d: billed,due,k,posts = run(seed, f'{d}/usage.db')
        bad,kills = bad+(billed!=due),kills+k
        print(f'seed {seed}: {posts} requests, {k} kills, {"equal" if billed==due else f"{billed} is not {due}"}', flush=True)
    print(f'{n-bad} of {n} runs equal, {kills} kills')
    sys.exit(bool(bad))
