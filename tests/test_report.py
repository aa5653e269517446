"""Reports of a hundred thousand rows are what pandas makes of the same rows; rollups are exact whoever writes, reads, or is killed meanwhile."""
import json, os, random, signal
from contextlib import closing
from datetime import datetime, timezone
from multiprocessing import get_context
import apsw, pandas as pd, pytest
from helpers import python
from llm_usage import Ledger, Usage, rollup
from llm_usage import Total
from llm_usage.store import connect

utc   = lambda *d: datetime(*d, tzinfo=timezone.utc).timestamp()
spans = [(utc(2026,3,5),utc(2026,4,8)), (utc(2025,10,24),utc(2025,11,5)), (utc(2026,10,1),utc(2026,10,9))] # clocks change in Europe, America, on Lord Howe
names = dict(anthropic=['claude-sonnet-5-5','claude-haiku-5-5'], openai=['gpt-5.6-luna','gpt-house-mini'])
parts = 'inp_usd cache_read_usd cache_write_usd out_usd web_usd other_usd'.split()
kinds = 'prompt_tokens cache_read_tokens cache_creation_tokens completion_tokens reasoning_tokens total_tokens web_search_requests'.split()
whose = 'provider model user_id team_id end_user api_key_hash agent session_id tags call_type'.split()

def row(r, i):
    "A random row; of five hundred one has no cost, and of some only the price tables know one; of three hundred one has a cost that lacks something"
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
    if i%300==1: u.cost_lacks = 'web search'
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
    l.insert_all(us)
    us += [adjustment(u, f'fix-{u.call_id}', .5, 'provider model user_id tags'.split(), adjusts=u.uid) for u in us[0:5000:1000]] # these had no cost
    us += [adjustment(u, f'whole-{u.call_id}', .01, 'provider model user_id tags'.split(), adjusts=u.uid) for u in us[1:90_000:3000]] # and these not all of it
    l.insert_all(us[-35:])
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
        none = live and (cost is None or bool(u.cost_lacks) and u.uid not in fixed)
        p = dict.fromkeys(parts, 0.)
        if live and cost:
            if u.response_cost is None or u.inp_usd is not None: p = {k: u.cost_parts().get(k.removesuffix('_usd'), 0.) for k in parts}
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
        if w['unpriced']==w['calls']>0 and not w['cost']: assert pd.isna(got[k]['cost']), k # nobody knows, which is not 0
        for c,v in w.items():
            if not pd.isna(got[k][c]): assert got[k][c]==v if isinstance(v,int) else abs(got[k][c]-v) < 1e-8, (k, c, got[k][c], v)
        assert {c for c in w if pd.isna(got[k][c])} <= {'cost'}

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
    assert abs(a.amount-Total.of(us).amount) < 1e-7

def test_days_of_23_and_25_hours(p):
    "With a call every minute, a day has as many calls as minutes"
    l = Ledger(p)
    l.insert_all(Usage(call_id=f'{t}', timestamp=t, response_cost=.001) for t in range(int(utc(2026,3,28)), int(utc(2026,3,31)), 60))
    l.insert_all(Usage(call_id=f'{t}', timestamp=t, response_cost=.001) for t in range(int(utc(2025,10,25)), int(utc(2025,10,28)), 60))
    n = l.spend('day', tz='Europe/Berlin').set_index('day').calls
    assert (n['2026-03-29'], n['2025-10-26'], n['2026-03-30'])==(23*60, 25*60, 24*60)

def test_writers_and_readers(p, monkeypatch):
    "Four processes write while four read reports: each report is right at some moment, none goes back, and at the end all are there once"
    Ledger(p).close()
    monkeypatch.setattr(rollup, '_beyond', 50)
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
def traced(*args, connect=rollup.connect):
    con = connect(*args)
    con.set_exec_trace(lambda *_: print('.', end='', flush=True) or bool(sys.stdin.readline())) # before each statement
    return con
rollup._piece,rollup.connect = 500,traced
l = Ledger(sys.argv[1])
for o in ('calls','user','tag'): l._catch_up(o)'''

def test_killed_while_summing_up(p, monkeypatch):
    "A process is killed after any number of SQL statements while it brings rollups up to date: nothing is counted twice, nothing is left out"
    Ledger(p).insert_all(Usage(call_id=f'c{i}', timestamp=1.79e9+i, model=f'm{i%7}', response_cost=1.) for i in range(30_000))
    r,midway = random.Random(1),0
    for _ in range(12):
        o = python(_summing_up, p)
        for _ in range(r.randrange(1,80)): # it goes on when it is told to
            assert o.stdout.read(1)=='.'
            o.stdin.write('\n'); o.stdin.flush()
        o.kill() # while it does the last of these, or waits with the next
        assert (o.communicate()[1], o.returncode)==('', -signal.SIGKILL)
        l = Ledger(p)
        with closing(apsw.Connection(f'{p}-rollups')) as con:
            if con.execute('SELECT 1 FROM sqlite_master').fetchall(): midway += any(0 < upto < 30_000 for upto, in con.execute('SELECT upto FROM rollups'))
        assert l.check()==[]
        l.close()
    assert midway
    l = Ledger(p)
    monkeypatch.setattr(rollup, '_beyond', 0)
    for by in ('model','user','tag','day'): assert l.spend(by).calls.sum()==30_000
    assert l.check()==[]

def test_purged(p, monkeypatch):
    "What was summed up before rows are purged is not reported any more; nor are sums of rows that come later wrong"
    monkeypatch.setattr(rollup, '_beyond', 0)
    l = Ledger(p)
    l.insert_all(Usage(call_id=f'{t}', timestamp=t, model=f'm{t%3}', response_cost=1.) for t in range(0, 3600*24, 60))
    assert l.spend('model').calls.sum()==24*60
    assert l.purge(3600*10)==10*60
    assert (l.spend('model').calls.sum(), l.spend('day').attrs['total'].amount, l.check())==(14*60, 14*60, [])
    l.add(Usage(call_id='new', timestamp=3600*24, response_cost=1.))
    assert l.spend('model').calls.sum()==14*60+1 and l.check()==[]

priced_by = 'model provider call_type user team end_user key session agent tag day'.split()

def test_adjustments_of_reprice(p):
    "An adjustment that `reprice` writes is of the groups of the row that it names: what each came to by the price tables is what it was billed now"
    l = Ledger(p)
    for u in (us := [row(random.Random(i), i) for i in range(0, 20_000, 500)]): u.origin,u.status,u.cost_lacks = 'live','ok',None # all without a cost
    l.insert_all(us)
    was = {by: said(l.spend(by), [by]) for by in priced_by}
    t   = l.total()
    l.reprice(apply=True)
    n,adjusted = len(l.rows("origin='adjustment'")),l.total()
    assert 0 < n==t.priced and adjusted.calls==adjusted.priced+t.unpriced==len(us) and adjusted.amount==pytest.approx(t.amount)==pytest.approx(adjusted.adjusted)
    for by in priced_by: assert {k:pytest.approx(v['cost'], nan_ok=True) for k,v in was[by].items()}=={k:v['cost'] for k,v in said(l.spend(by), [by]).items()}, by
    assert l.reprice(apply=True).difference.abs().max() < 1e-12 and len(l.rows("origin='adjustment'"))==n

@pytest.mark.parametrize('why', ['held','garbage','folder'])
def test_rollups_that_cannot_be_written(p, monkeypatch, why):
    "While another sums up, or the file of rollups is something else, or none can be made, reports are read from the rows, and are right"
    monkeypatch.setattr(rollup, '_beyond', 0)
    monkeypatch.setattr(rollup, '_patient', .01)
    l,beside = Ledger(p),p.with_name(f'{p.name}-rollups')
    l.insert_all(rows(2000))
    if why!='folder': l.spend('day'); assert beside.exists()
    l.add(Usage(call_id='new', timestamp=utc(2026,3,20), response_cost=1.))
    if why=='garbage': beside.write_bytes(b'no database '*999)
    if why=='folder': beside.mkdir()
    with closing(connect(':memory:' if why=='folder' else beside)) as o:
        if why=='held': o.execute('BEGIN IMMEDIATE')
        n,t = l.spend('day').calls.sum(),l.spend('user').attrs['total']
    assert n==t.calls==2001 and l.spend('user').calls.sum()==2001 and not [o for o in l.check() if 'rollup' in o]

def test_rollups_of_another_ledger(tmp_path, monkeypatch):
    "A rollup that lies beside a ledger which it is not of counts for nothing: another file, a backup of before, more or fewer rows"
    monkeypatch.setattr(rollup, '_beyond', 0)
    a,b = Ledger(tmp_path/'a.db'),Ledger(tmp_path/'b.db')
    us = [Usage(call_id=f'c{i}', timestamp=1.79e9+i, response_cost=1.) for i in range(60)]
    a.insert_all(us[:30]); b.insert_all(us[30:])
    copy = a.backup(tmp_path/'copy.db')
    a.insert_all(us[30:50])
    assert a.spend().attrs['total'].amount==50 and b.spend().attrs['total'].amount==30
    for o in (a,b,copy): o.close()
    def with_rollups_of_a(name, n):
        os.replace(tmp_path/name, tmp_path/'a.db')
        with closing(Ledger(tmp_path/'a.db')) as l: assert (l.spend('model').calls.sum(), l.check())==(n, [])
        with closing(Ledger(tmp_path/'a.db')) as l: l.add(Usage(call_id='more', timestamp=1.79e9, response_cost=1.)); assert l.spend('day').calls.sum()==n+1
    with_rollups_of_a('copy.db', 30)
    with_rollups_of_a('b.db', 30)

@pytest.mark.parametrize('by', ['model','user','status'])
def test_latency(us, by):
    "Percentiles are those of pandas"
    us,l = us
    k  = dict(user='user_id').get(by, by)
    rs = pd.DataFrame([dict(k=getattr(u, k) or '', t=u.latency) for u in us if u.origin=='live' and u.status=='ok' and u.latency is not None])
    want = rs.groupby('k').t
    got  = l.latency(by).assign(**{by: lambda d: d[by].fillna('')}).set_index(by)
    assert got.calls.to_dict()==want.size().to_dict()
    for p,c in ((.5,'latency_p50'),(.95,'latency_p95')): assert (got[c]-want.quantile(p)).abs().max() < 1e-9

def test_top_and_sessions(us, frame):
    "The dearest, and the sessions, are those of pandas"
    _,l = us
    want = frame.groupby(['user','model'], dropna=False).cost.sum().sort_values(ascending=False).head(3)
    t = l.top(3, 'user model')
    assert list(zip(t.user.fillna(''), t.model))==[(u if isinstance(u, str) else '', m) for u,m in want.index]
    assert list(t.cost.round(8))==list(want.round(8)) and abs(t.share.sum()-want.sum()/frame.cost.sum()) < 1e-9
    s = l.sessions(None).set_index('session')
    assert s.calls.to_dict()==frame[frame.session.notna()].groupby('session').calls.sum().to_dict()

# Reports that read the rows, in periods whose days have 23 and 25 hours

when  = dict(zip(zones[:3], [('2026-03-10','2026-04-02'), ('2025-10-25','2025-10-27'), ('2026-03-07','2026-03-08')]))
three = pytest.mark.parametrize('tz', when)

def within(tz):
    "The seconds of the period that is asked for in zone `tz`"
    a,b = when[tz]
    return pd.Timestamp(a, tz=tz).timestamp(), (pd.Timestamp(b, tz=tz)+pd.DateOffset(days=1)).timestamp()

@three
def test_latency_of_days(us, tz):
    us,l = us
    a,b  = within(tz)
    rs   = pd.DataFrame([dict(k=u.model, t=u.latency) for u in us if u.origin=='live' and u.status=='ok' and u.latency is not None and a<=u.timestamp<b])
    got  = l.latency(since=when[tz][0], until=when[tz][1], tz=tz).set_index('model')
    assert got.calls.to_dict()==rs.groupby('k').size().to_dict() and (got.latency_p95-rs.groupby('k').t.quantile(.95)).abs().max() < 1e-9

@three
def test_top_of_days(us, frame, tz):
    _,l  = us
    a,b  = within(tz)
    df   = frame[(frame.t>=a) & (frame.t<b)]
    want = df.assign(day=df.time.dt.tz_convert(tz).dt.strftime('%Y-%m-%d')).groupby(['day','model']).cost.sum().sort_values(ascending=False).head(5)
    got  = l.top(5, 'day model', since=when[tz][0], until=when[tz][1], tz=tz)
    assert [(t.strftime('%Y-%m-%d'), m) for t,m in zip(got.day, got.model)]==[*want.index] and (got.cost-want.to_numpy()).abs().max() < 1e-9
    assert abs(got.share.sum()-want.sum()/df.cost.sum()) < 1e-9

@three
def test_sessions_of_days(us, frame, tz):
    "What a session came to, who took part, and its first and last moment are all of the period"
    us,l = us
    a,b  = within(tz)
    want = frame[(frame.t>=a) & (frame.t<b)].groupby('session')
    ends = {s: max(u.timestamp+(u.latency or 0) for u in us if u.session_id==s and a<=u.timestamp<b) for s in want.groups}
    got  = l.sessions(None, since=when[tz][0], until=when[tz][1], tz=tz).set_index('session')
    assert got.calls.to_dict()==want.calls.sum().to_dict() and (got.cost-want.cost.sum()).abs().max() < 1e-9
    assert all(abs(got['first'][s].timestamp()-want.t.min()[s]) < 1e-5 and abs(got['last'][s].timestamp()-ends[s]) < 1e-5 for s in ends)
    assert {s:{*v.split(',')} for s,v in got.users.items()}=={s:{*g.user.dropna()} for s,g in want} and str(got['first'].dtype.tz)==tz

@three
@pytest.mark.parametrize('by', ['team user model','session agent cell','provider'])
def test_tree(us, frame, tz, by):
    "Each node has all below it, and its own; its own sum to the ledger's total"
    _,l = us
    by,(a,b) = by.split(),within(tz)
    df   = frame[(frame.t>=a) & (frame.t<b)]
    path = df[by].apply(lambda r: tuple(None if pd.isna(o) else str(int(o)) if isinstance(o, float) else str(o) for o in r), axis=1)
    def trimmed(k):
        while k and k[-1] is None: k = k[:-1]
        return k
    path = path.map(trimmed)
    got  = l.tree(by, since=when[tz][0], until=when[tz][1], tz=tz)
    assert abs(got.own.sum()-df.cost.sum()) < 1e-8 and got.calls[0]==df.calls.sum()
    nodes = {k[:i] for k in path for i in range(len(k)+1)}
    name  = lambda k: ' / '.join(o or '–' for o in k) or 'all'
    assert {*got.node}=={*map(name, nodes)} and len(got)==len(nodes)
    own,whole = got.set_index('node').own,got.set_index('node').total
    for k in nodes:
        assert abs(own[name(k)]-df.cost[path==k].sum()) < 1e-8
        assert abs(whole[name(k)]-df.cost[path.map(lambda o: o[:len(k)]==k)].sum()) < 1e-8
    at = {n:i for i,n in enumerate(got.node)}
    assert all(at[name(k[:-1])] < at[name(k)] for k in nodes if k)

@three
@pytest.mark.parametrize('by', [['model'],['day'],['day','user'],['tag']])
def test_cache_report(us, frame, tz, by):
    "What caching saved, cost and lost, and what other caches would have cost, each call by itself"
    us,l = us
    a,b  = within(tz)
    rs   = []
    for u in us:
        if not (u.origin=='live' and (u.cache_read_tokens or u.cache_creation_tokens) and a<=u.timestamp<b): continue
        if not (p := u.price_row()): continue
        r = p.rates(u.prompt_tokens, None, u.timestamp)
        rs.append(dict(t=u.timestamp, chain=(u.model, u.session_id), read=u.cache_read_tokens, wrote=u.cache_creation_tokens, i=r['input'], r=r['cache read'], w=r['cache write'],
            w1=r['cache write, 1 h'], model=u.model, user=u.user_id or '', tag=json.loads(u.tags) if u.tags else []))
    df = pd.DataFrame(rs).sort_values('t', kind='stable')
    g  = df.groupby('chain')
    df['size'] = df.read+df.wrote
    df['gap'],df['had'] = df.t-g.t.shift(),g['size'].shift().fillna(0)
    df['saved'],df['extra'],df['uncached'] = df.read*(df.i-df.r),df.wrote*(df.w-df.i),df['size']*df.i
    for c,lasts,w in (('at_5m',300,df.w),('at_1h',3600,df.w1)):
        read  = df[['had','size']].min(axis=1).where(df.gap<=lasts, 0)
        df[c] = read*df.r + (df['size']-read)*w
    later = df.t.where(df.read>0).groupby(df.chain).transform(lambda s: s.shift(-1).bfill()) # the next read of the chain
    df['lost'] = (df.wrote>0) & ~(later-df.t <= 300) & (b-df.t > 300)
    df['unread_tokens'],df['unread_usd'] = df.wrote*df.lost,df.extra*df.lost
    df['day'] = pd.to_datetime(df.t, unit='s', utc=True).dt.tz_convert(tz).dt.strftime('%Y-%m-%d')
    if by==['tag']: df = df.assign(tag=df.tag.map(lambda o: o or [''])).explode('tag')
    cols = 'saved extra uncached at_5m at_1h unread_tokens unread_usd'.split()
    want = df.groupby(by)[cols].sum()
    got  = said(l.cache_report(by, since=when[tz][0], until=when[tz][1], tz=tz), by)
    for k,w in want.iterrows():
        x = got[k if isinstance(k, tuple) else (k,)]
        for c in cols: assert abs(x[c]-w[c]) < 1e-6 or c=='at_1h' and pd.isna(x[c]), (k, c, x[c], w[c])
        assert abs(x['net']-(w.saved-w.extra)) < 1e-9
    assert {k for k,x in got.items() if x['saved']}=={k if isinstance(k, tuple) else (k,) for k,w in want.iterrows() if w.saved}

@three
@pytest.mark.parametrize('by', ['model','team user'])
def test_compare(us, frame, tz, by):
    "What changed is what pandas subtracts, and the three parts sum to it"
    _,l = us
    by  = by.split()
    ends = [pd.Timestamp(o, tz=tz).timestamp() for o in ('2026-03-01','2026-04-01','2026-10-01','2026-11-01')]
    x,y  = (frame[(frame.t>=a) & (frame.t<b)].assign(**{k:frame[k].fillna('') for k in by}).groupby(by).cost.sum() for a,b in (ends[:2],ends[2:]))
    got  = l.compare('2026-03', '2026-10', ' '.join(by), tz=tz)
    assert (got.change-got[['calls','tokens','price']].sum(axis=1)).abs().max() < 1e-9
    got  = {tuple('' if pd.isna(r[k]) else r[k] for k in by): r for r in got.to_dict('records')}
    for k in {*x.index, *y.index}:
        r = got[k if isinstance(k, tuple) else (k,)]
        assert abs(r['cost_a']-x.get(k,0)) < 1e-8 and abs(r['cost_b']-y.get(k,0)) < 1e-8 and abs(r['change']-(y.get(k,0)-x.get(k,0))) < 1e-8

@three
def test_forecast(us, frame, tz):
    "What is spent until now, and by how many days it goes, are those of the zone"
    _,l = us
    now,first = (pd.Timestamp(o, tz=tz).timestamp() for o in ('2026-03-30T15:00','2026-03-01'))
    f = l.forecast(tz=tz, now=now)
    assert abs(f.spent-frame.cost[(frame.t>=first) & (frame.t<now)].sum()) < 1e-8 and str(f.until)=='2026-03-31'
    days = frame[(frame.t<now) & (frame.t>=pd.Timestamp('2026-02-02', tz=tz).timestamp())].time.dt.tz_convert(tz).dt.strftime('%Y-%m-%d').nunique()-1
    assert f.days==days and f.spent < f.low < f.high

# Rows that are gone, of which the sums are kept

@pytest.fixture
def purged(us, tmp_path):
    "The ledger, of whose rows those before 20 March 2026, 10:20 are gone"
    _,l = us
    l = l.backup(tmp_path/'purged.db')
    l.purge(utc(2026,3,20,10,20), keep=True)
    yield l
    l.close()

def test_kept(us, frame, purged):
    "What sums can say is what the rows said"
    us,_ = us
    assert len(purged.rows()) < 55_000 and not [o for o in purged.check() if 'rollup' in o]
    for tz in zones[:3]:
        for by in [['day'],['month','model'],['user'],['week','team'],['tag'],['agent','day'],['status','origin'],['hour','provider'],[]]:
            if by: same(said(purged.spend(*by, tz=tz), by), brute(frame, by, tz))
    a,b = utc(2026,3,7,5),utc(2026,3,22,17)
    same(said(purged.spend('model', since=a, until=b), ['model']), brute(frame, ['model'], 'UTC', a, b))
    same(said(purged.spend('user','model', since=utc(2026,3,20,11)), ['user','model']), {k:v for k,v in brute(frame, ['user','model'], 'UTC', utc(2026,3,20,11), 9e9).items()})
    t,w,n = purged.total(),Total.of(us),frame.sum(numeric_only=True)
    assert (t.calls, t.unpriced, t.estimated)==(w.calls, n.unpriced, w.estimated) and all(abs(getattr(t,k)-getattr(w,k)) < 1e-7 for k in ('amount','saved','adjusted'))

@pytest.mark.parametrize('ask', [dict(by=['user','model']), dict(by=['session']), dict(by=['model'], where="user_id='ada'"), dict(by=['day'], tz='Asia/Kolkata'), dict(by=['model'], since=utc(2026,3,7,5,1))], ids=str)
def test_not_kept(purged, ask):
    "What they cannot say is refused"
    by = ask.pop('by')
    with pytest.raises(ValueError, match='of the calls before 2026-03-20 11:00 UTC only sums'): purged.spend(*by, **ask)

_purging = '''
import sys
from llm_usage import Ledger
l = Ledger(sys.argv[1])
l.con.set_exec_trace(lambda *_: print('.', end='', flush=True) or bool(sys.stdin.readline())) # before each statement
l.purge(1.79e9+25_000, keep=True)'''

def test_killed_while_purging(p):
    "A process is killed after any number of SQL statements while it keeps sums and deletes their rows: each call is counted once"
    Ledger(p).insert_all(Usage(call_id=f'c{i}', timestamp=1.79e9+i, model=f'm{i%7}', user_id='ada', response_cost=None if i%1000==0 else 1.) for i in range(30_000))
    r,midway = random.Random(1),0
    for _ in range(10):
        o = python(_purging, p)
        for _ in range(r.randrange(20,400)):
            if o.stdout.read(1)!='.': break
            o.stdin.write('\n'); o.stdin.flush()
        o.kill()
        o.communicate()
        l = Ledger(p)
        left = l.q('SELECT count(*) n FROM usage')[0]['n']
        midway += 5000 < left < 30_000
        for by in ('model','user','day'): assert l.spend(by).calls.sum()==30_000
        t = l.total()
        assert (t.calls, t.priced, round(t.amount), l.check())==(30_000, 29_970, 29_970, [])
        l.close()
    assert midway
    l = Ledger(p)
    l.purge(1.79e9+25_000, keep=True)
    assert (l.q('SELECT count(*) n FROM usage')[0]['n'], l.spend('user').calls.sum(), l.total().priced)==(5000, 30_000, 29_970)
