"""Rates of rows made up for the purpose, each number its own: a table of what is billed at which, beside the lessons on rates."""
from datetime import datetime,timezone
import pytest
from llm_usage import Price, Usage, model_prices, price, prices, rates
from llm_usage.rates import price_map

kin,kout,kread,kwrite = 'input_cost_per_token', 'output_cost_per_token', 'cache_read_input_token_cost', 'cache_creation_input_token_cost'
base = {kin:1., kout:2.}
def at(*o): return datetime(*o, tzinfo=timezone.utc).timestamp()

# Rates of a row

night  = dict(off_peak_pricing=dict(hours_utc='16:30-00:30', **{kin:.1, kout:.2, 'output_cost_per_reasoning_token':.3}))
sunday = dict(off_peak_pricing=dict(windows=[dict(hours_utc='02:00-03:00', weekdays=[7])], **{kin:.1}))
table  = dict(tiered_pricing=[{'range':[100,200], kin:3., kout:4.}, {'range':[0,100], kin:1., kout:2.}])
cases  = { # the row beyond its base, how it is asked, what things cost
    'no own rate':             ({}, {}, {'cache read':1, 'cache write':1, 'cache write, 1 h':1, 'cache write, 12 h':1, 'cached audio':1, 'audio input':1, 'image input':1, 'video input':1,
                                'reasoning':2, 'audio output':2, 'image output':2, 'video output':2, 'citations':0, 'advisor':None, 'pages':None, 'queries':None, 'characters':None}),
    'own rates':               ({kread:.1, kwrite:3., f'{kwrite}_above_1hr':4., f'{kwrite}_above_12hr':5., 'input_cost_per_audio_token':6., 'input_cost_per_image_token':7., 'input_cost_per_video_token':8.,
                                'output_cost_per_reasoning_token':9., 'output_cost_per_audio_token':10., 'output_cost_per_image_token':11., 'output_cost_per_video_token':12., 'citation_cost_per_token':13.,
                                'cache_read_input_audio_token_cost':14.}, {},
                                {'input':1, 'output':2, 'cache read':.1, 'cache write':3, 'cache write, 1 h':4, 'cache write, 12 h':5, 'audio input':6, 'image input':7, 'video input':8,
                                'reasoning':9, 'audio output':10, 'image output':11, 'video output':12, 'citations':13, 'cached audio':14}),
    'of writes and reads':     ({kread:.1, kwrite:3., 'input_cost_per_audio_token':6.}, {}, {'cached audio':.1, 'cache write, 1 h':3, 'cache write, 12 h':3}),
    'not that of an hour':     ({kwrite:3., f'{kwrite}_above_1hr':4.}, {}, {'cache write, 12 h':3}),
    'pages':                   (dict(ocr_cost_per_page=.5), {}, {'pages':.5, 'annotated pages':.5}),
    'at a threshold':          ({f'{kin}_above_128k_tokens':3.}, dict(prompt=128_000), {'input':1}),
    'of tokens one by one':    ({f'{kin}_above_500_tokens':3.}, dict(prompt=501), {'input':3}),
    'above it':                ({f'{kin}_above_128k_tokens':3.}, dict(prompt=128_001), {'input':3, 'output':2, 'cache read':3}),
    'at a threshold of xAI':   ({f'{kin}_above_128k_tokens':3., 'litellm_provider':'xai'}, dict(prompt=128_000), {'input':3}),
    'the highest of two':      ({f'{kin}_above_128k_tokens':3., f'{kin}_above_256k_tokens':4.}, dict(prompt=256_001), {'input':4}),
    'of output alone':         ({f'{kout}_above_200k_tokens':5.}, dict(prompt=200_001), {'input':1, 'output':5, 'reasoning':5}),
    'long, to Perplexity':     ({f'{kin}_above_128k_tokens':3., kwrite:9., 'litellm_provider':'perplexity'}, dict(prompt=128_001), {'input':1, 'cache write':1}),
    'a tier':                  ({f'{kin}_flex':.5}, dict(tier='flex'), {'input':.5, 'output':2, 'cache read':.5}),
    'a tier of another name':  ({f'{kin}_priority':3., f'{kin}_ultrafast':4., f'{kin}_balanced':5.}, dict(tier='fast'), {'input':3}),
    'a tier in capitals':      ({f'{kin}_priority':3.}, dict(tier='Priority'), {'input':3}),
    'a tier nobody knows':     ({f'{kin}_priority':3.}, dict(tier='odd'), {'input':1}),
    'a tier, untiered':        ({f'{kin}_priority':3., 'litellm_provider':'deepseek'}, dict(tier='priority'), {'input':1}),
    'a batch, untiered':       ({f'{kin}_batches':.5, f'{kout}_batches':.75, 'litellm_provider':'deepseek'}, dict(tier='batch'), {'input':.5, 'output':.75}),
    'a batch without a rate':  ({kread:.1}, dict(tier='batch'), {'input':None, 'output':None, 'cache read':None}),
    'a batch, half priced':    ({f'{kin}_batches':.5, kread:.1, 'output_cost_per_reasoning_token':9.}, dict(tier='batch'), {'input':.5, 'output':None, 'reasoning':None, 'cache read':.1}),
    'a batch of modalities':   ({f'{kin}_batches':.5, f'{kout}_batches':.75, 'input_cost_per_audio_token':6., 'output_cost_per_audio_token':10., 'output_cost_per_reasoning_token':9.}, dict(tier='batch'),
                                {'audio input':.5, 'audio output':.75, 'reasoning':.75}),
    'reasoning at a tier':     ({'output_cost_per_reasoning_token':9., f'{kout}_flex':.5}, dict(tier='flex'), {'output':.5, 'reasoning':.5}),
    'with a rate of its own':  ({'output_cost_per_reasoning_token':9., 'output_cost_per_reasoning_token_flex':.7, f'{kout}_flex':.5}, dict(tier='flex'), {'reasoning':.7}),
    'where output has none':   ({'output_cost_per_reasoning_token':9., f'{kin}_flex':.5}, dict(tier='flex'), {'output':2, 'reasoning':9}),
    'flat':                    ({'output_cost_per_reasoning_token':9., 'output_cost_per_audio_token':10., 'input_cost_per_audio_token':6., 'litellm_provider':'xai'}, {}, {'reasoning':2, 'audio output':2, 'audio input':6}),
    'plain':                   ({'output_cost_per_audio_token':10., 'input_cost_per_audio_token':6., 'litellm_provider':'dashscope'}, {}, {'audio output':2, 'audio input':1}),
    'half':                    ({'litellm_provider':'fireworks_ai'}, {}, {'cache read':.5, 'cache write':1}),
    'half unless it says':     ({'litellm_provider':'fireworks_ai', kread:.2}, {}, {'cache read':.2}),
    'free':                    ({kin:0, kout:0, kread:0}, {}, {'input':0, 'output':0, 'cache read':0, 'cache write':0}),
    'as a night begins':       (night, dict(at=at(2026,11,20,16,30)), {'input':.1, 'output':.2, 'reasoning':.3, 'cache read':.1}),
    'before it begins':        (night, dict(at=at(2026,11,20,16,29)), {'input':1, 'output':2, 'reasoning':2}),
    'before it ends':          (night, dict(at=at(2026,11,21,0,29)), {'input':.1}),
    'as it ends':              (night, dict(at=at(2026,11,21,0,30)), {'input':1}),
    'on a Sunday':             (sunday, dict(at=at(2026,11,22,2,30)), {'input':.1}),
    'on a Saturday':           (sunday, dict(at=at(2026,11,21,2,30)), {'input':1}),
    'on a Monday':             (sunday, dict(at=at(2026,11,23,2,30)), {'input':1}),
    'the edge of a table':     (table, dict(prompt=100), {'input':1, 'output':2, 'reasoning':2}),
    'the next of its tiers':   (table, dict(prompt=101), {'input':3, 'output':4, 'reasoning':4, 'cache read':3}),
    'beyond the table':        (table, dict(prompt=999), {'input':3, 'output':4}),
    'a search':                (dict(search_context_cost_per_query=dict(search_context_size_low=1., search_context_size_medium=2., search_context_size_high=3.)), {}, {'web search':2}),
    'a search, Perplexity':    (dict(search_context_cost_per_query=dict(search_context_size_low=1., search_context_size_medium=2.), litellm_provider='perplexity'), {}, {'web search':1}),
    'a search of xAI, of one': (dict(search_context_cost_per_query=dict(search_context_size_high=3.), litellm_provider='xai'), {}, {'web search':3}),
    'a search of xAI':         (dict(litellm_provider='xai'), {}, {'web search':.005}),
    'a search of Google':      (dict(litellm_provider='vertex_ai-language-models'), {}, {'web search':.035, 'maps':.025}),
    'by the query':            (dict(litellm_provider='gemini', web_search_billing_unit='per_query'), {}, {'web search':.035, 'maps':.014}),
    'maps that say':           (dict(litellm_provider='gemini', google_maps_grounding_cost_per_query=.5), {}, {'maps':.5}),
    'nobody\'s search':        (dict(litellm_provider='acme'), {}, {'web search':None, 'maps':None, 'file search':.0025, 'code session':None}),
    'files in Azure':          (dict(litellm_provider='azure'), {}, {'file search':None}),
    'files for nothing':       (dict(file_search_cost_per_1k_calls=0), {}, {'file search':0}),
    'files that say':          (dict(file_search_cost_per_1k_calls=5.), {}, {'file search':.005}),
    'a second':                (dict(input_cost_per_second=.1, output_cost_per_second=.2), {}, {'seconds':.1}),
    'a second of any':         (dict(cost_per_second=.3, input_cost_per_second=.1), {}, {'seconds':.3}),
    'a second of speech':      (dict(mode='audio_transcription', input_cost_per_second=.1, output_cost_per_second=.2), {}, {'seconds':.2}),
    'a second heard':          (dict(mode='audio_transcription', input_cost_per_second=.1, output_cost_per_second=0.), {}, {'seconds':.1}),
    'a second of film':        (dict(output_cost_per_video_per_second=.4, output_cost_per_second=.2), {}, {'seconds':.4}),
    'an image':                (dict(output_cost_per_image=.1, output_cost_per_image_1K=.2, input_cost_per_image=.3), {}, {'images':.1}),
    'an image of a size':      (dict(output_cost_per_image_1K=.2, input_cost_per_image=.3), {}, {'images':.2})}

@pytest.mark.parametrize('name', cases)
def test_rates(name):
    row,how,want = cases[name]
    p = Price(base | row, price_key='x')
    got = p.rates(**how)
    assert {k:got[k] for k in want}==pytest.approx(want, abs=1e-12)

def test_an_image_by_the_pixel():
    assert Price(dict(input_cost_per_pixel=2e-8), price_key='512-x-256/x').rates()['images']==pytest.approx(512*256*2e-8)

def test_claude_is_not_of_google():
    "Vertex AI sells it, and has no price for its searches where the row has none"
    r = Price(dict(base, litellm_provider='vertex_ai-anthropic_models'), price_key='vertex_ai/claude-x').rates()
    assert (r['web search'], r['maps'])==(None, None)

def test_what_is_remembered_is_of_its_kind():
    "One row asked for many prompts, tiers and hours answers each like a row that is asked once"
    row  = base | night | {f'{kin}_above_128k_tokens':3., f'{kout}_above_200k_tokens':5., f'{kread}_above_300k_tokens':.7, f'{kin}_flex':.5}
    asks = [dict(prompt=n, tier=t, at=o) for n in (0, 128_000, 128_001, 200_000, 200_001, 300_000, 300_001) for t in (None,'flex','batch') for o in (at(2026,11,20,12), at(2026,11,20,20))]
    for who in ('acme','xai'):
        p = Price(row, price_key='x', litellm_provider=who)
        assert [p.rates(**o) for o in asks]==[Price(row, price_key='x', litellm_provider=who).rates(**o) for o in asks]

@pytest.mark.parametrize('row,timed', [({}, True), (dict(mode='responses'), True), (dict(mode='completion'), True), (dict(mode='audio_transcription'), False), ({kin:1.}, False), ({kout:1.}, False), (table, False)])
def test_timed(row, timed):
    "A chat without a price for tokens bills its seconds"
    assert Price(dict(mode='chat', input_cost_per_second=.1) | row, price_key='x').timed() is timed

# What multiplies

lifted = dict(provider_specific_entry=dict(us=2., fast=3.), regional_processing_uplift_multiplier_eu=5., regional_endpoint_uplift_multiplier=7.)

@pytest.mark.parametrize('how,want', [({}, 1), (dict(geo='us'), 2), (dict(geo='US'), 2), (dict(geo='eu'), 1), (dict(speed='fast'), 3), (dict(speed='slow'), 1), (dict(geo='us', speed='fast'), 6),
    (dict(residency='eu'), 5), (dict(residency='EU'), 5), (dict(residency='us'), 1), (dict(location='europe-west1'), 7), (dict(location='global'), 1), (dict(location='Global'), 1),
    (dict(geo='us', speed='fast', residency='eu', location='us-east5'), 2*3*5*7)])
def test_factor(how, want): assert Price(lifted, price_key='x').factor(**how)==want

def test_a_factor_is_of_tokens():
    "Those of each kind, and of citations; not of searches, seconds or images"
    u = Usage(model='x', provider='acme', prompt_tokens=1, completion_tokens=1, web_search_requests=1, details='{"geo": "us", "citations": 1, "images": 1, "seconds": 1}')
    p = Price(base | lifted | dict(citation_cost_per_token=3., output_cost_per_image=4., cost_per_second=5., search_cost=6.), price_key='x')
    u.price_row = lambda: p
    assert {k:a for k,*_,a in u.rated()}=={'input':2., 'output':4., 'citations':6., 'images':4., 'seconds':5., 'web search':6.}

# Rows that are found

@pytest.fixture
def sold(monkeypatch):
    "A function that puts a row into the price map"
    def put(key, **kw): monkeypatch.setitem(price_map(), key, base | kw); rates._from_map.cache_clear()
    yield put
    rates._from_map.cache_clear()

@pytest.mark.parametrize('model,provider,key', [
    ('x-1', 'acme', 'acme/x-1'), ('acme/x-1', None, 'acme/x-1'), ('acme/x-1', 'acme', 'acme/x-1'), ('x-1', None, 'x-1'), ('x-1', 'vertex_ai', 'x-1'), ('x-1', 'litellm_proxy', 'x-1'), ('x-1', 'other', None),
    ('other/x-1', None, None), ('x-1@20261001', 'acme', 'acme/x-1'), ('x-1-20261001', 'acme', 'acme/x-1'), ('x-1-2026-10-01', 'acme', 'acme/x-1'), ('x-1-mini', 'acme', None), ('x-2', 'beta', 'x-2')])
def test_a_row_of_the_map(sold, model, provider, key):
    "The own provider's row first; another one's only where LiteLLM's name of one begins or ends with the other's"
    sold('acme/x-1', litellm_provider='acme')
    sold('x-1', litellm_provider='vertex_ai-models')
    sold('x-2', litellm_provider='alpha_beta')
    assert (price(model, provider) or {}).get('price_key')==key

def test_a_row_without_a_price_is_none(sold):
    sold('acme/x-1')
    price_map()['acme/x-1'] = dict(litellm_provider='acme', mode='chat')
    assert price('x-1', 'acme') is None

@pytest.fixture
def yours():
    model_prices['x-1'] = [dict(input=3, search=5, start='2999-01-01'), dict(input=2, start='2026-11-21'), dict(input=1)]
    yield model_prices
    model_prices.clear()

@pytest.mark.parametrize('when,usd', [(0, 1), (at(2026,11,21)-1, 1), (at(2026,11,21), 2), (None, 2), (at(2999,1,1), 3)])
def test_a_price_holds_from_its_midnight_on(yours, when, usd):
    "In whatever order they stand, and now if no time is given"
    assert price('x-1', at=when)[kin]==pytest.approx(usd/1e6) and prices(when)['x-1']['input']==usd

def test_units_of_a_price(yours):
    p = price('x-1', at=at(2999,1,1))
    assert (p[kin], p['search_cost'], p.rates()['web search'])==pytest.approx((3e-6, .005, .005))

def test_a_snapshot_has_no_price_of_yours(yours):
    "A price of yours is for the very name; its snapshots have their row of the map, or none"
    assert price('x-1-2026-10-01', 'acme') is None and price('acme/x-1', 'acme', 0)['price_key']=='x-1'
