"""A ledger over HTTP: by a real server on loopback, asked with `requests`, LiteLLM's own script, an exporter of spans, and what schemathesis makes of its OpenAPI."""
import json, os, random, re, subprocess, sys, threading, time
from collections import defaultdict
from contextlib import contextmanager
from datetime import datetime, timezone
from zoneinfo import ZoneInfo
import apsw, pytest, requests, schemathesis, uvicorn
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from helpers import ran
from llm_usage import Ledger, Usage, spend_api, store, web
from llm_usage.dates import epoch
from llm_usage.keys import hash_key

utc = timezone.utc

@contextmanager
def serving(app):
    "The address of a server of `app`"
    srv = uvicorn.Server(uvicorn.Config(app, port=0, log_level='warning', access_log=False, timeout_graceful_shutdown=1))
    t = threading.Thread(target=srv.run, daemon=True)
    t.start()
    while not srv.started: time.sleep(.01)
    try: yield f'http://127.0.0.1:{srv.servers[0].sockets[0].getsockname()[1]}'
    finally:
        srv.should_exit = True
        t.join()

class Client:
    "Asks the server at `url` with a key"
    def __init__(self, url, key=None, how='Authorization', kind='Bearer '): self.url,self.heads = url,{how:kind+key} if key else {}
    def __call__(self, path, method='get', **params): return requests.request(method, self.url+path, params=params, headers=self.heads, timeout=30)

names = {'88dc':'laptop', 'a73d':'batch', '':None}
teams = {'t-1':'Prod Team', 't-2':'central', None:None}

def row(r, i):
    "A random call of April 2024; a team is renamed in the middle of the month"
    at,key,team = epoch('2024-03-30')+r.random()*34*86400, r.choice([*names]), r.choice([*teams])
    p,c,origin = r.randrange(5000), r.randrange(900), r.choice(['live']*4+['cache'])
    alias = 'Product' if team=='t-1' and at > epoch('2024-04-15T12:00Z') else teams[team]
    return Usage(call_id=f'c{i}', timestamp=at, model=r.choice(['gpt-4','gpt-3.5-turbo','chatgpt-v-2']), api_key_hash=key or None, key_alias=names[key], team_id=team, team_alias=alias,
        user_id=r.choice(['ada','bob',None]), end_user=r.choice(['palantir',None]), tags=json.dumps(sorted(r.sample(['a','b','c'], r.randrange(4)))), origin=origin,
        status=r.choice(['ok']*9+['failed']), usage_source='reported', prompt_tokens=p, completion_tokens=c, total_tokens=p+c, response_cost=r.random()/100)

@pytest.fixture(scope='module')
def us(): return [row(r, i) for r in [random.Random(16)] for i in range(3000)]

@pytest.fixture(scope='module')
def ledger(tmp_path_factory, us):
    l = Ledger(tmp_path_factory.mktemp('web')/'usage.db')
    l.insert_all(us)
    yield l
    l.close()

@pytest.fixture(scope='module')
def url(ledger):
    with serving(web.app(ledger.path)) as u: yield u

@pytest.fixture(scope='module')
def boss(ledger, url): return Client(url, ledger.add_key('admin', name='boss'))

april = dict(start_date='2024-04-01', end_date='2024-04-30')


# What LiteLLM says

def paid(u): return u.response_cost if u.origin=='live' else 0. # LiteLLM logs a hit of its cache at $0
def in_april(u): return epoch('2024-04-01') <= u.timestamp < epoch('2024-05-01')
def near(a, b): return a==pytest.approx(b, rel=1e-9, abs=1e-12)

@pytest.mark.parametrize('group_by, many, one, name', [
    ('team',     'teams',     'team_name', lambda u: u.team_alias or 'Unassigned Team'), # LEFT JOIN and COALESCE, here with the name of the time
    ('customer', 'customers', 'customer',  lambda u: u.end_user or ''),
    ('model',    'models',    'model',     lambda u: u.model)])
def test_days(us, boss, group_by, many, one, name):
    "By day of UTC, then group, model and key: LiteLLM's sums of spend and of all tokens, with the last day, cache hits and failures"
    want = defaultdict(lambda: [0.,0,0])
    for u in filter(in_april, us):
        w = want[f'{datetime.fromtimestamp(u.timestamp, utc):%Y-%m-%d}T00:00:00+00:00', name(u), u.model, u.api_key_hash or '']
        w[0] += paid(u); w[1] += u.total_tokens; w[2] += u.total_tokens*(u.origin=='cache')
    days = boss('/global/spend/report', group_by=group_by, **april).json()
    got  = {(d['group_by_day'], g[one], m['model'], m['api_key']):m for d in days for g in d[many] for m in g['metadata']}
    assert got.keys()==want.keys() and [d['group_by_day'] for d in days]==sorted({k[0] for k in want})
    for k,w in want.items(): assert near(got[k]['spend'], w[0]) and (got[k]['total_tokens'], got[k]['replayed_tokens'], got[k]['billed_tokens'])==(w[1], w[2], w[1]-w[2])
    for d in days:
        for g in d[many]: assert near(g['total_spend'], sum(m['spend'] for m in g['metadata']))

@pytest.mark.parametrize('asked, fits, column, group', [
    (dict(group_by='api_key'),         lambda u: True,                  'api_key_hash', 'api_key'),
    (dict(group_by='internal_user_id'),lambda u: True,                  'user_id',      'internal_user_id'),
    (dict(api_key='88dc'),             lambda u: u.api_key_hash=='88dc','api_key_hash', 'api_key'),
    (dict(internal_user_id='ada'),     lambda u: u.user_id=='ada',      'api_key_hash', 'api_key'),
    (dict(customer_id='palantir'),     lambda u: u.end_user=='palantir','api_key_hash', 'api_key')])
def test_totals(us, boss, asked, fits, column, group):
    "By key or user, the dearest first: LiteLLM's sums; the keys of a user sum to the user"
    want = defaultdict(lambda: defaultdict(lambda: [0.,0,0]))
    for u in us:
        if in_april(u) and fits(u):
            w = want[getattr(u, column) or ''][u.model]
            w[0] += paid(u); w[1] += u.prompt_tokens; w[2] += u.completion_tokens
    got = boss('/global/spend/report', **april, **asked).json()
    assert [o['total_cost'] for o in got]==sorted([o['total_cost'] for o in got], reverse=True) and {o[group] for o in got}==want.keys()
    for o in got:
        for m in o['model_details']: assert near([m['total_cost'], m['total_input_tokens'], m['total_output_tokens']], want[o[group]][m['model']])
        assert near([o['total_cost'], o['total_input_tokens'], o['total_output_tokens']], [sum(x) for x in zip(*want[o[group]].values())])
    if 'internal_user_id' in asked: assert near(sum(o['total_cost'] for o in got), next(o['total_cost'] for o in boss('/global/spend/report', group_by='internal_user_id', **april).json() if o['internal_user_id']=='ada'))

def test_a_tag_never_inflates(us, boss):
    "Each tag has all of its calls, and the total each call once"
    got = boss('/spend/tags', **april).json()
    for o in got['tags']: assert near(o['total_spend'], sum(paid(u) for u in us if in_april(u) and (o['individual_request_tag'] in json.loads(u.tags) or json.loads(u.tags)==[] and not o['individual_request_tag'])))
    assert near(got['total_spend'], sum(paid(u) for u in us if in_april(u))) and sum(o['total_spend'] for o in got['tags']) > got['total_spend'] and 'once' in got['overlap']
    by_key = boss('/global/spend/report', group_by='tag', **april).json() # tag by key
    for t in 'abc': assert near(sum(m['spend'] for d in by_key for g in d['tags'] for m in g['metadata'] if g['tag']==t and m['api_key']=='88dc'),
        sum(paid(u) for u in us if in_april(u) and t in json.loads(u.tags) and u.api_key_hash=='88dc'))

script = '''import requests
url = 'http://localhost:4000/global/spend/report'
params = {
    'start_date': '2023-04-01',
    'end_date': '2024-06-30'
}

headers = {
    'Authorization': 'Bearer sk-1234'
}

# Make the GET request
response = requests.get(url, headers=headers, params=params)
spend_report = response.json()

for row in spend_report:
  date = row["group_by_day"]
  teams = row["teams"]
  for team in teams:
      team_name = team["team_name"]
      total_spend = team["total_spend"]
      metadata = team["metadata"]

      print(f"Date: {date}")
      print(f"Team: {team_name}")
      print(f"Total Spend: {total_spend}")
      print("Metadata: ", metadata)
      print()
'''

def test_script_of_litellms_documentation(tmp_path):
    "It prints its lines from ours; the host and the key alone are others. What it prints of its own ledger is in the documentation too"
    seed = [('2024-05-11T08:00Z', 'local_test_team', 'b94d5e', .003675099999999999, 3105), ('2024-05-13T08:00Z', None, '9569d1', 3.4e-05, 50),
            ('2024-05-13T09:00Z', 'central', '0323fa', .000684, 498), ('2024-05-13T10:00Z', 'local_test_team', 'b94d5e', .0005715000000000001, 423)]
    l = Ledger(tmp_path/'usage.db')
    l.insert_all([Usage(call_id=t, timestamp=epoch(t), team_id=team and f'id of {team}', team_alias=team, api_key_hash=k, model='gpt-3.5-turbo', usage_source='reported',
        prompt_tokens=n, completion_tokens=0, total_tokens=n, response_cost=usd) for t,team,k,usd,n in seed])
    key = l.add_key('get_spend_routes')
    with serving(web.app(l)) as url: out = subprocess.run([sys.executable, '-c', script.replace('http://localhost:4000', url).replace('sk-1234', key)], capture_output=True, text=True, check=True).stdout
    said = {(t[:10], team or 'Unassigned Team', usd) for t,team,_,usd,_ in seed}
    assert {*re.findall(r'Date: (\S+)T00:00:00\+00:00\nTeam: (.*)\nTotal Spend: (.*)\nMetadata:  \[\{.*\}\]\n', out)}=={(a,b,str(c)) for a,b,c in said} and out.count('Date: ')==4
    assert "[{'model': 'gpt-3.5-turbo', 'spend': 0.000684, 'api_key': '0323fa', 'total_tokens': 498, " in out


# Totals, pages and days

def test_pages_sum_to_the_total(tmp_path):
    "200 keys, 3 models and 2 routes, 1,200 rows of one moment, in pages of 1,000 while rows arrive: no row twice, none left out, and the total is that of all"
    l = Ledger(tmp_path/'usage.db')
    call = lambda i,k,m,t: Usage(call_id=f'{i}', timestamp=1764633600., api_key_hash=f'k{k}', model=f'm{m}', call_type=t, response_cost=5e-06, usage_source='reported')
    l.insert_all([call(i, i%200, i%3, ['completion','responses'][i//3%2]) for i in range(1200)])
    with serving(web.app(l)) as url:
        ask = Client(url, l.add_key('admin'))
        one = ask('/spend/logs', limit=1000)
        l.insert_all([call(5000+i, 0, 0, 'completion') for i in range(7)])
        two = ask('/spend/logs', limit=1000, before=one.json()['next']).json()
    assert '"spend": 5e-06' in one.text and one.json()['total']==1200 and near(one.json()['total_spend'], .006) and two['next'] is None and two['total']==1207
    assert [o['id'] for o in one.json()['data']+two['data']]==[*range(1200, 0, -1)]

@pytest.mark.parametrize('tz', ['UTC','Europe/London','Asia/Kolkata','America/Los_Angeles','Australia/Lord_Howe','Pacific/Kiritimati'])
def test_days_of_any_zone(boss, us, tz):
    "A millisecond before midnight is of that day, wherever it is; the days sum to the period, those of 23 and 25 hours too"
    zone = ZoneInfo(tz)
    want = defaultdict(float)
    for u in us:
        if (d := datetime.fromtimestamp(u.timestamp, zone)).month==4: want[datetime(d.year, d.month, d.day, tzinfo=zone).isoformat()] += paid(u)
    days = boss('/global/spend/report', tz=tz, **april).json()
    got  = {d['group_by_day']:sum(t['total_spend'] for t in d['teams']) for d in days}
    assert got.keys()==want.keys() and near([got[k] for k in want], [*want.values()])
    assert near(sum(got.values()), boss('/spend/logs', tz=tz, limit=1, **april).json()['total_spend'])

@pytest.mark.parametrize('tz, day', [('Europe/London','2026-04-01'), ('Asia/Kolkata','2026-04-01'), ('America/Los_Angeles','2026-03-31'), ('UTC','2026-03-31')])
def test_the_last_millisecond_of_march(tmp_path, tz, day):
    l = Ledger(tmp_path/'usage.db')
    l.add(Usage(call_id='late', timestamp=epoch('2026-03-31T23:59:59.999Z'), model='m', response_cost=1.))
    with serving(web.app(l)) as url: got = Client(url, l.add_key('admin'))('/global/spend/report', start_date='2026-03-30', end_date='2026-04-02', tz=tz).json()
    assert [o['group_by_day'][:10] for o in got]==[day]

def test_reset(tmp_path, us):
    "Counters begin anew, each row stays, and who did it is recorded; a role that reads may not"
    l = Ledger(tmp_path/'usage.db')
    l.insert_all(us)
    with serving(web.app(l.path)) as url:
        boss,reads = Client(url, l.add_key('admin', name='boss')),Client(url, l.add_key('get_spend_routes'), 'x-api-key', '')
        assert near(boss('/global/spend').json()['spend'], sum(map(paid, us)))
        assert reads('/global/spend/reset', 'post').status_code==403 and near(reads('/global/spend').json()['spend'], sum(map(paid, us)))
        r = boss('/global/spend/reset', 'post')
        assert r.text=='{"message": "Spend for all API Keys and Teams reset successfully", "status": "success"}' and len(l.rows())==len(us)
        l.add(Usage(call_id='new', timestamp=time.time(), model='gpt-4', team_id='t-1', api_key_hash='88dc', response_cost=.5))
        got = reads('/global/spend').json()
        assert got['spend']==.5 and [(o['api_key'],o['spend']) for o in got['keys']]==[('88dc',.5)] and [(o['team_id'],o['spend']) for o in got['teams']]==[('t-1',.5)]
        assert [o['by'] for o in l.resets()]==['boss'] and near(sum(o['total_cost'] for o in boss('/global/spend/report', group_by='api_key', **april).json()), sum(paid(u) for u in us if in_april(u)))


# Who may see what

theirs = dict(user_id='u-bob', team_id='t-blue', team_alias='n-blue', api_key_hash='h-bob', key_alias='n-bob', end_user='e-bob', model='m-bob', requested_model='r-bob', session_id='s-bob',
    agent='a-bob', tags='["g-bob"]', trace_id='c-bob', deployment='d-bob', meta='{"x": "f-bob"}', call_id='i-bob', response_id='p-bob', api_base='http://b-bob')
marks  = 'u-bob t-blue n-blue h-bob n-bob e-bob m-bob r-bob s-bob a-bob g-bob c-bob d-bob f-bob i-bob p-bob b-bob 7.77'.split()

def today(): return dict.fromkeys(('start_date','end_date'), f'{datetime.now(utc):%Y-%m-%d}')

def test_own_rows_only(tmp_path):
    "A key for one's own rows gets nothing of others from any route, page or parameter, whatever it asks for; an identity that is missing sees nothing"
    l = Ledger(tmp_path/'usage.db')
    l.insert_all([Usage(**theirs, uid='b', timestamp=time.time()-60, usage_source='reported', response_cost=7.77), Usage(call_id='mine', uid='a', timestamp=time.time()-50, user_id='ada', model='mine', response_cost=1.),
        Usage(uid='c', timestamp=time.time()-40, model='m-bob', response_cost=7.77)]) # nobody's
    with serving(web.app(l)) as url:
        ada,boss = (l.add_key(*o) for o in (('self',None,'ada'),('admin',)))
        spec = requests.get(f'{url}/openapi.json').json()
        session = requests.Session()
        session.post(f'{url}/login', data=dict(key=ada))
        asks = {p:{o['name'] for o in v['get'].get('parameters',())} for p,v in spec['paths'].items() if 'get' in v}
        words = dict(user='u-bob', team='t-blue', model='m-bob', tag='g-bob', key='h-bob', agent='a-bob', session='s-bob', open='u-bob', by='team', status='failed')
        asks |= dict.fromkeys(['/','/by','/calls','/sessions','/session','/figures','/caches',*(f'/csv/{k}' for k in ('users','teams','tags','keys','models','sessions','calls','days'))], words)
        seen = 0
        for path,names in asks.items():
            day = today() if 'start_date' in names else {}
            tries = [{}] + [{k:v} for k in {*names} - {'start_date','end_date','tz','limit','before'} for v in ([words[k],'–'] if names is words else [*marks[:15],'',"' OR 1=1 --"])]
            for t in tries:
                r = session.get(url+path, params=day|t)
                seen += 'mine' in r.text
                leaks = [m for m in marks if m in r.text and m not in t.values()]
                assert r.status_code in (200,204,400,404) and not leaks, (path, t, r.status_code, leaks)
        assert seen > 20 and 'm-bob' in Client(url, boss)('/spend/logs').text
        l.write(lambda con: con.execute("UPDATE keys SET user_id=NULL WHERE role='self'"))
        none = Client(url, ada)
        assert none('/spend/logs').json()['data']==[] and none('/global/spend').json()['calls']==0 and none('/global/spend/report', **today()).json()==[] and 'calls_total{' not in none('/metrics').text

def test_keys(tmp_path):
    "No key, a wrong one, one that expired or was revoked, and one that may not read: no data"
    l = Ledger(tmp_path/'usage.db')
    l.add(Usage(call_id='a', model='m', response_cost=1.))
    good,late,gone = [l.add_key('admin', until=o) for o in (None,'yesterday',None)]
    writes = l.add_key('write')
    l.revoke_key(max(o.id for o in l.keys())-1)
    with serving(web.app(l)) as url:
        said = [Client(url, k)('/spend/logs') for k in (good,None,'sk-1234',late,gone,writes)]
        assert [r.status_code for r in said]==[200,401,401,401,401,403] and [*said[1].json()]==['error'] and Client(url, good, 'x-api-key', '')('/spend/logs').status_code==200
        wrong = [Client(url, f'lu-{i}')('/spend/logs').status_code for i in range(30)]
        assert wrong[0]==401 and wrong[-1]==429 and Client(url)('/health').status_code==200

def test_no_key_is_written_anywhere(tmp_path):
    "`llm-usage serve` gets keys in headers, addresses, forms and cookies: none is in what it prints, in an answer, or in a file"
    l = Ledger(tmp_path/'usage.db')
    key = l.add_key('admin')
    l.close()
    keys,said = (key,'sk-secret-1234','lu-secret-5678'),''
    with subprocess.Popen([sys.executable, '-m', 'llm_usage', 'serve', '--port', '0', '--db', str(tmp_path/'usage.db')], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as p:
        try:
            url = re.search(r'http://127\.0\.0\.1:\d+', line := p.stdout.readline())[0]
            boss = Client(url, key)
            for k in keys:
                for path in ('/global/spend/report','/spend/logs','/','/login','/nowhere'): said += boss(path, api_key=k, user_id=k, start_date=k).text
                said += Client(url, k)('/spend/logs').text + requests.post(f'{url}/login', data=dict(key=k)).text + boss('/v1/traces', 'post', api_key=k).text
            assert requests.get(f'{url}/health', headers=dict(host='evil.example')).status_code==400
            r = requests.get(f'{url}/health')
            assert "default-src 'none'" in r.headers['content-security-policy'] and r.headers['x-content-type-options']=='nosniff' and 'server' not in r.headers
        finally: p.terminate()
        out = line + p.stdout.read()
    assert 'Traceback' not in out and len(said) > 5000
    for k in keys: assert k not in out + said and not [f for f in tmp_path.rglob('*') if f.is_file() and k.encode() in f.read_bytes()]

def test_owner_of_a_ledger_without_keys(tmp_path):
    "Who starts the server has a link that works once; without it there is no data"
    Ledger(tmp_path/'usage.db').close()
    with subprocess.Popen([sys.executable, '-m', 'llm_usage', 'serve', '--port', '0', '--db', str(tmp_path/'usage.db')], stdout=subprocess.PIPE, text=True) as p:
        try:
            link = re.search(r'http\S+', p.stdout.readline())[0]
            url  = link.partition('login')[0]
            s,other = requests.Session(),requests.Session()
            assert s.get(link).url==url and s.get(f'{url}spend/logs').status_code==200
            assert other.get(link).url==link and other.get(f'{url}spend/logs').status_code==401
        finally: p.terminate()

def test_mounted(tmp_path):
    "Within another app all links stay below its path"
    l = Ledger(tmp_path/'usage.db')
    l.add(Usage(call_id='a', model='m', timestamp=time.time(), response_cost=1.))
    outer = FastAPI()
    outer.mount('/usage', web.app(l))
    with serving(outer) as url:
        s = requests.Session()
        assert s.get(f'{url}/usage/').url==f'{url}/usage/login'
        page = s.post(f'{url}/usage/login', data=dict(key=l.add_key('admin')))
        links = re.findall(r'(?:href|src|action)="(/[^"]*)"', page.text)
        assert page.url==f'{url}/usage/' and len(links) > 5 and all(o.startswith('/usage/') for o in links) and all(s.get(url+o).status_code==200 for o in links if '/static/' in o)


# Bad input

bad = {'upside down': (dict(start_date='2024-06-30', end_date='2024-04-01'), 400), 'huge': (dict(start_date='0001-01-01', end_date='9999-12-31'), 400), 'no date': (dict(start_date='2024-02-30', end_date='2024-03-01'), 400),
    'in words': (dict(start_date='yesterday', end_date='today'), 400), 'half': (dict(start_date='2024-04-01'), 400), 'none': ({}, 400), 'no zone': (dict(april, tz='Mars/Base'), 400), 'a path as a zone': (dict(april, tz='../../etc/passwd'), 400),
    'no group': (dict(april, group_by='planet'), 400), 'a long name': (dict(april, team_id='x'*9999), 400), 'odd characters': (dict(april, team_id='\x00\ud800'.encode('utf-8','surrogatepass')), 200), 'injection': (dict(april, team_id="' OR 1=1 --"), 200)}

@pytest.mark.parametrize('name', bad)
def test_bad_parameters(boss, name):
    params,status = bad[name]
    r = boss('/global/spend/report', **params)
    assert r.status_code==status and (r.json()==[] if status==200 else [*r.json()]==['error'] and len(r.json()['error']) < 300), r.text

@pytest.mark.parametrize('params, status', [(dict(limit=0),400), (dict(limit=10**9),400), (dict(before='x'),400), (dict(before=-1),400), (dict(before=2**63),400), (dict(before=0),200), (dict(before=10**12),200)])
def test_bad_pages(boss, params, status):
    r = boss('/spend/logs', **params)
    assert r.status_code==status and (r.json()['data']==[] if status==200 else [*r.json()]==['error'])

def test_large_bodies(url, boss):
    "100 MB, with and without a length, to each route that takes a body: 413 and a sentence, and the server goes on"
    parts = lambda: (bytes(1_000_000) for _ in range(100))
    for path in ('/v1/traces','/global/spend/reset','/login'):
        r = requests.post(url+path, data=bytes(100_000_000), headers=boss.heads)
        assert (r.status_code, [*r.json()])==(413, ['error'])
    for path in ('/v1/traces','/login'): assert requests.post(url+path, data=parts(), headers=boss.heads).status_code==413
    assert boss('/health').status_code==200

@pytest.mark.parametrize('method, path, status', [('delete','/spend/logs',405), ('post','/metrics',405), ('get','/global/spend/reset',405), ('get','/v1/traces',405), ('trace','/health',405)])
def test_other_methods(boss, method, path, status): assert boss(path, method).status_code==status

def damage(p):
    b = bytearray(p.read_bytes())
    for i in range(4096, len(b)-4096, 4096): b[i:i+200] = os.urandom(200)
    p.write_bytes(b)

spoiled = {'missing': (lambda p: p.unlink(), 404), 'damaged': (damage, 422), 'no database': (lambda p: p.write_text('hello'*1000), 422), 'another database': (lambda p: apsw.Connection(str(p)).execute('DROP TABLE usage'), 422)}

@pytest.mark.parametrize('how', spoiled)
def test_spoiled_ledger(tmp_path, us, how):
    "The documented status and one sentence, which names no file"
    l = Ledger(p := tmp_path/'usage.db')
    l.insert_all(us[:500])
    key = l.add_key('admin')
    l.close()
    spoil,status = spoiled[how]
    with serving(web.app(p)) as url:
        ask,browser = Client(url, key),requests.Session()
        assert ask('/spend/logs').status_code==browser.post(f'{url}/login', data=dict(key=key)).status_code==200
        spoil(p)
        page = browser.get(url)
        assert page.status_code==status and spend_api.ERRORS[status][1:] in page.text and str(p) not in page.text
        for path in ('/spend/logs','/global/spend/report','/global/spend','/metrics','/spend/tags','/health'):
            r = ask(path, **april if path.endswith('report') else {})
            assert r.status_code==status and r.json()==dict(error=spend_api.ERRORS[status]), (path, r.status_code, r.text)

def test_locked_ledger(tmp_path, us):
    "423 when another program keeps the file for itself"
    l = Ledger(p := tmp_path/'usage.db')
    l.insert_all(us[:50])
    key = l.add_key('admin')
    l.close()
    was,store.PATIENCE = store.PATIENCE,1 # seconds
    con = apsw.Connection(str(p))
    try:
        with serving(web.app(p)) as url:
            con.execute('PRAGMA journal_mode=DELETE; BEGIN EXCLUSIVE; UPDATE usage SET latency=1').fetchall()
            r = Client(url, key)('/spend/logs')
        assert (r.status_code, r.json())==(423, dict(error=spend_api.ERRORS[423]))
    finally: con.close(); store.PATIENCE = was


# Metrics and spans

def counters(text): return {k:float(v) for k,v in (o.rsplit(' ', 1) for o in text.splitlines() if o[0]!='#')}

def test_metrics(tmp_path):
    "10,000 mistyped models make no series; nothing falls when rows come, nor when the server starts again"
    l = Ledger(tmp_path/'usage.db')
    call = lambda i,m,**kw: Usage(call_id=f'{i}', timestamp=1764633600.+i, model=m, provider='openai', usage_source='reported', prompt_tokens=3, response_cost=.5, **kw)
    l.insert_all([call(i, 'gtp-%d'%i, status='failed') for i in range(10_000)] + [call(10_000+i, f'model-{i}') for i in range(150)])
    key,seen = l.add_key('admin'),[]
    for more in range(2):
        with serving(web.app(l)) as url:
            ask = Client(url, key)
            seen.append(counters(ask('/metrics').text))
            l.insert_all([call(20_000+99*more+i, f'model-{i}') for i in range(99)])
            seen.append(counters(ask('/metrics').text))
    assert len(seen[0]) < 900 and seen[0]['llm_usage_calls_total{model="other",provider="other"}']==10_050
    for a,b in zip(seen, seen[1:]): assert a.keys() <= b.keys() and all(a[k] <= b[k] for k in a)
    assert seen[-1]['llm_usage_rows_dropped']==0 and sum(v for k,v in seen[-1].items() if k.startswith('llm_usage_spend_usd_total'))==.5*(10_150+2*99)

full = '''
import resource, sys
from starlette.testclient import TestClient
from llm_usage import Ledger, Usage, web
l = Ledger(sys.argv[1])
ask = TestClient(web.app(l), headers=dict(authorization='Bearer '+l.add_key('admin')))
assert ask.get('/global/spend').json()['dropped']==0
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
for i in range(3): l.enqueue(Usage(call_id=f'{i}', model='m', response_cost=.5))
print(ask.get('/global/spend').json()['dropped'], [o for o in ask.get('/metrics').text.splitlines() if o.startswith('llm_usage_rows_dropped')])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
l.flush()
print(ask.get('/global/spend').json()['dropped'])'''

def test_rows_that_are_in_no_file_are_counted(tmp_path):
    "On a full disk the answers say how many rows are in no file"
    assert ran(full, tmp_path/'usage.db').splitlines()==["3 ['llm_usage_rows_dropped 3']", '0']

@pytest.mark.parametrize('kind', ['protobuf','json'])
def test_exporter(tmp_path, kind):
    "OpenTelemetry's own exporter, a program's spans, and their rows, which belong to the key; who reads may not write"
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    l = Ledger(tmp_path/'usage.db')
    said = {'gen_ai.operation.name':'chat', 'gen_ai.provider.name':'openai', 'gen_ai.request.model':'gpt-5.6-luna', 'gen_ai.usage.input_tokens':100, 'gen_ai.usage.output_tokens':10, 'user.id':'eve'}
    span = dict(traceId='ab'*16, spanId='cd'*8, startTimeUnixNano='1764633600000000000', endTimeUnixNano='1764633601000000000', attributes=[dict(key=k, value=dict(stringValue=str(v))) for k,v in said.items()])
    body = json.dumps(dict(resourceSpans=[dict(scopeSpans=[dict(spans=[span])])]))
    with serving(web.app(l.path)) as url:
        keys = [l.add_key('write', name='app', user_id='ada'), l.add_key('self', user_id='ada')]
        heads = [{'Authorization':f'Bearer {k}'} for k in keys]
        if kind=='protobuf':
            p = TracerProvider()
            p.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f'{url}/v1/traces', headers=heads[0])))
            p.get_tracer('t').start_span('chat', attributes=said).end()
            p.shutdown()
        else: assert [requests.post(f'{url}/v1/traces', body, headers=heads[0]|{'content-type':'application/json'}).status_code for _ in range(2)]==[200,200]
        assert requests.post(f'{url}/v1/traces', body, headers=heads[1]|{'content-type':'application/json'}).status_code==403
        for odd,what in ((b'{','application/json'), (b'[]','application/json'), (b'\xff\xff','application/x-protobuf'), (b'{}','text/plain')):
            r = requests.post(f'{url}/v1/traces', odd, headers=heads[0]|{'content-type':what})
            assert (r.status_code, [*r.json()])==(400, ['error'])
    assert [(u.model, u.prompt_tokens, u.completion_tokens, u.user_id, u.key_alias, u.api_key_hash) for u in l.rows()]==[('gpt-5.6-luna', 100, 10, 'ada', 'app', hash_key(keys[0]))]


# All that its OpenAPI allows, and more

def test_openapi(ledger, boss):
    "schemathesis finds no 5xx, and no status or type that is not documented"
    schema = schemathesis.openapi.from_dict(boss('/openapi.json').json())
    found = []
    for r in schema.get_all_operations():
        op = r.ok()
        @settings(max_examples=40, deadline=None, database=None, derandomize=True, suppress_health_check=[*HealthCheck])
        @given(case=op.as_strategy())
        def ask(case):
            r = case.call(base_url=boss.url, headers=boss.heads)
            found.append(r.status_code)
            assert r.status_code < 500 and str(r.status_code) in op.definition.raw['responses'], (op.label, r.status_code, r.text)
        ask()
    assert {200,400} <= {*found}
