"""OpenMeter, played by a stand-in: whatever befalls requests and senders, each call is metered once, or the outbox says that nobody knows."""
import os, random, signal
from contextlib import closing
from decimal import Decimal
import pytest
from helpers import python
from openmeter import served
from llm_usage import Ledger, Usage
from llm_usage.cloudevents import OpenMeterSink
from llm_usage.outbox import Outbox

def calls(n, seed=0):
    r = random.Random(seed)
    return [Usage(call_id=f'c{i}', timestamp=1793491200.+i, model='gpt-4o-mini', provider='openai', team_id=r.choice(['red','blue']), prompt_tokens=r.randrange(9999),
        completion_tokens=r.randrange(999), usage_source='reported', response_cost=r.random()/100) for i in range(n)]

def cost(us): return sum((Decimal(repr(u.response_cost)) for u in us), Decimal(0))

class small(OpenMeterSink): max_batch = 7

def box(l, url): return Outbox(l, small(url, subject='team_id'), sleep=lambda s: None)

def metered(om, us):
    "Does the server have what the rows cost and count, for each team?"
    of = lambda t: [u for u in us if u.team_id==t]
    return all(om.metered('cost', t)==cost(of(t)) and om.metered('input_tokens', t)==sum(u.prompt_tokens for u in of(t)) for t in ('red','blue'))

@pytest.mark.parametrize('seed', range(20))
def test_faults(seed):
    "Answers of 429 and 500, half a batch, and no answer at all: each call is metered once, and shown as delivered"
    r = random.Random(seed)
    fault = lambda n: r.choice(['busy','error','half','silent',None,None]) if n < 40 else None
    us = calls(60, seed)
    with served(fault) as (url,om), closing(Ledger(':memory:')) as l:
        for i in range(0, 60, 20): # rows come while the server fails
            l.insert_all(us[i:i+20])
            box(l, url).run()
        done = box(l, url).run()
        while done.states.get('waiting') and om.posts < 60: done = box(l, url).run()
        assert metered(om, us) and done.states=={'delivered':60}

_send = '''
import sys
from llm_usage import Ledger
from llm_usage.cloudevents import OpenMeterSink
from llm_usage.outbox import Outbox
class small(OpenMeterSink): max_batch = 7
print(Outbox(Ledger(sys.argv[1]), small(sys.argv[2], subject='team_id')).run())'''

@pytest.mark.parametrize('when,what', [(1,'error'), (2,'silent'), (3,'half'), (4,None)])
def test_kill(tmp_path, when, what):
    "kill -9 while a request is under way, before or after OpenMeter has written it: the next run goes on, and each call is metered once"
    us,ps = calls(30),[]
    def fault(n):
        if n!=when: return
        os.kill(ps[0].pid, signal.SIGKILL); ps[0].wait()
        return what
    with closing(Ledger(tmp_path/'u.db')) as l: l.insert_all(us)
    with served(fault) as (url,om):
        for code in (-signal.SIGKILL, 0):
            with python(_send, tmp_path/'u.db', url) as p:
                ps[:] = [p]
                out,err = p.communicate(timeout=60)
                assert p.returncode==code, err
        assert metered(om, us) and '30 delivered' in out

@pytest.mark.parametrize('fault', ['lost','claim'])
def test_claimed_and_never_written(fault):
    "OpenMeter claims the ids of a batch and writes nothing: it answers 204 to the first try or to the second, and those calls are uncertain, not delivered"
    us = calls(20)
    with served(lambda n: fault if n==2 else None) as (url,om), closing(Ledger(':memory:')) as l:
        l.insert_all(us)
        done = box(l, url).run()
        lost = {o['id'] for o in box(l, url).listed('uncertain')}
        assert done.states=={'delivered':13, 'uncertain':7} and '7 uncertain' in str(done)
        assert om.metered('cost')==cost(u for u in us if u.uid not in lost)

def test_key():
    "A server that wants another key: the run stops and says so, nothing is lost, and the next run sends it"
    import openmeter
    class locked(openmeter._Handler):
        def do_GET(self): super().do_GET() if self.headers['authorization']=='Bearer right' else self.problem(401, 'unauthorized')
    us = calls(5)
    with served(handler=locked) as (url,om), closing(Ledger(':memory:')) as l:
        l.insert_all(us)
        with pytest.raises(PermissionError, match='answered 401: unauthorized. The key is in OPENMETER_API_KEY'): Outbox(l, OpenMeterSink(url, 'wrong', subject='team_id')).run()
        assert om.posts==0 and Outbox(l, OpenMeterSink(url, 'wrong', subject='team_id')).counts()=={'waiting':5}
        assert Outbox(l, OpenMeterSink(url, 'right', subject='team_id')).run().states=={'delivered':5} and metered(om, us)

def test_no_meter_for_some():
    "Events that OpenMeter keeps and no meter takes are not delivered"
    with served(types=('llm_usage',)) as (url,om), closing(Ledger(':memory:')) as l:
        l.insert_all(calls(3))
        b = Outbox(l, OpenMeterSink(url, subject='team_id', type='chat'))
        with pytest.raises(ValueError, match="has no meter for events of type 'chat': it has \\['llm_usage'\\]"): b.run()
        om.types = 'llm_usage','chat'
        b.sink.send([e for u in l.rows() for e in b.sink.events(u)])
        om.types = 'llm_usage', # somebody deletes the meter
        assert len(om.stored)==3 and b.sink.read_back([e for u in l.rows() for e in b.sink.events(u)])==set()

def test_corrections():
    "An adjustment is an event of its own, so that the meter of the cost agrees with the ledger"
    us = calls(4)
    with served() as (url,om), closing(Ledger(':memory:')) as l:
        l.insert_all(us)
        box(l, url).run()
        l.add(Usage(uid='fix', adjusts=us[0].uid, origin='adjustment', timestamp=us[0].timestamp, team_id=us[0].team_id, response_cost=-.00125))
        box(l, url).run()
        assert om.metered('cost')==cost(us)-Decimal('0.00125') and om.metered('input_tokens')==sum(u.prompt_tokens for u in us)
