"""Reports of a hundred thousand rows are what pandas makes of the same rows; rollups are exact whoever writes, reads, or is killed meanwhile."""
import json, os, random, signal
from datetime import datetime, timezone
from multiprocessing import get_context
import pandas as pd, pytest
from helpers import python
from llm_usage import Ledger, Usage, rollup
from llm_usage.cost import total

utc   = lambda *d: datetime(*d, tzinfo=timezone.utc).timestamp()
spans = [(utc(2026,3,5),utc(2026,4,8)), (utc(2025,10,24),utc(2025,11,5)), (utc(2026,10,1),utc(2026,10,9))] # clocks change in Europe, America, on Lord Howe
names = dict(anthropic=['claude-sonnet-5-5','claude-haiku-5-5'], openai=['gpt-5.6-luna','gpt-house-mini'])
parts = 'inp_usd cache_read_usd cache_write_usd out_usd web_usd other_usd'.split()
kinds = 'prompt_tokens cache_read_tokens cache_creation_tokens completion_tokens reasoning_tokens total_tokens web_search_requests'.split()
whose = 'provider model user_id team_id end_user api_key_hash agent session_id tags call_type'.split()

def row(r, i):
    "A random row; of five hundred one has no cost, and of some only the price tables know one"
    who,when = r.choice([*names]),r.choice(spans)
    p,c = r.randrange(5000),r.randrange(900)
    u = Usage(call_id=f'c{i}', timestamp=r.uniform(*when), latency=r.random()*9, provider=who, model=r.choice(names[who]),
        user_id=r.choice(['ada','bob','cy',None]), team_id=r.choice(['red','blue',None]), end_user=r.choice(['acme',None]), api_key_hash=r.choice(['k1','k2']),
        agent=r.choice(['planner',None]), session_id=f's{r.randrange(50)}', tags=r.choice([None,'["a"]','["a", "b"]','["b", "c"]','[]']),
        meta=r.choice([None, '{"notebook": "nb", "cell": 3}', '{"x": 1}']), status=r.choice(['ok']*9+['failed','partial']),
        call_type=r.choice(['completion','acompletion']), usage_source=r.choice(['reported']*9+['estimated']), origin=r.choice(['live']*8+['cache','replay']),
        prompt_tokens=p, cache_read_tokens=p//3, cache_creation_tokens=p//9, completion_tokens=c, reasoning_tokens=c//2, total_tokens=p+c, web_search_requests=i%2)
    cost = r.random()/100
    if i%500: u.response_cost = cost
    if i%500 and i%7: u.inp_usd,u.cache_read_usd,u.cache_write_usd,u.out_usd = (cost*x for x in (.4,.1,.1,.3))
    return u

def adjustment(u, uid, usd, cols=whose, **kw):
    return Usage(uid=uid, origin='adjustment', response_cost=usd, timestamp=u.timestamp, **{c:getattr(u,c) for c in cols}, **kw)

def rows(n, seed=1):
    r  = random.Random(seed)
    us = [row(r,i) for i in range(n)]
    return us + [adjustment(u, f'adj-{k}', r.uniform(-.01,.01)) for k,u in enumerate(us[::1000])]

@pytest.fixture(scope='module')
def us(tmp_path_factory):
    us = rows(100_000)
    l  = Ledger(tmp_path_factory.mktemp('l')/'usage.db')
    l.add_all(us)
    us += [adjustment(u, f'fix-{u.call_id}', .5, 'provider model user_id tags'.split(), adjusts=u.uid) for u in us[0:5000:1000]] # these had no cost
    l.add_all(us[-5:])
    l.close()
    return us,l

@pytest.fixture(scope='module')
def frame(us):
    "What each row counts for, from its own properties"
    us,_  = us
    fixed = {u.adjusts for u in us if u.adjusts}
    res   = []
    for u in us:
        adj,live,meta = u.origin=='adjustment',u.origin=='live',json.loads(u.meta) if u.meta else {}
        cost = u.response_cost if adj else (0. if u.response_cost is None and u.uid in fixed else u.cost) if live else 0.
        none = live and cost is None
        p = dict.fromkeys(parts, 0.)
        if live and cost and not none:
            if u.response_cost is None or u.inp_usd is not None: p = {k: u.split().get(k.removesuffix('_usd'), 0.) for k in parts}
            else: p['other_usd'] = cost # nobody said how it is made up
        if adj: p['other_usd'] = cost
        res.append(dict(t=u.timestamp, model=u.model, provider=u.provider, user=u.user_id, team=u.team_id, end_user=u.end_user, key=u.api_key_hash,
            session=u.session_id, agent=u.agent, tag=json.loads(u.tags) if u.tags else None, status=u.status, call_type=u.call_type, origin=u.origin,
            notebook=meta.get('notebook'), cell=meta.get('cell'),
            calls=int(not adj), unpriced=int(none), replayed=int(not live and not adj), estimated=int(not adj and u.usage_source=='estimated'),
            **{k:(getattr(u,k) or 0) if live else 0 for k in kinds}, cost=cost or 0., **p, saved=u.saved if not adj else 0.))
    df = pd.DataFrame(res)
    df['time'] = pd.to_datetime(df.t, unit='s', utc=True)
    return df

cut = dict(hour='h', day='D', week='W-SUN', month='M')

def brute(df, by, tz, a=None, b=None):
    "The same report by pandas"
    if a: df = df[(df.t>=a) & (df.t<b)]
    local = df.time.dt.tz_convert(tz)
    date  = lambda k: local.dt.tz_localize(None).dt.to_period(cut[k]).dt.start_time.dt.strftime('%Y-%m-%d')
    for k in by:
        if k in cut: df = df.assign(**{k: local.dt.strftime('%Y-%m-%dT%H%z') if k=='hour' else date(k)})
    if 'tag' in by: df = df.assign(tag=df.tag.map(lambda o: o or [None])).explode('tag')
    if 'cell' in by: df = df.assign(cell=df.cell.map(lambda o: None if pd.isna(o) else str(int(o))))
    for k in by: df = df.assign(**{k: df[k].map(lambda o: '' if pd.isna(o) else str(o))})
    sums = ['calls','unpriced','replayed','estimated',*kinds,'cost',*parts,'saved']
    return {k if isinstance(k,tuple) else (k,): dict(v) for k,v in df.groupby(by)[sums].sum().to_dict('index').items()}

def said(df, by):
    "A report as a dictionary"
    def one(k, v): return v.strftime('%Y-%m-%dT%H%z' if k=='hour' else '%Y-%m-%d') if k in cut else '' if pd.isna(v) else str(v)
    key = lambda r: tuple(one(k, r[k]) for k in by)
    return {key(r): r for r in df.to_dict('records')}

def same(got, want):
    assert set(got)==set(want), (set(got)^set(want))
    for k,w in want.items():
        for c,v in w.items(): assert got[k][c]==v if isinstance(v,int) else abs(got[k][c]-v) < 1e-8, (k, c, got[k][c], v)

alls  = [*([o] for o in 'day week month hour model provider user team end_user key session agent tag status call_type origin notebook cell'.split()),
         ['day','model'],['week','user'],['month','tag'],['day','user','model'],['tag','team'],['hour','origin','status']]
zones = ['UTC','Europe/Berlin','America/New_York','Asia/Kolkata','Australia/Lord_Howe']

unnamed = lambda tz,by: tz==zones[4] and 'hour' in by # an hour that is set back by half of one has no name
asked = [(tz,by) for tz in zones for by in alls if tz=='UTC' or set(by) & set(cut) and not unnamed(tz, by)]

@pytest.mark.parametrize('tz,by', asked, ids=lambda o: o if isinstance(o,str) else '-'.join(o))
def test_by(us, frame, tz, by):
    "Every column to group by; days and hours in five zones, of which clocks change in three"
    _,l = us
    same(said(df := l.spend(*by, tz=tz), by), brute(frame, by, tz))
    t = df.attrs['total']
    n = frame.sum(numeric_only=True)
    assert (t.calls, t.priced, t.estimated)==(n.calls, n.calls-n.unpriced, n.estimated) and abs(t.amount-n.cost) < 1e-7

@pytest.mark.parametrize('seed', range(12))
def test_periods(us, frame, seed):
    "Periods that begin and end at any second, from a rollup and from the rows"
    r,(_,l) = random.Random(seed),us
    a,b = sorted(r.uniform(spans[0][0], spans[0][1]) for _ in range(2))
    if seed%3==0: b = a+r.uniform(1,5000)
    tz,by = r.choice(asked)
    same(said(l.spend(*by, tz=tz, since=a, until=b), by), brute(frame, by, tz, a, b))
    same(said(l.spend(*by, tz=tz, since=a, until=b, where='1=1'), by), brute(frame, by, tz, a, b))

def test_total(us):
    "The total of a report is the ledger's"
    us,l = us
    a,b = l.spend().attrs['total'],l.total()
    assert (a.calls, a.priced, a.estimated)==(b.calls, b.priced, b.estimated)
    assert all(abs(getattr(a,k)-getattr(b,k)) < 1e-7 for k in ('amount','saved','adjusted'))
    assert abs(a.amount-total(us).amount) < 1e-7

def test_days_of_23_and_25_hours(p):
    "With a call every minute, a day has as many calls as minutes"
    l = Ledger(p)
    l.add_all(Usage(call_id=f'{t}', timestamp=t, response_cost=.001) for t in range(int(utc(2026,3,28)), int(utc(2026,3,31)), 60))
    l.add_all(Usage(call_id=f'{t}', timestamp=t, response_cost=.001) for t in range(int(utc(2025,10,25)), int(utc(2025,10,28)), 60))
    n = l.spend('day', tz='Europe/Berlin').set_index('day').calls
    assert (n['2026-03-29'], n['2025-10-26'], n['2026-03-30'])==(23*60, 25*60, 24*60)

def test_writers_and_readers(p):
    "Four processes write while four read reports: each report is right at some moment, none goes back, and at the end all are there once"
    Ledger(p).close()
    n = 1500
    def writes(k):
        l = Ledger(p)
        for i in range(n): l.add(Usage(call_id=f'{k}-{i}', timestamp=1.79e9+i*60, model=f'm{k}', response_cost=1., tags=['t']))
        l.close()
    def reads(k):
        l,was = Ledger(p),0
        while was < 4*n:
            t = l.spend(*[['model'],['day'],['tag'],['user']][k]).attrs['total']
            assert t.calls >= was and t.amount==t.calls, (t, was)
            was = t.calls
        os._exit(0)
    ctx = get_context('fork')
    ps = [ctx.Process(target=f, args=(k,), daemon=True) for k in range(4) for f in (reads,writes)]
    for o in ps: o.start()
    for o in ps: o.join(120)
    assert [o.exitcode for o in ps]==[0]*8
    l = Ledger(p)
    assert {k:v for k,v in l.spend('model').set_index('model').calls.items()}=={f'm{k}':n for k in range(4)} and l.check()==[]

_summing_up = '''
import sys
from llm_usage import Ledger, rollup
rollup._piece = 500
l = Ledger(sys.argv[1])
l.con.set_exec_trace(lambda *_: print('.', end='', flush=True) or bool(sys.stdin.readline())) # before each statement
for o in ('calls','user','tag'): l._catch_up(o)'''

def test_killed_while_summing_up(p):
    "A process is killed after any number of SQL statements while it brings rollups up to date: nothing is counted twice, nothing is left out"
    Ledger(p).add_all(Usage(call_id=f'c{i}', timestamp=1.79e9+i, model=f'm{i%7}', response_cost=1.) for i in range(30_000))
    r,midway = random.Random(1),0
    for _ in range(12):
        o = python(_summing_up, p)
        for _ in range(r.randrange(1,80)): # it goes on when it is told to
            assert o.stdout.read(1)=='.'
            o.stdin.write('\n'); o.stdin.flush()
        o.kill() # while it does the last of these, or waits with the next
        assert (o.communicate()[1], o.returncode)==('', -signal.SIGKILL)
        l = Ledger(p)
        made = l.q("SELECT 1 FROM sqlite_master WHERE name='rollups'")
        midway += any(0 < u['upto'] < 30_000 for u in (l.q('SELECT what, upto FROM rollups') if made else []))
        assert l.check()==[]
        l.close()
    assert midway
    l = Ledger(p)
    for by in ('model','user','tag','day'): assert l.spend(by).calls.sum()==30_000
    assert l.check()==[]

def test_purged(p):
    "What was summed up before rows are purged is not reported any more; nor are sums of rows that come later wrong"
    l = Ledger(p)
    l.add_all(Usage(call_id=f'{t}', timestamp=t, model=f'm{t%3}', response_cost=1.) for t in range(0, 3600*24, 60))
    assert l.spend('model').calls.sum()==24*60
    assert l.purge(3600*10)==10*60
    assert (l.spend('model').calls.sum(), l.spend('day').attrs['total'].amount, l.check())==(14*60, 14*60, [])
    l.add(Usage(call_id='new', timestamp=3600*24, response_cost=1.))
    assert l.spend('model').calls.sum()==14*60+1 and l.check()==[]

def test_a_ledger_that_cannot_be_written(p, monkeypatch):
    "While another holds the ledger, reports are read from the rows, and are right"
    l = Ledger(p)
    l.add_all(rows(2000))
    l.spend('day')
    l.add(Usage(call_id='new', timestamp=utc(2026,3,20), response_cost=1.))
    o = Ledger(p)
    o.con.execute('BEGIN IMMEDIATE')
    monkeypatch.setattr(rollup, '_patient', .01)
    n,t = l.spend('day').calls.sum(),l.spend('user').attrs['total']
    o.con.execute('ROLLBACK')
    assert n==t.calls==2001

@pytest.mark.parametrize('by', ['model','user','status'])
def test_latency(us, by):
    "Percentiles are those of pandas"
    us,l = us
    k  = dict(user='user_id').get(by, by)
    rs = pd.DataFrame([dict(k=getattr(u, k) or '', t=u.latency) for u in us if u.origin=='live' and u.status=='ok' and u.latency is not None])
    want = rs.groupby('k').t
    got  = l.latency(by).assign(**{by: lambda d: d[by].fillna('')}).set_index(by)
    assert got.calls.to_dict()==want.size().to_dict()
    for p,c in ((.5,'total_p50'),(.95,'total_p95')): assert (got[c]-want.quantile(p)).abs().max() < 1e-9

def test_top_and_sessions(us, frame):
    "The dearest, and the sessions, are those of pandas"
    _,l = us
    want = frame.groupby(['user','model'], dropna=False).cost.sum().sort_values(ascending=False).head(3)
    t = l.top(3, 'user model')
    assert list(zip(t.user.fillna(''), t.model))==[(u if isinstance(u, str) else '', m) for u,m in want.index]
    assert list(t.cost.round(8))==list(want.round(8)) and abs(t.share.sum()-want.sum()/frame.cost.sum()) < 1e-9
    s = l.sessions(None).set_index('session')
    assert s.calls.to_dict()==frame[frame.session.notna()].groupby('session').calls.sum().to_dict()
