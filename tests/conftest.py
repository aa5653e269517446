import os

os.environ.setdefault('LITELLM_LOCAL_MODEL_COST_MAP', 'True') # read when litellm is imported, which would else fetch its price map

def pytest_collection_modifyitems(items):
    "What LiteLLM charges is asked first: lisette, which other tests import, replaces how it prices models of Fireworks"
    items.sort(key=lambda o: o.path.name!='test_oracle.py')
