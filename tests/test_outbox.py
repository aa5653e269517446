"What is sent to a billing system: after kills and faults of the network, with the client that the vendor gives, and a stand-in for its server."
import threading
from contextlib import closing
from decimal import Decimal
import pytest
from bill import owed, run
from lago import Lago
from llm_usage import Ledger, Usage, UsageLogger
from llm_usage.lago import LagoSink
from llm_usage.meters import exact
from llm_usage.outbox import Outbox, Retry

@pytest.fixture
def lago():
    with Lago('key', ['acme'], {'llm':None}) as o: yield o

@pytest.fixture
def l(p):
    with closing(Ledger(p)) as l: yield l

def call(i, **kw): return Usage(**dict(call_id=f'call-{i}', timestamp=1795678824.25+i, model='gpt-5.6-luna', provider='openai', end_user='acme', prompt_tokens=10, completion_tokens=1,
    usage_source='reported', response_cost=1e-9*(i+1)) | kw)
def box(l, lago, **kw): return Outbox(l, LagoSink('key', lago.url, 'llm', **kw), sleep=lambda s: None)
def cents(l): return sum((exact(u.response_cost) for u in l.rows('response_cost IS NOT NULL')), Decimal())*100

@pytest.mark.parametrize('seed', range(3))
def test_killed_and_cut_off(p, seed):
    "A sender is killed, and its requests fail after and before the server took them: the bill is the ledger's, to the last digit"
    billed,due,kills,posts = run(seed, p)
    assert billed==due and len(due)==3 and posts > 5

@pytest.mark.parametrize('older', [False,True])
@pytest.mark.parametrize('n', [1,99,100,101,250])
def test_batches(l, lago, n, older):
    "Batches of any size go out whole, also if a server stored the rest of one that it refused"
    lago.older = older
    l.insert_all(call(i) for i in range(n))
    lago.take([LagoSink('key', lago.url, 'llm').events(u)[0].payload for u in l.rows('id%3=0')] or [dict(transaction_id='x', code='llm', timestamp='1', external_subscription_id='acme', precise_total_amount_cents='0')])
    assert box(l, lago).run().states==dict(delivered=n)
    assert lago.billed()=={'acme':cents(l)}

def test_accepted_and_never_counted(l, lago):
    "A server that says yes and stores nothing: the events are uncertain, and that is said; another run asks again"
    l.insert_all(call(i) for i in range(3))
    lago.faults = ['lose']
    sent = box(l, lago).run()
    assert sent.states==dict(uncertain=3) and '3 uncertain' in str(sent)
    assert box(l, lago).run().states==dict(uncertain=3) and lago.billed()=={}

def test_the_same_id_with_another_amount(l, lago):
    "An event that is there already with another amount is a conflict: it is not delivered, and not sent twice"
    u = l.add(call(1))
    lago.take([dict(transaction_id=u.uid, external_subscription_id='acme', code='llm', timestamp=repr(u.timestamp), precise_total_amount_cents='99')])
    assert box(l, lago).run().states==dict(uncertain=1) and lago.billed()=={'acme':99}

def test_a_subscription_that_is_not_there(l, lago):
    "Lago would take an event for a subscription that it does not have, and bill nothing; here it is refused, and goes out when the subscription is there"
    l.insert_all([call(1), call(2, end_user='globex'), call(3, end_user=None)])
    b = box(l, lago)
    assert b.run().states==dict(delivered=1, refused=2)
    assert [o['reason'] for o in b.listed('refused')]==["Lago has no subscription 'globex': it would take events for it, and bill nothing", 'row 3 has no end_user, which names the subscription']
    lago.subscriptions.append('globex')
    assert box(l, lago).run(retry=True).states==dict(delivered=2, refused=1)

def test_a_metric_that_is_not_there(l, lago):
    "A wrong code stops before anything is sent, and nothing is lost"
    l.add(call(1))
    lago.metrics.clear()
    with pytest.raises(LookupError, match="no billable metric 'llm'"): box(l, lago).run()
    assert lago.events=={} and box(l, lago).counts()==dict(waiting=1)

def test_a_wrong_key(l, lago):
    l.add(call(1))
    with pytest.raises(PermissionError, match='refuses the key'): Outbox(l, LagoSink('wrong', lago.url, 'llm')).run()

def test_nobody_there(l):
    l.add(call(1))
    with pytest.raises(ConnectionError, match='cannot be reached at http://127.0.0.1:9'): Outbox(l, LagoSink('key', 'http://127.0.0.1:9', 'llm')).run()

def test_a_metric_that_rounds(l, lago, caplog):
    lago.metrics['llm'] = 'ceil'
    l.add(call(1))
    box(l, lago).run()
    assert 'rounds (ceil)' in caplog.text

def test_without_a_price(l, lago):
    "A call without a price is held until an adjustment has its cost; it is never billed at nothing by itself"
    u = l.add(call(1, model='nobody-prices', response_cost=None))
    l.add(call(2, origin='replay', response_cost=.5))
    assert box(l, lago).run().states==dict(held=1, delivered=1) and lago.billed()=={'acme':0}
    l.add(call(3, origin='adjustment', adjusts=u.uid, response_cost=.25))
    assert box(l, lago).run().states==dict(delivered=3) and lago.billed()=={'acme':25}

def test_estimated(l, lago):
    l.insert_all([call(1), call(2, usage_source='estimated')])
    assert box(l, lago, estimated='hold').run().states==dict(delivered=1, held=1)
    assert box(l, lago, estimated='send').run().states==dict(delivered=2)

def test_a_mapping_that_changes(l, lago):
    "Whom an event is for is decided when it is first written down: another mapping later is no second bill"
    lago.subscriptions += ['old','new']
    l.add(call(1))
    lago.faults = ['take and hang up']
    Outbox(l, LagoSink('key', lago.url, 'llm', subscriptions={'acme':'old'}), tries=1).run()
    Outbox(l, LagoSink('key', lago.url, 'llm', subscriptions={'acme':'new'}), sleep=lambda s: None).run()
    assert {s for s,_ in lago.events}=={'old'} and len(lago.events)==1

def test_a_server_that_asks_for_a_day(l, lago):
    "However long a server asks to wait, a run waits a minute at most, and a later one does not hang"
    class Busy(LagoSink):
        calm = False
        def send(self, events):
            if self.calm: return super().send(events)
            self.calm = True
            raise Retry('busy', 10**30)
    pauses = []
    l.add(call(1))
    assert Outbox(l, Busy('key', lago.url, 'llm'), sleep=pauses.append).run().states==dict(delivered=1)
    assert len(pauses)==1 and 0 < pauses[0] <= 60

def test_a_condition_that_ends_too_soon(l, lago):
    l.add(call(1))
    with pytest.raises(Exception, match='syntax error'): box(l, lago).run(since='today', where='1) OR (1')
    assert lago.events=={}

def test_a_row_without_a_time(l, lago):
    "Such a row is refused, and the rest goes on"
    l.insert_all([call(1), call(2)])
    l.write(lambda con: con.execute('UPDATE usage SET timestamp=NULL WHERE id=1'))
    assert box(l, lago).run().states==dict(delivered=1, refused=1)

def test_a_hold_that_becomes_a_skip(l, lago):
    l.insert_all([call(1), call(2, model='nobody-prices', response_cost=None)])
    box(l, lago).run()
    assert box(l, lago, unpriced='skip').run().states==dict(delivered=1)

def test_rows_that_were_deleted(l, lago):
    "After a purge SQLite gives out the same numbers again: new rows go out, and old ones not twice"
    l.insert_all(call(i) for i in range(3))
    box(l, lago).run()
    l.write(lambda con: con.execute('DELETE FROM usage WHERE id>1'))
    l.insert_all(call(i) for i in (7,8))
    assert [u.id for u in l.rows()]==[1,2,3]
    assert box(l, lago).run().states==dict(delivered=5) and len(lago.events)==5

def test_late_rows(l, lago):
    "A row that is stored late, with an early time, goes out with the next run"
    l.add(call(1000))
    box(l, lago).run()
    l.add(call(1))
    assert box(l, lago).run().states==dict(delivered=2)

@pytest.mark.parametrize('usd', [1e-12, 1e-9, 123456789.123456789, 0.1+0.2, 5e-324])
def test_amounts(usd):
    "An amount is decimal text without an exponent, and exactly the number"
    e, = LagoSink('key', 'http://127.0.0.1:9', 'llm').events(call(1, uid='x', response_cost=usd))
    s = e.payload['precise_total_amount_cents']
    assert 'e' not in s.lower() and Decimal(s)==Decimal(repr(usd))*100

def test_one_code_for_each_kind(l, lago):
    "With a code for each kind of token the events of a call sum to its cost; a kind without a code is said"
    lago.metrics |= dict(i=None, o=None)
    u = call(1, prompt_tokens=1000, cache_read_tokens=400, completion_tokens=200, response_cost=None).capture_cost()
    l.add(u)
    assert 'cache read' in Outbox(l, LagoSink('key', lago.url, {'input':'i','output':'o'})).run().why
    Outbox(l, LagoSink('key', lago.url, {'input':'i','cache read':'i','output':'o'})).run(retry=True)
    assert len(lago.events)==3 and lago.billed()=={'acme':exact(u.response_cost)*100}

def test_two_senders(l, lago):
    "While one process sends, another does not; and it says so"
    l.insert_all(call(i) for i in range(3))
    a,b = box(l, lago),box(l, lago)
    send = LagoSink.send
    class Both(LagoSink):
        def send(self, events):
            with pytest.raises(BlockingIOError, match='another process is sending to lago'): b.run()
            return send(self, events)
    assert Outbox(l, Both('key', lago.url, 'llm')).run().states==dict(delivered=3)

def test_a_disk_that_is_full(l, lago):
    "If the outbox cannot be written, nothing is sent"
    l.insert_all(call(i) for i in range(2000))
    l.write(lambda con: con.execute(f"PRAGMA max_page_count={con.execute('PRAGMA page_count').fetchall()[0][0]+2}"))
    with pytest.raises(Exception, match='full'): box(l, lago).run()
    l.write(lambda con: con.execute('PRAGMA max_page_count=1073741823'))
    assert lago.events=={} and box(l, lago).run().states==dict(delivered=2000)

def test_beside_alerts(l, lago):
    "Alerts and sinks look at what is stored, each without the other's leave, and closing sends the last row"
    fired = []
    f = LagoSink('key', lago.url, 'llm').follow(l)
    l.alert('call > $0.05', fired.append)
    l.enqueue(call(1, response_cost=.1))
    l.flush()
    assert f.close(30) and l.wait_for_alerts(30) and len(fired)==1
    assert f.box.counts()==dict(delivered=1)

def test_as_calls_come(p, lago):
    "A logger sends its rows to its sinks in the background; a server that hangs keeps no call waiting"
    import litellm, standins
    slow = threading.Event()
    class Slow(LagoSink):
        def send(self, events): slow.wait(60); return super().send(events)
    with standins.serve() as url:
        with UsageLogger(p, sinks=[Slow('key', lago.url, 'llm')]) as logger:
            for i in range(3): litellm.completion('openai/gpt-5.6-luna', [dict(role='user', content='What is the capital of Peru?')], user='acme', api_base=f'{url}/v1', api_key='k')
            logger.flush()
            assert lago.events=={}
            slow.set()
    with closing(Ledger(p)) as l:
        assert box(l, lago).run().states==dict(delivered=3)
        assert lago.billed()=={'acme':cents(l)}
