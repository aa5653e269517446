"Alerts that a page cannot show: several processes, a kill, servers that hang or fail, and every kind of call that LiteLLM refuses."
import asyncio, json, logging, threading
from http.server import BaseHTTPRequestHandler
import litellm, pytest
from standins import Say, says
from helpers import Handler, ran, row, python, served
from llm_usage import AlertRaised, Ledger, UsageLogger
import llm_usage.webhook

pytestmark = pytest.mark.filterwarnings('error:llm_usage')

class Hook(BaseHTTPRequestHandler):
    "A webhook, which answers once it is let go"
    got,arrived,let_go,over = [],threading.Event(),threading.Event(),threading.Event()
    status = 200
    def log_message(self, *args): pass
    def do_POST(self):
        self.got.append(json.loads(self.rfile.read(int(self.headers['content-length']))))
        self.arrived.set()
        self.let_go.wait(60)
        try: self.send_response(self.status), self.send_header('location', '/elsewhere'), self.end_headers()
        except ConnectionError: pass # it has given up

@pytest.fixture
def hook():
    Hook.got.clear(), Hook.arrived.clear(), Hook.let_go.set()
    Hook.status = 200
    with served(Hook) as url:
        yield f'{url}/services/secret'
        Hook.let_go.set()

def spend(l, n, session, **kw):
    for i in range(n): l.enqueue(row(None, session_id=session, **kw)) # of $0.25
    l.flush()

# Several processes, restarts and kills

worker = '''
import sys
from llm_usage import AlertRaised, Ledger, Usage
path,url,n = sys.argv[1:]
l = Ledger(path)
l.alert('session > $1', url)
l.alert('session > $1', 'raise')
print('ready', flush=True)
input()
for i in range(int(n)):
    l.enqueue(Usage(session_id='ticket-1', model='m', response_cost=.1))
    l.flush()
try: l.refuse(dict(session_id='ticket-1'))
except AlertRaised: print('refused', flush=True)
'''

def test_several_processes_fire_once(p, hook):
    "Three processes spend $0.60 each for one session: together they cross $1, one of them posts it, and the last ones refuse the session"
    Ledger(p).close()
    ps = [python(worker, p, hook, 6) for _ in range(3)]
    for o in ps: assert o.stdout.readline()=='ready\n'
    said = [o.communicate('go\n', timeout=60) for o in ps]
    assert [o.returncode for o in ps]==[0,0,0] and not any(e for _,e in said), said
    assert [o['subject'] for o in Hook.got]==['ticket-1'] and any('refused' in o for o,_ in said)
    l = Ledger(p)
    l.alert('session > $1', 'raise')
    with pytest.raises(AlertRaised): l.refuse(dict(session_id='ticket-1'))

def test_a_restart_fires_nothing_again(p, hook):
    for n in (12,3):
        with python(worker, p, hook, n) as o: out,err = o.communicate('go\n', timeout=60)
        assert 'refused' in out and not err
    assert len(Hook.got)==1

def test_rows_of_a_killed_process_are_looked_at(p):
    "It was killed before its row was stored, and so before anybody could look at it"
    with python(f'''
import os
from llm_usage import Ledger, Usage
l = Ledger({str(p)!r})
l.alert('call > $0.05', 'log')
l.journal.every = 60
l.enqueue(Usage(uid='u1', model='m', response_cost=5.))
os._exit(0)''') as o: o.communicate(timeout=60)
    l = Ledger(p)
    assert l.alerts()==[]
    l.alert('call > $0.05', 'log')
    assert [a.subject for a in l.alerts()]==['u1']

def test_a_forked_process_has_alerts(p, hook):
    ran(f'''
import os
from llm_usage import Ledger, Usage
l = Ledger({str(p)!r})
l.alert('session > $1', {hook!r})
def spend(s): l.enqueue(Usage(session_id=s, model='m', response_cost=2.)), l.flush()
spend('parent')
if os.fork()==0:
    spend('child')
    ok = [*l.alert_rules.values()][0].act.wait()
    os._exit(not ok)
assert os.wait()[1]==0''')
    assert sorted(o['subject'] for o in Hook.got)==['child','parent']

# Webhooks that hang, or fail

def test_a_hanging_webhook_delays_nobody(p, hook, caplog):
    "Rows are stored, other alerts fire, and a process ends, while the server holds its answer back"
    Hook.let_go.clear()
    l,seen = Ledger(p),[]
    l.alert('session > $1', hook)
    l.alert('session > $1', seen.append)
    spend(l, 5, 'ticket-1')
    assert Hook.arrived.wait(20)
    spend(l, 5, 'ticket-2')
    assert [*l.alert_rules.values()][1].act.wait(20)
    assert [a.subject for a in seen]==['ticket-1','ticket-2'] and l.total().calls==10
    with python(worker, p.with_name('other.db'), hook, 12) as o: assert 'refused' in o.communicate('go\n', timeout=60)[0]
    assert not Hook.let_go.is_set() and len(Hook.got)==2
    Hook.let_go.set()
    assert l.alert_rules[next(iter(l.alert_rules))].act.wait(20)
    assert [o['subject'] for o in Hook.got]==['ticket-1','ticket-1','ticket-2'] and not caplog.records

@pytest.mark.parametrize('status', [500, 302, 307])
def test_a_failing_webhook_is_reported_once(p, hook, caplog, monkeypatch, status):
    "It is tried three times for each alert, and the log has the host, and not the path, which is a secret; whoever sets the rule later sends both"
    monkeypatch.setattr(llm_usage.webhook, 'PAUSES', (.01,.02,None))
    Hook.status = status
    l = Ledger(p)
    r = l.alert('session > $1', hook)
    for o in ('ticket-1','ticket-2'): spend(l, 5, o)
    assert r.act.wait(20) and [o['subject'] for o in Hook.got]==['ticket-1']*3 + ['ticket-2']*3
    assert [o.getMessage() for o in caplog.records]==[f'the webhook at 127.0.0.1 failed: {status}'] and 'secret' not in p.read_bytes().decode('latin-1')
    Hook.status = 200
    Hook.got.clear()
    l.alert('session > $1', hook) # somebody may still be trying
    assert not Hook.got
    l.write(lambda con: con.execute('UPDATE alerts SET tried=tried-61')) # a minute later nobody is
    for _ in range(2): # of which the second has nothing to send
        r = l.alert('session > $1', hook)
        assert not r.act.thread or r.act.wait(20)
    assert sorted(o['subject'] for o in Hook.got)==['ticket-1','ticket-2']

def test_a_slow_function_delays_no_refusal(p):
    "It waits for what only the test does, after the session was refused"
    l,go,over = Ledger(p),threading.Event(),[]
    l.alert('call > $0.05', lambda a: over.append(go.wait(60)))
    l.alert('session > $1', 'raise')
    spend(l, 1, 'ticket-1')
    spend(l, 4, 'ticket-1')
    with pytest.raises(AlertRaised): l.refuse(dict(session_id='ticket-1'))
    assert over==[]
    go.set()
    assert l.wait_for_alerts(20) and over==[True]*5

# Calls through LiteLLM

asked = 'May I?'
says[asked] = Say('You may.', 2000, 100)
says_it = [dict(role='user', content=asked)]

class Counting(Handler):
    "The stand-ins, which count the requests"
    hits = []
    def do_POST(self):
        self.hits.append(self.path)
        super().do_POST()

@pytest.fixture(scope='module')
def base():
    with served(Counting) as url: yield url

@pytest.fixture
def refusing(logger):
    "A logger that refuses the session ticket-1"
    logger.alert('session > $1', 'raise')
    spend(logger.ledger, 5, 'ticket-1')
    Counting.hits.clear()
    return logger

def openai(base): return dict(model='openai/gpt-5.6-luna', api_base=f'{base}/v1', api_key='none', max_retries=0)
def claude(base): return dict(model='anthropic/claude-sonnet-5-5', api_base=base, api_key='none', max_tokens=100)

kinds = dict(
    chat        = lambda b, **kw: litellm.completion(messages=says_it, **openai(b), **kw),
    stream      = lambda b, **kw: list(litellm.completion(messages=says_it, stream=True, **openai(b), **kw)),
    retries     = lambda b, **kw: litellm.completion(messages=says_it, num_retries=2, **openai(b), **kw),
    claude      = lambda b, **kw: litellm.completion(messages=says_it, **claude(b), **kw),
    achat       = lambda b, **kw: litellm.acompletion(messages=says_it, **openai(b), **kw),
    astream     = lambda b, **kw: litellm.acompletion(messages=says_it, stream=True, **openai(b), **kw),
    responses   = lambda b, **kw: litellm.responses(input=asked, **openai(b), **kw),
    aresponses  = lambda b, **kw: litellm.aresponses(input=asked, stream=True, **openai(b), **kw),
    amessages   = lambda b, **kw: litellm.anthropic_messages(messages=says_it, **claude(b), **kw),
    embedding   = lambda b, **kw: litellm.embedding(input=[asked], **openai(b) | dict(model='openai/text-embedding-3-small'), **kw),
    aembedding  = lambda b, **kw: litellm.aembedding(input=[asked], **openai(b) | dict(model='openai/text-embedding-3-small'), **kw),
    router      = lambda b, **kw: router(b).completion('main', says_it, **kw),
    arouter     = lambda b, **kw: router(b).acompletion('main', says_it, **kw))

def router(b):
    "A router that would try again, and then another model"
    ms = [dict(model_name='main', litellm_params=openai(b)), dict(model_name='spare', litellm_params=claude(b))]
    return litellm.Router(ms, num_retries=2, fallbacks=[dict(main=['spare'])], retry_after=0)

async def whole(r):
    r = await r if asyncio.iscoroutine(r) else r
    return [o async for o in r] if hasattr(r, '__aiter__') else r

@pytest.mark.parametrize('kind', kinds)
def test_every_kind_of_call_is_refused(refusing, base, loop, kind):
    "A refused call reaches no server, and leaves no row; one of another session reaches it once"
    async def go(session):
        with refusing.who(session_id=session): await whole(kinds[kind](base))
    before = refusing.ledger.total().calls
    with pytest.raises(litellm.BudgetExceededError, match='session > \\$1: ticket-1') as e: loop.run(go('ticket-1'))
    assert isinstance(e.value, AlertRaised) and e.value.status_code==422 and Counting.hits==[]
    loop.run(go('ticket-2'))
    refusing.flush()
    assert len(Counting.hits)==1 and refusing.ledger.total().calls==before+1

@pytest.mark.parametrize('how', [dict(metadata=dict(session_id='ticket-1')), dict(litellm_session_id='ticket-1')])
def test_a_call_may_say_its_session(refusing, base, how):
    "The session that its row would have is the one that is refused"
    with pytest.raises(AlertRaised): kinds['chat'](base, **how)
    assert Counting.hits==[]

def test_people_and_tags(logger, base):
    for who in ('user','end_user','tag'): logger.alert(f'{who} > $1', 'raise')
    for kw in (dict(user_id='bob'), dict(end_user='acme'), dict(tags=['nightly'])): spend(logger.ledger, 5, None, **kw)
    Counting.hits.clear()
    for how in (dict(metadata=dict(user_id='bob')), dict(user='acme'), dict(metadata=dict(tags=['x','nightly']))):
        with pytest.raises(AlertRaised): kinds['chat'](base, **how)
    assert Counting.hits==[]
    kinds['chat'](base, user='another', metadata=dict(user_id='ada', tags=['x']))
    assert len(Counting.hits)==1

def test_uninstalling_ends_it(p, base):
    before = litellm.utils.function_setup
    with UsageLogger(p) as l:
        l.alert('day > $1', 'raise')
        spend(l.ledger, 5, None)
        with pytest.raises(AlertRaised): kinds['chat'](base)
    assert litellm.utils.function_setup is before
    assert kinds['chat'](base).choices[0].message.content=='You may.'

def test_a_call_does_not_wait_for_its_alert(p, base, hook):
    "The answer is there while the webhook still holds the alert of the call before"
    Hook.let_go.clear()
    with UsageLogger(p) as l:
        l.alert('call > $0', hook)
        kinds['chat'](base)
        assert Hook.arrived.wait(20)
        assert kinds['chat'](base).choices[0].message.content=='You may.' and not Hook.let_go.is_set()

def test_settings_have_alerts(tmp_path):
    "A logger sets those of the project, and one in memory, such as that of `measure`, does not"
    (tmp_path/'pyproject.toml').write_text('[tool.llm_usage]\nledger = "usage.db"\n[[tool.llm_usage.alerts]]\nwhen = "session > $1"\ndo = "raise"\n')
    code = '''
from llm_usage import UsageLogger
for path in (None,':memory:'):
    with UsageLogger(path) as l: print([*l.ledger.alert_rules])'''
    assert ran(code, cwd=tmp_path).splitlines()==["['session > $1 → raise']", '[]']
    (tmp_path/'pyproject.toml').write_text('[[tool.llm_usage.alerts]]\nwhen = "sesion > $1"\ndo = "raise"\n')
    with python('from llm_usage import UsageLogger; UsageLogger(":memory:")', cwd=tmp_path) as o: assert "pyproject.toml: 'sesion' is not a valid subject" in o.communicate(timeout=60)[1]
