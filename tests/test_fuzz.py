"""Events of LiteLLM that are wrong in every way that comes to mind: each is one row, with no number and no text that it has not said."""
import json, random
from pathlib import Path
import fuzz, pytest
from hypothesis import Phase, given, settings, strategies as st
from llm_usage import Ledger, Usage, UsageLogger
from llm_usage.event import _Event, _facts, recall
from llm_usage.inflight import _packed, _size, _slot, _unpack

seeds = st.integers(0, 2**32-1)
def some(n):
    "Settings for `n` seeds; a lesser seed is no lesser event"
    return settings(max_examples=n, deadline=None, derandomize=True, database=None, phases=[Phase.generate])

def expect(wrong, smallest=lambda w: w.events):
    "Nothing is wrong, or else the least event for which it is"
    if wrong: pytest.fail(fuzz.told(wrong[0], smallest(wrong[0])), pytrace=False)

def sound(ss, buffered=False, sick=False): expect(fuzz.run(ss, buffered, sick).wrong, lambda w: fuzz.smallest(w, buffered, sick, secs=3))

@pytest.fixture(scope='module', autouse=True)
def events(): return fuzz.events()

def test_real_events_are_what_they_are(events):
    "Unchanged events break no rule, in any form, or the rules would be wrong"
    sound([fuzz.Sent(e, [], i, e.hook, form, True, e.hook) for i,(e,form) in enumerate((e,f) for e in events for f in ('as it is','dict'))])
    assert {e.name for e in events} >= {'proxy','cache hit','estimated','partial','failure'} and all(fuzz.secret in repr(e.kw) for e in events)

def test_facts_are_all_that_a_row_is_read_from(events):
    "A row that is read later, from what is noted of its event, is the one that is read at once"
    who = dict(user_id='ada', tags=['t'])
    rows = {e.name:(Usage.from_event(e.kw, e.res, **who), _facts(_Event(e.kw, e.res))) for e in events}
    assert {k for k,(_,f) in rows.items() if not f}=={'failure','partial','estimated','responses search','search in the reply','rerank'}
    for u,f in rows.values(): assert not f or vars(recall(_unpack(_packed(('event', 'c', 0., who, {}, 0., *f)))))==vars(u)

@given(seeds)
@some(12)
def test_each_event_is_a_row(seed): sound([*fuzz.sends(random.Random(seed), 80)])

@given(seeds)
@some(10)
def test_each_event_is_a_row_of_a_buffered_ledger(seed): sound([*fuzz.sends(random.Random(seed), 80)], buffered=True)

@pytest.mark.parametrize('kind', fuzz.odd)
def test_each_kind_of_value(kind):
    "Each kind of value at each place that a column is read from, one at a time"
    r,es = random.Random(kind),fuzz.events()
    e = {o.name:o for o in es}
    bases = e['proxy'],e['responses search'],e['estimated'],e['usage in the reply']
    ps = [p for p in fuzz._aims if p[0]=='kw' or len(p)==1]
    changed = lambda p: [fuzz.Change(p, kind, fuzz.odd[kind](r))]
    sound([fuzz.Sent(r.choice(bases), changed(p), i, 'log_success_event', announce=i%2==0) for i,p in enumerate(ps)], buffered=len(kind)%2==0)

@given(seeds, st.booleans())
@some(6)
def test_a_ledger_that_refuses_rows_has_them_later(seed, buffered): sound([*fuzz.sends(random.Random(seed), 40)], buffered, sick=True)

@given(seeds)
@some(4)
def test_a_killed_process_leaves_its_rows(seed):
    r = random.Random(seed)
    expect(fuzz.killed([*fuzz.sends(r, 40)]).wrong, lambda w: fuzz.smallest(w, False, False, kill=True, secs=3))

@given(seeds, st.booleans())
@some(5)
def test_replies_without_an_event(seed, buffered):
    "What only the hook for asynchronous calls is told of is one row when the loop has ended"
    expect(fuzz.unreported(random.Random(seed), 8, buffered=buffered)[0])

bodies = [*fuzz.bodies()]

@given(seeds)
@some(30)
def test_from_response_reads_anything(seed):
    "Whatever the reply, reading it raises nothing, its counts are counts, and a ledger takes the row"
    r = random.Random(seed)
    for _ in range(15):
        what,o = fuzz.a_reply(r, bodies)
        assert not [*fuzz.misread(o)], f'{what}\n{fuzz.brief(o,2000)}'

def test_what_is_never_reported_is_forgotten(p):
    "Of more calls than it can wait for, a logger forgets the oldest"
    l = UsageLogger(p, inflight=False)
    for i in range(10_050): l.log_pre_api_call('m', [], dict(litellm_call_id=f'c{i}'))
    for i in range(10_050): l._told(fuzz.NS(key=f'c{i}', res=dict(id=f'r{i}'), kw={}, more={}, call=fuzz.NS(stream=None)))
    assert all(len(v)<=10_000 for v in vars(l).values() if isinstance(v, (dict,set))) and len(l.flush(0))==10_000

@pytest.mark.parametrize('c', ['x', 'é', '漢', '\U0001f600', '\ud800'])
def test_a_slot_holds_any_row(c):
    "A row whose every text is as long as it may be fits into the slot that keeps it from being lost, leaves the next alone, and can be read"
    s = _slot(u := {k:c*500 if f.type is str else 1.5 for k,f in Usage.__dataclass_fields__.items()})
    _,got = _unpack(s)
    assert len(s) <= _size and {*u}-{'tags','meta','details'} <= {*got}
    assert all(u[k].startswith(v) and len(v) >= 30 if isinstance(v, str) else v==u[k] for k,v in got.items())

def test_an_odd_line_in_the_spool_locks_nobody_out(p):
    "A ledger opens, whatever is in its spool; what is a row is in it, and what is none stays where it is"
    l = Ledger(p)
    good = [dict(uid='d', model='\ud800'), dict(uid='e', tags=['x']), dict(uid='f', meta=dict(a=1))]
    bad  = [dict(uid='a', out_usd=10**19), dict(uid='b', response_cost=10**400), dict(uid='c', prompt_tokens=-2**80), [], 7, None, dict(uid=[1])]
    Path(l._spool).write_text('\n'.join(map(json.dumps, bad[:3]+good+bad[3:])) + '\n{"uid": \n\0\n' + '['*100_000)
    l.close()
    l = Ledger(p)
    assert {u.uid for u in l.rows()}=={'d','e','f','["1"]'} and l.check()==[f'{l._spool} has lines that are no rows']
    left = Path(l._spool).read_text()
    assert all(json.dumps(o) in left for o in bad[:3]) and not any(json.dumps(o) in left for o in good)
