"""FOCUS: sums that are exact whatever the rows, files that are whole or not there, and memory that does not grow."""
import csv, json, os, random, resource
from collections import defaultdict
from contextlib import closing
from decimal import Context, Decimal, localcontext
import pytest
from helpers import ran
from hypothesis import HealthCheck, given, settings, strategies as st
from llm_usage import Ledger, Usage
from llm_usage.focus import EACH_PERIOD

start = 1793491200. # the first of November 2026 in UTC

def charges(path):
    with open(path, newline='') as f: return [*csv.DictReader(f)]

def billed(us):
    "What the rows `us` cost, as decimals: adjustments too, and not what a cache answered"
    by = {u.adjusts for u in us}
    paid = lambda u: u.origin=='adjustment' or u.origin=='live' and u.cost is not None and not (u.response_cost is None and u.uid in by)
    return sum((Decimal(repr(u.response_cost if u.origin=='adjustment' else u.cost)) for u in us if paid(u)), Decimal(0))

usd = st.one_of(st.none(), st.just(0.), st.floats(0, 50, allow_subnormal=False), st.floats(0, 1e-6))
texts = st.one_of(st.none(), st.text(max_size=8), st.sampled_from(['=HYPERLINK("x")', '-1', 'a,b', '"', 'a\r\nb', '\0', '\ud83d']))

@st.composite
def rows(draw):
    i,p,o = (draw(st.integers(0, n)) for n in (10**9, 50_000, 5000))
    read,more = draw(st.integers(0, p)),draw(st.integers(0, o))
    model = draw(st.sampled_from(['gpt-4o-mini', 'claude-sonnet-4-5', 'gemini-2.5-pro', 'nobody-knows', None]))
    return Usage(call_id=f'c{i}', timestamp=start + draw(st.floats(0, 40*86400)), latency=draw(st.one_of(st.none(), st.floats(0, 900))), model=model,
        provider=draw(st.sampled_from([None, 'openai', 'attic'])), prompt_tokens=p, completion_tokens=o, cache_read_tokens=read, reasoning_tokens=more,
        web_search_requests=draw(st.integers(0, 3)), usage_source='reported', response_cost=draw(usd), cost_source=draw(st.sampled_from([None,'provider'])),
        origin=draw(st.sampled_from(['live','live','cache','replay'])), user_id=draw(texts), team_id=draw(texts), tags=draw(st.sampled_from([None, '["a"]', '["=1"]', '[3, "a"]'])),
        service_tier=draw(st.sampled_from([None, 'flex'])))

@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(us=st.lists(rows(), max_size=12), each=st.sampled_from(EACH_PERIOD), by=st.sampled_from([None,'month']), seed=st.integers(0, 99))
def test_sums_are_exact(tmp_path, us, each, by, seed):
    "BilledCost sums to what the rows cost, digit by digit, whatever the rows and however they are summed up; each list cost is price times quantity"
    with closing(Ledger(':memory:')) as l, localcontext(Context(prec=400)): # in which sums of floats are exact
        l.insert_all(us)
        of = random.Random(seed).sample(l.rows(), min(2, len(l.rows())))
        l.insert_all(Usage(uid=f'{u.uid}-1', adjusts=u.uid, origin='adjustment', timestamp=u.timestamp, model=u.model, response_cost=-.001*seed) for u in of)
        done = l.focus(tmp_path/('m' if by else 'f.csv'), each=each, by=by, account='a')
        rows,total = [o for f in done for o in charges(f)],l.total()
        assert sum((Decimal(o['BilledCost']) for o in rows), Decimal(0))==done.cost==billed(l.rows())
        assert abs(float(done.cost)-total.amount) < 1e-9 and (done.calls,done.unpriced)==(total.calls,total.unpriced)
        assert all(Decimal(o['ListUnitPrice'])*Decimal(o['ConsumedQuantity'])==Decimal(o['ListCost']) for o in rows if o['ChargeCategory']=='Usage')
    for o in rows:
        assert all('e' not in v.lower() and '.' in v for k,v in o.items() if v and k.endswith(('Cost','Price','Quantity')))
        assert o['BillingPeriodStart'] <= o['ChargePeriodStart'] < o['ChargePeriodEnd'] <= o['BillingPeriodEnd']
        assert not any(v[:1] in [*'=+-@'] for k,v in o.items() if not k.endswith(('Cost','Price','Quantity')))
        if o['Tags']: assert all(v is True for v in json.loads(o['Tags']).values())

def test_each_call_once(tmp_path):
    "A row a call, an hour or a day: the same quantities by model and meter, and those of the calls"
    us = [Usage(call_id=f'c{i}', timestamp=start+i*700, model='gpt-4o-mini', provider='openai', prompt_tokens=i, completion_tokens=2, usage_source='reported').capture_cost() for i in range(300)]
    def sums(each):
        res = defaultdict(Decimal)
        l.focus(tmp_path/'f.csv', each=each)
        for o in charges(tmp_path/'f.csv'): res[o['SkuMeter']] += Decimal(o['ConsumedQuantity'])
        return res
    with closing(Ledger(':memory:')) as l:
        l.insert_all(us)
        assert sums('call')==sums('hour')==sums('day')=={'Input Tokens':sum(range(300)), 'Output Tokens':600}

_full = '''
import sys, resource
from llm_usage import Ledger; import llm_usage.focus
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try: Ledger(sys.argv[1], asking=True).focus(sys.argv[2], each='call')
except OSError as e: print(e)'''

def test_disk_full(tmp_path):
    "A disk that fills leaves the file of last month as it was, nothing beside it, and an error that names the file"
    with closing(Ledger(tmp_path/'u.db')) as l:
        l.insert_all(Usage(call_id=f'c{i}', timestamp=start+i, model='gpt-4o-mini', prompt_tokens=9, completion_tokens=2, usage_source='reported').capture_cost() for i in range(500))
    out = tmp_path/'out'/'f.csv'
    out.parent.mkdir()
    out.write_text('as it was')
    assert ran(_full, tmp_path/'u.db', out)==f"[Errno 27] File too large: '{out}'\n"
    assert os.listdir(out.parent)==['f.csv'] and out.read_text()=='as it was'

_memory = '''
import sys, resource
from llm_usage import Ledger; import llm_usage.focus
from llm_usage.focus import Focus
l = Ledger(sys.argv[1], asking=True)
l.focus(sys.argv[2], until=1793491200+3600)
a = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
n = l.focus(sys.argv[2])
print(n.calls, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - a)'''

def test_memory(tmp_path):
    "30,000 calls take less than 30 MB more memory than those of an hour"
    with closing(Ledger(tmp_path/'u.db')) as l:
        l.insert_all(Usage(call_id=f'c{i}', timestamp=start+i*60, model='gpt-4o-mini', user_id=f'u{i%50}', prompt_tokens=9, completion_tokens=2, usage_source='reported', response_cost=i/1e9) for i in range(30_000))
    n,kb = map(int, ran(_memory, tmp_path/'u.db', tmp_path/'f.csv').split())
    assert n==30_000 and kb < 30_000
