"""Calls by hand: hostile replies, kills, forks, threads, and what users of other trackers suffered."""
import asyncio, gc, json, os, random, threading
from dataclasses import dataclass
from types import SimpleNamespace
import httpx2, litellm, openai, pytest
from helpers import python
from llm_usage import AlertRaised, Ledger, UsageLogger, trace, wrap
from llm_usage.replay import says

many = int(os.environ.get('LLM_USAGE_FUZZ', 1500)) # hostile replies through each door

@pytest.fixture
def l():
    "A ledger whose rows are sound when all is done"
    l = Ledger(':memory:')
    yield l
    l.flush()
    assert l.check()==[]

# Hostile replies

class Bomb:
    "An object whose attributes raise"
    def __getattr__(self, k): raise RuntimeError(k)
    def __iter__(self): raise RuntimeError('iter')
    def __str__(self): raise RuntimeError('str')

names = '''usage usage_metadata usageMetadata prompt_tokens input_tokens completion_tokens output_tokens total_tokens prompt_tokens_details cached_tokens cache_creation
    input_tokens_details output_tokens_details reasoning_tokens server_tool_use web_search_requests iterations id model choices delta content text type message response candidates
    parts output data error status service_tier cost is_byok cost_details created_at custom_id content_block'''.split()
odd = [None, True, -1, 0, 3, 7.5, 10**13, 10**1000, float('nan'), float('inf'), '', '4', 'x'*5000, '\ud800', 'message_start', 'response.completed', b'\xff', [], {}]

def hostile(r, deep=4, json_only=False):
    "Something of any shape, whose names are those of replies"
    k = r.random()
    if deep==0 or k < .3:
        v = r.choice(odd)
        return v if not json_only or v==v and v not in (float('inf'), b'\xff', '\ud800', 10**1000) else 1
    if k < .75: return {r.choice(names):hostile(r, deep-1, json_only) for _ in range(r.randint(0,6))}
    if k < .9: return [hostile(r, deep-1, json_only) for _ in range(r.randint(0,4))]
    return hostile(r, deep-1, True) if json_only else r.choice([Bomb(), SimpleNamespace(**hostile_names(r, deep-1))])

def hostile_names(r, deep): return {r.choice(names):hostile(r, deep) for _ in range(4)}

def unsound(l):
    "What is wrong with the ledger, but for counts that contradict each other since a provider said so; such rows have no price"
    l.flush()
    return [o for o in l.check() if not o.startswith('rows that have more ')]

@pytest.mark.filterwarnings('ignore:llm_usage')
def test_hostile_replies():
    "Whatever a reply is, `trace` raises nothing, and each block has a row that is sound"
    l,r = Ledger(':memory:'),random.Random(1)
    for i in range(many):
        with trace('m', ledger=l, preview=20 if i%3 else None) as t:
            o = hostile(r)
            if i%2: t.response = o
            else: [*t.stream([o, hostile(r), hostile(r)])]
    assert unsound(l)==[] and len(l.rows()) >= many

class _Answers:
    "A transport that gives each request the next hostile body, whole or as a stream"
    def __init__(self, seed): self.r = random.Random(seed)
    def __call__(self, req):
        kind = self.r.choice(['application/json','text/event-stream','text/plain'])
        body = [json.dumps(hostile(self.r, 4, True)) for _ in range(3)]
        data = ''.join(f'data: {o}\n\n' for o in body) if 'stream' in kind else body[0]
        return httpx2.Response(self.r.choice([200,200,200,400]), headers={'content-type':kind}, content=data.encode()[:self.r.choice([None,None,9])])

def outcome(c, i):
    "What the caller of a client gets: a value's type, or an exception's"
    try:
        o = c.chat.completions.create(model='m', messages=says('x'), stream=i%2==0)
        return [type(x) for x in o] if i%2==0 else type(o)
    except Exception as e: return type(e)

@pytest.mark.filterwarnings('ignore:llm_usage')
def test_hostile_bodies():
    "Whatever a server sends, a wrapped client does what a bare one does, and each call has a row"
    bare,ours = (openai.OpenAI(base_url='http://x', api_key='k', max_retries=0, http_client=httpx2.Client(transport=httpx2.MockTransport(_Answers(7)))) for _ in range(2))
    wrap(ours, l := Ledger(':memory:'))
    for i in range(many): assert outcome(bare, i)==outcome(ours, i)
    assert unsound(l)==[] and len(l.rows())==many

# What users of other trackers suffered

def read(l, *chunks, **kw):
    "The row of a stream of these chunks"
    with trace(ledger=l, **kw) as t: [*t.stream(chunks)]
    return t.usage

def test_a_snapshot_is_not_added(l):
    "Claude's `message_start` has 1 and the delta 15: 15, not 16; of Gemini's snapshots the last one, with its thoughts beside"
    claude = read(l, dict(type='message_start', message=dict(id='m1', model='claude-sonnet-5-5', usage=dict(input_tokens=9, output_tokens=1))),
        dict(type='message_delta', delta={}, usage=dict(output_tokens=15)), dict(type='message_stop'))
    gemini = read(l, *[dict(responseId='g1', modelVersion='gemini-3.5-flash-lite', candidates=[dict(content=dict(parts=[dict(text='a')]), **(dict(finishReason='STOP') if n==30 else {}))],
        usageMetadata=dict(promptTokenCount=5, candidatesTokenCount=n, thoughtsTokenCount=322, totalTokenCount=5+n+322)) for n in (10,20,30)], provider='gemini')
    assert (claude.prompt_tokens, claude.completion_tokens, claude.status)==(9, 15, 'ok')
    assert (gemini.completion_tokens, gemini.reasoning_tokens, gemini.status)==(30+322, 322, 'ok')

def test_null_keeps_and_zero_counts(l):
    "A later null keeps what was said, and Azure's empty model of the first chunk says nothing"
    u = read(l, dict(id='c1', model='', choices=[], prompt_filter_results=[]), dict(id='c1', model='gpt-5.4-mini', choices=[dict(delta=dict(content='hi'), finish_reason='stop')], usage=None),
        dict(id='c1', model='gpt-5.4-mini', choices=[], usage=dict(prompt_tokens=7, completion_tokens=2, total_tokens=9)), provider='azure')
    assert (u.model, u.prompt_tokens, u.completion_tokens, u.status)==('gpt-5.4-mini', 7, 2, 'ok')

def test_usage_that_is_not_last(l):
    "Some servers send words after their usage, or the usage with the last words"
    with_words = read(l, dict(id='c2', model='gpt-5.4-mini', choices=[dict(delta=dict(content='hi'), finish_reason='stop')], usage=dict(prompt_tokens=7, completion_tokens=2)))
    assert (with_words.completion_tokens, with_words.usage_source)==(2, 'reported')

def test_a_failed_response_has_its_usage(l):
    "Responses that are incomplete or failed are billed for what they had"
    for how in ('incomplete','failed'):
        u = read(l, dict(type='response.created', response=dict(id=f'r-{how}', model='gpt-5.4-mini')), dict(type=f'response.{how}', response=dict(id=f'r-{how}', model='gpt-5.4-mini', status=how,
            error=dict(code='server_error', message='no') if how=='failed' else None, usage=dict(input_tokens=20, output_tokens=6, total_tokens=26))))
        assert (u.prompt_tokens, u.completion_tokens, u.status)==(20, 6, dict(incomplete='ok', failed='failed')[how])

def test_an_unknown_deployment_is_unpriced(l):
    "A name that no table has is unpriced, and never takes another model's price"
    with trace('our-deployment', 'azure', ledger=l) as t: t.response = dict(id='d', model='our-deployment', usage=dict(prompt_tokens=10, completion_tokens=5))
    assert t.usage.cost is None and l.total().unpriced==1

def test_images_by_their_rate(l):
    "Output of an image model without details is at the rate of images, $30 a million, and not of text"
    with trace(ledger=l, provider='openai') as t: t.response = dict(model='gpt-image-2', data=[dict(b64_json='x')], usage=dict(input_tokens=0, output_tokens=1000, total_tokens=1000))
    assert t.usage.cost==pytest.approx(.03)

def test_requests_are_unchanged(l):
    "A wrapped client sends what the bare one sends: no options of a stream are added"
    sent = []
    def answer(req):
        sent.append((req.method, str(req.url), req.content))
        return httpx2.Response(200, headers={'content-type':'text/event-stream'}, content=b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
    for w in (lambda c: c, lambda c: wrap(c, l)):
        c = w(openai.OpenAI(base_url='http://x', api_key='k', http_client=httpx2.Client(transport=httpx2.MockTransport(answer))))
        assert [o.choices[0].delta.content for o in c.chat.completions.create(model='m', messages=says('x'), stream=True)]==['hi']
    assert sent[0]==sent[1]

def test_a_batch_is_billed_once(l):
    "The results of a batch are rows at the batch's rates, however often somebody reads them"
    line = lambda i: json.dumps(dict(custom_id=f'c{i}', result=dict(type='succeeded', message=dict(id=f'msg_{i}', type='message', role='assistant', content=[], model='claude-sonnet-5-5',
        stop_reason='end_turn', stop_sequence=None, usage=dict(input_tokens=1000, output_tokens=100, cache_read_input_tokens=500, cache_creation_input_tokens=0, service_tier='batch')))))
    info = dict(id='b1', type='message_batch', processing_status='ended', request_counts=dict(processing=0, succeeded=2, errored=0, canceled=0, expired=0), results_url='http://x/v1/messages/batches/b1/results',
        created_at='2026-11-01T00:00:00Z', expires_at='2026-11-02T00:00:00Z', ended_at='2026-11-01T01:00:00Z', archived_at=None, cancel_initiated_at=None)
    def answer(req):
        if 'results' in str(req.url): return httpx2.Response(200, headers={'content-type':'application/x-jsonl'}, content='\n'.join(map(line, (1,2))).encode())
        return httpx2.Response(200, json=info)
    import anthropic
    c = wrap(anthropic.Anthropic(base_url='http://x', api_key='k', http_client=httpx2.Client(transport=httpx2.MockTransport(answer))), l)
    for _ in range(2): assert [o.custom_id for o in c.messages.batches.results('b1')]==['c1','c2']
    l.flush()
    us = l.rows()
    assert [(o.service_tier, o.prompt_tokens, o.completion_tokens) for o in us]==[('batch', 1500, 100)]*2
    assert us[0].cost==pytest.approx((1000*2+500*.1+100*10)/1e6/2) # half of $2, $0.10 and $10 a million

def test_a_background_response_is_billed_once(l):
    "A response in the background is a row when it is read, once"
    state = [dict(status='queued')]*2 + [dict(status='completed', usage=dict(input_tokens=20, output_tokens=6, total_tokens=26, input_tokens_details=dict(cached_tokens=0), output_tokens_details=dict(reasoning_tokens=0)))]*2
    def answer(req): return httpx2.Response(200, json=dict(id='resp_1', object='response', created_at=1767225600, model='gpt-5.4-mini', output=[], background=True, parallel_tool_calls=True, tool_choice='auto', tools=[]) | state.pop(0))
    c = wrap(openai.OpenAI(base_url='http://x', api_key='k', http_client=httpx2.Client(transport=httpx2.MockTransport(answer))), l)
    c.responses.create(model='gpt-5.4-mini', input='x', background=True)
    for _ in range(3): c.responses.retrieve('resp_1')
    l.flush()
    assert [(o.prompt_tokens, o.completion_tokens) for o in l.rows()]==[(20,6)]

# Where a block ends

def test_left_from_without(l):
    "A generator with a trace around its stream, which its reader leaves, or which nobody begins"
    chunks = [dict(id='c', model='gpt-5.4-mini', choices=[dict(delta=dict(content=w))]) for w in ('a ','b ','c ')]
    def talk():
        with trace(ledger=l, agent='talk') as t: yield from t.stream(iter(chunks))
    for o in talk(): break
    gc.collect()
    with trace(ledger=l, agent='never') as t: t.stream(iter(chunks))
    gc.collect()
    l.flush()
    assert [(o.agent, o.status) for o in l.rows()]==[('talk','partial'), ('never','partial')]

def test_read_after_the_block(l):
    "A stream may outlive its block: its row is made when it ends"
    with trace(ledger=l) as t: s = t.stream(iter([dict(id='c', model='gpt-5.4-mini', choices=[dict(delta=dict(content='a'), finish_reason='stop')], usage=dict(prompt_tokens=7, completion_tokens=2))]))
    assert t.usage is None
    [*s]
    assert (t.usage.status, t.usage.prompt_tokens)==('ok', 7)

def test_threads(l):
    "A thread that starts in a block belongs to it"
    def ask():
        with trace(agent='inner') as t: t.response = dict(id='r', model='m', usage=dict(prompt_tokens=1, completion_tokens=1))
    with trace(ledger=l, agent='outer', session_id='s'):
        t = threading.Thread(target=ask)
        t.start(), t.join()
    l.flush()
    u, = l.rows()
    assert (u.session_id, [o.partition('#')[0] for o in u.step.split('/')])==('s', ['outer','inner'])

def test_cancelled(l, loop):
    "A task that is cancelled in a block leaves a row that says so"
    async def go():
        async with trace('m', ledger=l): await asyncio.Event().wait()
    async def main():
        t = asyncio.create_task(go())
        await asyncio.sleep(0)
        t.cancel()
        await asyncio.gather(t, return_exceptions=True)
    loop.run(main())
    l.flush()
    u, = l.rows()
    assert (u.status, u.error, u.cost)==('partial', 'CancelledError', None)

killed = """
import os, signal, sys
from llm_usage import trace
with trace('gpt-5.4-mini', ledger=sys.argv[1], agent='first') as t:
    t.response = dict(id='r', model='gpt-5.4-mini', usage=dict(prompt_tokens=12, completion_tokens=9))
    if sys.argv[2]=='after': os.kill(os.getpid(), signal.SIGKILL)
with trace('gpt-5.4-mini', ledger=sys.argv[1], agent='second'): os.kill(os.getpid(), signal.SIGKILL)
"""

@pytest.mark.parametrize('when, want', dict(after=[('first','ok',9)], within=[('first','ok',9), ('second','orphaned',None)]).items())
def test_killed(p, when, want):
    "A kill right after the reply: its row is there; a kill within a block: a row that says so"
    with python(killed, p, when) as o: o.communicate(timeout=60)
    assert [(o.agent, o.status, o.completion_tokens) for o in Ledger(p).rows()]==want

# Refused

def test_refused(l):
    "An alert with 'raise' refuses the next call of that session, by hand or through a client, before it is sent"
    sent = []
    def answer(req):
        sent.append(req)
        return httpx2.Response(200, json=dict(id=f'c{len(sent)}', object='chat.completion', created=1, model='gpt-5.4-mini', choices=[dict(index=0, message=dict(role='assistant', content='hi'), finish_reason='stop')],
            usage=dict(prompt_tokens=10**6, completion_tokens=0, total_tokens=10**6)))
    c = wrap(openai.OpenAI(base_url='http://x', api_key='k', http_client=httpx2.Client(transport=httpx2.MockTransport(answer))), l)
    ask = lambda: c.chat.completions.create(model='gpt-5.4-mini', messages=says('x'))
    l.alert('session > $0.50', 'raise')
    with trace(ledger=l, session_id='a'): ask()
    l.flush()
    with pytest.raises(AlertRaised, match="session > \\$0.50"):
        with trace(ledger=l, session_id='a'): sent.append('never')
    with pytest.raises(AlertRaised): # the block began before the alert
        with trace(ledger=l, session_id='b'):
            ask()
            l.flush()
            ask()
    assert len(sent)==2
    with trace(ledger=l, session_id='c'): ask()
    assert len(sent)==3

def test_a_paid_reply_is_a_row(l):
    "A second reply within a block is there already: an alert does not take its row, nor raise"
    l.alert('session > $0.50', 'raise')
    dear = lambda i: dict(id=f'r{i}', model='gpt-5.4-mini', usage=dict(prompt_tokens=10**6, completion_tokens=0))
    with trace(ledger=l, session_id='a') as t:
        t.response = dear(1)
        l.flush()
        t.response = dear(2)
        [*t.stream([dear(3)])]
    l.flush()
    assert [o.response_id for o in l.rows()]==['r1','r2','r3']

def test_given_up_within_a_trace(p, monkeypatch):
    "A call of LiteLLM that is interrupted within a trace has its row at once, while the trace goes on"
    def interrupted(*args, **kw): raise KeyboardInterrupt
    monkeypatch.setattr(openai._base_client.SyncAPIClient, '_send_request', interrupted)
    with UsageLogger(p) as logger, trace(ledger=logger, agent='plan'):
        try: litellm.completion('openai/gpt-5.4-mini', says('x'), api_key='k', max_retries=0)
        except KeyboardInterrupt: pass
        gc.collect()
        logger.ledger.flush()
        assert [(o.status, o.error, o.agent) for o in logger.ledger.rows()]==[('partial','KeyboardInterrupt','plan')]

# What an attack found

@dataclass
class Odd(Exception):
    "An exception that cannot be hashed"
    code:int = 3

def test_odd_exceptions(l):
    "Exceptions that cannot be hashed, or are one another's cause, are rows as well"
    def cycle():
        a,b = KeyError('a'),ValueError('b')
        a.__cause__,b.__cause__ = b,a
        raise a
    def from_odd(): raise ValueError from Odd()
    def odd(): raise Odd()
    for f in (odd, from_odd, cycle):
        with pytest.raises(Exception), trace('m', ledger=l): f()
    l.flush()
    assert [(o.status, o.error) for o in l.rows()]==[('failed','Odd 3'), ('failed','ValueError'), ('failed','KeyError')]

def test_open_twice(l):
    "A trace that is open is not entered once more; one that is over may be"
    t = trace('m', ledger=l)
    with t, pytest.raises(RuntimeError, match='make one for each block'): t.__enter__()
    with t: t.response = dict(id='r', model='m', usage=dict(prompt_tokens=1, completion_tokens=1))
    l.flush()
    assert [o.usage_source for o in l.rows()]==['missing','reported']

def test_ends_of_lines(l):
    "Words may have ends of lines that are none to JSON"
    body = 'data: ' + json.dumps(dict(type='response.completed', response=dict(id='r', model='m', output=[dict(text='a\u2028b\x0cc')], usage=dict(input_tokens=5, output_tokens=6))), ensure_ascii=False)
    with trace(ledger=l) as t: t.response = body.encode()
    assert t.usage.prompt_tokens==5
