"""Over random usages, parts sum to the whole, counts to the prompt, and totals add up: properties, which no single lesson shows."""
import json
from dataclasses import replace
from math import isclose
import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st
from llm_usage import Ledger, Usage, price, Total
from llm_usage.rates import price_map
from llm_usage.cost import kinds

models = [(k.removeprefix(f"{r['litellm_provider']}/"), r['litellm_provider']) for k,r in price_map().items()
          if r.get('mode')=='chat' and r.get('litellm_provider') and r.get('input_cost_per_token')]
n = st.integers(0, 600_000)

patient = dict(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]) # a busy machine is no fault

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
@settings(max_examples=400, **patient)
def test_parts_sum_to_the_whole(u):
    assume(u.cost is not None) # Hypothesis says so if that is too often
    s = u.cost_parts()
    assert close(sum(s.values()), u.cost) and close(sum(a for *_,a in u.receipt()), u.cost) and u.receipt().least is False
    assert all(v >= 0 for v in s.values()) and s['other']==0
    assert [u.inp_cost, u.cache_read_cost, u.cache_write_cost, u.out_cost, u.web_cost, u.other_cost]==[*s.values()]

@given(usages())
@settings(max_examples=200, **patient)
def test_a_part_is_counts_times_rates(u):
    "Every part, from what is billed and the rates alone; a kind without a rate leaves no cost"
    p = price(u.model, u.provider)
    r,c,d = p.rates(u.prompt_tokens, u.service_tier, u.timestamp),u.billable(),json.loads(u.details)
    f = p.factor(geo=d.get('geo'))
    if p.per_prompt(): c['web search'] = min(1, c['web search'])
    amount = lambda k: 0 if not c[k] else c[k]*r[k]*(f if 'search' not in k else 1)
    if any(n and r[k] is None for k,n in c.items()): assert u.cost is None
    elif not p.timed(): assert all(close(u.cost_parts()[part], sum(map(amount, ks))) for part,ks in kinds.items())

@given(usages(), st.sampled_from([0., .25, -.1]))
@settings(max_examples=100, **patient)
def test_a_captured_row_has_its_own_parts(u, off):
    "A row with the parts that LiteLLM came to keeps them, lacks nothing, and what was taken off is the rest and nothing more"
    assume(u.cost)
    v = replace(u, cost_source='litellm', response_cost=u.cost+off, **{f'{k}_usd':v for k,v in u.cost_parts().items()} | dict(other_usd=off))
    assert (v.lacks(), v.cost_parts()['other']) == (None, off) and all(v.cost_parts()[k]==w for k,w in u.cost_parts().items() if k!='other')
    assert v.receipt()[:-1 if off else None]==[*u.receipt()] and ([k for k,*_ in v.receipt()][-1]=='other')==bool(off)

cut = dict(web='web search', out='output', inp='input')

@given(usages(), st.sampled_from([*cut]))
@settings(max_examples=100, **patient)
def test_a_part_that_was_paid_with_nothing_is_lacking(u, part):
    "Where LiteLLM's figure leaves a part out, its kinds are named, and the total is at least what is left"
    sides = dict(inp=('inp','cache_read','cache_write')).get(part, (part,))
    gone  = sum((u.cost_parts() or dict.fromkeys(sides, 0))[k] for k in sides)
    assume(u.cost and gone > 1e-9 and u.cost-gone > 1e-9 and not price(u.model, u.provider).timed())
    left = {f'{k}_usd':0. if k in sides else v for k,v in u.cost_parts().items()}
    v = replace(u, cost_source='litellm', response_cost=sum(left.values()), **left)
    v.cost_lacks = v.lacks()
    want = {k for k in kinds[part] for c,r in [(u.billable().get(k), price(u.model, u.provider).rates(u.prompt_tokens, u.service_tier, u.timestamp)[k])] if c and r}
    assert want <= {*v.cost_lacks.split(', ')}
    assert Total.of([v]).priced==0 and repr(Total.of([v])).startswith('≥ ') and '≥ ' in repr(v) and v.receipt().cells()[-1][-1].startswith('≥ ')
    assert {k for k,*_,a in v.receipt() if a is None} >= want

@given(usages())
@settings(max_examples=300, **patient)
def test_counts_are_disjoint_and_complete(u):
    c = u.billable()
    kinds = lambda *ks: sum(v for k,v in c.items() if any(o in k for o in ks))
    assert kinds('input', 'cache', 'cached') == u.prompt_tokens
    assert kinds('output', 'reasoning') == u.completion_tokens

@given(st.lists(usages(), max_size=6), st.integers(0,6))
@settings(max_examples=100, **patient)
def test_totals_add_up(us, i):
    a,b,whole = Total.of(us[:i]), Total.of(us[i:]), Total.of(us)
    assert ((a+b).calls, (a+b).priced) == (whole.calls, whole.priced) and close((a+b).amount, whole.amount)

@given(st.lists(usages(), min_size=1, max_size=5), st.floats(0,10))
@settings(max_examples=40, **patient)
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
    (dict(prompt_tokens=-5),                       'have a count that cannot be'),
    (dict(web_search_requests=-1),                 'have a count that cannot be'),
    (dict(prompt_tokens=5, cache_read_tokens=9),   'have more cached tokens than prompt tokens'),
    (dict(completion_tokens=1, reasoning_tokens=2),'have more reasoning than completion tokens')])
def test_contradicting_counts_have_no_price(bad, why):
    u = Usage(model='claude-sonnet-5-5', provider='anthropic', timestamp=1795285174., usage_source='reported', **dict(prompt_tokens=1, completion_tokens=1) | bad)
    l = Ledger(':memory:')
    l.add(Usage(uid='a', timestamp=u.timestamp, usage_source='reported'))
    l.con.execute('UPDATE usage SET model=?, provider=?, ' + ', '.join(f'{k}={v}' for k,v in vars(u).items() if k.endswith(('_tokens','_requests')) and v is not None), (u.model, u.provider)) # as another program may
    assert u.problem() and u.cost is None and l.total().unpriced==1
    assert l.check()==[f'rows that {why}: id 1']
