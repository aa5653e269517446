"""The logger before real servers on loopback: streams without usage, many threads, exits, and what must not be in the file."""
import asyncio, warnings
from pathlib import Path
import litellm, pytest
from standins import serve
from helpers import ran
from llm_usage import Ledger, Usage, UsageLogger, replaying
from llm_usage.replay import case, play
from llm_usage.replay import says

_secret = 'sk-proj-THISMUSTNOTBEINTHEFILE0123456789'

@pytest.fixture(scope='module')
def base():
    with serve() as url: yield url

once = dict(temperature=1, num_retries=0, max_retries=0)

def ask(base, text, **kw):
    return litellm.completion('openai/gpt-5.6-luna', says(text), api_base=f'{base}/v1', api_key=_secret, max_tokens=100, **once, **kw)

def test_stream_without_usage_is_no_report(logger, base):
    "A server that was not asked for usage sends none: older litellm logs zeros, newer an estimate, and neither is a report"
    [*ask(base, 'Name three primes.', stream=True)]
    logger.flush()
    u, = logger.ledger.rows()
    assert u.usage_source in ('missing', 'estimated')
    assert (u.prompt_tokens is None)==(u.usage_source=='missing') and u.prompt_tokens!=0
    if u.usage_source=='missing': assert u.cost is None and repr(logger.ledger.total()).startswith('≥')
    else: assert logger.ledger.total().estimated==1

def test_no_secret_and_no_prompt_in_the_file(logger, base):
    ask(base, 'A very private question', metadata=dict(user_api_key_hash=_secret, headers=dict(authorization=f'Bearer {_secret}'), tags=['t']), user='customer')
    with pytest.raises(litellm.BadRequestError), replaying():
        litellm.completion('claude-sonnet-5-5', says('Write as much as you can.'), api_key=_secret, max_tokens=9_000_000, **once)
    logger.flush()
    assert len(logger.ledger.rows())==2
    logger.ledger.close()
    data = b''.join(p.read_bytes() for p in Path(logger.ledger.path).parent.iterdir())
    assert b'customer' in data
    for s in (_secret, 'private question', 'as much as you can', 'Bearer'): assert s.encode() not in data, s

def test_tasks_in_a_script(p):
    "`asyncio.run` ends the loop at once; `async with` has every row before"
    out = ran('''
import asyncio, litellm, sys
from llm_usage import *
from llm_usage.replay import case, play
async def main():
    async with UsageLogger(sys.argv[1]) as l:
        with replaying(): await asyncio.gather(*[play(case('async chat')) for _ in range(50)])
    print(len(l.ledger.rows()))
asyncio.run(main())''', p)
    assert out.strip()=='50'
    assert len(Ledger(p).rows())==50

def test_two_loggers(tmp_path):
    "Two ledgers at once both have the call, and one that was uninstalled has no more"
    a,b = (UsageLogger(tmp_path/f'{o}.db') for o in 'ab')
    with replaying(), a:
        with b: asyncio.run(play(case('chat'))); a.flush()
        asyncio.run(play(case('web search'))); a.flush()
    assert (len(a.ledger.rows()), len(b.ledger.rows()))==(2, 1)

def test_hook_never_raises(logger):
    "Whatever litellm hands over, a hook returns, and the call is a row"
    odd = [{}, dict(litellm_call_id=7), dict(standard_logging_object='?'), dict(standard_logging_object=dict(metadata=3, startTime='x', request_tags=9)),
           dict(litellm_params=5, response_cost='free'), dict(litellm_call_id='x', standard_logging_object=dict(cost_breakdown='y', model=['z']), response_cost=float('nan'))]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for o in odd: logger.log_success_event(kwargs=o, response_obj=object(), start_time=None, end_time=None)
    assert len(logger.ledger.rows())==len(odd) and logger.dropped==0
    assert all(u.cost is None for u in logger.ledger.rows())

def event(cost, model, usage, **kw):
    "What LiteLLM hands over for a call to a model of OpenRouter, which states the cost of each"
    slo = dict(litellm_call_id='c', id='r', custom_llm_provider='openrouter', model=model, call_type='completion', status='success',
        startTime=1.8e9, endTime=1.8e9+1, stream=False, metadata=dict(usage_object=usage)) | kw
    return dict(litellm_call_id='c', response_cost=cost, standard_logging_object=slo)

counts = dict(prompt_tokens=5, completion_tokens=5, total_tokens=10)

@pytest.mark.parametrize('cost,model,usage,kw,want', [
    (0.,     'x/y:free',        counts|dict(cost=0.),     {},                (0.,    'provider')),
    (0.,     'x/y:unknown',     counts,                   {},                (None,  None)),
    (0.,     'x/y:unknown',     counts|dict(cost=0.),     dict(stream=True), (None,  None)),      # LiteLLM's own 0
    (.00125, 'x/y:paid',        counts|dict(cost=.00125), {},                (.00125,'provider')),
    (.00125, 'x/y:paid',        counts,                   {},                (.00125,'litellm')),
    (float('inf'), 'x/y:odd',   counts,                   {},                (None,  None))])
def test_free_or_unknown(cost, model, usage, kw, want):
    "A cost of 0 is one that somebody stated; else it means that nobody knows"
    u = Usage.from_event(event(cost, model, usage, **kw))
    assert (u.response_cost, u.cost_source)==want and u.total_tokens==10

def test_warnings_as_errors(p):
    "Where warnings are errors, a row that the ledger refuses waits in the journal all the same, and no hook raises"
    l = UsageLogger(p)
    l.ledger.con.execute('PRAGMA query_only=1')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        l.log_success_event(kwargs=event(.5, 'x/y', counts), response_obj=None, start_time=None, end_time=None)
        l.ledger.flush()
    l.ledger.con.execute('PRAGMA query_only=0')
    assert l.ledger.check()==[] and l.ledger.total().amount==.5 and l.dropped==0

def test_flush_gives_up(logger):
    "`flush` names the calls that are under way after its time; it does not wait for them again"
    import time
    kept = litellm.completion('openai/gpt-5.6-luna', says('Are you there?'), mock_response='Certainly.', stream=True, litellm_call_id='late')
    assert logger.flush(timeout=.01)==['late']
    begin = time.monotonic()
    assert logger.flush(timeout=60)==[] and time.monotonic()-begin < 30
    assert ''.join(o.choices[0].delta.content or '' for o in kept)=='Certainly.'
    logger.wait(1)
    assert [u.call_id for u in logger.ledger.rows()]==['late']

@pytest.mark.parametrize('name', ['chat', 'async chat', 'chat stream', 'async stream'])
def test_who_says_it_is_live(logger, name):
    "What its caller says of a call is believed before a cassette is: it may stand for a live one"
    async def go():
        with replaying():
            with logger.who(origin='live'): await play(case(name))
            await logger.aflush()
            await play(case(name))
        await logger.aflush()
    asyncio.run(go())
    assert sorted(u.origin for u in logger.ledger.rows())==['live', 'replay']

def test_a_replay_within_one_that_poses_as_live(logger):
    "Where a replay ends within another, the other goes on as what it was"
    async def go():
        with replaying(live=True):
            with replaying(): await play(case('chat'))
            await play(case('web search'))
    asyncio.run(go())
    assert logger.flush()==[]
    assert sorted((bool(u.web_search_requests), u.origin) for u in logger.ledger.rows())==[(False, 'replay'), (True, 'live')]

def test_late_events_of_another_logger(tmp_path):
    "LiteLLM carries the events of a loop that has ended over to the next one; the logger that is there by then has no row of them"
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
    async def ask(wait=False):
        await litellm.acompletion('gpt-4o-mini', says('How much is it?'), mock_response='Nothing.')
        if wait: await GLOBAL_LOGGING_WORKER.flush()
    ledgers = []
    for i in range(5):
        with UsageLogger(tmp_path/f'{i}.db') as l: asyncio.run(ask(wait=i==4))
        ledgers.append(l.ledger)
    assert [len(l.rows()) for l in ledgers]==[1]*5
