"""What a captured cost lacks, what its receipt says, and rows that make no sense: tables of cases around the lessons on costs."""
import json
import pytest
from llm_usage import Price, Usage, price_map, rates, total
from llm_usage.cost import kinds

luna = dict(model='gpt-5.6-luna', provider='openai') # a search costs a cent here, one in files a quarter of one, a session three

def row(web=0., details=None, **kw):
    "A captured row whose 100 tokens of input and 10 of output are paid, and whose tools are paid with `web` dollars"
    r = Usage(**luna)._price().rates(100)
    usd = dict(inp_usd=100*r['input'], cache_read_usd=0., cache_write_usd=0., out_usd=10*r['output'], web_usd=web, other_usd=0.)
    return Usage(**dict(luna, prompt_tokens=100, completion_tokens=10, cost_source='litellm', details=details and json.dumps(details)) | usd | dict(response_cost=sum(usd.values())) | kw)

@pytest.mark.parametrize('n,details,web,lacks', [
    (1, {},                                     .01,   None),
    (1, {},                                     .0099, 'web search'),
    (3, {},                                     .01,   'web search'),
    (0, dict(file_searches=2),                  .005,  None),
    (0, dict(file_searches=2),                  .0025, 'file search'),
    (1, dict(file_searches=1),                  .01,   'file search'),
    (1, dict(file_searches=1, code_sessions=1), .0425, None),
    (1, dict(file_searches=1, code_sessions=1), .0125, 'code session'),
    (1, dict(code_sessions=1),                  0.,    'web search, code session'),
    (0, dict(maps=1),                           0.,    'maps'),
    (0, dict(images=1),                         0.,    'images'),
    (0, dict(images=1),                         .04,   None),  # LiteLLM counts it among the tools
    (0, dict(images=1, image_out=9),            0.,    None),  # its tokens are paid
    (0, dict(advisor_tokens=9),                 0.,    'advisor')])
def test_tools(n, details, web, lacks):
    "The tools share what was paid for them, one after the other"
    assert row(web, details, web_search_requests=n).lacks()==lacks

@pytest.mark.parametrize('kw', [dict(origin='cache'), dict(origin='replay'), dict(status='failed'), dict(cost_source='provider'), dict(response_cost=None, inp_usd=None),
    dict(inp_usd=None), dict(inp_usd=0., out_usd=0., other_usd=.5, response_cost=.5)])
def test_nobody_is_accused(kw):
    "What was not billed, stated by a provider, unpriced, or known as a whole only, lacks nothing that anybody could tell"
    assert row(0., web_search_requests=2, **kw).lacks() is None

def test_nothing_at_all():
    "A cost of 0 that is LiteLLM's lacks all that has a count and is not free"
    none = dict.fromkeys([f'{k}_usd' for k in (*kinds,'other')], 0.)
    assert row(**none, response_cost=0., cache_read_tokens=40).lacks()=='input, cache read, output'
    assert row(**none | dict(inp_usd=None), response_cost=0.).lacks()=='input, output'
    assert row(**none, response_cost=0., prompt_tokens=0, completion_tokens=0).lacks() is None

@pytest.fixture
def sold(monkeypatch):
    "A function that puts a row into the price map"
    def put(key, **kw): monkeypatch.setitem(price_map(), key, kw); rates._from_map.cache_clear()
    yield put
    rates._from_map.cache_clear()

def test_a_price_at_one_tier_only(sold):
    "A map row that prices a service tier alone prices nothing of a call at another one"
    sold('half', litellm_provider='acme', mode='chat', input_cost_per_token_priority=2e-6, output_cost_per_token_priority=4e-6)
    u = Usage(model='half', provider='acme', prompt_tokens=10, completion_tokens=5, response_cost=0., inp_usd=0., out_usd=0., cost_source='litellm')
    assert u.lacks()=='input, output' and Usage(model='half', provider='acme', prompt_tokens=10, completion_tokens=5).cost is None
    paid = dict(service_tier='priority', response_cost=4e-5, inp_usd=2e-5, out_usd=2e-5)
    assert Usage(**vars(u) | paid).lacks() is None

def test_free_on_purpose(sold):
    "A price of 0 is a price, and a model that the map does not know may be free"
    sold('home', litellm_provider='acme', mode='chat', input_cost_per_token=0, output_cost_per_token=0)
    free = dict(provider='acme', prompt_tokens=10, completion_tokens=5, response_cost=0., inp_usd=0., out_usd=0., cost_source='litellm')
    assert [Usage(model=m, **free).lacks() for m in ('home', 'mine')]==[None, None]
    assert Usage(model='mine', **free, web_search_requests=1).lacks()=='web search'
    given = Price(dict(input_cost_per_token=1e-6, output_cost_per_token=0), price_key='mine')
    assert Usage(model='mine', **free).lacks(given)=='input'

def test_the_size_of_a_search(sold):
    "A search of the smallest size may cost less than one of medium size, and lacks nothing"
    by = dict(zip(('search_context_size_low','search_context_size_medium','search_context_size_high'), (.03,.035,.05)))
    sold('sized', litellm_provider='acme', mode='chat', input_cost_per_token=0, output_cost_per_token=0, search_context_cost_per_query=by)
    u = Usage(model='sized', provider='acme', prompt_tokens=1, completion_tokens=1, web_search_requests=2, response_cost=.06, inp_usd=0., out_usd=0., web_usd=.06, cost_source='litellm')
    assert u.lacks() is None and Usage(**vars(u) | dict(response_cost=.05, web_usd=.05)).lacks()=='web search'

def test_input_that_is_short():
    "Gemini's tokens that no modality lists: LiteLLM leaves them out, at the same rates; another rate is another contract, and lacks nothing"
    u = Usage(model='gemini-2.5-flash', provider='gemini', prompt_tokens=343, completion_tokens=10, cost_source='litellm')
    paid = lambda i, o: Usage(**vars(u) | dict(inp_usd=i, out_usd=o, response_cost=i+o))
    assert [paid(*o).lacks() for o in ((277*3e-7, 10*2.5e-6), (343*3e-7, 10*2.5e-6), (343*2e-7, 10*2e-6))]==['input', None, None]

def test_a_receipt_of_some_tools():
    "What was paid stands at its rate, what was not has no price, and the rest is not made up"
    u = row(.01, dict(file_searches=2), web_search_requests=1)
    u.cost_lacks = u.lacks()
    assert [(k,n,a) for k,n,_,a in u.receipt()][-2:]==[('web search', 1, .01), ('file search', 2, None)]
    assert [o[0] for o in u.bill()]==['input', 'output', 'web search', 'file search', 'total'] and u.bill()[3][2] is None
    assert total([u]).amount==u.response_cost and total([u]).unpriced==1

def test_perplexity_has_searches_in_its_output():
    r = Usage(model='sonar-pro', provider='perplexity')._price().rates(100)
    u = Usage(model='sonar-pro', provider='perplexity', prompt_tokens=100, completion_tokens=10, web_search_requests=2, cost_source='litellm', web_usd=0.)
    paid = lambda more: Usage(**vars(u) | dict(inp_usd=100*r['input'], out_usd=10*r['output']+more, response_cost=100*r['input']+10*r['output']+more))
    assert (paid(2*r['web search']).lacks(), paid(0).lacks()) == (None, 'web search')

@pytest.mark.parametrize('now,reads', [('1.109.9', 'input'), ('1.110.0', 'cache read'), ('2.0.0', 'cache read')])
def test_ways_that_ended(monkeypatch, now, reads):
    "LiteLLM bills cached input of Perplexity in full before 1.110, and at its own rate since"
    monkeypatch.setattr(rates, '_litellm', lambda: now)
    p = Price(dict(litellm_provider='perplexity', input_cost_per_token=1e-6, cache_read_input_token_cost=1e-7), price_key='x')
    assert p.rates()['cache read']==(1e-6 if reads=='input' else 1e-7)

def test_characters_in_place_of_tokens(sold):
    "A model that speaks is billed by the character if it has a price for one, whatever its tokens cost"
    sold('voice', litellm_provider='acme', mode='audio_speech', input_cost_per_character=1e-5, input_cost_per_token=1e-6, output_cost_per_token=1e-6)
    both = Usage(model='voice', provider='acme', prompt_tokens=160, completion_tokens=900, details='{"characters": 700}')
    assert both.cost==pytest.approx(700*1e-5, abs=1e-12)
    said = dict(model='tts-1', provider='openai', details=json.dumps(dict(characters=700)))
    assert Usage(**said, prompt_tokens=160, completion_tokens=900).cost==Usage(**said).cost==700*1.5e-5

def test_a_query_in_place_of_tokens():
    "A model that ranks is billed by the query, whether its tokens were counted or not; they cost $0 in the map"
    u = Usage(model='rerank-v3.5', provider='cohere', prompt_tokens=90, completion_tokens=0, details='{"search_units": 3}')
    assert u.cost==pytest.approx(3*.002, abs=1e-12)

def test_the_whole_has_the_other_tools():
    "A search that was not paid is added to the tokens and the search in files, which were"
    u = row(.0025, dict(file_searches=1), web_search_requests=1, cost_lacks='web search')
    assert u.total_cost()==pytest.approx(u.response_cost+.01, abs=1e-12)

def test_a_total_at_live_prices_is_at_least():
    "A cached reply whose cost lacks something billed nothing, but live it would have cost at least that"
    u = row(web_search_requests=1, cost_lacks='web search', origin='cache')
    assert [total([u], of=o).unpriced for o in ('billed','cost')]==[0, 1]

bad = ['[broken', '[1]', '7', 'null', '{"pages": NaN}', '{"pages": 1e999}', '{"pages": "many"}', '{"pages": -1}', '{"pages": 1e13}', '{"pages": true}', '{"audio_in": {}}',
    '{"geo": 7}', '{"location": []}', '{"saved_usd": "much"}', '{"saved_usd": NaN}', '['*100_000, b'{}', 7]

@pytest.mark.parametrize('details', bad, ids=range(len(bad)))
@pytest.mark.parametrize('kw', [{}, dict(response_cost=.5), dict(origin='cache', response_cost=0.)])
def test_details_that_make_no_sense(details, kw):
    "They raise nothing anywhere, the row is odd, and it has no price of its own"
    u = Usage(**luna, prompt_tokens=100, completion_tokens=10, details=details, **kw)
    assert u.odd() and u.cost==kw.get('response_cost')
    for f in (u.counts, u.split, u.receipt, u.bill, u.lacks, u.total_cost, lambda: (u.saved, u.billed, repr(u), u._repr_html_(), repr(u.receipt()), total([u]))): f()
    assert u.saved==0 and total([u]).amount==(u.cost or 0 if u.origin=='live' else 0)

@pytest.mark.parametrize('kw,why', [
    (dict(prompt_tokens=2**62),                        'a count is 4611686018427387904'),
    (dict(completion_tokens=1.5),                      'a count is 1.5'),
    (dict(response_cost=float('nan')),                 'a cost of nan'),
    (dict(response_cost=-1.),                          'a cost of -1.0'),
    (dict(response_cost=1e300),                        'a cost of 1e+300'),
    (dict(meta='{"score": NaN}'),                      'meta that is no JSON object'),
    (dict(meta='["a"]'),                               'meta that is no JSON object'),
    (dict(origin='adjustment', response_cost=-1.),     ''),
    (dict(meta='{"a": 1}', details='{"x": "y"}'),      '')])
def test_odd(kw, why):
    assert Usage(**luna, **dict(prompt_tokens=5, completion_tokens=1) | kw).odd()==why

@pytest.mark.parametrize('cost', [float('nan'), float('inf'), 1e300])
def test_a_cost_that_is_no_money_is_none(cost):
    "It is not added up; the row is priced by the tables, or has no price"
    known,unknown = (Usage(model=m, provider='openai', prompt_tokens=5, completion_tokens=1, response_cost=cost) for m in (luna['model'], 'gpt-99'))
    assert known.cost==Usage(**luna, prompt_tokens=5, completion_tokens=1).cost and unknown.cost is None and total([unknown]).unpriced==1

def test_once_for_a_prompt():
    "An older Gemini bills grounding once for a prompt, on the web and on maps, however many queries it took; a newer one each of them"
    asked = lambda m: Usage(model=m, provider='gemini', prompt_tokens=100, completion_tokens=10, web_search_requests=3, details='{"maps": 2}')
    old,new = asked('gemini-2.5-flash'),asked('gemini-3.5-flash-lite')
    each = new._price().rates()
    assert old.split()['web']==pytest.approx(.035+.025, abs=1e-12) and new.split()['web']==pytest.approx(3*each['web search'] + 2*each['maps'], abs=1e-12)

def test_total_cost_of_a_price_of_nothing():
    "A cost of $0 that was meant is the total cost too"
    u = Usage(model='gpt-4o-mini', provider='openai', prompt_tokens=10, completion_tokens=2, response_cost=0., cost_source='litellm', inp_usd=0., out_usd=0., usage_source='reported')
    assert u.total_cost()==0
