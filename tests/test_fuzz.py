"""Events of LiteLLM that are wrong in every way that comes to mind: each is one row, with no number and no text that it has not said."""
import json
import fuzz, pytest
from fuzz import Sent, expect
from hypothesis import given, strategies as st
from llm_usage import Ledger, Usage, UsageLogger

def several(values): return st.lists(values, min_size=1, max_size=8)
def some(n, **kw): return fuzz.some(n, derandomize=True, **kw)

@pytest.fixture(scope='module', autouse=True)
def events(): return fuzz.events()

def test_real_events_are_what_they_are(events):
    "Unchanged events break no rule, in any form, or the rules would be wrong; a reply is the same row as a dictionary"
    expect(fuzz.recorded([[Sent(e, form=form, again=e.hook)] for e in events for form in ('as it is','dict','namespace')]))
    assert {e.name for e in events} >= {'proxy','cache hit','estimated','partial','failure'} and all(fuzz.secret in repr(e.kw) for e in events)
    for e in events:
        a,b = fuzz.plain_row(e, 'as it is'),fuzz.plain_row(e, 'dict')
        assert e.name=='search in the reply' or [k for k in fuzz.reads if k not in Sent(e).own and not fuzz.same(a, b, k)]==[], e.name

@some(30)
@given(fuzz.chunks())
def test_each_event_is_a_row(chunks): expect(fuzz.recorded(chunks))

@pytest.mark.parametrize('kind', fuzz.odd)
def test_each_kind_of_value(kind):
    "Each kind of value at each place that a column is read from, one at a time"
    @some(2, shrink=False)
    @given(fuzz.at_each_place(kind))
    def check(chunks): expect(fuzz.recorded(chunks))
    check()

@some(12)
@given(fuzz.chunks())
def test_a_ledger_that_refuses_rows_has_them_later(chunks): expect(fuzz.recorded(chunks, sick=True))

@some(8)
@given(fuzz.chunks())
def test_a_killed_process_leaves_its_rows(chunks): expect(fuzz.killed(chunks))

@some(16)
@given(several(fuzz.early()))
def test_replies_before_their_events(calls):
    "A reply that is read before its caller has it is one row, whatever it is, and whether LiteLLM reports it or not"
    expect(fuzz.replied(calls))

@some(100)
@given(several(fuzz.body()))
def test_from_response_reads_anything(bodies):
    "Whatever the reply, reading it raises nothing, its counts are counts, and a ledger takes the row"
    expect(fuzz.misread(bodies))

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
