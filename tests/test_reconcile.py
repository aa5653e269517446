"A ledger beside a provider's reports: odd reports, which are errors that say where, and months with faults, whose reasons add up"
import copy, json, random
from datetime import date, timedelta
from decimal import Decimal
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from llm_usage import Ledger, Usage
from llm_usage.bills import report_lines
from llm_usage.dates import epoch

first = date(2026, 11, 1)
def bucket(kind, i, results):
    day = first+timedelta(i)
    if kind=='openai': return dict(object='bucket', start_time=int(epoch(day)), end_time=int(epoch(day))+86400, results=results)
    return dict(starting_at=f'{day}T00:00:00Z', ending_at=f'{day+timedelta(1)}T00:00:00Z', results=results)
def page(*buckets): return dict(data=[*buckets], has_more=False, next_page=None)

def claude_usage(n, model='claude-sonnet-5-5'): return dict(model=model, uncached_input_tokens=60*n, cache_read_input_tokens=30*n, cache_creation=dict(ephemeral_5m_input_tokens=4*n, ephemeral_1h_input_tokens=6*n), output_tokens=10*n)
def claude_cost(usd, model='claude-sonnet-5-5', kind='tokens'): return dict(amount=str(usd*100), currency='USD', cost_type=kind, model=model if kind=='tokens' else None)
def openai_usage(n, model='gpt-5.6-luna'): return dict(object='organization.usage.completions.result', model=model, input_tokens=100*n, input_cached_tokens=30*n, output_tokens=10*n, num_model_requests=n)
def openai_cost(usd, model='gpt-5.6-luna'): return dict(object='organization.costs.result', amount=dict(value=str(usd), currency='usd'), line_item=f'{model}, output')

whole = [page(bucket('claude', 0, [claude_usage(2)])), page(bucket('claude', 0, [claude_cost(Decimal('.02')), claude_cost(Decimal('.3'), kind='session_usage')])),
         page(bucket('openai', 0, [openai_usage(2)])), page(bucket('openai', 0, [openai_cost(Decimal('.02'))]))]

def places(o, path=()):
    "The paths to all that is in the JSON value"
    yield path
    for k,v in o.items() if isinstance(o, dict) else enumerate(o) if isinstance(o, list) else ():
        yield from places(v, (*path,k))

def with_(o, path, v):
    if not path: return v
    o = copy.deepcopy(o)
    at = o
    for k in path[:-1]: at = at[k]
    at[path[-1]] = v
    return o

odd = st.one_of(st.none(), st.booleans(), st.integers(), st.integers(-10**30, 10**30), st.floats(), st.text(max_size=9), st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=5), st.none(), max_size=2))

@settings(max_examples=600, deadline=None, suppress_health_check=[*HealthCheck])
@given(st.integers(0,3), st.data())
def test_odd_reports(i, data):
    "A report with anything in any place is read, or is a ValueError; nothing else"
    o = with_(whole[i], data.draw(st.sampled_from([*places(whole[i])])), data.draw(odd))
    try: report_lines(o if isinstance(o, dict) else [o])
    except (ValueError,TypeError,FileNotFoundError) as e: assert isinstance(e, ValueError) or not isinstance(o, dict), repr(e)

@settings(max_examples=200, deadline=None, suppress_health_check=[*HealthCheck])
@given(data=st.data())
def test_cut(data, tmp_path_factory):
    "A report that is cut anywhere is an error that names the file"
    s = json.dumps(whole[data.draw(st.integers(0,3))])
    p = tmp_path_factory.getbasetemp()/'cut.json'
    p.write_text(s[:data.draw(st.integers(1, len(s)-1))])
    with pytest.raises(ValueError, match='cut.json'): report_lines(p)

def month(seed):
    "(rows, reports) of a month in which both sides miss calls, and calls move across midnight"
    r = random.Random(seed)
    calls = [(i, p, n) for i in range(30) for p in ('anthropic','openai') for n in range(r.randrange(9))]
    seen  = [o for o in calls if r.random() > .02]
    theirs = [o for o in calls if r.random() > .01]
    late  = {o for o in theirs if r.random() < .02 and o[0] < 29}
    usd   = dict(anthropic=Decimal('.01'), openai=Decimal('.001'))
    model = dict(anthropic='claude-sonnet-5-5', openai='gpt-5.6-luna')
    rows  = [Usage(call_id=f'{o}', timestamp=epoch(first+timedelta(o[0]))+o[2]*3600, provider=o[1], model=model[o[1]], usage_source='reported', prompt_tokens=100, cache_read_tokens=30,
        cache_creation_tokens=10 if o[1]=='anthropic' else 0, completion_tokens=10, total_tokens=110, response_cost=float(usd[o[1]])) for o in seen]
    n = lambda p, i: sum(o[1]==p and o[0]+(o in late)==i for o in theirs)
    use,cost = dict(anthropic=claude_usage, openai=openai_usage),dict(anthropic=claude_cost, openai=openai_cost)
    kind = dict(anthropic='claude', openai='openai')
    reports = [page(*(bucket(kind[p], i, [f(n(p,i))] if n(p,i) else []) for i in range(30))) for p in use for f in (use[p], lambda k, p=p: cost[p](usd[p]*k))]
    billed = sum((usd[o[1]] for o in theirs), Decimal())
    return rows,reports,billed,len(seen),n

@pytest.mark.parametrize('seed', range(10))
def test_month(seed):
    "Theirs is what they billed, ours is the ledger's total, each line that differs has a reason, and the reasons add up to the difference"
    rows,reports,billed,_,n = month(seed)
    l = Ledger(':memory:')
    l.insert_all(rows)
    r = l.reconcile(reports)
    assert r.theirs==billed and abs(float(r.ours)-l.total().amount) < 1e-9
    assert sum(r.explained.values(), Decimal())==r.difference
    ours = lambda o: sum(u.provider==o.provider and epoch(o.day) <= u.timestamp < epoch(o.day)+86400 for u in rows)
    assert {(o.day,o.provider) for o in r.differing}=={(o.day,o.provider) for o in r.lines if ours(o)!=n(o.provider, (o.day-first).days)}
    assert {o.kind for o in r.differing} <= {'not captured','only in the ledger','edge of a day'}
    assert all(sum(x.more for x in r.lines if x.provider==o.provider and x.model==o.model and x.day in o.edge)==0 for o in r.differing if o.edge)
    l.close()

def test_purged_rows_count(tmp_path):
    "Rows that were purged are still on our side, as reports keep their sums"
    rows,reports,billed,*_ = month(3)
    l = Ledger(tmp_path/'usage.db')
    l.insert_all(rows)
    before = l.reconcile(reports)
    l.purge('2026-11-16', keep=True)
    assert len(l.rows()) < len(rows)
    assert [vars(o) for o in l.reconcile(reports).lines]==[vars(o) for o in before.lines]
    l.close()

def test_reports_that_overlap(tmp_path):
    "The same days in two groupings would count twice, and that is said; pages of one report are one"
    a = page(*(bucket('anthropic', i, [claude_cost(Decimal(1)) | dict(workspace_id=None)]) for i in range(2)))
    b = page(*(bucket('anthropic', i, [claude_cost(Decimal(1)) | dict(workspace_id='w1')]) for i in range(2)))
    assert any('count twice' in o for o in report_lines([a,b])[2])
    more = page(*(bucket('anthropic', i, [claude_cost(Decimal(1)) | dict(workspace_id='w1')]) for i in range(2,4)))
    assert not any('count twice' in o for o in report_lines([a,more])[2])
