"A real `litellm --config` process, real clients, and stand-ins as its providers: each request is one row, right to the token and to the dollar."
import asyncio, json, re, signal, subprocess, sys, time
from contextlib import closing
from inspect import isawaitable
from math import fsum
import anthropic, httpx, openai, pytest, standins
from helpers import Handler, served
from llm_usage import Ledger
from llm_usage.proxy import CONFIG
from llm_usage.replay import says
from proxies import Proxy

class Upstream(Handler):
    "Stand-ins that take their time for what is asked slowly"
    disable_nagle_algorithm = True
    def _fault(self, req): return dict(delay=.1) if standins.asked(standins.body(req)).startswith('slowly') else super()._fault(req)

auth = '''
from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import ProxyException,UserAPIKeyAuth
from litellm.proxy.utils import hash_token

keys = {
    'sk-ada':  dict(user_id='ada', team_id='t1', team_alias='Research', key_alias='laptop', user_email='ada@example.com'),
    'sk-bob':  dict(user_id='bob', team_id='t2', team_alias='Support',  key_alias='ci', metadata=dict(tags=['of the key'])),
    'sk-none': dict()}

async def user_api_key_auth(request, api_key):
    if api_key not in keys: raise ProxyException(message='no such key', type='auth_error', param='key', code=401)
    return UserAPIKeyAuth(api_key=hash_token(api_key), **keys[api_key])

class Guard(CustomLogger):
    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        if data.get('user')=='forbidden': raise HTTPException(429, 'no')

guard = Guard()
'''

def config(url):
    "Models of every kind of price, two that fail, a cache, and routes that LiteLLM passes through"
    at  = lambda model, **kw: dict(model=model, api_base=f'{url}/v1', api_key='sk-stand-in', **kw)
    own = dict(input_cost_per_token=.001, output_cost_per_token=.002)
    models = dict(gpt=at('openai/gpt-5.6-luna'), claude=at('anthropic/claude-sonnet-5-5') | dict(api_base=url), emb=at('openai/text-embedding-3-small'),
        azure=at('azure/ours', api_version='2024-10-21') | dict(api_base=url), own=at('openai/our-own', **own), told=at('openai/our-other'),
        nobody=at('openai/nobody-prices'), falls=at('openai/gpt-5.6-luna') | dict(api_base='http://127.0.0.1:9'))
    info = dict(azure=dict(base_model='azure/gpt-4o-mini'), told=own)
    return json.dumps(dict( # JSON is YAML
        model_list=[dict(model_name=k, litellm_params=v, model_info=info.get(k, {})) for k,v in models.items()],
        general_settings=dict(master_key='os.environ/LITELLM_MASTER_KEY', custom_auth='auth.user_api_key_auth',
            pass_through_endpoints=[dict(path='/through', target=f'{url}/v1/chat/completions', headers={'content-type':'application/json'})]),
        router_settings=dict(fallbacks=[dict(falls=['gpt'])], num_retries=1, disable_cooldowns=True, model_group_alias={'gpt-4':'gpt'}),
        litellm_settings=dict(callbacks=['llm_usage.proxy.handler','auth.guard'], include_cost_in_streaming_usage=True, drop_params=True, global_disable_no_log_param=True,
            cache=True, cache_params=dict(type='local', supported_call_types=['acompletion']))))

@pytest.fixture(scope='module')
def upstream():
    with served(Upstream) as url: yield url

@pytest.fixture(scope='module')
def proxy(tmp_path_factory, upstream):
    d = tmp_path_factory.mktemp('proxy')
    (d/'auth.py').write_text(auth)
    (d/'llm_usage.toml').write_text('alerts = [{when="session > $0.02", do="raise"}]')
    with Proxy(d, config(upstream), upstream) as p: yield p

@pytest.fixture(scope='module')
def ledger(proxy):
    l = Ledger(proxy.ledger)
    yield l
    l.close()

def rows_after(ledger, id, n):
    "The `n` rows after that id, which another process writes"
    until = time.monotonic()+30
    while len(us := ledger.rows('id>:id', id=id)) < n and time.monotonic() < until: time.sleep(.02)
    assert len(us)==n, us
    return us

@pytest.fixture
def post(proxy, ledger):
    "Post a request, and get its answer and its `n` rows"
    last = max((u.id for u in ledger.rows()), default=0)
    def post(path, body, key='sk-ada', n=1, **headers):
        nonlocal last
        r  = httpx.post(proxy.url+path, json=body, headers={'authorization':f'Bearer {key}'} | {k.replace('_','-'):v for k,v in headers.items()}, timeout=60)
        us = rows_after(ledger, last, n)
        last = us[-1].id
        return r,*us
    return post

chat,messages,responses = '/v1/chat/completions','/v1/messages','/v1/responses'
def ask(model, q='What is the capital of France?', **kw): return dict(model=model, messages=says(q), **kw)
def has(u, **kw): assert {k:getattr(u,k) for k in kw}==kw

# 500 requests at once

options = dict(stream=dict(stream=True), usage=dict(stream=True, stream_options=dict(include_usage=True)))
kinds = dict(
    chat      = lambda o,a,q: o.chat.completions.with_raw_response.create(**ask('gpt', q)),
    streamed  = lambda o,a,q: o.chat.completions.with_raw_response.create(**ask('gpt', q), **options['usage']),
    response  = lambda o,a,q: o.responses.with_raw_response.create(model='gpt', input=q),
    responses = lambda o,a,q: o.responses.with_raw_response.create(model='gpt', input=q, stream=True),
    message   = lambda o,a,q: a.messages.with_raw_response.create(**ask('claude', q), max_tokens=99),
    messages  = lambda o,a,q: a.messages.with_raw_response.create(**ask('claude', q), max_tokens=99, stream=True),
    embedding = lambda o,a,q: o.embeddings.with_raw_response.create(model='emb', input=q))

def clients(url, key):
    "Clients of OpenAI and Anthropic for the proxy"
    return openai.AsyncOpenAI(base_url=f'{url}/v1', api_key=key, max_retries=0, timeout=120),anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0, timeout=120)

def stated(e):
    "US dollars that the event `e` of a stream states"
    return getattr(getattr(e,'usage',None) or getattr(getattr(e,'response',None),'usage',None), 'cost', None)

async def answered(kind, both, q):
    "(call id, US dollars) of a request, as its client is told"
    r = await kinds[kind](*both, q)
    res = r.parse()
    if isawaitable(res): res = await res
    costs = [c async for e in res if (c := stated(e)) is not None] if hasattr(res,'__aiter__') else [float(r.headers['x-litellm-response-cost'])]
    return r.headers['x-litellm-call-id'],costs[-1]

def test_500_requests(proxy, ledger):
    "500 requests, 50 at a time: 500 rows, each with the tokens of its own question, and the dollars of which its client was told"
    last,sem = max((u.id for u in ledger.rows()), default=0),asyncio.Semaphore(50)
    asked = [([*kinds][i%len(kinds)], ('ada','bob')[i%2], f'question {i} {"x"*(i%60+1)}') for i in range(500)]
    async def go(both, kind, who, q):
        async with sem: return await answered(kind, both[who], q)
    async def all_():
        both = {k:clients(proxy.url, f'sk-{k}') for k in ('ada','bob')}
        return await asyncio.gather(*[go(both, *o) for o in asked])
    told = asyncio.run(all_())
    us = {u.call_id:u for u in rows_after(ledger, last, 500)}
    for (kind,who,q),(cid,cost) in zip(asked, told):
        say = standins._echo(q) # which counts four characters a token
        has(us[cid], user_id=who, status='ok', stream=kind in ('streamed','responses','messages'), usage_source='reported',
            prompt_tokens=say.inp, completion_tokens=0 if kind=='embedding' else say.out)
        assert us[cid].response_cost==pytest.approx(cost, abs=1e-9) and cost > 0
    assert fsum(u.response_cost for u in us.values())==pytest.approx(fsum(c for _,c in told), abs=1e-9)
    assert ledger.check()==[]

# One of each

def test_who_and_where(proxy, upstream, ledger):
    "The key, its owner and team by name; customer, tags and free keys of the request; the deployment and its address; nothing of a person"
    last = max((u.id for u in ledger.rows()), default=0)
    about = dict(tags=['job:7'], ticket=12, session_id='s1')
    openai.OpenAI(base_url=f'{proxy.url}/v1', api_key='sk-bob').chat.completions.create(**ask('gpt-4', 'Name three primes.'), user='palantir', extra_body=dict(metadata=about))
    u, = rows_after(ledger, last, 1)
    has(u, user_id='bob', team_id='t2', team_alias='Support', key_alias='ci', end_user='palantir', tags='["job:7", "of the key"]', meta='{"ticket": 12}',
        session_id='s1', requested_model='gpt-4', model='gpt-5.6-luna', provider='openai', api_base=f'{upstream}/v1', prompt_tokens=12, completion_tokens=9)
    assert len(u.api_key_hash)==64 and len(u.deployment)==64
    assert not {'sk-bob','127.0.0.1:'+proxy.url[-4:],'OpenAI/Python'} & {*map(str, vars(u).values())}

def test_curl(proxy, ledger):
    "The seed's own request"
    last = max((u.id for u in ledger.rows()), default=0)
    body = dict(model='gpt', messages=says('What is 2+2?'), user='ishaan-app', temperature=.2)
    subprocess.run(['curl','-sf',f'{proxy.url}/chat/completions','-H','Authorization: Bearer sk-ada','-H','Content-Type: application/json','-d',json.dumps(body)], check=True, capture_output=True)
    has(rows_after(ledger, last, 1)[0], end_user='ishaan-app', prompt_tokens=14, completion_tokens=11, key_alias='laptop')

@pytest.mark.parametrize('model,cost,key', [('azure', 14*.15e-6+6*.6e-6, 'azure/gpt-4o-mini'), ('own', 14*.001+6*.002, 'our-own'), ('told', 14*.001+6*.002, 'our-other'), ('nobody', None, None)])
def test_prices(post, model, cost, key):
    "14 and 6 tokens at the base model's price, at those of the config in either place, and at none"
    _,u = post(chat, ask(model))
    has(u, price_key=key, requested_model=model, prompt_tokens=14, completion_tokens=6)
    assert u.response_cost==(cost and pytest.approx(cost, abs=1e-12))

def test_cache(post):
    "What the proxy's own cache answers is no new bill, and says what it saved"
    q = ask('gpt', 'How many seconds are in a week?')
    (_,a),(_,b) = post(chat, q),post(chat, q)
    assert (a.origin, b.origin, b.response_cost, json.loads(b.details)['saved_usd'])==('live', 'cache', 0, pytest.approx(a.response_cost))

def test_claude_code(post):
    "Its JSON of a customer is a session, on both routes of Messages; a name is a customer"
    who = lambda id: ask('claude-sonnet-5-5', max_tokens=9, metadata=dict(user_id=id))
    code = json.dumps(dict(device_id='d', session_id='0d3c9a52-6f0e'))
    for path,model in ((messages,'claude'), ('/anthropic/v1/messages','claude-sonnet-5-5')):
        has(post(path, who(code) | dict(model=model))[1], end_user=None, session_id='0d3c9a52-6f0e', prompt_tokens=14, completion_tokens=6)
    has(post(messages, who('c7') | dict(model='claude'))[1], end_user='c7', session_id=None, meta=None)

def test_nobody_claims_another_team(post):
    "A key without a team stays without one, whatever its client says; a customer is of each request, not of the key"
    _,u = post(chat, ask('gpt', 'for t1', metadata=dict(team_id='t1', user_api_key_team_id='t1', user_id='x', team_alias='Research')), 'sk-none')
    has(u, team_id=None, team_alias=None, user_id=None)
    assert [post(chat, ask('gpt', f'for {c}', user=c), 'sk-none')[1].end_user for c in ('c1','c2')]==['c1','c2']

def test_one_id_twice(post):
    "Two requests under one `x-litellm-call-id` are two rows: both were billed"
    us = [post(chat, ask('gpt', q), x_litellm_call_id='again')[1] for q in ('one','two')]
    assert [u.call_id for u in us]==['again','again'] and us[0].uid!=us[1].uid

def test_no_log(post): assert post(chat, ask('gpt', 'seen', **{'no-log':True}))[1].status=='ok'

def test_fallback(post):
    "One row of the deployment that failed, though tried twice, and one of the other that answered"
    _,a,b = post(chat, ask('falls', 'a question that goes astray'), n=2)
    assert [(u.status, u.requested_model, u.call_id) for u in (a,b)]==[('failed','falls',a.call_id), ('ok','falls',a.call_id)] and a.deployment!=b.deployment

failures = dict( # (path, body, key), the status of the answer, the error on the row
    key      = ((chat, ask('gpt'), 'sk-stolen'),                401, 'ProxyException 401'),
    model    = ((chat, ask('nope')),                            400, 'ProxyModelNotFoundError 400'),
    body     = ((chat, dict(model='gpt')),                      400, 'ProxyMissingRequiredParamError 400'),
    provider = ((chat, ask('gpt', 'Is anybody there?')),        404, 'NotFoundError 404'),
    hook     = ((chat, ask('gpt', user='forbidden')),           429, 'HTTPException 429'))

@pytest.mark.parametrize('name', failures)
def test_failures(post, name):
    "A request that fails is a row that costs nothing, however early; a bad key is nobody's"
    args,status,error = failures[name]
    r,u = post(*args)
    assert r.status_code==status
    has(u, status='failed', error=error, response_cost=0, prompt_tokens=None, user_id=None if name=='key' else 'ada')

def test_an_alert_refuses(post):
    "The session spends $0.026, and its next request is refused, and a row; another goes on"
    session = lambda s: ask('own', 'What is the capital of France?', metadata=dict(session_id=s), temperature=.7)
    post(chat, session('dear'))
    until = time.monotonic()+10
    while (got := post(chat, session('dear')))[0].is_success and time.monotonic() < until: pass # until the ledger has stored the first
    has(got[1], status='failed', error='CallRefused 422', session_id='dear', requested_model='own', response_cost=0, key_alias='laptop')
    assert got[0].status_code==422 and '$0.02' in got[0].text and post(chat, session('cheap'))[0].is_success

def test_passed_through(post):
    "A route that LiteLLM only passes on is a row as well: without a usage it is unpriced, and its customer is none"
    for stream in (False, True):
        _,u = post('/through', ask('gpt-5.6-luna', stream=stream))
        has(u, call_type='pass_through_endpoint', model='gpt-5.6-luna', stream=stream, user_id='ada', team_alias='Research', end_user=None, usage_source='missing', response_cost=None)
    has(post('/openai/v1/embeddings', dict(model='text-embedding-3-small', input='x'))[1], provider='openai', response_cost=None, usage_source='missing')
    _,u = post('/anthropic/v1/messages', ask('claude-sonnet-5-5', max_tokens=9, stream=True))
    has(u, prompt_tokens=14, completion_tokens=6, usage_source='reported')
    assert u.response_cost > 0

@pytest.mark.parametrize('path', [chat, responses, messages])
def test_hanging_up(proxy, ledger, path):
    "A client that leaves in mid-stream leaves one row, which says so"
    last,q = max((u.id for u in ledger.rows()), default=0),'slowly, a question of which the answer has a good number of pieces'
    body = dict(model='claude' if path==messages else 'gpt', max_tokens=99, stream=True) if path!=responses else dict(model='gpt', stream=True)
    with httpx.stream('POST', proxy.url+path, json=body | (dict(input=q) if path==responses else dict(messages=says(q))), headers={'authorization':'Bearer sk-ada'}) as r: next(r.iter_raw())
    u, = rows_after(ledger, last, 1)
    has(u, status='partial', stream=True, user_id='ada')
    assert u.prompt_tokens > 0 and u.response_cost > 0

def test_nothing_more(proxy, ledger):
    "No request had a second row later on, no key is in the ledger or its log, and nothing is wrong"
    ids = [(u.call_id, u.status) for u in ledger.rows() if u.call_id!='again']
    assert len(ids)==len({*ids}) and ledger.check()==[]
    files = b''.join(f.read_bytes() for f in proxy.ledger.parent.glob('usage.db*')) + proxy.log.read_bytes()
    assert not [k for k in ('sk-ada','sk-bob','sk-stand-in',proxy.key,'ada@example.com') if k.encode() in files]

# Starting and ending

def talk(p, n):
    "Ask `n` questions, half of them streamed"
    with openai.OpenAI(base_url=f'{p.url}/v1', api_key=p.key, max_retries=0) as c:
        for i in range(n):
            r = c.chat.completions.create(**ask('gpt', f'question {i}'), stream=i%2==0)
            if i%2==0: [*r]

def stored(p, n=10):
    "The tokens of `n` rows, and what is wrong; the kernel may take a moment to close the files of a process that was killed"
    until,us = time.monotonic()+10,[]
    while len(us) < n and time.monotonic() < until:
        with closing(Ledger(p.ledger)) as l: us,wrong = l.rows(),l.check()
    return [u.prompt_tokens for u in us],wrong

def logged(p, text, n=2):
    "Does the proxy's log have `text` `n` times within a minute? One process may answer while another starts"
    until = time.monotonic()+60
    while p.log.read_text().count(text)<n:
        assert time.monotonic()<until, p.log.read_text()
        time.sleep(.1)
    return True

def test_config_as_printed(tmp_path, upstream):
    "What `llm-usage proxy-config` prints starts as it is, without a warning, and a SIGTERM right after the last reply loses nothing"
    printed = subprocess.run([sys.executable,'-m','llm_usage','proxy-config'], check=True, capture_output=True, text=True).stdout
    assert printed==CONFIG
    with Proxy(tmp_path, printed, upstream) as p: talk(p, 10)
    assert stored(p)==([2]*10, []) and 'no-log' not in p.log.read_text()

def test_two_workers_killed(tmp_path, upstream):
    "Two processes that write one ledger, warn that a client could hide its calls, and are killed after the last reply: nothing is lost"
    open_ = re.sub(r'\n  global_disable\S+ true.*', '', CONFIG)
    with Proxy(tmp_path, open_, upstream, '--num_workers', '2', '--run_gunicorn') as p:
        assert logged(p, 'Started server process') and logged(p, 'a client can hide a call', 1)
        talk(p, 10)
        p.end(signal.SIGKILL)
    assert stored(p)==([2]*10, [])

def test_a_bad_setting(tmp_path, upstream):
    "A proxy that could not log does not start"
    with pytest.raises(RuntimeError, match="'Berlin' is not a valid time zone: did you mean Europe/Berlin"): Proxy(tmp_path, CONFIG, upstream, LLM_USAGE_TZ='Berlin').ready()
