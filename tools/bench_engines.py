"""What a ledger of millions of rows takes in SQLite, PostgreSQL and ClickHouse, with the same rows in each.

    python tools/bench_engines.py [--rows N] [--save FILE]

Each engine fills its table by its own SQL. Then rows are inserted as the journal does it, reports are made from the rows and from
rollups, and pages are asked for. The best of two is shown; ratios are of one run. Servers are as in tools/engines.py: PostgreSQL
of a wheel, ClickHouse's engine in this process, or those that LLM_USAGE_TEST_PG and LLM_USAGE_TEST_CH name.
"""
import argparse, json, math, os, shutil, sys, tempfile, time
from pathlib import Path

os.environ.setdefault('LITELLM_LOCAL_MODEL_COST_MAP', 'True')
sys.path.insert(0, str(Path(__file__).parents[1]))
import engines
from llm_usage import Ledger, Usage
from llm_usage.view import View

T0 = 1_780_000_000 # a row every 3 seconds: 5M rows are 174 days; forty in a row are of one user

def columns(text, cond, div, uid):
    "An SQL expression of `i` for each column that is filled"
    of = lambda p,k: text(f"'{p}'", k)
    return dict(uid=uid, call_id=of('c','i'), timestamp=f'({T0}.0+i*3.0)', latency='(i%97)/10.0', ttft='(i%13)/10.0', provider=cond('i%3=0',"'openai'","'anthropic'"), model=of('m','i%7'),
        call_type="'completion'", status=cond('i%50=0',"'failed'","'ok'"), origin=cond('i%20=0',"'cache'","'live'"), stream='i%2', user_id=of('u',f'{div}*7919%20000'), team_id=of('t','i%50'),
        session_id=of('s',div), api_key_hash=of('k','i%200'), prompt_tokens='i%5000', completion_tokens='i%900', total_tokens='i%5000+i%900', cache_read_tokens='i%2500', usage_source="'reported'",
        response_cost='(i%1000+1)/1000000.0', inp_usd='(i%1000+1)/2000000.0', out_usd='(i%1000+1)/2000000.0')

_lite = columns(lambda p,k: f'{p}||({k})', 'iif({},{},{})'.format, 'i/40', f"printf('%012x-%016x', 1000*({T0}+i*3), i)")
_pg   = columns(lambda p,k: f'{p}||({k})', 'CASE WHEN {} THEN {} ELSE {} END'.format, 'i/40', f"lpad(to_hex(1000*({T0}+i*3)),12,'0')||'-'||lpad(to_hex(i),16,'0')")
_ch   = columns(lambda p,k: f'concat({p},toString({k}))', 'if({},{},{})'.format, 'intDiv(i,40)', f"concat(leftPad(lower(hex(toUInt64(1000*({T0}+i*3)))),12,'0'),'-',leftPad(lower(hex(i)),16,'0'))")
_ks   = ', '.join(_lite)

def pieces(n, size=500_000): return [(a, min(n, a+size)) for a in range(0, n, size)]

def fill_sqlite(l, n):
    for a,b in pieces(n): l.write(lambda con: con.execute(f'WITH RECURSIVE n(i) AS (SELECT {a} UNION ALL SELECT i+1 FROM n WHERE i<{b-1}) INSERT INTO usage ({_ks}) SELECT {", ".join(_lite.values())} FROM n').fetchall())
    return os.path.getsize(l.path)

def fill_postgresql(l, n):
    from llm_usage.postgres import _partition
    from llm_usage.connections import month_of
    with l.engine.connect().execution_options(isolation_level='AUTOCOMMIT') as c:
        for m in sorted({month_of(f'{1000*(T0+3*i):012x}-') for i in range(0, n+9000, 9000)}):
            for o in _partition(m): c.exec_driver_sql(o)
        for a,b in pieces(n): c.exec_driver_sql(f"INSERT INTO usage ({_ks}, month) SELECT {', '.join(_pg.values())}, CAST(to_char(to_timestamp({T0}+i*3) AT TIME ZONE 'UTC', 'YYYYMM') AS integer) FROM generate_series({a}::bigint,{b-1}) i".replace('%','%%'), {})
        c.exec_driver_sql('VACUUM ANALYZE usage')
        return int(c.exec_driver_sql("SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent='usage'::regclass").scalar())

def fill_clickhouse(l, n):
    with l.writing() as con:
        for a,b in pieces(n):
            first = l.next_ids(1)[0] - (10_000_000<<22) # hours ago, so that they have settled
            con.con.exec_driver_sql(f"INSERT INTO usage (id, month, {_ks}) SELECT {first}+i, toYYYYMM(toDateTime({T0}+i*3,'UTC')), {', '.join(_ch.values())} FROM (SELECT number+{a} AS i FROM numbers({b-a}))")
        return int(con.con.exec_driver_sql("SELECT sum(bytes_on_disk) FROM system.parts WHERE database=currentDatabase() AND table='usage' AND active").scalar())

def best(fn, n=2):
    "(seconds of the best run, what it returned)"
    took = []
    for _ in range(n):
        t = time.perf_counter(); res = fn(); took.append(time.perf_counter()-t)
    return min(took),res

def flat(df): return [[str(r[0]), int(r[1]), float(r[2])] for r in sorted(df[[df.columns[0],'calls','cost']].values.tolist(), key=str)]
def close_to(a, b):
    if isinstance(a, (list,tuple)): return len(a)==len(b) and all(map(close_to, a, b))
    return a==b if isinstance(a, str) or isinstance(a, int) and isinstance(b, int) else math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-9)

def reports(n):
    end = T0+3*n
    return {'total': lambda l: [l.total().amount, l.total().calls],
        'by model': lambda l: flat(l.spend('model')), 'by day': lambda l: flat(l.spend('day')),
        '30 days, by day and model': lambda l: float(l.spend('day','model', since=end-30*86400).cost.sum()),
        'by user (20,000)': lambda l: flat(l.spend('user')), 'one user, by model': lambda l: flat(l.spend('model', where='user_id=:u', u='u77')),
        'latency by model': lambda l: [[str(r[0]), *map(float, r[1:])] for r in sorted(l.latency()[['model','latency_p95']].values.tolist())],
        '50 newest rows': lambda l: [u.uid for u in View(l, {}).rows(limit=50)]}

def inserts(l, size, n):
    "Rows a second, `size` at a time"
    us = [Usage(call_id=f'x{size}-{i}', uid=f'{1000*(T0-86400)+i:012x}-{size:04x}{i:012x}', timestamp=T0-86400+i/1000, model='m1', user_id='new', prompt_tokens=1, total_tokens=1, usage_source='reported', response_cost=.001) for i in range(n)]
    took,_ = best(lambda: [l.insert_all(us[i:i+size]) for i in range(0, n, size)], 1)
    return n/took

def page(l):
    "Seconds of the first page in a browser, over HTTP, and of the same once more"
    from starlette.testclient import TestClient
    from llm_usage.web import app
    a = app(l)
    client = TestClient(a, base_url='http://127.0.0.1')
    client.get(f'/{a.state.doors.link()}')
    def get():
        r = client.get('/'); assert r.status_code==200 and 'calls' in r.text, r.text
    return best(get, 1)[0],best(get, 3)[0]

def bench(rows):
    folder = Path(tempfile.mkdtemp(prefix='engines_'))
    os.environ['LLM_USAGE_JOURNAL'] = str(folder/'journals')
    pg = None if (named := os.environ.get('LLM_USAGE_TEST_PG')) else engines.Postgres(options='-c shared_buffers=512MB -c work_mem=64MB -c max_wal_size=4GB')
    ls = dict(sqlite=Ledger(folder/'usage.db'), postgresql=Ledger(named or pg.url()), clickhouse=Ledger(engines.clickhouse()))
    res = {}
    def note(what, **by):
        res[what] = by
        print(f'{what:32}' + ''.join(f'{by.get(k, ""):>14}' if isinstance(by.get(k), str) else f'{by[k]:>14,.3f}' if k in by else f'{"":14}' for k in ls) +
              (f'{by["sqlite"]/by["clickhouse"]:>12.1f}×' if isinstance(by.get('sqlite'), float) and isinstance(by.get('clickhouse'), float) else ''), flush=True)
    print(f'{rows:,} rows' + ' '*(27-len(f'{rows:,}')) + ''.join(f'{k:>14}' for k in ls) + '   ClickHouse faster by')
    filled = {k:best(lambda: globals()[f'fill_{k}'](l, rows), 1) for k,l in ls.items()}
    note('load, in s', **{k:v[0] for k,v in filled.items()})
    note('size, in MB', **{k:v[1]/1e6 for k,v in filled.items()})
    for size,n in ((1,300),(100,10_000),(1000,20_000)): note(f'rows/s, {size:,} at a time', **{k:f'{inserts(l, size, n):,.0f}' for k,l in ls.items()})
    Ledger.beyond = 1<<62
    for what,ask in reports(rows).items():
        got = {k:best(lambda: ask(l)) for k,l in ls.items()}
        assert all(close_to(got['sqlite'][1], v[1]) for v in got.values()), (what, got)
        note(f'{what}, s', **{k:v[0] for k,v in got.items()})
    Ledger.beyond = None
    note('summing up for a page, once, s', **{k:best(lambda: [l._catch_up(o) for o in 'calls user team key tag'.split()], 1)[0] for k,l in ls.items()})
    for what in ('by model','by day','by user (20,000)'): note(f'{what}, from rollups, s', **{k:best(lambda: reports(rows)[what](l))[0] for k,l in ls.items()})
    pages = {k:page(l) for k,l in ls.items()}
    note('first page, s', **{k:v[0] for k,v in pages.items()})
    note('the same once more, s', **{k:v[1] for k,v in pages.items()})
    once_each(ls['clickhouse'], note)
    for l in ls.values(): l.close()
    if pg: pg.close()
    shutil.rmtree(folder)
    return res

def once_each(l, note):
    "Ways to count a row once that was sent twice, as every fifth was"
    sums = 'SELECT count(), sum(response_cost), sum(total_tokens) FROM '
    with l.writing() as con:
        ask = lambda sql, **st: best(lambda: con.con.execution_options(settings=st).exec_driver_sql(sum_ + sql).fetchall(), 2)
        sum_ = sums
        con.con.exec_driver_sql(f'INSERT INTO usage (id, month, {_ks}) SELECT id+1, month, {_ks} FROM usage WHERE prompt_tokens%5=0')
        forms = {'counted twice': ('usage', dict(final=0)), 'FINAL': ('usage', dict(final=1)), 'FINAL, by partition': ('usage', dict(final=1, do_not_merge_across_partitions_select_final=1)),
            'argMax': ('(SELECT uid, argMax(response_cost,ver) response_cost, argMax(total_tokens,ver) total_tokens FROM usage GROUP BY uid)', dict(final=0)),
            'LIMIT 1 BY': ('(SELECT response_cost,total_tokens FROM usage ORDER BY uid,ver DESC LIMIT 1 BY uid)', dict(final=0))}
        for k,(sql,st) in forms.items(): note(f'a fifth twice: {k}, s', clickhouse=ask(sql, **st)[0])

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--rows', type=int, default=5_000_000)
    p.add_argument('--save', type=Path)
    a = p.parse_args()
    res = bench(a.rows)
    if a.save: a.save.write_text(json.dumps(dict(rows=a.rows, figures=res), indent=1)+'\n')
