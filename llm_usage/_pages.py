"How nbdev shows and runs the pages (`renderer` and `test_setup` under `[tool.nbdev]`); nothing else imports this"
import multiprocessing,os,re
from functools import partial
from importlib import import_module
from operator import attrgetter
from fastcore.docments import qual_name
import nbdev.test
from nbdev.showdoc import BasicMarkdownRenderer
from llm_usage._modidx import d

def exported(sym):
    "What the package calls by `sym`'s name: a notebook's own copy has lost the comments of its dataclass fields"
    nm = qual_name(sym)
    mod = next((m for m,syms in d['syms'].items() if f'{m}.{nm}' in syms), None)
    return attrgetter(nm)(import_module(mod)) if mod else sym

_noise = re.compile(r'\bllm_usage\.\w+\.|:NoneType(?==None)')

class Renderer(BasicMarkdownRenderer):
    "Signatures no wider than the page, in the words of the source: `Usage`, not `llm_usage.core.Usage`"
    def __init__(self, sym, **kwargs):
        super().__init__(exported(sym), maxline=90, **kwargs)
        self.fn = qual_name(sym)                # the name nbdev knows its line by
        self.nm = self.nm.replace('__', r'\_\_') # a heading in which Markdown would read `__repr__` as a bold "repr"
        self.dm = _noise.sub('', str(self.dm))

def apart(cells):
    "Have `nbdev-test` run each page in a process of its own, since many patch litellm, with litellm's prices off the network"
    os.environ['LITELLM_LOCAL_MODEL_COST_MAP'] = 'True'
    multiprocessing.set_forkserver_preload(['nbdev.test','litellm','pandas']) # which take seconds to import
    nbdev.test.parallel = partial(nbdev.test.parallel, max_tasks_per_child=1)
