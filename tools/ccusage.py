"""Compare imports with ccusage, the reader of coding agents' logs from npm: on made logs, the tokens of each day and model have to be equal.

    python tools/ccusage.py [RUNS]    installs ccusage in a temporary folder; exit 1 if a number differs"""
import json, os, random, subprocess, sys
from pathlib import Path
from tempfile import TemporaryDirectory
from llm_usage import Ledger
import llm_usage.agents

VERSION = '20.0.26'
tools   = {'claude-code':'claude', 'codex':'codex', 'gemini':'gemini', 'opencode':'opencode'}

def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(o if isinstance(o, str) else json.dumps(o, separators=(',',':'))+'\n' for o in lines))

def when(rnd): return f'2026-11-{rnd.randrange(10, 20)}T{rnd.randrange(24):02}:{rnd.randrange(60):02}:{rnd.randrange(60):02}.{rnd.randrange(1000):03}Z'

def claude(rnd, home):
    "Sessions with answers that grow, copies, side conversations, torn lines and lines without a request id"
    for s in range(4):
        lines = []
        for i in range(rnd.randrange(1, 30)):
            t,model = when(rnd),rnd.choice(['claude-sonnet-4-5-20250929','claude-opus-4-5-20251101','claude-haiku-4-5-20251001'])
            side,request = rnd.random() < .2,f'r{s}-{i}' if rnd.random() < .9 else None
            for k in range(rnd.choice([1, 1, 2, 3])):
                u = dict(input_tokens=rnd.randrange(1, 50), cache_creation_input_tokens=rnd.choice([0, 900]), cache_read_input_tokens=rnd.choice([0, 12_000]), output_tokens=rnd.randrange(5, 60)*(k+1))
                lines.append(dict(type='assistant', timestamp=t, sessionId=f's{s}', cwd='/home/ada/shop', version='2.1.0', isSidechain=side, message=dict(id=f'm{s}-{i}', role='assistant', type='message', model=model, content=[], usage=u))
                    | (dict(requestId=request) if request else {}))
            if rnd.random() < .1: lines.append(lines[-1] | dict(requestId=f'other{s}-{i}', isSidechain=True))
            if rnd.random() < .1: lines.append('{"type":"assistant","message":{"usage":{"inp\n')
        write(home/f'.claude/projects/-home-ada-shop/s{s}.jsonl', lines)
        if rnd.random() < .5: write(home/f'.claude/projects/-home-ada-shop/copy{s}.jsonl', [o for o in lines if rnd.random() < .7])

def codex(rnd, home):
    "Sessions whose counters are shown again, and forks of them"
    def used(a): return dict(input_tokens=a[0], cached_input_tokens=a[1], output_tokens=a[2], reasoning_output_tokens=a[3], total_tokens=a[0]+a[2])
    def event(t, total, last): return dict(timestamp=t, type='event_msg', payload=dict(type='token_count', info=dict(total_token_usage=used(total), last_token_usage=used(last), model_context_window=272000), rate_limits=None))
    for s in range(4):
        day,total,events = rnd.randrange(10, 19),[0]*4,[]
        for i in range(rnd.randrange(1, 20)):
            last  = [n := rnd.randrange(100, 9000), rnd.randrange(n), o := rnd.randrange(5, 900), rnd.randrange(o)]
            total = [a+b for a,b in zip(total, last)]
            for k in range(rnd.choice([1, 1, 3])): events.append(event(f'2026-11-{day}T{i:02}:{k*7:02}:00.000Z', total, last))
        def session(id, es, **kw): return [dict(timestamp=es[0]['timestamp'], type='session_meta', payload=dict(id=id, timestamp=es[0]['timestamp'], cwd='/home/ada/shop', originator='codex_cli_rs', cli_version='0.131.0') | kw),
            dict(timestamp=es[0]['timestamp'], type='turn_context', payload=dict(cwd='/home/ada/shop', model='gpt-5-codex')), *es]
        write(home/f'.codex/sessions/2026/11/{day}/rollout-2026-11-{day}T00-00-00-a{s}.jsonl', session(f'a{s}', events))
        if rnd.random() < .5 and len(events) > 1:
            copied = [o | dict(timestamp=f'2026-11-{day+1}T00:00:00.{k:03}Z') for k,o in enumerate(events)]
            last   = [500+s, 100, 50, 10] # ccusage takes equal calls of two sessions for one
            own    = event(f'2026-11-{day+1}T01:00:00.000Z', [a+b for a,b in zip(total, last)], last)
            write(home/f'.codex/sessions/2026/11/{day+1}/rollout-2026-11-{day+1}T00-00-00-b{s}.jsonl', session(f'b{s}', [*copied, own], forked_from_id=f'a{s}', source=dict(subagent=dict(thread_spawn=dict(parent_thread_id=f'a{s}')))))

def gemini(rnd, home):
    for s in range(3):
        ms = []
        for i in range(rnd.randrange(1, 20)):
            n,cached,out,think,tool = rnd.randrange(500, 9000),rnd.choice([0, 300]),rnd.randrange(5, 900),rnd.choice([0, 77]),rnd.choice([0, 11])
            ms.append(dict(id=f'g{s}-{i}', timestamp=when(rnd), type='gemini', model='gemini-2.5-pro', content='', tokens=dict(input=n, output=out, cached=cached, thoughts=think, tool=tool, total=n+out+think+tool+rnd.choice([0, cached]))))
        p = home/f'.gemini/tmp/h{s}/chats/session-{s}.json'
        p.parent.mkdir(parents=True)
        p.write_text(json.dumps(dict(sessionId=f'g{s}', startTime=when(rnd), messages=[dict(id='u', type='user', content='hi'), *ms])))

def opencode(rnd, home):
    import sqlite3
    d = home/'.local/share/opencode'
    d.mkdir(parents=True)
    con = sqlite3.connect(d/'opencode.db')
    con.execute('CREATE TABLE message (id TEXT PRIMARY KEY, session_id TEXT, data TEXT)')
    for i in range(rnd.randrange(1, 60)):
        c = dict(input=rnd.randrange(1, 900), output=rnd.randrange(1, 900), reasoning=0, cache=dict(read=rnd.choice([0, 5000]), write=rnd.choice([0, 700])))
        data = dict(role='assistant', time=dict(created=1762800000000+rnd.randrange(10*86400*1000)), modelID='claude-sonnet-4-5', providerID='anthropic', cost=0, tokens=c)
        con.execute('INSERT INTO message VALUES (?,?,?)', (f'x{i}', f'o{i%5}', json.dumps(data)))
    con.commit()
    con.close()

def theirs(home, node, tool):
    "{(day, model): (uncached input, cache reads, cache writes, all tokens)} as ccusage has them, and its US dollars"
    env = {k:v for k,v in os.environ.items() if not k.startswith(('CLAUDE','CODEX','GEMINI','OPENCODE','XDG'))} | dict(HOME=str(home))
    r = subprocess.run([node/'node_modules/.bin/ccusage', tools[tool], 'daily', '--json', '--offline', '--timezone', 'UTC'], env=env, capture_output=True, text=True, check=True)
    res,usd = {},0.
    for d in json.loads(r.stdout)['daily']:
        ms   = d.get('modelBreakdowns') or [dict(v, modelName=k) for k,v in d['models'].items()]
        usd += d.get('totalCost', d.get('costUSD'))
        for m in ms:
            some = [m[k] for k in ('inputTokens','cacheReadTokens','cacheCreationTokens')]
            whole = d['totalTokens'] if len(ms)==1 else sum(some)+m['outputTokens'] # the total has Gemini's thoughts, the output has not
            res[d['date'],m['modelName']] = *some,whole
    return res,usd

def ours(home, tool):
    "The same of a ledger"
    l = Ledger(home/f'{tool}.db')
    at = [p for o in llm_usage.agents.SOURCES[tool].places() if os.path.exists(p := o.replace('~', str(home)))]
    taken = [l.import_from(tool, *at) for _ in range(2)]
    assert taken[1].new==0 and taken[1].known==taken[0].new, taken
    rows = l.q("""SELECT date(timestamp,'unixepoch') day, model, sum(prompt_tokens-ifnull(cache_read_tokens,0)-ifnull(cache_creation_tokens,0)) a, sum(ifnull(cache_read_tokens,0)) b,
        sum(ifnull(cache_creation_tokens,0)) c, sum(prompt_tokens+completion_tokens) d FROM usage GROUP BY 1,2""")
    res,usd = {(o['day'],o['model']):(o['a'],o['b'],o['c'],o['d']) for o in rows},l.total().amount
    l.close()
    return res,usd

if __name__=='__main__':
    n,bad,sums = int(sys.argv[1]) if len(sys.argv)>1 else 10,0,{}
    with TemporaryDirectory() as node:
        node = Path(os.environ.get('CCUSAGE') or node) # where it is installed, if it is
        if not (node/'node_modules').exists(): subprocess.run(['npm','install','--silent','--prefix',node,f'ccusage@{VERSION}',f'@ccusage/ccusage-linux-x64@{VERSION}'], check=True)
        for seed in range(n):
            with TemporaryDirectory() as d:
                home,rnd = Path(d),random.Random(seed)
                for f in (claude,codex,gemini,opencode): f(rnd, home)
                for tool in tools:
                    (a,mine),(b,their) = ours(home, tool),theirs(home, node, tool)
                    s = sums.setdefault(tool, [0, 0, 0., 0.])
                    s[0],s[1],s[2],s[3] = s[0]+len(b),s[1]+sum(v[3] for v in b.values()),s[2]+mine,s[3]+their
                    for k in sorted({*a,*b}):
                        if a.get(k)!=b.get(k): bad += 1; print(f'seed {seed} {tool} {k}: {a.get(k)} here, {b.get(k)} there')
    for tool,(days,tokens,mine,their) in sums.items(): print(f'{tool}: {days} days and models, {tokens:,} tokens; ${mine:.4f} here, ${their:.4f} there')
    print('equal, to the token' if not bad else f'{bad} differ')
    sys.exit(bool(bad))
