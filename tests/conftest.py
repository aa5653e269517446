import asyncio, os
import pytest

os.environ.setdefault('LITELLM_LOCAL_MODEL_COST_MAP', 'True') # read when litellm is imported, which would else fetch its price map
pytest.register_assert_rewrite('helpers')

def pytest_collection_modifyitems(items):
    "What LiteLLM charges is asked first, as lisette replaces how it prices models of Fireworks; spans come last, as OpenLLMetry does not take all of its wrappers off"
    items.sort(key=lambda o: (o.path.name!='test_oracle.py', o.path.name=='test_spans.py'))

@pytest.fixture
def p(tmp_path):
    "Where a ledger can be made"
    return tmp_path/'usage.db'

@pytest.fixture(scope='module')
def loop():
    "One event loop for all tests of a file"
    with asyncio.Runner() as r: yield r

@pytest.fixture
def logger(p):
    "A logger of Ada's, whose ledger is sound when all is done"
    from llm_usage import UsageLogger
    with UsageLogger(p, user_id='ada') as l: yield l
    assert l.ledger.check()==[] and l.dropped==0
