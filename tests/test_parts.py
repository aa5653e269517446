"""Over random usages, parts sum to the whole, counts to the prompt, and totals add up: properties, which no single lesson shows."""
import json
from math import isclose
import pytest
from hypothesis import assume, given, settings, strategies as st
from llm_usage import Ledger, Usage, price_map, total

models = [(k.removeprefix(f"{r['litellm_provider']}/"), r['litellm_provider']) for k,r in price_map().items()
          if r.get('mode')=='chat' and r.get('litellm_provider') and r.get('input_cost_per_token')]
n = st.integers(0, 600_000)

@st.composite
def usages(draw):
    "A row whose counts make sense, of any chat model that has a price"
    model,provider = draw(st.sampled_from(models))
    text,read,w5,w1,out,reason = (draw(n) for _ in range(6))
    more = dict(audio_in=draw(st.integers(0,text)), audio_out=draw(st.integers(0,out)), geo=draw(st.sampled_from(['us','global'])))
    return Usage(model=model, provider=provider, timestamp=draw(st.floats(1.7e9,1.8e9)), usage_source='reported',
        prompt_tokens=text+read+w5+w1, cache_read_tokens=read, cache_creation_tokens=w5+w1, cache_creation_1h_tokens=w1,
        completion_tokens=out+reason, reasoning_tokens=reason, web_search_requests=draw(st.integers(0,3)),
        service_tier=draw(st.sampled_from([None,'flex','priority','batch','odd'])), details=json.dumps({k:v for k,v in more.items() if v}))

def close(a, b): return isclose(a, b, rel_tol=1e-12, abs_tol=1e-12)

@given(usages())
@settings(max_examples=400, deadline=None)
def test_parts_sum_to_the_whole(u):
    assume(u.cost is not None) # Hypothesis says so if that is too often
    s = u.split()
    assert close(sum(s.values()), u.cost) and close(sum(a for *_,a in u.receipt()), u.cost)
    assert all(v >= 0 for k,v in s.items() if k!='other')
    assert close(u.cost, sum((u.inp_cost, u.cache_read_cost, u.cache_write_cost, u.out_cost, u.web_cost, u.other_cost)))

@given(usages())
@settings(max_examples=300, deadline=None)
def test_counts_are_disjoint_and_complete(u):
    c = u.counts()
    kinds = lambda *ks: sum(v for k,v in c.items() if any(o in k for o in ks))
    assert kinds('input', 'cache', 'cached') == u.prompt_tokens
    assert kinds('output', 'reasoning') == u.completion_tokens

@given(st.lists(usages(), max_size=6), st.integers(0,6))
@settings(max_examples=100, deadline=None)
def test_totals_add_up(us, i):
    a,b,whole = total(us[:i]), total(us[i:]), total(us)
    assert ((a+b).calls, (a+b).priced) == (whole.calls, whole.priced) and close((a+b).amount, whole.amount)

@given(st.lists(usages(), min_size=1, max_size=5), st.floats(0,10))
@settings(max_examples=40, deadline=None)
def test_repricing_twice_is_once(us, stated):
    "What had no cost comes to what the tables say, what was stated stays, and a second time changes nothing"
    l = Ledger(':memory:')
    for i,u in enumerate(us): l.add(Usage(**vars(u) | dict(uid=f'u{i}', response_cost=stated if i%2 else None)))
    before = l.rows()
    l.reprice(apply=True)
    n = len(l.rows())
    assert abs(l.reprice(apply=True).difference.sum()) < 1e-9 and len(l.rows())==n
    assert l.rows("origin='live'")==before
    want = sum(stated if i%2 else u.cost or 0 for i,u in enumerate(us))
    assert isclose(l.total().amount, want, rel_tol=1e-9, abs_tol=1e-9)

@pytest.mark.parametrize('bad,why', [
    (dict(prompt_tokens=-5),                       'have a count below zero'),
    (dict(web_search_requests=-1),                 'have a count below zero'),
    (dict(prompt_tokens=5, cache_read_tokens=9),   'have more cached tokens than prompt tokens'),
    (dict(completion_tokens=1, reasoning_tokens=2),'have more reasoning than completion tokens')])
def test_contradicting_counts_have_no_price(bad, why):
    u = Usage(model='claude-sonnet-5-5', provider='anthropic', timestamp=1795285174., usage_source='reported', **dict(prompt_tokens=1, completion_tokens=1) | bad)
    l = Ledger(':memory:')
    l.add(u)
    assert u.odd() and u.cost is None and l.total().unpriced==1
    assert l.check()==[f'rows that {why}: id 1']
