"""What a captured cost lacks, what its receipt says, and rows that make no sense: tables of cases around the lessons on costs."""
import json
import pytest
from llm_usage import Price, Usage, model_prices, rates, Total
from llm_usage.rates import price_map
from llm_usage.cost import kinds

luna = dict(model='gpt-5.6-luna', provider='openai') # a search costs a cent here, one in files a quarter of one, a session three

def row(web=0., details=None, **kw):
    "A captured row whose 100 tokens of input and 10 of output are paid, and whose tools are paid with `web` dollars"
    r = Usage(**luna).price_row().rates(100)
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
    assert Usage(model='mine', **free, web_search_requests=1).total_cost(sc=.01)==.01
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

@pytest.mark.parametrize('n,lacks', [(0, None), (7, 'input'), (66, 'input')])
def test_input_that_is_short_in_a_region(sold, n, lacks):
    "All tokens cost more there, those that are left out too"
    sold('vertex_ai/far', litellm_provider='vertex_ai-language-models', mode='chat', input_cost_per_token=3e-7, output_cost_per_token=2.5e-6, regional_endpoint_uplift_multiplier=1.1)
    usd = dict(inp_usd=(343-n)*3.3e-7, out_usd=10*2.75e-6)
    assert Usage(model='far', provider='vertex_ai', prompt_tokens=343, completion_tokens=10, cost_source='litellm', details='{"location": "us-east5"}', response_cost=sum(usd.values()), **usd).lacks()==lacks

def test_a_receipt_of_some_tools():
    "What was paid stands at its rate, what was not has no price, and the rest is not made up"
    u = row(.01, dict(file_searches=2), web_search_requests=1)
    u.cost_lacks = u.lacks()
    assert [(k,n,a) for k,n,_,a in u.receipt()][-2:]==[('web search', 1, .01), ('file search', 2, None)]
    assert [o[0] for o in u._bill()]==['input', 'output', 'web search', 'file search', 'total'] and u._bill()[3][2] is None
    assert Total.of([u]).amount==u.response_cost and Total.of([u]).unpriced==1

def test_perplexity_has_searches_in_its_output():
    r = Usage(model='sonar-pro', provider='perplexity').price_row().rates(100)
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
    assert [Total.of([u], what=o).unpriced for o in ('billed','cost')]==[0, 1]

bad = ['[broken', '[1]', '7', 'null', '{"pages": NaN}', '{"pages": 1e999}', '{"pages": "many"}', '{"pages": -1}', '{"pages": 1e13}', '{"pages": true}', '{"audio_in": {}}',
    '{"geo": 7}', '{"location": []}', '{"saved_usd": "much"}', '{"saved_usd": NaN}', '['*100_000, b'{}', 7]

@pytest.mark.parametrize('details', bad, ids=range(len(bad)))
@pytest.mark.parametrize('kw', [{}, dict(response_cost=.5), dict(origin='cache', response_cost=0.)])
def test_details_that_make_no_sense(details, kw):
    "They raise nothing anywhere, the row is odd, and it has no price of its own"
    u = Usage(**luna, prompt_tokens=100, completion_tokens=10, details=details, **kw)
    assert u.problem() and u.cost==kw.get('response_cost')
    for f in (u.billable, u.cost_parts, u.receipt, u._bill, u.lacks, u.total_cost, lambda: (u.saved, u.billed, repr(u), u._repr_html_(), repr(u.receipt()), Total.of([u]))): f()
    assert u.saved==0 and Total.of([u]).amount==(u.cost or 0 if u.origin=='live' else 0)

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
    assert Usage(**luna, **dict(prompt_tokens=5, completion_tokens=1) | kw).problem()==why

@pytest.mark.parametrize('cost', [float('nan'), float('inf'), 1e300])
def test_a_cost_that_is_no_money_is_none(cost):
    "It is not added up; the row is priced by the tables, or has no price"
    known,unknown = (Usage(model=m, provider='openai', prompt_tokens=5, completion_tokens=1, response_cost=cost) for m in (luna['model'], 'gpt-99'))
    assert known.cost==Usage(**luna, prompt_tokens=5, completion_tokens=1).cost and unknown.cost is None and Total.of([unknown]).unpriced==1

def test_once_for_a_prompt():
    "An older Gemini bills grounding once for a prompt, on the web and on maps, however many queries it took; a newer one each of them"
    asked = lambda m: Usage(model=m, provider='gemini', prompt_tokens=100, completion_tokens=10, web_search_requests=3, details='{"maps": 2}')
    old,new = asked('gemini-2.5-flash'),asked('gemini-3.5-flash-lite')
    each = new.price_row().rates()
    assert old.cost_parts()['web']==pytest.approx(.035+.025, abs=1e-12) and new.cost_parts()['web']==pytest.approx(3*each['web search'] + 2*each['maps'], abs=1e-12)

def test_total_cost_of_a_price_of_nothing():
    "A cost of $0 that was meant is the total cost too"
    u = Usage(model='gpt-4o-mini', provider='openai', prompt_tokens=10, completion_tokens=2, response_cost=0., cost_source='litellm', inp_usd=0., out_usd=0., usage_source='reported')
    assert u.total_cost()==0

# Each part against its own count and rate

bills = { # part         kind                  count, rate
    'inp':         {'input':              (330, 2e-6),  'audio input':       (100, 3e-6), 'image input':       (40, 4e-6), 'video input': (30, 5e-6), 'citations':   (6, 6e-6),
                    'seconds':            (11, 7e-3),   'characters':        (9, 8e-3),   'pages':             (7, 9e-3),  'annotated pages': (8, .011), 'queries':  (10, .012)},
    'cache_read':  {'cache read':         (150, 13e-6), 'cached audio':      (50, 14e-6)},
    'cache_write': {'cache write':        (140, 15e-6), 'cache write, 1 h':  (100, 16e-6), 'cache write, 12 h': (60, 17e-6)},
    'out':         {'output':             (100, 18e-6), 'reasoning':         (90, 19e-6), 'audio output':      (80, 20e-6), 'image output': (70, 21e-6), 'video output': (60, 22e-6)},
    'web':         {'web search':         (3, .023),    'maps':              (2, .024),   'file search':       (4, .025),  'code session': (5, .026)}}
names = dict(zip([k for ks in bills.values() for k in ks], """input_cost_per_token input_cost_per_audio_token input_cost_per_image_token input_cost_per_video_token citation_cost_per_token cost_per_second
    input_cost_per_character ocr_cost_per_page annotation_cost_per_page input_cost_per_query cache_read_input_token_cost cache_read_input_audio_token_cost cache_creation_input_token_cost
    cache_creation_input_token_cost_above_1hr cache_creation_input_token_cost_above_12hr output_cost_per_token output_cost_per_reasoning_token output_cost_per_audio_token output_cost_per_image_token
    output_cost_per_video_token search_cost google_maps_grounding_cost_per_query file_search_cost_per_1k_calls code_interpreter_cost_per_session""".split()))
flat   = {names[k]:r*(1000 if k=='file search' else 1) for ks in bills.values() for k,(_,r) in ks.items()}
rarely = dict(cached_audio=50, audio_in=150, image_in=40, video_in=30, write_12h=60, audio_out=80, image_out=70, video_out=60, citations=6, seconds=11, characters=9, pages=7, annotated=8, search_units=10,
    maps=2, file_searches=4, code_sessions=5, images=12)
whole  = dict(model='all', provider='gemini', prompt_tokens=1000, cache_read_tokens=200, cache_creation_tokens=300, cache_creation_1h_tokens=100, completion_tokens=400, reasoning_tokens=90, web_search_requests=3)

@pytest.fixture
def all_(sold):
    "A row that has something of every kind"
    sold('all', litellm_provider='gemini', web_search_billing_unit='per_query', output_cost_per_image=.5, **flat)
    sold('gemini/container', **flat)
    return Usage(**whole, details=json.dumps(rarely))

def test_every_part_is_its_own_counts_times_its_own_rates(all_):
    "No part takes what is another's, and the rest is nothing; images have no line where their tokens were counted"
    want = {part:sum(n*r for n,r in ks.values()) for part,ks in bills.items()}
    assert all_.cost_parts()==pytest.approx(want | dict(other=0), abs=1e-12) and all_.cost==pytest.approx(sum(want.values()), abs=1e-12)
    assert {k:(part, n, pytest.approx(r)) for part,ks in bills.items() for k,(n,r) in ks.items()}=={k:(part,n,r) for k,part,n,r,_ in all_.rated()}
    assert all_.problem()==''

def test_images_are_output(all_):
    "Those that were made and whose tokens nobody counted"
    u = Usage(**whole, details=json.dumps(rarely | dict(image_out=0)))
    assert u.out_cost==pytest.approx(sum(n*r for n,r in bills['out'].values()) + 70*(18e-6 - 21e-6) + 12*.5, abs=1e-12)

def test_the_parts_have_their_properties(all_):
    assert [all_.inp_cost, all_.cache_read_cost, all_.cache_write_cost, all_.out_cost, all_.web_cost, all_.other_cost]==[*all_.cost_parts().values()]

@pytest.mark.parametrize('part', ['inp','cache_read','cache_write','out','web'])
def test_a_captured_part_is_read_from_its_own_column(all_, part):
    "So is the rest, which is stated and not made up"
    usd = {f'{k}_usd':v for k,v in zip(('inp','cache_read','cache_write','out','web','other'), (.1,.2,.3,.4,.5,.6))}
    u = Usage(**vars(all_) | usd | dict(response_cost=2.1))
    assert u.cost_parts()[part]==usd[f'{part}_usd'] and u.other_cost==.6 and getattr(u, f'{part}_cost')==usd[f'{part}_usd'] and u.problem()==''
    assert Usage(**vars(u) | {f'{part}_usd':.7}).problem()==Usage(**vars(u) | dict(other_usd=.7)).problem()=='parts that do not sum to their cost'

@pytest.mark.parametrize('part', ['inp','cache_read','cache_write','out','web'])
def test_a_bill_has_what_was_paid(all_, part):
    "The line of each part, of tokens and tools alike, and the rest; a bill sums to its cost"
    u = Usage(**vars(all_) | dict(inp_usd=0., other_usd=-.25, response_cost=.75) | {f'{part}_usd':1.})
    assert sum(a or 0 for *_,a in u._bill()[:-1])==pytest.approx(.75, abs=1e-12) and u._bill()[-2]==('other', None, -.25) and u._bill()[-1][2]==.75
    assert sum(a or 0 for *_,a in u.receipt())==pytest.approx(.75, abs=1e-12) and sum(a or 0 for *_,a in u.receipt()[:-1])==pytest.approx(1., abs=1e-12)

# What a model bills in place of tokens

both = dict(input_cost_per_token=1e-6, output_cost_per_token=1e-6, input_cost_per_second=.1, input_cost_per_character=.1, output_cost_per_image=.1, ocr_cost_per_page=.1, annotation_cost_per_page=.1, input_cost_per_query=.1, search_cost=.1)

@pytest.mark.parametrize('mode,details,counted,alone', [
    ('audio_transcription', dict(seconds=3),            {'input','output'}, {'seconds'}),
    ('audio_speech',        dict(characters=3),         {'characters'},     {'characters'}),
    ('video_generation',    dict(seconds=3),            {'seconds'},        {'seconds'}),
    ('image_generation',    dict(images=3),             {'input','output'}, {'images'}),
    ('image_edit',          dict(images=3),             {'input','output'}, {'images'}),
    ('ocr',                 dict(pages=3, annotated=2), {'pages','annotated pages'}, {'pages','annotated pages'}),
    ('rerank',              dict(search_units=3),       {'queries'},        {'queries'}),
    ('search',              dict(search_units=3),       {'queries'},        {'queries'})])
def test_units_in_place_of_tokens(sold, mode, details, counted, alone):
    "Where tokens were counted beside them, where they were not, and where the unit has no price; a search is billed in any case"
    sold('both', litellm_provider='acme', mode=mode, **both)
    sold('tokens', litellm_provider='acme', mode=mode, input_cost_per_token=1e-6, output_cost_per_token=1e-6)
    billed = lambda m, **kw: {k for k,*_ in Usage(model=m, provider='acme', details=json.dumps(details), **kw).rated()}
    n = dict(prompt_tokens=9, completion_tokens=9)
    assert [billed('both', **n), billed('both'), billed('tokens', **n)]==[counted, alone, {'input','output'}]
    assert billed('both', **n, web_search_requests=1)==counted | {'web search'}

def test_seconds_of_a_reply(sold):
    "Capacity that is rented bills the time that the reply took, and the searches"
    sold('rented', litellm_provider='acme', mode='chat', cost_per_second=.1, search_cost=.5)
    u = Usage(model='rented', provider='acme', prompt_tokens=9, completion_tokens=9, latency=4., web_search_requests=2)
    assert u.cost_parts()==pytest.approx(dict(inp=4*.1, cache_read=0, cache_write=0, out=0, web=2*.5, other=0))

def test_maps_are_billed_once_for_a_prompt():
    maps = lambda n: Usage(model='gemini-2.5-flash', provider='gemini', prompt_tokens=0, completion_tokens=0, details=json.dumps(dict(maps=n))).cost
    assert maps(3)==maps(1)==.025

# The time of the row, and its whole prompt

def test_a_row_is_priced_at_its_own_time(sold, monkeypatch):
    "By day and by night, and before and after a price of yours holds"
    sold('owl', litellm_provider='acme', mode='chat', input_cost_per_token=2e-6, output_cost_per_token=2e-6, off_peak_pricing=dict(hours_utc='20:00-04:00', input_cost_per_token=1e-6, output_cost_per_token=1e-6))
    day   = 1795219200. # 2026-11-21, midnight UTC
    costs = lambda m, *hours: [Usage(model=m, provider='acme', timestamp=day+3600*h, prompt_tokens=1000, completion_tokens=0).cost for h in hours]
    assert costs('owl', 0, 3.99, 4, 12, 19.99, 20)==pytest.approx([.001, .001, .002, .002, .002, .001])
    monkeypatch.setitem(model_prices, 'mine', [dict(input=1, output=1), dict(input=2, output=2, start='2026-11-21')])
    assert costs('mine', -1, -.001, 0, 1)==pytest.approx([.001, .001, .002, .002])

def test_a_threshold_is_crossed_by_the_whole_prompt(sold):
    "Cached tokens included"
    sold('long', litellm_provider='acme', mode='chat', input_cost_per_token=1e-6, output_cost_per_token=1e-6, input_cost_per_token_above_128k_tokens=3e-6, cache_read_input_token_cost=1e-7, cache_read_input_token_cost_above_128k_tokens=3e-7)
    u = Usage(model='long', provider='acme', prompt_tokens=150_000, cache_read_tokens=100_000, completion_tokens=0)
    assert u.cost==pytest.approx(50_000*3e-6 + 100_000*3e-7, abs=1e-12)

@pytest.mark.parametrize('kw', [dict(prompt_tokens=10, cache_read_tokens=10), dict(prompt_tokens=10, cache_read_tokens=4, cache_creation_tokens=6, cache_creation_1h_tokens=6), dict(completion_tokens=7, reasoning_tokens=7)])
def test_a_part_may_be_all(kw):
    "A prompt that was all cached, writes that all live an hour, and a reply that nobody saw are sound"
    u = Usage(**luna, **dict(prompt_tokens=10, completion_tokens=7) | kw)
    assert u.problem()=='' and u.cost is not None

@pytest.mark.parametrize('u,lacks', [
    (row(.01, dict(pages=3), web_search_requests=1),                              'pages'),  # what was paid for a search pays for no page
    (row(0., web_search_requests=1, response_cost=0., inp_usd=None, cost_source='computed'), None),
    (row(**dict(inp_usd=0., response_cost=10*4e-7, out_usd=10*4e-7), cache_creation_tokens=60),       'input, cache write'),
    (row(**dict(inp_usd=0., cache_write_usd=1e-4, response_cost=1e-4 + 10*4e-7, out_usd=10*4e-7), cache_creation_tokens=60), None)])
def test_what_one_thing_paid_for(u, lacks):
    "A part pays for its own side of the bill, and nobody else's cost of nothing is doubted"
    assert u.lacks()==lacks

def test_a_part_of_several_tools_has_no_count():
    "Where a part was paid at no list price, its one line has the count if that is of one thing"
    u,v = row(.02, dict(file_searches=2), web_search_requests=1),row(.02, web_search_requests=4)
    assert [(k,n,r) for k,n,r,_ in u.receipt()][2:]==[('web search', None, None)] and v.receipt()[2]==('web search', 4, .005, .02)

def test_where_a_figure_is_from(monkeypatch):
    monkeypatch.setitem(model_prices, 'mine', dict(input=1, start='2026-01-01'))
    said = [Usage(model=m, prompt_tokens=1, **kw).receipt().source for m,kw in (('gpt-99',{}), ('gpt-99',dict(response_cost=1.)), ('gpt-99',dict(response_cost=1., cost_source='provider')), ('mine',{}))]
    assert said==['unpriced', 'as stated', 'provider', 'model_prices, since 2026-01-01']

def test_a_price_of_yours_doubts_nobody(monkeypatch):
    "What LiteLLM's figure leaves out is judged by LiteLLM's own map: it knows no price of yours"
    us = [row(web, web_search_requests=1) for web in (0., .01)]
    monkeypatch.setitem(model_prices, luna['model'], dict(input=0, output=0, search=0))
    assert [u.lacks() for u in us]==['web search', None]
