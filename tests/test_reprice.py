"""Re-pricing takes nothing away: rows of every kind of call, ten thousand usages that LiteLLM priced, prices that change, costs that are no list price."""
import asyncio, json, zlib
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from math import isclose, nan
import litellm, oracle, pandas as pd, pytest
from helpers import Handler, served
from llm_usage import Ledger, Usage, UsageLogger, resale, model_prices, price, rates, replaying
from llm_usage.replay import able, cases, play
from llm_usage.rates import price_map
from llm_usage.cost import kinds
from llm_usage.ledger import note_prices
from llm_usage.rates import price_in_map, packed_map, price_sources, unpacked
from llm_usage.reprice import _gives, recomputed_cost
from llm_usage.rollup import DIMENSIONS

at,day = 1795219200., 86400. # 2026-11-21, midnight UTC

@pytest.fixture
def l():
    with closing(Ledger(':memory:')) as l: yield l

@pytest.fixture
def prices():
    "`model_prices`, which is empty again afterwards"
    yield model_prices
    model_prices.clear()

def close(a, b): return isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)

def row(k='a', n=1000, out=200, cost=.004, **kw):
    "A call to Claude, at $2 and $10 for a million tokens"
    said = dict(uid=k, model='claude-sonnet-5-5', provider='anthropic', timestamp=at, usage_source='reported', prompt_tokens=n, completion_tokens=out)
    return Usage(**said | dict(response_cost=cost, cost_source='litellm') | kw)

def same(l):
    "Re-pricing the ledger changes nothing, and writes nothing"
    n,t = len(l.rows()),l.total()
    assert l.reprice(apply=True).difference.abs().max() < 1e-12 and len(l.rows())==n and l.total()==t
    return l.reprice()

def left(l, **kw): return {(k,o) for k,o in l.reprice(**kw).left.items() if o}

def note(l, sha, table, since, what='litellm 1.0'):
    "Have the ledger know a table that was in use from a time on"
    note_prices(l)
    l.con.execute('INSERT INTO prices VALUES (?,?,?,?)', (sha, what, zlib.compress(json.dumps(table).encode()) if 'lite' in what else json.dumps(table), since))

def twice(r):
    "The price row `r` at twice its price"
    if isinstance(r, dict): return {k: twice(v) if 'cost' in k or 'pricing' in k else v for k,v in r.items()}
    if isinstance(r, list): return [{k: 2*v if 'cost' in k else v for k,v in o.items()} for o in r]
    return 2*r if isinstance(r, (int,float)) and not isinstance(r, bool) else r

@pytest.fixture
def upgraded(monkeypatch):
    "Have LiteLLM's map cost twice as much, but for what a code session costs, which is not in the row of a model"
    def f():
        for k,r in [*price_map().items()]:
            if not k.endswith('/container'): monkeypatch.setitem(price_map(), k, twice(r))
        rates._from_map.cache_clear()
    yield f
    monkeypatch.undo()
    rates._from_map.cache_clear()


# Every row of the scenarios, and what LiteLLM charges for ten thousand usages

@pytest.fixture(scope='module')
def scenarios(tmp_path_factory):
    "A ledger with a row of every case, logged as if live"
    async def all_(logger):
        for c in cases:
            if not able(c): continue
            with logger.who(agent=c.name): await play(c)
            await logger.aflush()
    with replaying(live=True), UsageLogger(tmp_path_factory.mktemp('all')/'usage.db', user_id='ada') as logger: asyncio.run(all_(logger))
    with closing(Ledger(logger.ledger.path)) as l: yield l

def by_litellm(u, price):
    "Row `u` of the oracle with the cost and the parts that LiteLLM tells, without any if it has no price"
    try: return oracle.captured(u, price)
    except AttributeError: return u # nothing was told

@pytest.fixture(scope='module')
def oracled():
    "A ledger of random usages as LiteLLM prices them"
    with closing(Ledger(':memory:')) as l:
        l.insert_all(by_litellm(u, f) for *_,u,f in oracle.sample(2000, 5, seed=7))
        assert len(l.rows())==10_000
        yield l

def test_scenarios_stay(scenarios):
    df = same(scenarios)
    assert df.calls[df.left==''].sum() >= 30 and df.calls[df.left!=''].sum() <= 3, df

def test_what_litellm_charges_stays(oracled):
    df = same(oracled)
    assert df.calls[df.left==''].sum() >= .98*df.calls.sum(), df[df.left!='']

@pytest.mark.parametrize('which', ['scenarios','oracled'])
def test_after_an_upgrade_what_was_reproduced_doubles(which, request, upgraded):
    "And nothing else, once and for all; rates that no map has, such as that of a search on Google, do not double"
    l = request.getfixturevalue(which)
    note_prices(l)
    was = {u.uid:(old,why) for u,old,_,why,_ in l._differences(0)}
    upgraded()
    ds,n = [*l._differences(0)],0
    for u,old,new,why,_ in ds:
        assert (old,why)==was[u.uid]
        if why: assert new==old
        elif not any(u.billable()[k] for k in kinds['web']): assert close(new, 2*old), u; n += 1
        else: assert old <= new <= 2*old + 1e-9, u; n += 1
    assert n > .7*len(ds) and len(ds)==len(was)

def test_doubled_prices_of_yours(scenarios, prices, tmp_path):
    "Exactly the rows that were reproduced double, and what was left alone stays"
    with closing(scenarios.backup(tmp_path/'copy.db')) as l:
        names,per = dict(input='input', cache_read='cache read', cache_write='cache write', cache_write_1h='cache write, 1 h', output='output', search='web search'),dict(search=1e3)
        for m in ('claude-sonnet-5-5','claude-haiku-5-5','gpt-5.6-luna','gpt-5.4-mini-2026-03-17','text-embedding-3-small','gemini-3.5-flash-lite','whisper-1','tts-1'):
            r = next(price(u.model, u.provider) for u in l.rows() if u.model==m).rates()
            prices[m] = {k:2*r[o]*per.get(k,1e6) for k,o in names.items() if r[o] is not None}
        df = l.reprice(apply=True)
        mine = df[[o in prices for o in df.index]]
        assert (mine.left=='').sum() >= 6 and all(close(a, 2*b) for a,b in zip(mine.new[mine.left==''], mine.old[mine.left=='']))
        assert all(df.difference[df.left!='']==0)
        assert close(l.total().amount, scenarios.total().amount + mine.old[mine.left==''].sum())
        same(l)


# Costs that are no list price, of real calls over loopback

def chat(model, message={}, **usage):
    return dict(id='r', object='chat.completion', created=1, model=model, choices=[dict(index=0, finish_reason='stop', message=dict(role='assistant', content='ok') | message)],
        usage=dict(prompt_tokens=1000, completion_tokens=100, total_tokens=1100) | usage)

def gemini(**more):
    return dict(candidates=[dict(content=dict(parts=[dict(text='ok')], role='model'), finishReason='STOP', index=0, **more)],
        usageMetadata=dict(promptTokenCount=1000, candidatesTokenCount=100, totalTokenCount=1100), modelVersion='gemini-2.5-flash')

def response(*items):
    text = dict(type='message', id='m', role='assistant', status='completed', content=[dict(type='output_text', text='ok', annotations=[])])
    return dict(id='resp_1', object='response', created_at=1, status='completed', model='gpt-5.4-mini', output=[*items, text], parallel_tool_calls=True, tool_choice='auto', tools=[],
        usage=dict(input_tokens=1000, output_tokens=100, total_tokens=1100, input_tokens_details=dict(cached_tokens=0), output_tokens_details=dict(reasoning_tokens=0)))

cited = dict(annotations=[dict(type='url_citation', url_citation=dict(url='u', title='t', start_index=0, end_index=1))])
bodies = dict(
    own     = chat('gpt-4o'),
    nothing = chat('gpt-4o'),
    stated  = chat('sonar-pro', cost=dict(input_tokens_cost=.003, output_tokens_cost=.0015, request_cost=.006, total_cost=.0105)),
    router  = chat('openai/gpt-4o', cost=.0011),
    less    = gemini(),
    maps    = gemini(groundingMetadata=dict(groundingChunks=[dict(maps=dict(uri='u', title='t', placeId='p'))])),
    preview = chat('gpt-4o-search-preview', cited),
    files   = response(*[dict(type='file_search_call', id=f'f{i}', status='completed', queries=['q'], results=None) for i in range(2)]))

class Bodies(BaseHTTPRequestHandler):
    "The body that the first part of the path names"
    over = Handler.over
    def log_message(self, *args): pass
    def do_POST(self):
        self.rfile.read(int(self.headers['content-length'] or 0))
        b = json.dumps(bodies[self.path.split('/')[1].partition(':')[0]]).encode()
        self.send_response(200)
        for k,v in {'content-type':'application/json', 'content-length':str(len(b))}.items(): self.send_header(k, v)
        self.end_headers()
        self.wfile.write(b)

@pytest.fixture
def stated(p, monkeypatch):
    "A ledger of calls whose cost is not, or not only, that of their tokens at list prices"
    monkeypatch.setattr(litellm, 'cost_discount_config', {})
    with served(Bodies) as url, UsageLogger(p) as logger:
        def ask(name, model, **kw):
            with logger.who(agent=name): litellm.completion(model, [dict(role='user', content='hi')], api_base=f'{url}/{name}', api_key='none', **kw)
        ask('own',     'openai/gpt-4o', input_cost_per_token=1e-6, output_cost_per_token=2e-6)
        ask('nothing', 'openai/gpt-4o', input_cost_per_token=0., output_cost_per_token=0.)
        ask('stated',  'perplexity/sonar-pro')
        ask('router',  'openrouter/openai/gpt-4o')
        ask('preview', 'openai/gpt-4o-search-preview', web_search_options=dict(search_context_size='medium'))
        ask('maps',    'gemini/gemini-2.5-flash', tools=[dict(googleMaps={})])
        litellm.cost_discount_config = dict(gemini=.05)
        ask('less',    'gemini/gemini-2.5-flash')
        litellm.cost_discount_config = {}
        with logger.who(agent='files'): litellm.responses(model='openai/gpt-5.4-mini', input='hi', api_base=f'{url}/files', api_key='none', tools=[dict(type='file_search', vector_store_ids=['v'])])
        assert logger.flush()==[]
    with closing(Ledger(p)) as l: yield l

def test_what_was_billed_stays(stated):
    "Also where LiteLLM left out the second of two searches in files, which its row says"
    assert {u.agent for u in stated.rows()}=={*bodies} and [u.cost_lacks for u in stated.rows() if u.agent=='files']==['file search']
    assert same(stated).left.value_counts()['not all of it was billed']==1

def test_what_is_no_list_price_stays_when_prices_change(stated, prices):
    "Tokens cost a dollar for a thousand now"
    for u in stated.rows(): prices[u.model] = prices[f'{u.provider}/{u.model}'] = dict(input=1000, output=1000)
    kept = {'own','nothing','stated','router','less','preview','files'}
    ds = {u.agent:(why, new==old) for u,old,new,why,_ in stated._differences(0)}
    assert {k for k,(why,equal) in ds.items() if why and equal} >= kept, ds
    before = stated.total()
    stated.reprice(apply=True)
    assert stated.total()==before
    same(stated)

@pytest.mark.parametrize('kw,why', [
    (dict(cost_source='provider'),                                     'its provider stated it'),
    (dict(cost=.0039),                                                 'its counts do not give it'),
    (dict(cost=.004001),                                               'its counts do not give it'), # a price is exact
    (dict(inp_usd=.001, out_usd=.003),                                 'its counts do not give it'), # the sum alone is right
    (dict(cost=.0038, inp_usd=.002, out_usd=.002, other_usd=-.0002),   'a discount or a margin'),
    (dict(cost=.0044, inp_usd=.002, out_usd=.002, other_usd=.0004),    'a discount or a margin'),
    (dict(cost=.014, inp_usd=.002, out_usd=.002, web_usd=.01),         'tools that nobody counted'),
    (dict(cost=.034, inp_usd=.002, out_usd=.002, web_usd=.03, web_search_requests=1), 'its counts do not give it'),
    (dict(cost=.034, inp_usd=.002, out_usd=.002, web_usd=.03, details='{"file_searches": 1}'), 'its counts do not give it'), # other tools are counted too
    (dict(cost=0.),                                                    '$0 is its price'),
    (dict(cost=.5, n=None, out=None),                                  'its usage is missing'),
    (dict(cost=.004, n=1000, cache_read_tokens=2000),                  'its counts do not give it'), # which cannot be
    (dict(cost=.004, model='nosuch-1'),                                'its counts do not give it'),
    (dict(cost=.004, model=None),                                      'its counts do not give it')])
def test_left_alone(l, prices, kw, why):
    l.add(row(**kw))
    same(l)
    prices['claude-sonnet-5-5'] = dict(input=4, output=20, search=20)
    prices['nosuch-1'] = dict(input=2, output=10) # for which it has no tables yet
    df = l.reprice(apply=True)
    if kw.get('model','')!='nosuch-1': assert [*df.left]==[why]
    assert l.total().amount==l.rows()[0].response_cost and len(l.rows())==1

@pytest.mark.parametrize('kw', [{}, dict(inp_usd=.002, out_usd=.002), dict(status='partial', usage_source='estimated'), dict(status='failed'),
    dict(cost=.014, web_search_requests=1), dict(cost=.024, inp_usd=.002, out_usd=.002, web_usd=.02, web_search_requests=2, other_usd=1e-18),
    dict(cost=.00305, cache_read_tokens=500, inp_usd=.001, cache_read_usd=.00005, out_usd=.002), dict(cost=None), dict(cost=None, status='failed', usage_source='estimated')])
def test_priced_by_its_counts(l, prices, kw):
    "The cost of a row that its counts give doubles with the price, once"
    l.add(row(**kw))
    was = .004 if kw.get('cost','') is None else l.rows()[0].response_cost
    prices['claude-sonnet-5-5'] = dict(input=4, output=20, search=20, cache_read=.2)
    df = l.reprice(apply=True)
    assert [*df.left]==[''] and close(df.new.sum(), 2*was) and close(l.total().amount, 2*was)
    same(l)

@pytest.mark.parametrize('kw', [dict(origin='cache'), dict(origin='replay'), dict(origin='cache', cost=0.), dict(origin='cache', cost=None)])
def test_what_nobody_billed_is_not_priced(l, prices, kw):
    l.add(row(**kw))
    prices['claude-sonnet-5-5'] = dict(input=4, output=20)
    assert not len(l.reprice(apply=True)) and len(l.rows())==1

@pytest.mark.parametrize('kw', [dict(status='failed', cost=0.), dict(status='failed', cost=0., n=None, out=None), dict(status='failed', cost=0., model=None)])
def test_failed_for_nothing(l, prices, kw):
    l.add(row(**kw))
    prices['claude-sonnet-5-5'] = dict(input=4, output=20)
    df = l.reprice(apply=True)
    assert [*df.left]==[''] and df.new.sum()==0 and len(l.rows())==1

def test_orphaned(l):
    "Nobody knows what it used, so there is nothing to price"
    l.add(row(n=None, out=None, cost=None, status='orphaned', usage_source='missing'))
    assert not len(l.reprice(apply=True)) and [*l.unpriced().lacks]==['usage'] and l.total().unpriced==1

def test_empty(l):
    df = l.reprice(apply=True)
    assert not len(df) and [*df]==['left','calls','unpriced','old','new','difference'] and not len(l.unpriced()) and not len(l.what_if())

def test_a_free_model_stays_free(l, prices):
    "A price of $0 in the map is a price, whatever yours is later"
    free = next((k,r) for k,r in price_map().items() if r.get('mode')=='chat' and r.get('input_cost_per_token')==0==r.get('output_cost_per_token') and '/' not in r['litellm_provider'])
    l.add(row(model=free[0].removeprefix(f"{free[1]['litellm_provider']}/"), provider=free[1]['litellm_provider'], cost=0.))
    same(l)
    prices[free[0]] = dict(input=1, output=1)
    assert left(l, apply=True) and len(l.rows())==1


# Prices of their own day

dear = dict(unpacked(packed_map()), **{'claude-sonnet-5-5': dict(price_map()['claude-sonnet-5-5'], input_cost_per_token=4e-6, output_cost_per_token=2e-5)})

def test_each_row_is_of_its_own_day(l):
    "Before an upgrade the model cost twice as much; a row at the old price after it had a price of its own"
    note(l, 'old', dear, at-day)
    l.con.execute('UPDATE prices SET first_used=? WHERE sha256!=?', (at,'old'))
    for k,t,cost in (('before',at-1,.008), ('on',at,.004), ('own',at,.008), ('first',at-2*day,.008)): l.add(row(k, timestamp=t, cost=cost))
    ds = {u.uid:(old,new,why) for u,old,new,why,_ in l._differences(0)}
    assert ds==dict(before=(.008, pytest.approx(.004), ''), on=(.004, pytest.approx(.004), ''), own=(.008, .008, 'its counts do not give it'), first=(.008, pytest.approx(.004), ''))

def test_after_a_downgrade_the_map_in_use_counts_too(l):
    note(l, 'new', dear, at-day)
    l.con.execute('UPDATE prices SET first_used=? WHERE sha256!=?', (at-2*day,'new'))
    l.add(row())
    assert [*same(l).left]==['']

def test_prices_of_yours_are_noted_too(l, prices):
    "A cost that your table gave is known for one as long as the table is noted"
    prices['house-1'] = dict(input=1, output=5)
    l.add(row('a', model='house-1', provider='openai', cost=.002))
    prices['house-1'] = dict(input=2, output=10)
    assert left(l)=={('house-1','its counts do not give it')}
    note(l, 'mine', {'house-1':[dict(input=1, output=5), dict(input=9, output=9, start='2026-11-22')]}, at-day, 'model_prices')
    l.add(row('b', model='house-1', provider='openai', cost=.0108, timestamp=at+day))
    df = l.reprice(apply=True)
    assert [*df.left]==[''] and close(df.new.sum(), 2*.004)
    same(l)

def test_a_ledger_without_notes(tmp_path):
    "A file of before there were any, and one that has the hash of a map without its prices, which are then filled in"
    l = Ledger(tmp_path/'usage.db')
    l.add(row())
    assert not l.q("SELECT 1 FROM sqlite_master WHERE name='prices'") and [*l.reprice().left]==['']
    note_prices(l)
    l.con.execute('UPDATE prices SET content=NULL')
    assert [*l.reprice().left]==['']
    noted, = note_prices(l)
    assert unpacked(noted['content'])['claude-sonnet-5-5']['input_cost_per_token']==2e-6
    l.close()

def test_the_copy_of_the_map_has_all_that_prices_depend_on():
    "Every row has the same rates in it, for any length and tier, and the same factors"
    old  = unpacked(packed_map())
    def said(rows, k):
        p = price_in_map(rows, k, None, None)
        if p is None: return
        at = [p.rates(n, t, oracle.week) for n in (1000, 150_000, 300_000) for t in (None,'flex','priority','batch')]
        return at, p.timed(), p.per_prompt(), p.get('mode'), p.factor('us','fast','eu','europe-west1')
    assert [k for k in price_map() if said(old,k)!=said(price_map(),k)]==[]

def test_a_map_is_noted_once(l):
    "And costs the file some 100 kB"
    sizes = [sum(len(o['content']) for o in note_prices(l)) for _ in range(3)]
    assert len(note_prices(l))==len(price_sources())==1 and len({*sizes})==1 and 40_000 < sizes[0] < 150_000

def test_prices_are_noted_before_they_are_applied(l, prices):
    l.add(row(cost=None))
    prices['claude-sonnet-5-5'] = dict(input=3, output=3)
    l.reprice()
    assert not l.q("SELECT 1 FROM sqlite_master WHERE name='prices'")
    l.reprice(apply=True)
    assert {o['what'].split()[0]:o['content'] for o in l.q('SELECT * FROM prices')}==dict(litellm=packed_map(), model_prices=json.dumps(model_prices))


# What a cost lacks

lacking = dict(model='claude-haiku-4-5', cost=.002, cost_lacks='web search', web_search_requests=3, inp_usd=.001, out_usd=.001) # $1 and $5 for a million

def test_what_a_cost_lacks_is_completed(l, prices):
    l.add(row(**lacking))
    before = l.reprice(apply=True)
    assert [*before.left]==['no rate for web search'] and [*before.unpriced]==[1] and len(l.rows())==1 and [*l.unpriced().lacks]==['web search']
    prices['claude-haiku-4-5'] = dict(input=1, output=5, search=10)
    df = l.reprice(apply=True)
    assert [*df.unpriced]==[1] and close(df.difference.sum(), 3*.01)
    adj, = l.rows('adjusts IS NOT NULL')
    assert (adj.adjusts, adj.cost_lacks)==('a', None) and close(adj.response_cost, .03)
    assert [*same(l).unpriced]==[0] and not len(l.unpriced())

def test_a_search_that_costs_nothing_completes_too(l, prices):
    "Somebody has to say so: the adjustment is of $0"
    l.add(row(**lacking))
    prices['claude-haiku-4-5'] = dict(input=1, output=5, search=0)
    assert l.reprice(apply=True).difference.sum()==0 and [u.response_cost for u in l.rows('adjusts IS NOT NULL')]==[0.]
    same(l)

@pytest.mark.parametrize('kw', [dict(cost=.003, inp_usd=.002), dict(cost_source='provider'), dict(cost=.0019, other_usd=-.0001)])
def test_what_lacks_and_is_no_list_price_stays(l, prices, kw):
    l.add(row(**lacking | kw))
    prices['claude-haiku-4-5'] = dict(input=1, output=5, search=10)
    assert [*l.reprice(apply=True).left]!=[''] and len(l.rows())==1

def test_a_cost_of_nothing_that_lacks_all(l, prices):
    "Of a model without rates at its tier it is completed, of one that had a price it is left alone"
    l.add(row('a', model='house-2', cost=0., cost_lacks='input, output'))
    l.add(row('b', cost=0., cost_lacks='input, output'))
    note(l, 'old', {'house-2':dict(input_cost_per_token_priority=1e-6, litellm_provider='anthropic'), 'claude-sonnet-5-5':price_map()['claude-sonnet-5-5']}, at-day)
    prices['house-2'] = dict(input=1, output=5)
    df = l.reprice(apply=True)
    assert {*df.left}=={'','not all of it was billed'} and close(df.difference.sum(), .002)
    same(l)

def test_what_a_row_lacks_is_what_it_says(l, prices):
    "Its cost is not all until somebody adjusts it, whatever the tables know by now"
    l.add(row(**lacking))
    prices['claude-haiku-4-5'] = dict(input=1, output=5, search=10)
    assert [*l.unpriced().lacks]==['web search']

def test_a_cost_of_nothing_is_known(l, prices):
    "A call without a price of a model that is free now was adjusted by $0, once"
    l.add(row(model='house-0', cost=None))
    prices['house-0'] = dict(input=0, output=0)
    assert [*l.reprice(apply=True).unpriced]==[1] and [*same(l).unpriced]==[0]
    prices.clear()
    assert len(l.rows())==2 and l.total().unpriced==0 and [*l.what_if('claude-sonnet-5-5').calls]==[1]

def test_a_price_of_yours_that_has_ended(l, prices):
    "A row is what the price of its own day gave, not that of today"
    l.add(row(timestamp=day, model='house-1', cost=.002))
    prices['house-1'] = [dict(input=1, output=5), dict(input=2, output=10, start='2000-01-01')]
    assert [*same(l).left]==['']

def test_seconds_are_their_whole_cost():
    "LiteLLM books the seconds of a recording where it likes; the whole has to be right"
    kw = dict(model='whisper-1', provider='openai', n=None, out=None, details='{"seconds": 60}')
    assert [_gives(row(cost=c, out_usd=c, **kw), price('whisper-1', 'openai')) for c in (.006, .007)]==[True, False]

def test_a_cost_that_lacks_never_falls(l, prices):
    l.add(row(**lacking))
    prices['claude-haiku-4-5'] = dict(input=.1, output=.1, search=.1)
    assert left(l, apply=True) and len(l.rows())==1


# Adjustments

def test_by_hand(l, prices):
    "What somebody wrote off is not billed again, of a row with a price and of one without"
    for k,cost in dict(a=.004, b=None).items():
        l.add(row(k, cost=cost))
        l.add(Usage(uid=f'{k}-credit', timestamp=at, origin='adjustment', adjusts=k, response_cost=-.001))
    t = l.total()
    prices['claude-sonnet-5-5'] = dict(input=4, output=20)
    assert left(l, apply=True)=={('claude-sonnet-5-5','adjusted by hand')} and l.total()==t

def test_back_and_forth(l, prices):
    "Each change is a row, and the last one counts"
    l.add(row())
    for i,n in enumerate((4, 8, 2, 4)):
        prices['claude-sonnet-5-5'] = dict(input=n, output=5*n)
        l.reprice(apply=True)
        assert close(l.total().amount, .002*n) and len(l.rows())==2+i
        same(l)

@pytest.mark.parametrize('cost', [1e9, 123456.789, 1e-9])
def test_large_and_small(l, prices, cost):
    "A float's last digit is no difference"
    prices['claude-sonnet-5-5'] = dict(input=cost/3, output=cost/7)
    l.add(row(cost=None))
    l.reprice(apply=True)
    same(l)

def test_in_every_group(l, prices):
    "An adjustment is in the groups of its row, in every report"
    named = dict(end_user='customer-7', user_id='ada', team_id='red', api_key_hash='k1', agent='review', step='change#1/review#2', session_id='s1', trace_id='t1', call_type='acompletion', status='partial',
        requested_model='sonnet', tags='["nightly"]', meta=json.dumps(dict(notebook='a.ipynb', cell='3')), stream=True, service_tier='standard',
        deployment='d1', api_base='https://api.example', key_alias='laptop', team_alias='Red')
    facts = dict(call_id='c1', response_id='r1', latency=2., ttft=.5, error='x', details='{"geo": "global"}', price_key='claude-sonnet-5-5', web_search_requests=1, inp_usd=.002, out_usd=.002, web_usd=.01)
    l.add(row(cost=.014, **named, **facts))
    prices['claude-sonnet-5-5'] = dict(input=4, output=20, search=20)
    l.reprice(apply=True)
    for by in [*DIMENSIONS.keys()-{'origin'}, 'hour']:
        df = l.spend(by)
        assert len(df)==1 and close(df.cost[0], .028) and df.calls[0]==1 and not pd.isna(df[by][0]), by
    u,adj = l.rows()
    own = 'id uid origin adjusts cost_source usage_source prompt_tokens completion_tokens'.split()
    assert {k for k,v in vars(u).items() if getattr(adj,k)!=v} - {'response_cost'}=={*own, *facts}
    assert (adj.call_id, adj.prompt_tokens, adj.origin, adj.adjusts, adj.cost_source)==(None, None, 'adjustment', 'a', 'computed') and l.check()==[]


# What the tables say, and what has no price

def test_anew():
    "From its counts, whatever was captured; not where tools were billed that nobody counted"
    assert close(recomputed_cost(row(cost=9., inp_usd=9.)), .004)
    assert close(recomputed_cost(row(cost=.014, web_usd=.01, web_search_requests=1)), .014)
    assert recomputed_cost(row(cost=.014, web_usd=.01)) is None and recomputed_cost(row(model='nosuch-1')) is None and recomputed_cost(row(n=None, out=None)) is None

def test_unpriced(l, prices):
    prices['house-1'] = dict(input=1, output=1)
    for i,kw in enumerate([dict(model='nosuch-1'), dict(model='nosuch-1'), dict(model=None, requested_model='claude-sonet-5-5'), dict(n=None, out=None), dict(model='house-1', web_search_requests=2),
        dict(n=10, cache_read_tokens=20), dict(model='house-1'), dict(model='nosuch-1', origin='cache')]): l.add(row(f'{i}', cost=None, **kw))
    l.add(row('done', model='nosuch-2', cost=None))
    l.add(Usage(uid='done-1', timestamp=at, origin='adjustment', adjusts='done', response_cost=1.))
    df = l.unpriced()
    assert {(m,n,why) for m,n,why in zip(df.model, df.calls, df.lacks)}=={('nosuch-1',2,'price'), ('claude-sonet-5-5',1,'price'), ('claude-sonnet-5-5',1,'usage'),
        ('house-1',1,'web search'), ('claude-sonnet-5-5',1,'more cached tokens than prompt tokens')}
    assert [*df.tokens]==sorted(df.tokens, reverse=True) and df.tokens.iloc[0]==2400
    assert 'claude-sonnet-5-5' in df.like[df.model=='claude-sonet-5-5'].iloc[0]
    assert sum(df.calls)==l.total().unpriced


@pytest.mark.parametrize('kw', [dict(details='no JSON'), dict(details='[1]'), dict(details='{"audio_in": "many"}'), dict(n=-5), dict(provider=None), dict(call_type=None, stream=None)])
def test_an_odd_row_raises_nothing(l, kw):
    l.con.execute('INSERT INTO usage (uid, model, provider, timestamp, prompt_tokens, completion_tokens, details, response_cost) VALUES (:uid, :model, :provider, :timestamp, :prompt_tokens, :completion_tokens, :details, :response_cost)',
        {k:v for k,v in vars(row(**kw)).items() if k in 'uid model provider timestamp prompt_tokens completion_tokens details response_cost'.split()})
    l.reprice(), l.unpriced(), l.what_if('gpt-5.6-luna','text-embedding-3-small')
    assert l.reprice(apply=True).difference.sum()==0


# What if

@pytest.mark.parametrize('kw,why', [
    (dict(model='text-embedding-3-small', provider='openai', call_type='aembedding'), 'embedding'),
    (dict(model='text-embedding-3-small', provider='openai'),                         'embedding'), # as the map says
    (dict(model='rerank-v3.5', provider='cohere', call_type='rerank', n=None, out=None, details='{"search_units": 1}'), 'rerank'),
    (dict(model='gpt-image-2', provider='openai', call_type='image_generation'),      'image'),
    (dict(model='whisper-1', provider='openai', call_type='atranscription', n=None, out=None, details='{"seconds": 6}'), 'transcription'),
    (dict(model='tts-1', provider='openai', call_type='speech', n=None, out=None, details='{"characters": 6}'), 'speech'),
    (dict(model='mistral-ocr-latest', provider='mistral', call_type='ocr', n=None, out=None, details='{"pages": 2}'), 'ocr'),
    (dict(n=None, out=None),                                                          'without usage'),
    (dict(cost=None, model='nosuch-1'),                                               'unpriced'),
    (dict(cost_lacks='web search'),                                                   'unpriced'),
    (dict(web_search_requests=2),                                                     'web search')])
def test_what_another_model_cannot_serve(l, prices, kw, why):
    "It is counted and named, and the rest is compared"
    prices['house-chat'] = dict(input=1, output=5)
    l.add(row('a'))
    l.add(row('b', **kw))
    o = l.what_if('house-chat').iloc[0]
    assert (o.calls, o.recorded, o.left_out)==(1, .004, 1) and o.assumes.endswith(f'left out: 1 {why}')
    assert close(o.low, (850*1+170*5)/1e6) and close(o.high, (1300*1+260*5)/1e6)

@pytest.mark.parametrize('kw,cost', [(dict(status='failed', cost=0.), 0.), (dict(status='failed', cost=0., n=None, out=None), 0.), (dict(cost=0.), 0.), (dict(cost=None), .004),
    (dict(status='partial', usage_source='estimated'), .004), (dict(reasoning_tokens=200), .004)])
def test_what_is_compared(l, prices, kw, cost):
    "A failure that cost nothing, a free call, one that the tables price, an abandoned stream, a reply that was all reasoning"
    prices['house-chat'] = dict(input=1, output=5)
    l.add(row('a', **kw))
    o = l.what_if('house-chat').iloc[0]
    free = kw.get('status')=='failed'
    assert (o.calls, o.left_out)==(1,0) and close(o.recorded, cost) and close(o.low, 0 if free else .0017)

def test_one_failure_blinds_nothing(l):
    l.insert_all(row(f'{i}') for i in range(100))
    before = l.what_if('claude-haiku-5-5').iloc[0]
    l.add(row('failed', n=None, out=None, cost=0., status='failed', usage_source='missing'))
    after = l.what_if('claude-haiku-5-5').iloc[0]
    assert (after.calls, after.low, after.high, after.recorded)==(101, before.low, before.high, before.recorded)

def test_what_was_adjusted_counts_as_adjusted(l, prices):
    "One that cost twice as much, one that had no cost, and one that lacked its searches, which another model sells at the same price"
    prices |= {'claude-sonnet-5-5':dict(input=4, output=20, search=10), 'claude-haiku-4-5':dict(input=1, output=5, search=10)}
    for u in (row('a'), row('b', cost=None), row('c', **lacking)): l.add(u)
    l.reprice(apply=True)
    o = l.what_if('claude-sonnet-5-5').iloc[0]
    assert (o.calls, o.left_out)==(3,0) and close(o.recorded, .008+.008+.032)
    assert close(o.low, .016+.03+(850*4+170*20)/1e6) and close(o.high, .016+.03+(1300*4+260*20)/1e6)

@pytest.mark.parametrize('name', ['claude-sonnet-5-5','anthropic/claude-sonnet-5-5','sonnet'])
def test_its_own_model_by_any_name(l, name):
    l.add(row(cost=.5, requested_model='sonnet'))
    o = l.what_if(name).iloc[0]
    assert (o.recorded, o.low, o.high, o.left_out)==(.5, .5, .5, 0)

def test_another_model_has_no_cache_and_no_tier(l):
    "The high end writes and reads no cache, and a discount of a tier is not taken along"
    l.add(row(n=1000, cache_read_tokens=300, cache_creation_tokens=400, cache_creation_1h_tokens=100, service_tier='flex'))
    o = l.what_if('gpt-5.6-luna').iloc[0]
    assert close(o.high, sum(n*price('gpt-5.6-luna')[f'{k}put_cost_per_token'] for k,n in dict(**{'in':1300}, out=260).items()))

def test_a_noted_map_prices_as_the_map():
    "All that multiplies a price, or says how it is billed, is noted with it"
    noted = unpacked(packed_map())
    for k,r in price_map().items():
        for o,v in r.items():
            if any(w in o for w in ('cost','pricing','multiplier','billing_unit','provider_specific')) or o in ('mode','litellm_provider'): assert noted[k][o]==v

def test_embeddings_are_compared_with_embeddings(l):
    l.add(row(model='text-embedding-3-small', provider='openai', call_type='embedding', out=0, cost=2e-5))
    o = l.what_if('text-embedding-3-large').iloc[0]
    assert o.left_out==0 and close(o.high, 1300*price('text-embedding-3-large')['input_cost_per_token'])


# Resale

def test_a_rate_holds_from_its_midnight_on():
    df = pd.DataFrame(dict(cost=[1.,1.,1.,1.], time=pd.to_datetime([at-1, at-.001, at, at+1], unit='s', utc=True)))
    assert [*resale(df, currency='EUR', rates={'2026-11-20':.9, '2026-11-21':.8}).EUR]==[.9,.9,.8,.8]
    berlin = df.assign(time=df.time.dt.tz_convert('Europe/Berlin'))
    assert [*resale(berlin, currency='EUR', rates={'2026-11-21':.8}).EUR.isna()]==[True,True,False,False]

def test_what_has_no_cost_has_no_charge(l):
    l.add(row(cost=None, model='nosuch-1'))
    assert [*resale(l.df(), .5, 'EUR', {'2026-01-01':.9})[['resale','EUR']].isna().iloc[0]]==[True,True]

@pytest.mark.parametrize('bad', [nan, -1, -2., float('inf')])
def test_an_impossible_markup(bad):
    with pytest.raises(ValueError, match='markup'): resale(pd.DataFrame(dict(cost=[1.])), bad)

@pytest.mark.parametrize('bad', [nan, 0, -.9, float('inf')])
def test_an_impossible_rate(bad):
    with pytest.raises(ValueError, match='EUR has rates'): resale(pd.DataFrame(dict(cost=[1.])), currency='EUR', rates={'2026-11-01':bad})
