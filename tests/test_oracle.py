"""What LiteLLM would have charged: a sample of `tools/oracle.py`, and that it fails when a part of the engine is missing."""
import random, re
import pytest
import oracle
from litellm.cost_calculator import batch_cost_calculator
from llm_usage import Usage, price, price_map, rates

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
    search='search_context', table='tiered_pricing', reasoning='cost_per_reasoning', hours='off_peak', region='uplift|provider_specific')

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
    cases  = list(oracle.sample(40, 5, 1, has=dimensions[dimension]))
    before = oracle.agreement(oracle.compare(cases))
    without(dimensions[dimension])
    after = oracle.compare(cases)
    assert oracle.agreement(after) < before - .02
    assert 'unexplained' in oracle.disagreeing(after)

def test_batches():
    "Where both rates of a batch are known, LiteLLM's calculator of batches agrees; where one is not, it guesses half, and a row has no price"
    rng,n = random.Random(1),0
    for (m,p),k in oracle.models(has='_batches').items():
        size,read,write,out = rng.randint(1000, 400_000), rng.randint(0,300), rng.randint(0,300), rng.randint(1,5000)
        ours = Usage(model=m, provider=p, prompt_tokens=size, cache_read_tokens=read, cache_creation_tokens=write, completion_tokens=out, service_tier='batch').cost
        said = oracle.Reported(prompt_tokens=size, completion_tokens=out, total_tokens=size+out,
            prompt_tokens_details=oracle.PromptTokensDetailsWrapper(cached_tokens=read, cache_creation_tokens=write))
        if all(f'{o}put_cost_per_token_batches' in price(m,p) for o in ('in','out')):
            n += 1
            assert abs(ours - sum(batch_cost_calculator(said, k, p))) < oracle.tol, (m,p)
        else: assert ours is None, (m,p)
    assert n > 300
