"""A ledger that version 0.1.0 left when it was killed: its rows, its spool, and its slots with calls, events and a row. The files are that version's own."""
import zipfile
from pathlib import Path
import pytest
from llm_usage import Ledger
from llm_usage.replay import case

@pytest.fixture
def left(p):
    "The ledger's path"
    with zipfile.ZipFile(Path(__file__).parent/'ledger_of_0_1_0.zip') as z: z.extractall(p.parent)
    return p

was = ['chat','async chat', 'chat','web search stream', 'chat stream','async responses'] # stored, in the spool, in slots; there is a failure in a slot, too

def test_all_is_taken_over(left):
    "Whoever opens it has every row, with its tokens and its cost, and the call that was under way"
    assert {o.suffix for o in left.parent.iterdir()} >= {'.calls','.jsonl'}
    l = Ledger(left)
    *us,u = sorted(l.rows(), key=lambda u: u.timestamp)
    tokens = lambda get: tuple(map(get, ('prompt_tokens','completion_tokens','web_search_requests')))
    assert sorted(tokens(lambda k: getattr(o, k)) for o in us if o.status=='ok')==sorted(tokens(case(o).want.get) for o in was)
    assert [(o.status, o.response_cost) for o in us if o.status!='ok']==[('failed', 0)]
    assert (u.status, u.call_id, u.model, u.end_user, u.stream, u.usage_source)==('orphaned', 'under way', 'gpt-5.6-luna', 'customer', True, 'missing')
    assert {(o.user_id, o.tags, o.meta) for o in l.rows()}=={('ada', '["x", "y"]', '{"run": [1, {"a": null}]}')}
    assert all(o.cost > 0 for o in us if o.status=='ok') and repr(l.total()).endswith('7 of 8 calls priced') and l.check()==[]
    l.close()
    assert [o.name for o in left.parent.iterdir()]==[left.name]

def test_a_question_changes_nothing(left):
    "Who only asks sees the rows that are stored, and what waits beside them"
    before = {o.name for o in left.parent.iterdir()}
    l = Ledger(left, asking=True)
    assert len(l.rows())==2 and len(l.check())==2
    l.close()
    assert {o.name for o in left.parent.iterdir()}-before <= {f'{left.name}-shm'}

def test_a_slot_that_is_not_understood(left):
    "One slot of the file is garbage: the others are rows, and the file stays under another name"
    calls, = left.parent.glob('*.calls')
    data = bytearray(calls.read_bytes())
    data[20:40] = b'x'*20
    calls.write_bytes(data)
    l = Ledger(left)
    assert len(l.rows())==7 and l.check()[0].startswith(f'{calls}.left stays beside the ledger')
    assert Path(f'{calls}.left').read_bytes()==data
