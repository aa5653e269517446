"""Two price tables, some ninety well-known_differences models: what differs must be known_differences, with a reason that covers it.

Differences are data of the versions that they were seen in. In others, which may have mended some or have new ones, few may
be unknown. In a plain test, since the table of models would be no reading for a page."""
import json
from datetime import datetime, timezone
from importlib.metadata import version
from importlib.resources import files
import pytest
from llm_usage import Ledger, Usage, model_prices, opinion, price, second_opinion
from llm_usage.opinion import _about, _context, _their_counts, known_differences, their_price
from llm_usage.rates import price_map

at = datetime(2026,11,20,12,tzinfo=timezone.utc).timestamp() # start dates and off-peak hours count

well_known = {k:v.split() for k,v in dict(
    anthropic    = '''claude-haiku-5-5 claude-sonnet-5-5 claude-opus-5-5 claude-fable-5-1 claude-opus-5 claude-sonnet-5
                      claude-opus-4-8 claude-sonnet-4-6 claude-haiku-4-5''',
    openai       = '''gpt-6.1-sol gpt-6-sol gpt-6-luna gpt-5.6-sol gpt-5.6-terra gpt-5.6-luna gpt-5.5 gpt-5.4 gpt-5.4-mini
                      gpt-5.3-codex gpt-5.1 gpt-5-mini gpt-4.1 gpt-4.1-mini gpt-4o gpt-4o-mini
                      o3 gpt-4o-search-preview gpt-5-search-api''',
    gemini       = '''gemini-3.8-flash gemini-3.5-flash gemini-3.5-flash-lite gemini-3.1-pro-preview gemini-3.1-flash-lite
                      gemini-2.5-pro gemini-2.5-flash gemini-2.5-flash-lite''',
    vertex_ai    = 'gemini-3.8-flash gemini-3.5-flash gemini-2.5-pro claude-sonnet-5-5 claude-haiku-5-5 claude-opus-5-5',
    bedrock      = '''global.anthropic.claude-sonnet-5-5 us.anthropic.claude-sonnet-5-5 anthropic.claude-sonnet-5-5
                      anthropic.claude-opus-4-8 amazon.nova-pro-v1:0 amazon.nova-lite-v1:0 us.openai.gpt-5.6-luna''',
    azure        = 'gpt-6-sol gpt-5.6-luna gpt-5.4-mini gpt-5.1 gpt-4.1 gpt-4o',
    azure_ai     = 'claude-sonnet-5-5',
    xai          = 'grok-4.7 grok-4.5 grok-4.3 grok-code-fast-1',
    mistral      = 'mistral-large-latest mistral-large-2512 mistral-large-4 mistral-medium-3-5 mistral-small-latest codestral-latest',
    deepseek     = 'deepseek-flash deepseek-v4-pro deepseek-v3.2 deepseek-chat deepseek-reasoner',
    groq         = 'openai/gpt-oss-120b openai/gpt-oss-20b qwen/qwen3.8-27b',
    cerebras     = 'gpt-oss-120b',
    moonshot     = 'kimi-k3 kimi-k2.6',
    zai          = 'glm-5.3 glm-5.2',
    minimax      = 'MiniMax-M3',
    cohere_chat  = 'command-a-03-2025',
    fireworks_ai = '''accounts/fireworks/models/deepseek-v4p1-flash accounts/fireworks/models/kimi-k3 accounts/fireworks/models/glm-5p3''',
    together_ai  = 'openai/gpt-oss-120b Qwen/Qwen3.8-Flash').items()}

searchers = 'anthropic openai gemini vertex_ai azure azure_ai'.split() # who sell a search of their own

def typical(provider, model, **kw):
    "10,000 tokens in, 2,000 of them cached and 1,000 written to a cache that charges for it, 1,000 out"
    p  = price(model, provider, at) or {}
    w  = 1_000*bool(p.get('cache_creation_input_token_cost'))
    w1 =   400*bool(p.get('cache_creation_input_token_cost_above_1hr'))
    return Usage(model=model, provider=provider, timestamp=at, prompt_tokens=10_000, cache_read_tokens=2_000, cache_creation_tokens=w,
                 cache_creation_1h_tokens=w1, completion_tokens=1_000, usage_source='reported', **kw)

def usages():
    "Every well-known_differences model with its typical usage, and with two searches where its provider sells them"
    return [typical(p, m, web_search_requests=n) for p,ms in well_known.items() for m in ms for n in ((0,2) if p in searchers else (0,))]

seen = json.loads((files('llm_usage')/'differences.json').read_text())['seen']
here = all(version(k) in vs for k,vs in seen.items()) # are these the versions that the differences were seen in?

def row(u, **kw): return Usage(**vars(u) | kw)

@pytest.fixture(scope='module')
def found(): return second_opinion(usages(), tol=1e-6)

@pytest.fixture(scope='module')
def excused(found):
    "Those with a reason, as rows that LiteLLM priced: what has no price is left out of their cost"
    return [row(o.usage, response_cost=row(o.usage, web_search_requests=0).cost if o.ours is None else o.ours) for o in found if o.reason]

def reasons(us): return [o.reason for o in second_opinion(us, tol=1e-6)]

def test_both_engines_know_the_models():
    "Nine in ten at least are priced by both, or this would be a test of nothing"
    us = [u for u in usages() if not u.web_search_requests]
    assert sum(o.diff is None for o in second_opinion(us, tol=-1)) <= len(us)/10 and len(us) > 80

def test_a_new_difference_is_explained_first(found):
    new = [(o.usage.provider, o.usage.model, o.usage.web_search_requests, o.ours, o.theirs) for o in found if not o.reason]
    assert len(new) <= (0 if here else len(usages())/20), new

def test_no_reason_outlives_its_difference(found):
    "In the versions that it was seen in"
    mine  = [k for k in known_differences if here and version('litellm') in k.get('litellm', seen['litellm'])]
    stale = [k for k in mine if not any(_about(o.usage, k) and k['why'] in (o.reason or '') for o in found)]
    assert not stale

def test_a_reason_is_about_well_known_models():
    assert [k for k in known_differences if not any(_about(u, k) for u in usages())]==[]

@pytest.mark.parametrize('times', [40, 1.05, .95, .01])
def test_a_reason_covers_its_own_effect_alone(excused, times):
    "A row that is some five per cent or forty times too dear is not excused by what explains a cent"
    assert len(excused) > 20
    assert reasons([row(u, response_cost=u.response_cost*times) for u in excused])==[None]*len(excused)

def test_what_explains_a_price_explains_a_captured_one(excused):
    assert all(reasons(excused)) and len(reasons(excused))==len(excused)

def test_a_search_too_many_is_not_excused(excused):
    "Nor is one that was billed at a price that neither has"
    us = [row(u, response_cost=u.response_cost+.5) for u in excused if u.web_search_requests]
    assert us and not any(reasons(us))

def test_what_is_small_beside_a_search_is_not_hidden_by_it():
    "Of calls with a hundred tokens and two searches, a token count that is billed twice"
    tiny = [typical(p, m, web_search_requests=2) for p in searchers for m in well_known[p]]
    tiny = [row(u, prompt_tokens=100, cache_read_tokens=0, cache_creation_tokens=0, cache_creation_1h_tokens=0, completion_tokens=9) for u in tiny]
    plain = [row(u, web_search_requests=0).cost for u in tiny]
    us = [row(u, response_cost=o if u.cost is None else u.cost) for u,o in zip(tiny, plain) if o]
    some = [(u,o) for u,o in zip(us, filter(None, plain)) if any(o.reason for o in second_opinion([u]))]
    assert len(some) > 10 and not any(o.reason for u,o in some for o in second_opinion([row(u, response_cost=u.response_cost+o)]))

def test_a_factor_is_true_of_all_that_it_names():
    "Or a row that is a tenth too cheap would be excused"
    for k in known_differences:
        us = [Usage(provider=k['provider'], model=m, timestamp=at, prompt_tokens=1000, completion_tokens=100) for m in price_map()]
        us = [(u.cost, their_price(u)[0]) for u in us if 'factor' in k and _about(u, k) and u.cost and their_price(u)]
        assert all(b==pytest.approx(a*k['factor']) for a,b in us) and (us or 'factor' not in k)

def test_what_the_provider_stated_is_not_excused(excused):
    assert reasons([row(u, cost_source='provider') for u in excused])==[None]*len(excused)

@pytest.mark.parametrize('kw', [dict(status='failed', response_cost=0.), dict(origin='cache', response_cost=0.), dict(origin='replay', response_cost=.01),
    dict(origin='cache'), dict(origin='adjustment', response_cost=.01)])
def test_what_billed_nothing_is_not_compared(kw):
    assert second_opinion([row(u, **kw) for u in usages()], tol=-1)==[]

def test_a_call_that_cost_something_is_compared():
    "A failed one too, and one of $0 that went well"
    us = [row(usages()[0], **kw) for kw in (dict(status='failed', response_cost=.5), dict(response_cost=0.), dict(status='partial', response_cost=1e-6))]
    assert [o.ours for o in second_opinion(us)]==[.5, 0., 1e-6]

def agreeing():
    "A row of Claude's on which both engines agree, and its prices"
    for u in usages():
        p = price(u.model, u.provider, at)
        if u.provider=='anthropic' and not u.web_search_requests and not second_opinion([u], tol=1e-6):
            return u, dict(input=p['input_cost_per_token']*1e6, cache_read=p['cache_read_input_token_cost']*1e6, output=p['output_cost_per_token']*1e6,
                cache_write=p['cache_creation_input_token_cost']*1e6, cache_write_1h=p['cache_creation_input_token_cost_above_1hr']*1e6)

def test_an_adjustment_is_part_of_the_cost():
    "A row that was wrong and has been put right is not wrong any more; nor is one that had no cost"
    u,_ = agreeing()
    l   = Ledger(':memory:')
    for k,had in dict(a=1., b=None).items():
        l.add(row(u, uid=k, response_cost=had))
        l.add(Usage(uid=f'{k}-1', timestamp=at, origin='adjustment', adjusts=k, response_cost=u.cost-(had or 0)))
    assert second_opinion(l.rows(), tol=1e-6)==[]
    assert [o.ours for o in second_opinion(l.rows("origin='live'"), tol=1e-6)]==[1.]

@pytest.mark.parametrize('rate', ['input','cache_read','cache_write','cache_write_1h','output'])
def test_a_wrong_price_is_found(rate, monkeypatch):
    u,right = agreeing()
    monkeypatch.setitem(model_prices, u.model, right)
    assert not second_opinion([u])
    monkeypatch.setitem(model_prices, u.model, right | {rate:10*right[rate]})
    assert [o.usage.model for o in second_opinion([u])]==[u.model]

def test_a_price_of_yours_needs_a_reason_of_its_own(excused, monkeypatch):
    assert all(reasons(excused))
    for u in excused: monkeypatch.setitem(model_prices, price(u.model, u.provider, at)['price_key'], dict(input=5, output=15))
    assert not any(reasons(excused))

def test_a_lower_bound_looks_like_one():
    u,_ = agreeing()
    o   = second_opinion([row(u, response_cost=.001, cost_lacks='web search')])
    assert o.cells()[0][1]=='≥ $0.001000'

@pytest.mark.parametrize('kw', [dict(details='no JSON'), dict(details='[1]'), dict(details='{"seconds": "many", "speed": 3, "audio_in": -5}'), dict(timestamp=1e300), dict(timestamp=None), dict(model=None), dict(provider=None)])
def test_an_odd_row_raises_nothing(kw):
    u,_ = agreeing()
    assert len(second_opinion([row(u, **kw)], tol=-1))==1

def test_a_row_is_compared_at_its_own_time_and_speed():
    "Both tables sold long prompts of this model dearer until March 2026, and it is dearer in a hurry"
    u = Usage(model='claude-sonnet-4-6', provider='anthropic', prompt_tokens=300_000, completion_tokens=0, timestamp=datetime(2026,2,1,tzinfo=timezone.utc).timestamp())
    assert [their_price(row(u, timestamp=t))[0] for t in (u.timestamp, at)]==pytest.approx([300_000*6e-6, 300_000*3e-6])
    v = Usage(model='claude-opus-5-5', provider='anthropic', prompt_tokens=1000, completion_tokens=0, timestamp=at)
    assert their_price(row(v, details='{"speed": "fast"}'))[0] > their_price(v)[0]

# How a row is asked there

def ask(model, provider, **kw): return Usage(model=model, provider=provider, timestamp=at, **kw)
def theirs(*o, **kw): return their_price(ask(*o, **kw))

def test_each_count_has_its_name_there():
    "A count that is not told would cost nothing there"
    details = dict(cached_audio=5, audio_in=6, image_in=7, video_in=8, audio_out=11, image_out=12, video_out=13, seconds=14, search_units=15, pages=17)
    u = ask('m', 'p', prompt_tokens=1, cache_read_tokens=2, cache_creation_tokens=3, cache_creation_1h_tokens=4, completion_tokens=9, reasoning_tokens=10, web_search_requests=16, details=json.dumps(details))
    assert _their_counts(u)==dict(input_tokens=1, cache_read_tokens=2, cache_write_tokens=3, cache_write_1h_tokens=4, cache_audio_read_tokens=5, input_audio_tokens=6, input_image_tokens=7, input_video_tokens=8,
        output_tokens=9, output_reasoning_tokens=10, output_audio_tokens=11, output_image_tokens=12, output_video_tokens=13, audio_seconds=14, input_audio_seconds=14, rerank_searches=15, web_searches=16)

tokens = dict(prompt_tokens=1000, completion_tokens=10)

@pytest.mark.parametrize('model,provider,kw', [
    ('text-embedding-3-small', 'openai', tokens),
    ('whisper-1',              'openai', dict(tokens, details='{"seconds": 6}')),
    ('gpt-4o',                 'openai', dict(tokens, details='{"seconds": 6}')),
    ('gpt-4o',                 'openai', dict(tokens, details='{"search_units": 6}')),
    ('gpt-5.3-codex',          'openai', dict(tokens, web_search_requests=1)),
    ('gpt-4o',                 'openai', {}),
    (None,                     'openai', tokens)])
def test_what_has_no_price_there(model, provider, kw):
    "One count of many is enough: a model without a price for output, or input, seconds, ranking, searches"
    assert theirs(model, provider, **kw) is None

def test_seconds_have_a_price_there(): assert theirs('whisper-1', 'openai', details='{"seconds": 60}')[0]==pytest.approx(.006) # $0.006 a minute

@pytest.mark.parametrize('provider,model,key', [('azure','gpt-4o','azure/gpt-4o'), ('azure_ai','gpt-4o','azure/gpt-4o'), ('azure_text','gpt-4o','azure/gpt-4o'), ('meta_llama','muse-spark-1.3','meta/muse-spark-1.3'),
    ('openai','openai/gpt-4o','openai/gpt-4o'), ('groq','openai/gpt-oss-120b','groq/openai/gpt-oss-120b')])
def test_a_seller_has_another_name_there(provider, model, key): assert theirs(model, provider, **tokens)[1]==key

def test_the_model_that_answered():
    assert theirs('gpt-5.6-luna', 'openai', requested_model='gpt-4o', **tokens)==theirs(None, 'openai', requested_model='gpt-5.6-luna', **tokens)==theirs('gpt-5.6-luna', 'openai', **tokens)

@pytest.mark.parametrize('model,provider,tier,times', [(m,p,t,1) for m,p in (('gpt-5.6-luna','openai'), ('claude-opus-5-5','anthropic')) for t in ('default','standard','auto','on_demand')] +
    [('gpt-5.6-luna','openai','flex',.5), ('gpt-5.6-luna','openai','priority',2), ('claude-opus-5-5','anthropic','batch',.5)])
def test_a_tier_there(model, provider, tier, times):
    "Flex and a batch cost half, priority twice"
    assert theirs(model, provider, service_tier=tier, **tokens)[0]==pytest.approx(times*theirs(model, provider, **tokens)[0])

@pytest.mark.parametrize('model,provider,kw', [('claude-opus-5-5','anthropic',dict(service_tier='flex')), ('gpt-5.6-luna','openai',dict(service_tier='odd')), ('gemini-3.5-flash','gemini',dict(details='{"speed": "fast"}'))])
def test_what_is_not_offered_there(model, provider, kw): assert theirs(model, provider, **tokens, **kw) is None

# Reasons made up

few = dict(models='claude-sonnet-5-5', provider='anthropic')

@pytest.mark.parametrize('ks,n,more,want', [
    ([dict(rates=dict(input=[4,2]))],                                 0, 7000*2e-6,              [0]),     # 10,000 tokens, of which 3,000 touched the cache
    ([dict(rates=dict(cache_read=[4,2]))],                            0, 2000*2e-6,              [0]),
    ([dict(rates=dict(output=[14,10]))],                              0, 1000*4e-6,              [0]),
    ([dict(rates=dict(search=[30,10]))],                              2, 2*.02,                  [0]),
    ([dict(rates=dict(search=[30,10]))],                              0, 2*.02,                  None),    # it searched nothing
    ([dict(rates=dict(input=[4,2], search=[30,10]))],                 0, 7000*2e-6,              [0]),     # it used one of them
    ([dict(rates=dict(search=[10,10]), once=True)],                   2, -.01,                   [0]),     # ours is once, theirs each
    ([dict(rates=dict(input=[4,2])), dict(rates=dict(output=[14,10]))], 0, 7000*2e-6+1000*4e-6,  [0,1]),
    ([dict(rates=dict(input=[4,2])), dict(rates=dict(output=[14,10]))], 0, 1000*4e-6,            [1]),
    ([dict(rates=dict(input=[4,2]), provider='bedrock')],             0, 7000*2e-6,              None),
    ([dict(rates=dict(input=[4,2]), models='claude-opus-5-5 gpt-*')], 0, 7000*2e-6,              None),
    ([dict(rates=dict(input=[4,2]), models='x claude-*')],            0, 7000*2e-6,              [0]),
    ([dict(rates=dict(input=[4,2]))],                                 0, 7000*3e-6,              None),    # half of it is explained
    ([dict(rates={}, factor=1.25)],                                   0, -.2,                    [0])])    # a fifth less is what a quarter more was
def test_a_reason_explains_what_it_says(monkeypatch, ks, n, more, want):
    "The row is as its counts say at their prices, and `more`: dollars, or for a factor a share of all"
    monkeypatch.setattr(opinion, 'known_differences', [few | dict(why=f'{i}') | k for i,k in enumerate(ks)])
    u = typical('anthropic', 'claude-sonnet-5-5', web_search_requests=n)
    t = their_price(u)[0]
    o, = second_opinion([row(u, response_cost=t*(1+more) if 'factor' in ks[0] else t+more)])
    assert o.reason==(want and '; '.join(map(str, want)))

@pytest.mark.parametrize('share,found', [(.02, True), (-.02, True), (.005, False), (-.005, False)])
def test_one_per_cent_is_the_same(share, found):
    u,_ = agreeing()
    assert bool(second_opinion([row(u, response_cost=u.cost*(1+share))])) is found

def test_a_small_difference_of_a_small_bill_needs_a_reason(monkeypatch):
    "Half more, if of a tenth of a cent"
    monkeypatch.setattr(opinion, 'known_differences', [few | dict(why='', rates=dict(output=[14,10]))])
    u = ask('claude-sonnet-5-5', 'anthropic', prompt_tokens=100, completion_tokens=10)
    assert [o.reason for o in second_opinion([row(u, response_cost=1.5*u.cost)])]==[None]

def test_two_adjustments_and_a_bound_that_was_completed():
    "Each of them counts, and a cost that is whole now looks like it"
    u,_ = agreeing()
    us  = [row(u, uid='a', response_cost=.001, cost_lacks='output')] + [Usage(origin='adjustment', adjusts='a', response_cost=o) for o in (.25, .5)]
    o   = second_opinion(us)
    assert o[0].ours==.751 and o.cells()[0][1]=='$0.7510'

def test_the_row_of_the_tables_is_named():
    "That which was used, if the row says so"
    u,_ = agreeing()
    assert [second_opinion([row(u, response_cost=1., price_key=k)])[0].our_key for k in (None,'eu/claude')]==[price(u.model, u.provider)['price_key'], 'eu/claude']
