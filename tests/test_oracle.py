"""What LiteLLM would have charged: a sample of `tools/oracle.py`, and that it fails when a part of the engine is missing."""
import json, random, re
from types import SimpleNamespace
import pytest
import oracle
from litellm import completion_cost
from litellm.cost_calculator import batch_cost_calculator
from litellm.llms.base_llm.ocr.transformation import OCRResponse, OCRUsageInfo
from litellm.types.utils import ImageObject, ImageResponse, RerankResponse, TranscriptionResponse
from llm_usage import Usage, price, rates
from llm_usage.rates import price_map

@pytest.fixture(scope='module')
def usages(): return list(oracle.sample(200, 3, seed=1))

def test_agrees(usages):
    "LiteLLM charges the same, and where it does not we know why"
    cs = oracle.compare(usages)
    assert len(cs)==600
    assert oracle.agreement(cs) >= .99, oracle.disagreeing(cs) # in all of the map it is `enough`; a sample is few
    assert 'unexplained' not in oracle.disagreeing(cs), oracle.disagreeing(cs)

def test_seeded(usages):
    "The same seed gives the same usages, another one others"
    again,other = (list(oracle.sample(200, 3, seed=o)) for o in (1,2))
    assert [vars(u) for *_,u,_ in again] == [vars(u) for *_,u,_ in usages]
    assert [vars(u) for *_,u,_ in other] != [vars(u) for *_,u,_ in usages]

dimensions = dict(context=r'_above_\d+k_tokens', write_1h='_above_1hr', tier='_(flex|priority)$', read='cache_read', write='cache_creation',
    search='search_context', table='tiered_pricing', reasoning='cost_per_reasoning', hours='off_peak', residency='regional_processing', location='regional_endpoint',
    geo='provider_specific', audio='input_cost_per_audio_token', cached_audio='cache_read_input_audio')

@pytest.fixture
def without(monkeypatch):
    "A function that takes the rates whose names match a pattern out of the rows of this package; LiteLLM keeps its own"
    def cut(pattern):
        for k,r in price_map().items():
            if any(re.search(pattern, o) for o in r): monkeypatch.setitem(price_map(), k, {o:v for o,v in r.items() if not re.search(pattern, o)})
        rates._from_map.cache_clear()
    yield cut
    rates._from_map.cache_clear()

@pytest.mark.parametrize('dimension', dimensions)
def test_would_notice(dimension, without):
    "Agreement falls when one dimension is gone from the prices of models that have it"
    cases  = list(oracle.sample(40, 8, 1, has=dimensions[dimension]))
    before = oracle.agreement(oracle.compare(cases))
    without(dimensions[dimension])
    after = oracle.compare(cases)
    assert oracle.agreement(after) < before - .02
    assert 'unexplained' in oracle.disagreeing(after)

def test_a_cost_that_is_whole_lacks_nothing(usages):
    "What LiteLLM prices as we do leaves nothing out, and its parts are counts times rates: nothing is left for the rest"
    rows = [(u, oracle.captured(u,f)) for *_,u,f in usages if abs((u.cost or 0) - (f() or 0)) <= oracle.tol]
    assert len(rows) > 590
    for u,c in rows:
        assert (c.lacks(), c.problem()) == (None, ''), (c.lacks(), vars(c))
        assert abs(c.other_usd) < oracle.tol and abs(u.other_cost) < oracle.tol
        if u.provider!='perplexity': # LiteLLM puts its searches into the output
            assert all(abs(c.cost_parts()[k]-v) < oracle.tol for k,v in u.cost_parts().items()), (c.cost_parts(), u.cost_parts())

def test_a_search_without_a_price_is_lacking(monkeypatch):
    "Searches of models for which nobody has a price, and input without a price, are named"
    monkeypatch.setattr(oracle, 'sells_search', lambda row: True)
    monkeypatch.setitem(oracle.searches, '', ('block', (None,3)))
    some = [(u, oracle.captured(u,f)) for *_,u,f in oracle.sample(60, 6, 1) if u.web_search_requests and price(u.model, u.provider).search_rate() is None]
    assert len(some) > 30 and {(u.cost, c.lacks()) for u,c in some} == {(None, 'web search')}

# Models that are billed by something else

def heard(n):
    res = TranscriptionResponse(text='hi')
    res._hidden_params = dict(audio_transcription_duration=n)
    return res

pages   = lambda k: OCRResponse(pages=[], model=k, usage_info=OCRUsageInfo(pages_processed=3, pages_processed_annotation=2))
ranked  = RerankResponse(id='r', results=[], meta=dict(billed_units=dict(search_units=3)))
drawn   = ImageResponse(created=1, data=[ImageObject(url='u')]*2)
others = { # mode          details                          what LiteLLM is told
    'audio_transcription': (dict(seconds=90),               dict(call_type='transcription',    completion_response=heard(90))),
    'audio_speech':        (dict(characters=700),           dict(call_type='speech',           prompt='x'*700)),
    'ocr':                 (dict(pages=3, annotated=2),     dict(call_type='ocr',              completion_response=pages)),
    'rerank':              (dict(search_units=3),           dict(call_type='rerank',           completion_response=ranked)),
    'image_generation':    (dict(images=2),                 dict(call_type='image_generation', completion_response=drawn)),
    'image_edit':          (dict(images=2),                 dict(call_type='image_edit',       completion_response=drawn)),
    'video_generation':    (dict(seconds=8),                dict(call_type='create_video',     completion_response=SimpleNamespace(usage=dict(duration_seconds=8.)))),
    'search':              (dict(search_units=3),           dict(call_type='search',           optional_params=dict(query=['a','b','c'])))}

apart = dict(parallel_ai='LiteLLM reads the price from what was asked', exa_ai='by the number of results', firecrawl='by the number of results')

@pytest.mark.parametrize('mode', others)
def test_other_modes(mode):
    "What is billed by the second, page, image, character or query costs what LiteLLM says; where it says nothing, a row may have no price, but never $0"
    details,told = others[mode]
    said,n = told.get('completion_response'),0
    for k,r in price_map().items():
        p = oracle.provider_of(r)
        if r.get('mode')!=mode or p in apart: continue
        size = re.search(r'(\d+)-x-(\d+)', k)
        try: theirs = completion_cost(model=k, custom_llm_provider=p, **dict(size=size and size[0]) | told | dict(completion_response=said(k) if callable(said) else said))
        except Exception: theirs = None
        ours = Usage(model=k.removeprefix(f'{p}/'), provider=p, details=json.dumps(details)).cost
        if ours is not None and theirs: n += 1; assert abs(ours-theirs) < oracle.tol, k
        elif ours==0: assert 0 in r.values(), k
    assert n > 10

def test_batches():
    "Where both rates of a batch are known, LiteLLM's calculator of batches agrees, and so it does about cached tokens; where one is not, a row has no price"
    rng,n = random.Random(1),0
    for (m,p),k in oracle.models(has='_batches').items():
        size,out   = rng.randint(1000, 400_000), rng.randint(1,5000)
        read,write = (rng.randint(0,300) if f'cache_{o}_batches' in price(m,p) else 0 for o in ('read_input_token_cost','creation_input_token_cost'))
        ours = Usage(model=m, provider=p, prompt_tokens=size, cache_read_tokens=read, cache_creation_tokens=write, completion_tokens=out, service_tier='batch').cost
        said = oracle.Reported(prompt_tokens=size, completion_tokens=out, total_tokens=size+out,
            prompt_tokens_details=oracle.PromptTokensDetailsWrapper(cached_tokens=read, cache_creation_tokens=write))
        if all(f'{o}put_cost_per_token_batches' in price(m,p) for o in ('in','out')):
            n += 1
            assert abs(ours - sum(batch_cost_calculator(said, k, p))) < oracle.tol, (m,p)
        else: assert ours is None, (m,p)
    assert n > 300
