"The same ledger in SQLite, PostgreSQL and ClickHouse: what is asked of one gets the same answer from all"
import copy, json, math, os, random, re, sys, traceback
from itertools import count
from pathlib import Path
from urllib.parse import quote
import apsw, pytest, sqlalchemy as sa
sys.path.insert(0, str(Path(__file__).parents[1]/'tools'))
import engines, llm_usage
from helpers import python, ran
from llm_usage import Ledger, Usage
from llm_usage.budgets import BudgetExceeded
from llm_usage.columns import FIELDS
from llm_usage.outbox import Outbox, Sink
from llm_usage.connections import sent
from llm_usage.view import View
import llm_usage.spend_api as api

ENGINES = 'sqlite','postgresql','clickhouse'
T0 = 1_793_000_000.
_numbers = count(1)

@pytest.fixture(scope='module')
def pg():
    "A PostgreSQL server, whose session is in Seoul"
    server = engines.Postgres(options="-c timezone=Asia/Seoul")
    yield server
    server.close()

@pytest.fixture(scope='module')
def servers(pg):
    "Addresses of two servers"
    named = os.environ.get('LLM_USAGE_TEST_PG')
    return dict(postgresql=sa.make_url(named or pg.url()), clickhouse=sa.make_url(engines.clickhouse()))

@pytest.fixture(scope='module', autouse=True)
def journals(tmp_path_factory):
    with pytest.MonkeyPatch.context() as m:
        m.setenv('LLM_USAGE_JOURNAL', str(tmp_path_factory.mktemp('journals')))
        yield

@pytest.fixture(scope='module')
def new(servers, tmp_path_factory):
    "A function that makes an empty ledger of an engine, in a database of its own"
    def make(engine, **kw):
        name = f'llm_usage_{os.getpid()}_{next(_numbers)}'
        if engine=='sqlite': return Ledger(tmp_path_factory.mktemp('sqlite')/f'{name}.db', **kw)
        url = servers[engine]
        with sa.create_engine(url, isolation_level='AUTOCOMMIT').connect() as c: c.exec_driver_sql(f'CREATE DATABASE {name}')
        return Ledger(url.set(database=name).render_as_string(hide_password=False), **kw)
    return make

def rows(n, seed=7):
    "Calls of all kinds, over ten days"
    r = random.Random(seed)
    for i in range(n):
        origin = r.choice(['live']*8 + ['cache','replay'])
        cost = None if r.random() < .08 else r.lognormvariate(-8, 1)
        p,c = r.randrange(5000),r.randrange(900)
        t = T0 + i*733.5 + r.random()
        yield Usage(call_id=f'c{seed}-{i}', uid=f'{int(t*1000):012x}-{seed:04x}{i:012x}', response_id=f'r{i}', timestamp=t, latency=r.random()*9, ttft=r.random(),
            provider=r.choice(['openai','anthropic',None]), model=r.choice(['gpt-5','claude-sonnet-4-5','unknown-x', "o'neil %s \\ ?"]),
            user_id=r.choice(['ada','bob',None,'Zoë']), team_id=r.choice(['t1','t2']), session_id=f's{i//7}', api_key_hash='k', key_alias='Key', end_user=r.choice(['e1',None]),
            tags=r.choice([None,['a'],['b','a'],[]]), meta=json.dumps(dict(notebook=f'n{i%3}', cell=i%5, run=r.choice(['x','\x00','\ud800']))),
            origin=origin, status=r.choice(['ok']*9 + ['failed']), stream=i%2==0, call_type='completion', prompt_tokens=p, completion_tokens=c, total_tokens=p+c,
            usage_source=r.choice(['reported']*9 + ['estimated']), cache_read_tokens=p//2, response_cost=cost, inp_usd=cost and cost*.4, out_usd=cost and cost*.6,
            details=json.dumps(dict(saved_usd=.25)) if origin!='live' and i%3 else None)

@pytest.fixture(scope='module')
def ledgers(new):
    "A ledger of each engine with the same 1,000 rows, of which some were sent twice"
    res = {k:new(k) for k in ENGINES}
    us = [*rows(1000)]
    for l in res.values():
        for u in copy.deepcopy(us): l.enqueue(u)
        l.flush()
        for u in copy.deepcopy(us[:200]): l.enqueue(u)
        l.flush()
        assert l.insert_all(copy.deepcopy(us[100:300]))==0
        assert not l.journal.rows and not l.dropped
    yield res
    for l in res.values(): l.close()

def plain(v):
    "A value that can be compared: frames as sorted lines"
    if hasattr(v, 'columns'):
        df = v.reset_index(drop=True)
        return [*map(str, df)], sorted((plain([None if x!=x else x for x in r]) for r in df.astype(object).where(df.notna(), None).values.tolist()), key=lambda r: re.sub(r'\d+\.\d+(e-?\d+)?', '', str(r)) + str(r))
    if isinstance(v, dict): return {k:plain(o) for k,o in v.items()}
    if isinstance(v, (list,tuple)): return [*map(plain, v)]
    return v if isinstance(v, (int,float,str,type(None))) else str(v)

def same(a, b):
    "Are two values the same, to 1e-9 dollars?"
    if isinstance(a, (list,tuple)): return len(a)==len(b) and all(map(same, a, b))
    if isinstance(a, dict): return a.keys()==b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, float) and isinstance(b, (int,float)): return a==b or math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-9)
    return a==b

class Taken(Sink):
    "A system that takes all"
    name = 'taken'
    def send(self, events): return {}

def refused(fn, *args):
    try: return fn(*args)
    except (PermissionError,apsw.SQLError): return 'refused'

_by = ['user_id','model','day','hour','day model','hour user','month team key','week','tag','notebook cell','session','provider status origin','step','end_user','']
ASKS = {
    'total':            lambda l: vars(l.total()),
    'total of some':    lambda l: vars(l.total("user_id=:u AND status!='failed'", u='ada')),
    **{f'spend by {by or "nothing"}':lambda l, by=by: l.spend(*by.split()) for by in _by},
    'spend in a zone':  lambda l: l.spend('day','model', tz='Asia/Kolkata', since='2026-10-28', until='2026-11-02'),
    'spend in Seoul':   lambda l: l.spend('day', tz='Asia/Seoul'),
    'spend where':      lambda l: l.spend('model', where="model LIKE 'G%' AND prompt_tokens > :n", n=100),
    'spend where json': lambda l: l.spend('model', where="json_extract(meta,'$.notebook')=:n", n='n1'),
    'spend where odd':  lambda l: l.spend('model', where=r"model='o''neil %s \ ?' OR user_id IS NOT 'ada'"),
    'spend where null': lambda l: l.spend('model', where='provider IS :p', p=None),
    'latency':          lambda l: l.latency(),
    'latency of tags':  lambda l: l.latency('tag'),
    'sessions':         lambda l: l.sessions(None),
    'tree':             lambda l: l.tree(),
    'gpu hours':        lambda l: l.gpu_hours(),
    'top':              lambda l: l.top(3, 'user'),
    'caching':          lambda l: l.cache_report(),
    'compare':          lambda l: l.compare('2026-10','2026-11'),
    'unpriced':         lambda l: l.unpriced(),
    'what if':          lambda l: l.what_if('gpt-5'),
    'reprice':          lambda l: l.reprice(),
    'rows':             lambda l: [[getattr(u, f.name) for f in FIELDS if f.name!='meta'] for u in l.rows("status='failed'")],
    'df':               lambda l: l.df("status='failed'").drop(columns=['id','meta']),
    'by id':            lambda l: [u.uid for u in l.rows('id IN (SELECT value FROM json_each(:ids))', ids=json.dumps([u.id for u in l.rows()[:5]]))],
    'a question':       lambda l: l.q('SELECT model, count(*) n, sum(prompt_tokens) p, max(total_tokens, 0) m FROM usage WHERE stream=1 GROUP BY model, total_tokens ORDER BY model, m LIMIT 5'),
    'a view':           lambda l: vars(View(l, dict(user_id='ada'), model='gpt-5').total()),
    'a view of a tag':  lambda l: vars(View(l, {}, tag='a').total()),
    'a view of no tag': lambda l: vars(View(l, {}, tag='').total()),
    'pages of rows':    lambda l: [u.uid for u in View(l, {}).rows(limit=5)],
    'the dearest':      lambda l: [u.uid for u in View(l, {}).rows('dear', limit=5)],
    'report of teams':  lambda l: api.report(View(l, {}, tz='UTC'), 'team'),
    'report of tags':   lambda l: api.report(View(l, {}, tz='UTC'), 'tag'),
    'in all':           lambda l: api.in_all(View(l, {})),
    'global spend':     lambda l: api.global_spend(View(l, {})),
    'metrics':          lambda l: {k:float(v) if k[0]!='#' else v for k,_,v in (o.rpartition(' ') for o in api.metrics(View(l, {}), api.Series()).splitlines())},
    'check':            lambda l: l.check(),
    'no statement':     lambda l: [refused(l.q, s) for s in ('DELETE FROM usage', 'DROP TABLE usage', 'WITH x AS (SELECT 1) DELETE FROM usage')],
}

@pytest.mark.parametrize('engine', ENGINES[1:])
@pytest.mark.parametrize('ask', ASKS)
def test_same_answer(ledgers, ask, engine):
    a,b = (plain(ASKS[ask](ledgers[k])) for k in ('sqlite',engine))
    assert same(a, b), (a,b)

@pytest.mark.parametrize('engine', ENGINES)
def test_rollups_agree(ledgers, engine):
    "What is added up once, and what is asked of the rows"
    l = ledgers[engine]
    ask = lambda: [plain(l.spend(*by.split(), tz=tz)) for by in _by for tz in ('UTC','Asia/Kolkata')]
    before = ask()
    l.sum_up()
    assert Path(f'{l.local}-rollups').exists()
    assert same(before, ask()) and l.check()==[]

@pytest.mark.parametrize('format', ['jsonl','csv','parquet'])
@pytest.mark.parametrize('engine', ENGINES[1:])
def test_same_export(ledgers, tmp_path, engine, format):
    def lines(k):
        path = tmp_path/f'{k}.{format}'
        assert ledgers[k].export(path, where="status='failed'").rows > 50
        if format=='parquet': return llm_usage.exports.arrow().parquet.read_table(path).drop_columns('meta').to_pylist()
        return [re.sub(r'("meta":"|"\{).*?\}"', '', o) for o in path.read_bytes().decode().splitlines()]
    assert lines('sqlite')==lines(engine)

# --- what is no row ---

def row(i, t=T0, **kw):
    return Usage(**dict(call_id=f'r{i}', uid=f'{int((t+i)*1000):012x}-{i:016x}', timestamp=t+i, latency=1., model=f'm{i%3}', user_id='ada', status='ok', prompt_tokens=10,
        completion_tokens=1, total_tokens=11, usage_source='reported', response_cost=.25) | kw)

def counts(l): return l.q('SELECT count(*) n, count(DISTINCT uid) uids, sum(total_tokens) tokens, total(response_cost) usd FROM usage')[0]

@pytest.fixture
def one(request, new):
    "An empty ledger of the engine that a test names"
    with_ = new(request.param)
    yield with_
    with_.close()

each  = pytest.mark.parametrize('one', ENGINES, indirect=True)
those = pytest.mark.parametrize('one', ENGINES[1:], indirect=True)

@each
def test_keys_and_resets(one):
    one.add_key('admin', name='x'); one.reset_spend('me')
    assert [k.name for k in one.keys()]==['x'] and [o['by'] for o in one.resets()]==['me']
    one.revoke_key(one.keys()[0].id)
    assert one.keys()[0].revoked

@each
def test_alerts(one):
    said = []
    one.insert_all([row(0)])
    one.alert('session > $1', said.append); one.alert('new model', said.append)
    for i in (1,2): one.enqueue(row(i, session_id='s', response_cost=.75))
    one.flush(); one.wait_for_alerts()
    early = ['m0']*('clickhouse' in one.path) # where the last minute may still change, a new rule looks at it
    assert sorted(a.subject for a in said)==[*early,'m1','m2','s']
    one.enqueue(row(3, session_id='s')); one.flush(); one.wait_for_alerts()
    assert len(said)==len(one.alerts())==3+len(early)

@each
def test_outbox(one):
    box = Outbox(one, Taken())
    settled(one, [row(i) for i in range(30)])
    assert box.run().new==30 and box.run().new==0
    one.insert_all([row(i) for i in range(20, 40)])
    late = 'clickhouse' in one.path # where a row of another host may still come before these
    assert box.run().new==(0 if late else 10) and box.counts()=={'sent':30 if late else 40}

@each
def test_purge(one):
    one.insert_all([row(i, t=1_700_000_000.) for i in range(10)] + [row(i) for i in range(10)])
    one.add(row(50, adjusts=one.rows()[0].uid, origin='adjustment', response_cost=-.25))
    one.sum_up(); assert one.spend('model').calls.sum()==20
    one.add(row(60))
    assert one.purge(T0+5)==16 # ten that are old, their adjustment, and five
    assert counts(one)['n']==6 and one.spend('model').calls.sum()==6 and one.total().amount==1.5

@pytest.mark.parametrize('one', ENGINES[:2], indirect=True)
def test_purge_keeps_sums(one):
    one.insert_all([row(i, t=1_700_000_000.) for i in range(10)] + [row(i) for i in range(10)])
    assert one.purge(T0, keep=True)==10 and one.purge(T0, keep=True)==0
    assert one.total().calls==20 and one.total().amount==5
    assert one.spend('month', tz='Asia/Seoul').calls.tolist()==[10,10]

@pytest.mark.parametrize('one', ENGINES[:2], indirect=True)
def test_budgets(one):
    one.budget(1, 'month', user_id='ada')
    ask = lambda i, usd=.4: one.reserve(f'b{i}', dict(user_id='ada', model='m'), usd, t=T0)
    assert ask(0) and ask(1)
    with pytest.raises(BudgetExceeded, match=r'\$0.80 reserved'): ask(2)
    one.add(row(0, call_id='b0', response_cost=.1))
    assert ask(2) # 0.1 spent, 0.4 held twice
    one.add(row(1, call_id='b1', status='partial', response_cost=None)) # costs what was held
    (room,) = one.rooms(T0)
    assert (round(room.spent, 9), round(room.reserved, 9))==(.5, .4)
    one.release('b2')
    assert one.rooms(T0)[0].reserved==0
    one.add(row(2, call_id='b3')); ask(4, .05); one.add(row(3, call_id='b4', response_cost=.2))
    assert [o['uid'] for o in one.over_held()]==[row(3).uid]

@pytest.mark.parametrize('one', ENGINES[:2], indirect=True)
def test_budgets_know_dated_models(one):
    one.budget(1, 'day', model='gpt-5')
    one.insert_all([row(0, model='gpt-5-2025-08-07'), row(1, model='gpt-5'), row(2, model='gpt-5-mini'), row(3, model='gpt-5x2025')])
    one.reserve('b', dict(model='gpt-5'), .1, t=T0)
    assert one.rooms(T0)[0].spent==.5

@pytest.mark.parametrize('one', ENGINES[2:], indirect=True)
def test_no_budgets(one):
    with pytest.raises(ValueError, match='budgets need SQLite or PostgreSQL'): one.budget(1, 'day')
    with llm_usage.budgets.budget(1, 'block'), pytest.raises(BudgetExceeded, match='budgets need'): one.reserve('a', dict(model='m'), .1)
    with pytest.raises(ValueError, match='keep=True needs'): one.purge(T0, keep=True)

# --- what users of others suffered ---

@each
def test_a_resent_row_is_one(one):
    "A block that is sent again whole, split and reordered adds nothing, to rollups neither"
    us = [row(i) for i in range(1000)]
    one.insert_all(us); one.sum_up()
    a,top = counts(one),one.last_id()
    for again in (us, us[300:900][::-1], us[:10]):
        assert one.insert_all(copy.deepcopy(again))==0
        one.sum_up()
        assert counts(one)==a and one.spend('model').calls.sum()==1000
    assert one.last_id()==top and one.check()==[]

def blind(l, us, ids=None):
    "Send rows to ClickHouse as a host does that does not know of others, with ids of now if not given"
    with l.writing() as con: l.send(con, ids or l.next_ids(len(us)), [*sent(us).values()][::-1])

def settled(l, us):
    "Add rows that nobody has to wait for"
    if 'clickhouse' not in l.path: return l.insert_all(us)
    blind(l, us, [i-(120_000<<22) for i in l.next_ids(len(us))]) # two minutes ago

@pytest.mark.parametrize('one', ENGINES[2:], indirect=True)
def test_blind_retries(one):
    us = [row(i) for i in range(1000)]
    one.insert_all(us)
    a,top = counts(one),one.last_id()
    for again in (us, us[300:900][::-1], us[:10]): blind(one, again)
    assert one.q('SELECT count(*) n FROM usage SETTINGS final=0')[0]['n']==2610
    assert counts(one)==a and one.spend('model').calls.sum()==1000 and one.q('SELECT count(*) n FROM usage WHERE id>:i', i=top)[0]['n']==0
    one.write(lambda con: con.execute('OPTIMIZE TABLE usage FINAL'))
    assert counts(one)==a and one.last_id()==top
    blind(one, us)
    assert one.purge(T0+500)==500 and counts(one)['n']==500 # and the second copy does not come back

@each
def test_one_uid_in_two_months(one):
    for uid in (row(0).uid, 'my-own'):
        one.add(row(0, uid=uid)); one.add(row(0, uid=uid, timestamp=T0+40*86400, user_id='zed'))
    if 'clickhouse' in one.path: blind(one, [row(0, uid='my-own', timestamp=T0+80*86400, user_id='zed')])
    assert counts(one)['n']==2 and {u.user_id for u in one.rows()}=={'ada'} and one.total("user_id='zed'").calls==0

@each
def test_one_odd_row_stops_none(one):
    "A NUL, half a surrogate pair, a number in a text: the others land, and so does the row"
    odd = {3:dict(model='a\0b'), 4:dict(user_id='\ud800x'), 5:dict(user_id=17), 6:dict(meta={'k':"it's %s :x ? \0"}), 7:dict(tags=['b',3])}
    for i in range(500): one.enqueue(row(i, **odd.get(i, {})))
    one.flush()
    assert counts(one)['n']==500 and not one.journal.rows
    assert len(one.spend('tag'))==3 and len(one.spend('notebook'))==1 and one.check()==[]

def test_a_refused_row_is_set_aside(new, caplog):
    l = new('postgresql')
    l.write(lambda con: con.execute("ALTER TABLE usage ADD CHECK (model!='m7')"))
    for i in range(500): l.enqueue(row(i, model=f'm{i}'))
    l.flush()
    assert counts(l)['n']==499 and not l.journal.rows and l.refused_file in caplog.text
    assert 'refused' in l.check()[0]
    l.write(lambda con: con.execute('ALTER TABLE usage DROP CONSTRAINT usage_model_check'))
    assert l.read_jsonl(l.refused_file)==1 and counts(l)['n']==500
    l.close()

@each
def test_large_counts(one):
    one.insert_all([row(i, prompt_tokens=1_500_000_000, total_tokens=1_500_000_001) for i in range(2)])
    assert one.spend('user').prompt_tokens.tolist()==[3_000_000_000] and counts(one)['tokens']==3_000_000_002

@each
def test_days_of_a_server_in_seoul(one):
    one.insert_all([row(0, t=1_785_511_800.)]) # 2026-07-31 15:30 UTC, which is August in Seoul
    assert [str(d)[:10] for d in one.spend('day').day]==['2026-07-31']
    assert [str(d)[:10] for d in one.spend('month', tz='Asia/Seoul').month]==['2026-08-01']

@each
def test_24_months_in_one_batch(one):
    assert one.insert_all([row(i, t=1_735_000_000. + i*2_629_800) for i in range(24)])==24
    assert len(one.spend('month'))==24

@those
def test_first_starts_at_once(one):
    "Eight processes open the same empty database"
    one.write(lambda con: [con.execute(f'DROP TABLE {o}') for o in ('usage','usage_purges')])
    one.close()
    if 'chdb' in one.url: return [Ledger(one.url).close() for _ in range(3)] # the engine is in this process
    code = 'import sys; from llm_usage import Ledger, Usage\nl = Ledger(sys.argv[1]); l.add(Usage(call_id=sys.argv[2], model="m")); l.close()'
    ps = [python(code, one.url, i) for i in range(8)]
    for p in ps: assert p.wait(60)==0, p.communicate()
    assert Ledger(one.url).total().calls==8

def test_a_column_comes_while_others_read(new):
    l = new('postgresql'); l.insert_all([row(i) for i in range(10)])
    for i in range(12): l.rows('id=:i', i=i)
    with sa.create_engine(l.url).begin() as c: c.exec_driver_sql('ALTER TABLE usage ADD COLUMN newer text')
    assert len(l.rows('id>0'))==10 and l.insert_all([row(99)])==1
    l.close()

def test_followers_miss_no_row(new):
    "Ids have the order in which rows can be seen, whatever number of threads writes"
    import threading
    l,seen,over = new('postgresql'),[0,0],threading.Event()
    def look():
        o = l.q('SELECT max(id) last, count(*) n FROM usage WHERE id>:i', i=seen[0])[0]
        if o['n']: seen[:] = o['last'],seen[1]+o['n']
    def follow():
        while not over.is_set(): look()
    f = threading.Thread(target=follow); f.start()
    ws = [threading.Thread(target=lambda w=w: [l.insert_all([row(w*10_000+i*20+j) for j in range(20)]) for i in range(20)]) for w in range(4)]
    for o in ws: o.start()
    for o in ws: o.join()
    over.set(); f.join(); look()
    assert seen[1]==counts(l)['n']==1600
    l.close()

# --- bad input ---

@pytest.mark.parametrize('change, says', [(dict(password='geheim', username='nobody_here'), 'cannot be reached'), (dict(host='no.such.host.invalid'), 'cannot be reached'),
    (dict(port=9), 'cannot be reached'), (dict(database='not_there'), 'not_there')])
@pytest.mark.parametrize('engine', ENGINES[1:])
def test_what_cannot_be_reached(servers, engine, change, says):
    url = servers[engine].set(**dict(password='geheim') | change)
    if 'chdb' in str(url): url = url.difference_update_query(['interface']).set(host=change.get('host', '127.0.0.1'), port=9)
    with pytest.raises(OSError, match=says if engine=='postgresql' else 'cannot be reached') as e: Ledger(url.render_as_string(hide_password=False))
    assert 'geheim' not in f'{e.value!r} {e.value}' and '\n' not in str(e.value)
    p = python('import sys; from llm_usage.__main__ import main; sys.exit(main())', 'total', '--db', url.render_as_string(hide_password=False))
    out,err = p.communicate(timeout=60)
    assert p.returncode==2 and 'cannot be reached' in err and len(err.splitlines())==1 and 'geheim' not in out+err

def test_a_table_of_another_program(new):
    l = new('postgresql')
    l.write(lambda con: [con.execute(o) for o in ('DROP TABLE usage', 'CREATE TABLE usage (a int)', 'INSERT INTO usage VALUES (7)')])
    for asking in (True,False):
        with pytest.raises(ValueError, match="another program's"): Ledger(l.url, asking=asking)
    assert l.q('SELECT * FROM usage')==[dict(a=7)]
    l.close()

def test_users_with_few_rights(new):
    l = new('postgresql'); l.add(row(0))
    l.write(lambda con: [con.execute(o) for o in ("CREATE ROLE reads LOGIN", "CREATE ROLE adds LOGIN", 'GRANT SELECT ON ALL TABLES IN SCHEMA public TO reads, adds',
        'GRANT INSERT ON ALL TABLES IN SCHEMA public TO adds', 'GRANT USAGE ON SEQUENCE usage_id TO adds')])
    as_ = lambda user, **kw: Ledger(l.address.set(username=user).render_as_string(hide_password=False), **kw)
    assert as_('reads', asking=True).total().calls==1
    adds = as_('adds'); adds.add(row(1))
    assert adds.total().calls==2
    l.budget(1, 'day', user_id='ada'); l.reserve('held', dict(user_id='ada'), .5, t=T0)
    adds.add(row(5, call_id='held')) # a trigger settles it, whose tables it may not see
    assert l.rooms(T0)[0].reserved==0 and l.rooms(T0)[0].spent==.75
    l.write(lambda con: con.execute('DELETE FROM usage WHERE call_id=?', ('held',)))
    code = """import sys; from llm_usage import Ledger, Usage
r = Ledger(sys.argv[1])
try: r.add(Usage(model='m'))
except PermissionError as e: print(e)
r.enqueue(Usage(call_id='late', model='m')); r.close()"""
    with python(code, l.address.set(username='reads').render_as_string(hide_password=False)) as p: out,err = p.communicate(timeout=60)
    assert 'permission denied' in out and '1 rows of' in err and 'stay in its journal' in err
    assert Ledger(l.url).total().calls==3 # whoever may write stores it
    l.write(lambda con: [con.execute(o) for o in ('DROP OWNED BY reads', 'DROP OWNED BY adds', 'DROP ROLE reads', 'DROP ROLE adds')])
    l.close()

@pytest.mark.parametrize('sql', ['SELECT 1; COMMIT; DROP TABLE usage', "SELECT E'\\''; COMMIT; DROP TABLE usage; --'", 'COPY (SELECT 1) TO PROGRAM \'true\'', 'SELECT 1) ; DROP TABLE usage'])
@those
def test_a_question_is_one_select(one, sql):
    one.add(row(0))
    with pytest.raises((apsw.Error,PermissionError)): one.q(sql)
    with pytest.raises((apsw.Error,PermissionError,ValueError)): one.total(f'1=1) FROM usage; {sql} --')
    assert counts(one)['n']==1

def test_no_password_is_shown(tmp_path, caplog, monkeypatch):
    "In no error, traceback, log, name of a file, file, or output of a command"
    monkeypatch.setenv('LLM_USAGE_JOURNAL', str(tmp_path/'journal'))
    word = 'ge%he@im/'
    server = engines.Postgres(password=word)
    url    = lambda w: server.url(password=w)
    wrong,unquoted,right = (url(o) for o in (word[:2]+word[3:5], word[:2]+word[4:7], quote(word, safe='')))
    try:
        l = Ledger(right)
        l.add(row(0)); l.sum_up()
        said = [repr(l), l.path, repr(l.address), repr(l.engine)]
        for bad in (lambda: l.q('SELECT nonsense FROM usage'), lambda: Ledger(wrong), lambda: Ledger(unquoted), lambda: l.write(lambda con: con.execute('DROP TABLE nothing'))):
            with pytest.raises((OSError,ValueError,apsw.Error)) as e: bad()
            said.append(''.join(traceback.format_exception(e.value)))
        server.stop()
        l.enqueue(row(1)); l.flush(); l.close()
        monkeypatch.setenv('LLM_USAGE_DB', l.url)
        with python('from llm_usage.cli import main; main(["total"])') as p: said += p.communicate(timeout=60)
        assert p.returncode==2
        said += [caplog.text, *map(str, (tmp_path/'journal').iterdir()), *(o.read_bytes().decode(errors='replace') for o in (tmp_path/'journal').iterdir())]
        assert not [o for o in said if re.search('ge(%(25)?)?he|e@i|@im|%40im', o)]
    finally: server.close()

def test_a_fork_uses_connections_of_its_own(new):
    l = new('postgresql'); l.add(row(0))
    if not (pid := os.fork()):
        try: os._exit(0 if l.add(row(1)) and l.total().calls==2 else 1)
        except BaseException: os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])==0
    assert l.total().calls==2
    l.close()

def cut_connections(url):
    with sa.create_engine(url).connect() as c:
        c.exec_driver_sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid!=pg_backend_pid() AND backend_type='client backend'")

def test_a_server_that_goes_away(pg, new):
    "Four processes log 2,000 calls each, of which one in five comes twice; the server is killed, and its connections are cut"
    if os.environ.get('LLM_USAGE_TEST_PG'): new('postgresql').close(); return # it is not ours to kill
    l = new('postgresql')
    def disturb():
        pg.restart()
        for _ in range(3): cut_connections(pg.url())
    said = engines.written(l.url, 2000, disturb)
    assert counts(l)|dict(usd=round(counts(l)['usd'], 6))==dict(n=6400, uids=6400, tokens=704_000, usd=6.4)
    assert not any(o['dropped'] for o in said) and l.check()==[]
    l.close()

@each
def test_four_writers(one):
    if 'chdb' not in one.url: engines.written(one.url, 1000)
    else: # the engine is in this process, so its writers are threads
        import threading
        us = lambda w: [row(w*10_000 + (i-1 if i%5==4 else i), response_cost=.001, total_tokens=110) for i in range(1000)]
        ts = [threading.Thread(target=lambda w=w: [one.insert_all(us(w)[i:i+100]) for i in range(0, 1000, 100)]) for w in range(4)]
        for t in ts: t.start()
        for t in ts: t.join()
    assert counts(one)['n']==3200 and counts(one)['tokens']==352_000 and round(one.total().amount, 6)==3.2

# --- doors ---

COMMANDS = ['total --json','daily --json','weekly --csv','users --json','tags --json','sessions --json','models --json --by user','unpriced --json','what-if gpt-5 --json','reprice --json','check --json','total',
    "total --json --where user_id='ada'", 'budgets --json', 'statusline', 'daily --json --tz Asia/Seoul -b', 'monthly --json --since 2026-11-01', 'outbox --json']

@pytest.mark.parametrize('cmd', COMMANDS)
def test_same_command(ledgers, capsys, cmd, monkeypatch):
    "The command line, with `--db` and with LLM_USAGE_DB"
    from llm_usage.cli import main
    def said(k, *db):
        with pytest.raises(SystemExit) as e: main([*cmd.split(), *db])
        out,err = capsys.readouterr()
        text = out if e.value.code in (None,0) else re.sub(r'\S+(llm_usage_\d+_\d+)\S*|postgresql\+\S+|clickhousedb\S+', 'LEDGER', err)
        try: return e.value.code,json.loads(text)
        except ValueError: return e.value.code,[float(o) if re.fullmatch(r'\d+\.\d+', o) else o for o in re.split(r'[\s,]+', text)]
    ref = said('sqlite', '--db', ledgers['sqlite'].url)
    for k in ENGINES[1:]:
        assert same(ref, said(k, '--db', ledgers[k].url)), k
        monkeypatch.setenv('LLM_USAGE_DB', ledgers[k].url)
        assert same(ref, said(k)), k

PAGES = ['/','/by?by=user','/by?by=tag','/calls','/calls?order=dear','/sessions','/caches','/session?session=s3','/csv/latency','/global/spend','/global/spend/report?group_by=team&start_date=2026-10-01&end_date=2026-12-01','/health','/spend/tags','/metrics']

@pytest.mark.parametrize('path', PAGES)
def test_same_page(ledgers, path):
    "The dashboard and the API over HTTP"
    from starlette.testclient import TestClient
    from llm_usage.web import app
    def shown(k):
        a = app(ledgers[k])
        with TestClient(a, base_url='http://127.0.0.1') as c:
            c.get(f'/{a.state.doors.link()}')
            r = c.get(path)
        text = re.sub(r'((?:seen|page|open|before|at)=|(?:id="|#)[co]|row )\d+|\d\d:\d\d:\d\d', r'\1', r.text) # ids of rows, and the time
        return r.status_code, [round(float(o), 6) if re.fullmatch(r'\d+\.\d+(e-\d+)?', o) else o for o in re.split(r'(\d+\.\d+(?:e-\d+)?)|\s+', text) if o]
    ref = shown('sqlite')
    assert ref[0]==200
    for k in ENGINES[1:]: assert same(ref, shown(k)), k

@each
def test_the_logger(one):
    "LiteLLM's calls, by the callback, and as a process that ends at once"
    import litellm
    from llm_usage import UsageLogger
    with UsageLogger(one, user_id='ada'): litellm.completion('gpt-4o-mini', [dict(role='user', content='hi')], mock_response='yes')
    (u,) = one.rows()
    assert u.user_id=='ada' and u.response_cost > 0
    if 'chdb' in one.url: return # another process has another engine
    ran('''import sys, litellm
from llm_usage import UsageLogger
UsageLogger(sys.argv[1], user_id='bob').install()
litellm.completion('gpt-4o-mini', [dict(role='user', content='hi')], mock_response='yes')''', one.url)
    assert one.total("user_id='bob'").calls==1

def test_a_killed_process(new):
    "Its rows are in its journal, and whoever opens the ledger next on that machine stores them"
    l = new('postgresql')
    code = '''import os, sys, time
from llm_usage import Ledger, Usage
l = Ledger(sys.argv[1]); l.journal.every = 100
l.enqueue(Usage(call_id='kept', model='m', response_cost=.25)); l.begin(call_id='begun', model='m')
os.kill(os.getpid(), 9)'''
    assert python(code, l.url).wait(60)==-9 and l.total().calls==0
    assert Ledger(l.url).total().calls==2 and sorted(u.status for u in l.rows())==['ok','orphaned']
    l.close()

@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('to', ENGINES)
def test_copies(ledgers, new, engine, to, monkeypatch):
    "From each engine to each, all sums equal; a copy that was cut short goes on"
    a,b = ledgers[engine],new(to)
    def stop(done, all_):
        if done >= 1000: raise KeyboardInterrupt
    some = new(engine); some.insert_all([row(i) for i in range(2500)])
    with pytest.raises(KeyboardInterrupt): some.copy_to(b, stop)
    assert counts(b)['n']==1000 and some.copy_to(b)==1500 and same(counts(some), counts(b))
    assert a.copy_to(b)==1000 and a.copy_to(b)==0 and b.check()==[]
    for o in Path(b.local).parent.glob(f'{Path(b.local).name}*.copied'): o.unlink()
    assert a.copy_to(b)==0 # compared with what is there, in all columns
    assert same(plain(a.spend('day','model')), plain(b.spend('day','model', until=T0+9*86400, where="call_id NOT LIKE 'r%'")))
    one = a.rows()[0]
    b.write(lambda con: con.execute("DELETE FROM usage WHERE uid=?", (one.uid,)))
    b.add(Usage(**vars(one) | dict(id=None, response_cost=9.)))
    for o in Path(b.local).parent.glob(f'{Path(b.local).name}*.copied'): o.unlink()
    with pytest.raises(ValueError, match='has other values'): a.copy_to(b)
    some.close(); b.close()

# --- in and out, limits, and the rest ---

@each
def test_a_batch(one):
    with pytest.raises(RuntimeError), one.batch():
        one.add(row(0))
        raise RuntimeError
    assert counts(one)['n']==('clickhouse' in one.path) # which has no transactions
    with one.batch(): one.add(row(1)); one.add(row(2)); assert one.add(row(1)) is None
    assert counts(one)['n']==2 + ('clickhouse' in one.path)

@each
def test_merge_and_imports(ledgers, one, tmp_path):
    "A file is merged; what `export` wrote comes back"
    a = ledgers['sqlite']
    assert one.merge(a.path)==1000 and one.merge(a.path)==0
    one.purge(T0+1e9)
    for f in ('jsonl','csv','parquet'):
        path = tmp_path/f'all.{f}'; a.export(path)
        assert one.import_rows(path)[0] in (1000,999,0) # a file keeps its newest row
    assert same(counts(a), counts(one)) and same(plain(a.spend('day')), plain(one.spend('day')))

@those
def test_a_server_is_no_file(one):
    for f in (lambda: one.backup('x.db'), one.vacuum, lambda: one.db, lambda: one.usage):
        with pytest.raises(ValueError, match='is on a server'): f()
    with pytest.raises(ValueError, match='merge takes files'): one.merge(one.url)

@pytest.mark.parametrize('engine', ENGINES[1:])
def test_other_formats(ledgers, tmp_path, engine):
    def lines(k, kind):
        path = tmp_path/f'{k}.{kind}'
        if kind=='focus': ledgers[k].focus(path.with_suffix('.csv')); return sorted(path.with_suffix('.csv').read_text().splitlines())
        ledgers[k].audr(path, 'test'); return sorted(re.sub(r'"(generated_at|exported_at|ingested_at)":"[^"]*"', '', o) for o in path.read_text().splitlines())
    def numbers(text): return [round(float(o), 9) if re.fullmatch(r'-?\d+\.\d+(e-?\d+)?', o) else o for o in re.split(r'[,:{}"]+', text)]
    for kind in ('focus','audr'):
        a,b = ([numbers(o) for o in lines(k, kind)] for k in ('sqlite',engine))
        assert len(a) > 100 and same(a, b), kind

@pytest.mark.parametrize('engine', ENGINES[1:])
def test_forecast_and_plots(ledgers, engine):
    a,b = (ledgers[k].forecast(now=T0+9*86400, budget=1.) for k in ('sqlite',engine))
    assert same(plain(vars(a)), plain(vars(b)))
    assert ledgers[engine].plot() is not None

@pytest.mark.parametrize('one', ENGINES[:2], indirect=True)
def test_rate_limits(one):
    one.rate_limit(2)
    for i in range(2): one.reserve(f'c{i}', dict(model='m'), .1)
    with pytest.raises(BudgetExceeded, match='2 requests'): one.reserve('c3', dict(model='m'), .1)

@each
def test_a_key_is_valid_until_it_is_revoked(one):
    secret = one.add_key('self', user_id='ada')
    assert one.key_of(secret).user_id=='ada'
    one.revoke_key(one.keys()[0].id)
    assert one.key_of(secret) is None

@each
def test_instrument(one):
    "A recorder for an address"
    from llm_usage.recorder import recorder
    r = recorder(one.url)
    assert r is recorder(one.url) and r.ledger.path==one.path
    r.ledger.close()

@each
def test_a_refusal_is_lifted(one):
    one.alert('session > $1', 'raise')
    one.enqueue(row(0, session_id='s', response_cost=3.)); one.flush(); one.wait_for_alerts()
    assert one.refused and (one.allow('s') or not one.refused)

@those
def test_printed_statements(one, capsys):
    "`llm-usage ddl` prints what makes the tables, for those who may not; a ledger then has nothing to make"
    from llm_usage.cli import main
    one.write(lambda con: [con.con.exec_driver_sql(f'DROP TABLE {o}') for o in ('usage','usage_purges')])
    with pytest.raises(SystemExit): main(['ddl', one.address.get_backend_name().replace('clickhousedb','clickhouse')])
    made = [o for o in capsys.readouterr().out.split(';\n') if 'system.' not in o and o.strip()]
    one.write(lambda con: [con.con.exec_driver_sql(o) for o in made])
    assert {f.name for f in FIELDS} <= one.read(one._columns) # nothing is missing
    one.add(row(0))
    assert one.total().calls==1
    with pytest.raises(SystemExit): main(['ddl', 'clickhouse', '--cluster', 'shop'])
    text = capsys.readouterr().out
    assert "ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/usage_local', '{replica}', ver)" in text and text.count('ON CLUSTER shop')==4
    assert 'Distributed(shop, currentDatabase(), usage_local, cityHash64(uid))' in text and 'system.query_log MODIFY TTL' in text

# --- found by attacks ---

@pytest.mark.parametrize('engine', ENGINES)
def test_a_copy_to_a_ledger_made_anew(new, engine, tmp_path):
    "What was copied once is not there any more; all of it is copied again"
    a,b = new('sqlite'),new(engine)
    a.insert_all([row(i) for i in range(50)])
    assert a.copy_to(b)==50
    b.write(lambda con: con.execute("DELETE FROM usage WHERE uid!='x'"))
    assert a.copy_to(b)==50 and counts(b)['n']==50
    b.write(lambda con: con.execute("DELETE FROM usage WHERE uid!='x'"))
    b.insert_all([row(i, user_id='eve') for i in range(50)])
    for o in Path(b.local).parent.glob(f'{Path(b.local).name}*.copied'): o.unlink()
    with pytest.raises(ValueError, match='50 rows that differ'): a.copy_to(b)
    a.close(); b.close()

@each
def test_a_copy_keeps_rows_without_a_time(new, one):
    a = new('sqlite'); a.insert_all([row(i) for i in range(3)])
    a.write(lambda con: con.execute('UPDATE usage SET timestamp=NULL WHERE id=1'))
    assert a.copy_to(one)==3 and len(one.rows('timestamp IS NULL'))==1
    if one.path!=one.local: assert one.merge(a.path)==0
    a.close()

@pytest.mark.parametrize('one', ENGINES[:2], indirect=True)
def test_what_purge_kept_is_not_copied_again(new, one):
    a = new('sqlite'); a.insert_all([row(i) for i in range(10)] + [row(0, t=T0+1e6)])
    one.insert_all([row(i) for i in range(10)] + [row(0, t=T0+1e6)])
    one.purge(T0+1e5, keep=True)
    with pytest.raises(ValueError, match='sums'): one.merge(a.path)
    with pytest.raises(ValueError, match='sums of rows that'): a.copy_to(one)
    a.close()

def test_ledgers_of_two_schemas(pg, servers, new):
    "One database, two schemas: neither rollups nor journals are shared"
    l = new('postgresql')
    with sa.create_engine(l.url, isolation_level='AUTOCOMMIT').connect() as c:
        for o in 'ab': c.exec_driver_sql(f'CREATE SCHEMA {o}')
    a,b = (Ledger(f'{l.url}?options=-csearch_path%3D{o}') for o in 'ab')
    a.insert_all([row(i, response_cost=1.) for i in range(5)]); b.insert_all([row(i, response_cost=9.) for i in range(5)])
    for o in (a,b): o.sum_up()
    assert a.local!=b.local and a.spend('model').cost.sum()==5 and b.spend('model').cost.sum()==45
    for o in (a,b,l): o.close()

@pytest.mark.parametrize('sql', ['DELETE FROM usage WHERE user_id=\'bob\'', 'DROP TABLE usage_202610', 'ALTER TABLE usage DETACH PARTITION usage_202610', 'UPDATE usage SET response_cost=1', 'TRUNCATE usage'])
def test_a_database_administrator(new, sql):
    "What somebody deletes or changes by hand is not in reports from rollups"
    l = new('postgresql')
    l.insert_all([row(i) for i in range(10)] + [row(i, t=T0+40*86400, user_id='bob') for i in range(10)])
    l.sum_up()
    with sa.create_engine(l.url).begin() as c: c.exec_driver_sql(sql)
    assert same(l.spend().calls.sum() if len(l.spend()) else 0, l.total().calls) and same(float(l.spend().cost.sum()), l.total().amount)
    l.close()

def test_a_database_made_anew(new):
    l = new('postgresql'); l.insert_all([row(i) for i in range(5)]); l.sum_up()
    l.write(lambda con: [con.execute(f'DROP TABLE {o}') for o in ('usage','usage_purges')])
    again = Ledger(l.url)
    again.insert_all([row(i, response_cost=9.) for i in range(5)])
    assert again.spend('model').cost.sum()==45
    again.close(); l.close()

def test_a_question_within_a_batch(new):
    "The batch makes a partition, and its own reports need not wait for it"
    l = new('postgresql')
    with l.batch():
        l.add(row(0))
        assert l.total().calls==0
    assert l.total().calls==1
    l.close()

@those
def test_a_long_value_stops_none(one):
    one.alert('session > $1', lambda a: None) # makes an index of sessions, where there are some
    for i in range(6): one.enqueue(row(i, session_id=''.join(random.Random(i).choices('abcdefghij0123456789', k=9000)) if i==3 else 's'))
    one.flush()
    assert counts(one)['n'] + (os.path.exists(one.refused_file))==6 and not one.journal.rows

def test_a_row_of_a_month_that_another_host_purged(new):
    l = new('postgresql'); l.insert_all([row(0, t=1_700_000_000.), row(1)])
    other = Ledger(l.url)
    assert other.purge('2024-01-01')==1
    l.enqueue(row(2, t=1_700_000_000.)); l.flush()
    assert not l.journal.rows and not os.path.exists(l.refused_file) and l.total().calls==2
    other.close(); l.close()

@those
def test_nul_in_a_question(one):
    one.add(row(0, user_id='a\0b'))
    assert one.total('user_id=:u', u='a\0b').calls==1

CONDITIONS = ["model like 'M%'", "1=1", "user_id=:user", "model is not 'm1'", "cast(latency as int)=1", "max(prompt_tokens,completion_tokens)>0", "max(prompt_tokens,ttft)>0", "CAST(response_cost AS REAL)=.25",
    "length(user_id)=3", r"model LIKE 'm\_%'", "session_id='sqlite_master' OR model='m1'", "meta!='{a:b}' OR user_id=:user", "(model)='m1' AND ((1))", "tags IS NULL;", "user_id IN (SELECT value FROM json_each('[\"ada\"]'))"]

@those
@pytest.mark.parametrize('where', CONDITIONS)
def test_same_condition(new, one, where):
    "What SQLite takes is answered alike, or is an error"
    lite,params = new('sqlite'),dict(user='ada') if ':user' in where else {}
    for l in (lite,one): l.insert_all([row(i, user_id='adä' if i==4 else 'ada', latency=i/2) for i in range(6)])
    try: want = len(lite.rows(where, **params))
    except (apsw.Error,PermissionError): want = None
    try: got = len(one.rows(where, **params))
    except (apsw.Error,PermissionError): return
    assert got==want
    lite.close()

@pytest.mark.parametrize('tail', ['ORDER BY id LIMIT 5 OFFSET 2', 'ORDER BY id DESC\nLIMIT 5', 'order by id desc limit 5', "AND error IS NULL ORDER BY id LIMIT 3;"])
@those
def test_rows_in_order(new, one, tail):
    lite = new('sqlite')
    for l in (lite,one): l.insert_all([row(i) for i in range(9)])
    assert [o['uid'] for o in one.q(f'SELECT * FROM usage WHERE 1 {tail}')]==[o['uid'] for o in lite.q(f'SELECT * FROM usage WHERE 1 {tail}')]
    lite.close()

@those
def test_no_rows(new, one):
    lite = new('sqlite')
    for ask in (lambda l: l.spend(), lambda l: l.spend('model'), lambda l: vars(l.total()), lambda l: l.q('SELECT count(*) n, sum(total_tokens) s, max(id) m, total(response_cost) t FROM usage'), lambda l: l.latency()):
        assert same(plain(ask(lite)), plain(ask(one)))
    lite.close()

@pytest.mark.parametrize('one', ENGINES[2:], indirect=True)
def test_a_question_reads_no_file(one, tmp_path):
    (tmp_path/'secret').write_text('geheim')
    for sql in (f"SELECT * FROM file('{tmp_path}/secret','LineAsString')", "SELECT * FROM url('http://127.0.0.1:9/x','LineAsString')", f"SELECT uid FROM usage INTO OUTFILE '{tmp_path}/o'"):
        with pytest.raises(PermissionError): one.q(sql)

@pytest.mark.parametrize('one', ENGINES[2:], indirect=True)
def test_ids_that_two_hosts_gave(new, one):
    "Rows that share an id are copied, sent and shown all the same"
    first = one.next_ids(1)[0] - (120_000<<22)
    blind(one, [row(i) for i in range(1002)], [first + i - (i >= 1000) for i in range(1002)]) # what two processes with one number would make
    lite = new('sqlite')
    assert one.copy_to(lite)==1002 and len(View(one, {}).rows(limit=5, before=first+999))==5
    box = Outbox(one, Taken())
    assert box.run().new==1002
    lite.close()

@pytest.mark.parametrize('address', ['postgresql:/u:geheim@h/d', 'postgres:geheim@h/d', 'clickhousedb:u:geheim@h', 'postgresql+asyncpg://u:geheim@h/d', 'clickhousedb+native://u:geheim@h/d', 'postgresql://u:ge@heim@h/d'])
def test_an_address_that_is_none(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as e: Ledger(address)
    assert 'heim' not in str(e.value) and not [*tmp_path.iterdir()]

def test_options_of_the_driver(new):
    "TLS is asked for in the address; a server without it is refused, and not spoken to in clear"
    l = new('postgresql')
    with pytest.raises(ConnectionError, match='SSL'): Ledger(f'{l.url}?sslmode=require')
    l.close()
