"""What cells cost, in a real Jupyter kernel: each call counts for the cell that made it, whoever runs it and whenever it ends."""
import json, os
import pytest
from jupyter_client.manager import KernelManager
from llm_usage import Ledger
from llm_usage.core import usd

_begin = '''
import asyncio, threading, litellm, llm_usage
from concurrent.futures import ThreadPoolExecutor
litellm.suppress_debug_info = True
cassette = llm_usage.replaying(live=True)
cassette.__enter__()
claude = dict(model='claude-sonnet-5-5', max_tokens=400, temperature=1)
two    = lambda: litellm.completion(messages=[dict(role='user', content='What is 2+2?')], **claude)
three  = lambda: litellm.acompletion(messages=[dict(role='user', content='What is 3+3?')], **claude)
None'''

class Kernel:
    "A kernel in a folder; what a cell shows, and the errors that it has"
    def __init__(self, folder):
        self.km = KernelManager()
        self.km.start_kernel(cwd=str(folder), env=dict(os.environ, JPY_SESSION_NAME=str(folder/'report.ipynb')))
        self.kc = self.km.client()
        self.kc.start_channels()
        self.kc.wait_for_ready(timeout=60)

    def __call__(self, code, cell=None):
        m = self.kc.session.msg('execute_request', dict(code=code, silent=False, store_history=True, user_expressions={}, allow_stdin=False, stop_on_error=False), metadata=dict(cellId=cell))
        self.kc.shell_channel.send(m)
        shown,errors = [],[]
        while True:
            o = self.kc.get_iopub_msg(timeout=60)
            if o['parent_header'].get('msg_id')!=m['header']['msg_id']: continue
            c = o['content']
            if o['msg_type']=='error': errors.append(c['ename'])
            if o['msg_type'] in ('display_data','execute_result'): shown.append(c['data']['text/plain'])
            if o['msg_type']=='stream' and 'pydantic' not in c['text'].lower(): shown.append(c['text'])
            if o['msg_type']=='status' and c['execution_state']=='idle': return (shown, errors) if errors else shown

    def end(self): self.kc.stop_channels(); self.km.shutdown_kernel(now=True)

@pytest.fixture
def kernel(tmp_path):
    k = Kernel(tmp_path)
    assert k(_begin)==[]
    yield k
    k.end()

def cells(path, kernel):
    "How many rows each cell has in the ledger, once the kernel has stored them"
    assert kernel('for o in llm_usage.callback.installed(): o.flush()')==[]
    return {(o['meta'].get('cell'), o['n']) for o in ({**r, 'meta': json.loads(r['meta'])} for r in Ledger(path).q('SELECT meta, count(*) n FROM usage GROUP BY 1'))}

def test_cells(kernel, tmp_path):
    "Calls in a cell, in its tasks, in its threads, and in a pool; a cell that fails; all lines add up to the session, and the session to the ledger"
    assert kernel('''
from queue import SimpleQueue
jobs,done = SimpleQueue(),SimpleQueue()
threading.Thread(target=lambda: [done.put(f()) for f in iter(jobs.get, None)], daemon=True).start()''')==[]
    assert kernel('%load_ext llm_usage', 'load')==[]
    assert kernel('1+1', 'none')==['2']
    one, = kernel('r = two()', 'sync')
    assert one.startswith('∑ 1 call · 25 tok · $0.000138 · session $0.000138')
    assert kernel('''
gate = asyncio.Event()
async def later(): await gate.wait(); return await three()
task = asyncio.create_task(later())''', 'begins')==[]
    two, = kernel('r = two(); gate.set(); r = await task', 'ends')
    assert '∑ 1 call' in two and '1 of In [6]: $0.000158' in two
    three, = kernel('ts = [threading.Thread(target=two) for _ in range(3)]; [o.start() for o in ts]; [o.join() for o in ts]; None', 'threads')
    assert three.startswith('∑ 3 calls')
    four, = kernel('with ThreadPoolExecutor(4) as ex: _ = [*ex.map(lambda _: two(), range(8))]', 'pool')
    assert four.startswith('∑ 8 calls')
    early, = kernel('jobs.put(two); r = done.get()', 'early') # in a thread that was there before
    assert early.startswith('∑ 1 call')
    (five,),errors = kernel('r = two(); 1/0', 'fails')
    assert errors==['ZeroDivisionError'] and five.startswith('∑ 1 call')
    six, = kernel('r = await asyncio.gather(*[three() for _ in range(20)])', 'gathered')
    assert six.startswith('∑ 20 calls')
    assert cells(tmp_path/'.llm_usage/usage.db', kernel)=={('sync',1),('begins',1),('ends',1),('threads',3),('pool',8),('early',1),('fails',1),('gathered',20)}
    l = Ledger(tmp_path/'.llm_usage/usage.db')
    assert six.endswith(f'session {usd(l.total().amount)}') and l.spend('notebook').notebook.tolist()==['report'] and l.check()==[]
    table, = kernel('%llm_usage')
    assert '20' in table and kernel('%llm_usage off')==[] and kernel('r = two()')==[]

def test_a_thread_that_was_there(kernel, tmp_path):
    "What a thread calls that began before the extension was loaded is of the cell that runs then"
    assert kernel('''
import queue
jobs = queue.Queue()
threading.Thread(target=lambda: [job() for job in iter(jobs.get, None)], daemon=True).start()
over = threading.Event()
def there(): over.clear(); jobs.put(two); jobs.put(over.set); over.wait(30)''')==[]
    assert kernel('%load_ext llm_usage', 'load')==[]
    for cell in ('first','second'): assert kernel('there()', cell)[0].startswith('∑ 1 call')
    assert cells(tmp_path/'.llm_usage/usage.db', kernel)=={('first',1),('second',1)}

def test_own_logger(kernel, tmp_path):
    "A logger that the notebook installs later takes the place of the extension's, and knows the cells too"
    kernel("__session__,__vsc_ipynb_file__ = None,'/elsewhere/mine.ipynb'") # VS Code's word comes before that of the environment
    kernel('%load_ext llm_usage')
    assert kernel("logger = llm_usage.UsageLogger('mine.db', user_id='ada').install()", 'mine')==[]
    assert kernel('r = two()', 'a')[0].startswith('∑ 1 call')
    assert cells(tmp_path/'mine.db', kernel)=={('a',1)} and Ledger(tmp_path/'.llm_usage/usage.db').rows()==[]
    assert json.loads(Ledger(tmp_path/'mine.db').rows()[0].meta)['notebook']=='mine'
    assert kernel('with logger.replaying(): r = two()', 'b')[0].startswith('∑ 1 call · 25 tok · $0 · $0.000138 not billed')
    table = kernel("print(get_ipython().run_line_magic('llm_usage', '')[['calls','tokens','cost','saved']].round(9).values.tolist())")
    assert json.loads(table[0])==[[1, 25, .000138, 0], [1, 25, 0, .000138]]
    house = "litellm.completion('openai/gpt-house-mini', [dict(role='user', content='What does nobody charge for?')], max_tokens=1000, temperature=1)"
    assert kernel(f'r = {house}', 'house')[0].endswith('≥ $0 · 1 unpriced · session ≥ $0.000138')
    table = kernel("print(get_ipython().run_line_magic('llm_usage', '')[['cost','unpriced']].iloc[-1].isna().tolist())")
    assert table==['[True, False]\n'] # and not $0
    assert kernel('%unload_ext llm_usage')==[] and kernel('r = two(); logger.flush(); logger.counts', 'c')==['()'] # and nothing counts them any more
    rows = Ledger(tmp_path/'mine.db').rows()
    assert [json.loads(o.meta).get('cell') if o.meta else None for o in rows]==['a','b','house',None] and (rows[3].user_id, rows[3].meta)==('ada', None)
