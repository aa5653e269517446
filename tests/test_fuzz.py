"""Events of LiteLLM that are wrong in every way that comes to mind: each is one row, with no number and no text that it has not said."""
import json, random
from pathlib import Path
import fuzz, pytest
from hypothesis import Phase, given, settings, strategies as st
from llm_usage import Ledger, Usage, UsageLogger

seeds = st.integers(0, 2**32-1)
def some(n):
    "Settings for `n` seeds; a lesser seed is no lesser event"
    return settings(max_examples=n, deadline=None, derandomize=True, database=None, phases=[Phase.generate])

def expect(wrong, smallest=lambda w: w.events):
    "Nothing is wrong, or else the least event for which it is"
    if wrong: pytest.fail(fuzz.told(wrong[0], smallest(wrong[0])), pytrace=False)

def sound(ss, sick=False): expect(fuzz.run(ss, sick).wrong, lambda w: fuzz.smallest(w, sick, secs=3))

@pytest.fixture(scope='module', autouse=True)
def events(): return fuzz.events()

def test_real_events_are_what_they_are(events):
    "Unchanged events break no rule, in any form, or the rules would be wrong"
    sound([fuzz.Sent(e, [], i, e.hook, form, True, e.hook) for i,(e,form) in enumerate((e,f) for e in events for f in ('as it is','dict'))])
    assert {e.name for e in events} >= {'proxy','cache hit','estimated','partial','failure'} and all(fuzz.secret in repr(e.kw) for e in events)

@given(seeds)
@some(12)
def test_each_event_is_a_row(seed): sound([*fuzz.sends(random.Random(seed), 80)])

@pytest.mark.parametrize('kind', fuzz.odd)
def test_each_kind_of_value(kind):
    "Each kind of value at each place that a column is read from, one at a time"
    r,es = random.Random(kind),fuzz.events()
    e = {o.name:o for o in es}
    bases = e['proxy'],e['responses search'],e['estimated'],e['usage in the reply']
    ps = [p for p in fuzz._aims if p[0]=='kw' or len(p)==1]
    changed = lambda p: [fuzz.Change(p, kind, fuzz.odd[kind](r))]
    sound([fuzz.Sent(r.choice(bases), changed(p), i, 'log_success_event', announce=i%2==0) for i,p in enumerate(ps)])

@given(seeds)
@some(6)
def test_a_ledger_that_refuses_rows_has_them_later(seed): sound([*fuzz.sends(random.Random(seed), 40)], sick=True)

@given(seeds)
@some(4)
def test_a_killed_process_leaves_its_rows(seed):
    r = random.Random(seed)
    expect(fuzz.killed([*fuzz.sends(r, 40)]).wrong, lambda w: fuzz.smallest(w, kill=True, secs=3))

@given(seeds)
@some(8)
def test_replies_before_their_events(seed):
    "A reply that is read before its caller has it is one row, whatever it is, and whether LiteLLM reports it or not"
    expect(fuzz.replied(random.Random(seed), 8)[0])

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
    "A logger keeps nothing of a call that nobody knows of any more, and it is given up"
    l = UsageLogger(p)
    for i in range(1000): l.log_pre_api_call('m', [], dict(litellm_call_id=f'c{i}', model='m'))
    assert l.flush(0)==[] and {u.status for u in l.ledger.rows()}=={'partial'} and len(l.ledger.rows())==1000
    assert not any(vars(l)[k] for k in ('_open','_later')) and not l.ledger.journal.begun

def test_an_odd_line_in_the_spool_locks_nobody_out(p):
    "A ledger opens, whatever an older version left in its spool; what is a row is in it, and what is none stays beside it"
    good = [dict(uid='d', model='\ud800'), dict(uid='e', tags=['x']), dict(uid='f', meta=dict(a=1))]
    odd  = [dict(uid='a', out_usd=10**19), dict(uid='b', response_cost=10**400), dict(uid='c', prompt_tokens=-2**80)]
    bad  = [[], 7, None]
    (spool := p.with_name(f'{p.name}.spool.jsonl')).write_text('\n'.join(map(json.dumps, odd+good+bad)) + '\n{"uid": \n\0\n' + '['*100_000)
    l = Ledger(p)
    assert {u.uid for u in l.rows()}=={*'abcdef'} and l.total().calls==6
    left = spool.with_name(f'{spool.name}.left')
    said, = l.check()
    assert said.startswith(f'{left} stays beside the ledger') and '['*100_000 in left.read_text()
