import os

os.environ.setdefault('LITELLM_LOCAL_MODEL_COST_MAP', 'True') # read when litellm is imported, which would else fetch its price map
