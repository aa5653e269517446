"""What LiteLLM's events become, of calls to servers that speak the wire formats: who stated a cost, what is counted, who asked, and what is no call."""
import asyncio, base64, gc, io, json, threading, wave
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf, nan
import litellm, pytest
from llm_usage import Usage, UsageLogger, price, measure
from llm_usage.core import parts

pytestmark = pytest.mark.filterwarnings('error:llm_usage', 'ignore::DeprecationWarning', 'ignore::UserWarning:pydantic')
said  = [dict(role='user', content='hello there')]
mini,half = 'openai/gpt-4o-mini',price('gpt-4o-mini', 'openai').rates(tier='batch')
rates = lambda model,provider: price(model, provider).rates()

class Server(BaseHTTPRequestHandler):
    "Answers whatever is asked with what `answer` makes of method, path and body"
    protocol_version = 'HTTP/1.1'
    def log_message(self, *args): pass
    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get('content-length') or 0))
        o   = Server.answer(self.command, self.path, json.loads(raw) if raw[:1]==b'{' else {})
        data,kind = (json.dumps(o).encode(),'application/json') if isinstance(o, dict) else (b''.join(o),'text/event-stream')
        self.send_response(200)
        for k,v in {'content-type':kind, 'content-length':str(len(data))}.items(): self.send_header(k, v)
        self.end_headers()
        self.wfile.write(data)
    do_GET = do_DELETE = do_POST

@pytest.fixture(scope='module')
def base():
    srv = ThreadingHTTPServer(('127.0.0.1', 0), Server)
    threading.Thread(target=srv.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{srv.server_port}'
    srv.shutdown(); srv.server_close()

@pytest.fixture
def own_prices(monkeypatch):
    "LiteLLM has prices that a test may change, and has forgotten them after it"
    monkeypatch.setattr(litellm, 'model_cost', {k:dict(v) for k,v in litellm.model_cost.items()}) # a price given for a call stays there
    yield
    litellm.register_model({'openai/the-last':dict(litellm_provider='openai')}) # by this it forgets what it has looked up

def answers(o): Server.answer = lambda method, path, body: o(method, path, body) if callable(o) else o

tokens = dict(prompt_tokens=1000, completion_tokens=200, total_tokens=1200)
resp_tokens = dict(input_tokens=1000, output_tokens=200, total_tokens=1200, input_tokens_details=dict(cached_tokens=0), output_tokens_details=dict(reasoning_tokens=0))

def chat(usage=tokens, model='gpt-4o-mini', **kw):
    return dict(id='c1', object='chat.completion', created=1, model=model, usage=usage, choices=[dict(index=0, finish_reason='stop', message=dict(role='assistant', content='hi') | kw)])

def _sse(os): return [f'data: {json.dumps(o)}\n\n'.encode() for o in os]
def chunks(usage, model='gpt-4o-mini'):
    c = lambda delta,end=None: dict(id='c1', object='chat.completion.chunk', created=1, model=model, choices=[dict(index=0, delta=delta, finish_reason=end)])
    return _sse([c(dict(role='assistant', content='hi')), c({}, 'stop'), c({}) | dict(choices=[], usage=usage)]) + [b'data: [DONE]\n\n']

def response(**kw):
    return dict(id='resp_1', object='response', created_at=1_760_000_000, status='completed', model='gpt-4o-mini', output=[], parallel_tool_calls=True, tool_choice='auto',
        tools=[], error=None, incomplete_details=None, instructions=None, metadata={}, temperature=1., top_p=1., usage=resp_tokens) | kw
def events(r):
    done = [dict(type='response.output_item.done', sequence_number=1, output_index=i, item=o) for i,o in enumerate(r['output'])]
    return _sse([dict(type='response.created', sequence_number=0, response=r | dict(status='in_progress', output=[], usage=None)), *done, dict(type='response.completed', sequence_number=9, response=r)])

def claude(model='claude-haiku-4-5', **usage):
    return dict(id='m1', type='message', role='assistant', model=model, content=[dict(type='text', text='hi')], stop_reason='end_turn', usage=dict(input_tokens=100, output_tokens=50) | usage)

def made(logger, fn, *args, **kw):
    "The rows of a call, which is read to its end if it is a stream"
    n = len(logger.ledger.rows())
    async def later(r):
        r = await r
        if hasattr(r, '__aiter__'): [o async for o in r]
        await logger.aflush()
    r = fn(*args, api_key='x', **kw)
    if asyncio.iscoroutine(r): asyncio.run(later(r))
    elif kw.get('stream'): list(r)
    assert logger.flush()==[]
    return logger.ledger.rows()[n:]

def one(logger, *args, **kw):
    u, = made(logger, *args, **kw)
    return u

# What is no call

upkeep = dict(
    list_batches={}, retrieve_batch=dict(batch_id='batch_1'), create_batch=dict(completion_window='24h', endpoint='/v1/chat/completions', input_file_id='f1'),
    create_file=dict(file=('x.jsonl', b'{}'), purpose='batch'), file_retrieve=dict(file_id='f1'), file_content=dict(file_id='f1'), file_list={},
    delete_responses=dict(response_id='resp_1'), cancel_responses=dict(response_id='resp_1'), list_input_items=dict(response_id='resp_1'), get_responses=dict(response_id='resp_1'), retrieve_container=dict(container_id='cntr_1'))

def _store(method, path, body):
    if '/batches' in path and not path.endswith('batches') or method=='POST' and 'batches' in path: return batch(status='in_progress', usage=None, output_file_id=None)
    if '/containers' in path: return dict(id='cntr_1', object='container', created_at=1, status='running', name='x')
    if '/responses' in path and 'input_items' not in path: return dict(id='resp_1', object='response', deleted=True) if method=='DELETE' else response(background=False)
    if path.endswith('/content'): return [b'{}']
    if '/files/' in path or method=='POST': return dict(id='f1', object='file', bytes=1, created_at=1, filename='x', purpose='batch', status='processed')
    return dict(object='list', data=[], has_more=False, first_id=None, last_id=None)

def batch(**kw):
    return dict(id='batch_1', object='batch', endpoint='/v1/chat/completions', input_file_id='f1', completion_window='24h', created_at=1_760_000_000, status='completed',
        output_file_id='f2', model='gpt-4o-mini', request_counts=dict(total=1, completed=1, failed=0), usage=resp_tokens) | kw

@pytest.mark.parametrize('name', upkeep)
@pytest.mark.parametrize('way', ['sync', 'async'])
def test_no_call(logger, base, name, way):
    "To read, to list, to store and to delete is no call: no row, nothing under way, and nothing that `measure` waits for"
    answers(_store)
    with measure() as s: us = made(logger, getattr(litellm, name if way=='sync' else f'a{name}'), custom_llm_provider='openai', api_base=base, **upkeep[name])
    assert us==[] and repr(s)=='∑ 0 calls · 0 tok · $0'

lines = (json.dumps(dict(id='r', custom_id='1', error=None, response=dict(status_code=200, request_id='q', body=chat()))) + '\n').encode()
def batches(method, path, body): return [lines] if 'content' in path else batch()

@pytest.mark.parametrize('first', ['sync', 'async'])
def test_batch_once(logger, base, first):
    "A finished batch is one row at half the price, by whichever poll and however many"
    answers(batches)
    poll = dict(sync=litellm.retrieve_batch)
    poll['async'] = litellm.aretrieve_batch
    for way in (first, *poll, *poll): made(logger, poll[way], batch_id='batch_1', custom_llm_provider='openai', api_base=base)
    u, = logger.ledger.rows()
    assert (u.model, u.prompt_tokens, u.completion_tokens, u.latency)==('gpt-4o-mini', 1000, 200, None)
    assert u.inp_cost==pytest.approx(1000*half['input']) and u.out_cost==pytest.approx(200*half['output']) and half['input']==.75e-7
    assert repr(logger.ledger.total())=='$0.000135 · 1 call'

def test_litellms_cost_of_a_batch():
    "LiteLLM prices the sum of a batch as one prompt, and may forget that it is a batch; the row has the price of the tables"
    said = dict(call_type='retrieve_batch', model='gpt-4o-mini', custom_llm_provider='openai', status='success')
    u = Usage.from_event(dict(said, response_cost=.5, standard_logging_object=said), batch())
    assert u.response_cost==pytest.approx(1000*half['input'] + 200*half['output']) and u.cost_source=='computed'

def test_batch_of_long_prompts(logger, base):
    "What a batch of a model costs whose rate depends on the length of each prompt is not known from its sum"
    answers(lambda *a: batch(id='batch_2', model='gpt-5.6-luna', usage=resp_tokens | dict(input_tokens=900_000)))
    litellm.retrieve_batch(batch_id='batch_2', custom_llm_provider='openai', api_base=base, api_key='x')
    logger.wait(1)
    u, = logger.ledger.rows()
    assert u.prompt_tokens==900_000 and u.response_cost is None

@pytest.mark.parametrize('says', [True, None])
@pytest.mark.parametrize('way', ['sync', 'async', 'stream'])
def test_background_once(logger, base, way, says):
    "A background response is billed once, when it is complete, whichever way it is read first, and whether or not its server says that it is one"
    state = dict(status='queued')
    own = {} if says is None else dict(background=says)
    def answer(method, path, body):
        done = state['status']=='completed'
        return (events if body.get('stream') else dict)(response(**own, status='completed' if body.get('stream') else state['status'], usage=resp_tokens if done or body.get('stream') else None))
    answers(answer)
    ask = dict(model=mini, input='hello', background=True, api_base=base)
    get = dict(response_id='resp_1', custom_llm_provider='openai', api_base=base)
    if way=='stream': assert len(made(logger, litellm.responses, stream=True, **ask))==1
    else:
        assert made(logger, litellm.responses if way=='sync' else litellm.aresponses, **ask)==[]
        assert made(logger, litellm.get_responses, **get)==[]
    state['status'] = 'completed'
    for fn in (litellm.aget_responses, litellm.get_responses, litellm.get_responses) if way=='async' else (litellm.get_responses, litellm.aget_responses): made(logger, fn, **get)
    u, = logger.ledger.rows()
    r = rates('gpt-4o-mini', 'openai')
    assert u.prompt_tokens==1000 and u.inp_cost==pytest.approx(1000*r['input']) and u.out_cost==pytest.approx(200*r['output']) and u.other_cost==pytest.approx(0)

def test_an_answer_read_again(logger, base):
    "A response that was billed when it was made is not billed when it is read"
    answers(response())
    u = one(logger, litellm.responses, model=mini, input='hello', api_base=base)
    assert u.cost > 0 and made(logger, litellm.get_responses, response_id='resp_1', custom_llm_provider='openai', api_base=base)==[]

def test_unknown_kind_of_call(logger):
    "A kind of call that nobody knows yet is a row, with or without a cost"
    slo = dict(status='success', startTime=1.7e9, endTime=1.7e9+1, litellm_call_id='c')
    for i,kw in enumerate([dict(response_cost=.5), {}]): logger.log_success_event(dict(call_type='new_thing', litellm_call_id=f'c{i}', standard_logging_object=slo | dict(litellm_call_id=f'c{i}'), **kw), None, None, None)
    logger.flush()
    assert [u.cost for u in logger.ledger.rows()]==[.5, None]

def test_a_container_costs(logger, base):
    "What is kept for a price is billed, though no model is called"
    answers(_store)
    u = one(logger, litellm.create_container, name='x', custom_llm_provider='openai', api_base=base)
    assert u.cost==.03

# Who stated the cost

def _of(way, usage, model):
    "How a call is made that way, and what is answered"
    return (litellm.acompletion if 'async' in way else litellm.completion),dict(stream=True) if 'stream' in way else {},(chunks if 'stream' in way else chat)(usage, model)

ways = 'plain', 'async', 'stream', 'async stream'
stated = dict( # model                      what its usage says beside the tokens                     US dollars
    openrouter = ('openrouter/openai/gpt-4o-mini', dict(cost=.0123),                                  .0123),
    free       = ('openrouter/some/model:free',    dict(cost=0),                                      0.),
    perplexity = ('perplexity/sonar-pro',          dict(cost=dict(request_cost=.006, total_cost=.012)), .012),
    xai        = ('xai/grok-4',                    dict(cost_in_usd_ticks=123456789),                 .0123456789))

@pytest.mark.parametrize('name', stated)
@pytest.mark.parametrize('way', ways)
def test_stated(logger, base, name, way):
    "A cost that the provider stated is the provider's, also in a stream, where LiteLLM puts its own; it has no parts, which nobody stated"
    model,more,usd = stated[name]
    fn,kw,o = _of(way, tokens | more, model.partition('/')[2])
    answers(o)
    u = one(logger, fn, model, said, api_base=base, **kw)
    assert (u.cost, u.cost_source, u.inp_usd, u.cost_lacks)==(usd, 'provider', None, None)

computed = dict(perplexity=('perplexity/sonar-pro', {}), openai=(mini, {}), own=('openai/gpt-4.1-nano', dict(input_cost_per_token=1e-3, output_cost_per_token=2e-3)))

@pytest.mark.parametrize('name', computed)
@pytest.mark.parametrize('way', ways)
def test_computed(logger, base, own_prices, name, way):
    "A cost that LiteLLM computed is never the provider's, though LiteLLM puts it where providers do; its parts are those of its counts"
    model,own = computed[name]
    provider,_,bare = model.partition('/')
    fn,kw,o = _of(way, tokens, bare)
    answers(o)
    u = one(logger, fn, model, said, api_base=base, **kw, **own)
    r = rates(bare, provider)
    inp,out = own.get('input_cost_per_token', r['input']),own.get('output_cost_per_token', r['output'])
    assert u.cost_source=='litellm' and (u.inp_usd, u.out_usd)==pytest.approx((1000*inp, 200*out)) and u.other_usd==pytest.approx(0, abs=1e-12)

tellers = dict.fromkeys(['openrouter','perplexity','xai','edenai','nadir','opencode_go'], 'provider') | dict(openai='litellm')

@pytest.mark.parametrize('provider', tellers)
def test_stated_where_nobody_saw_the_wire(provider):
    "Of a stream, a cost that LiteLLM shows as one of output alone is the provider's if that one states what it charges"
    u = event(meta=dict(usage_object=tokens | dict(cost=2.7e-4)), how=dict(total_cost=2.7e-4, output_cost=2.7e-4), custom_llm_provider=provider, stream=True)
    assert (u.cost, u.cost_source)==(2.7e-4, tellers[provider])

@pytest.mark.parametrize('model', ['claude-haiku-9-9', 'o9-mini'])
@pytest.mark.parametrize('way', ways)
def test_unknown_is_not_free(logger, base, model, way):
    "LiteLLM says $0 of some models that it does not know"
    fn,kw,o = _of(way, tokens, model)
    answers(o)
    assert one(logger, fn, f'openai/{model}', said, api_base=base, **kw).response_cost is None

@pytest.mark.parametrize('config,factor', [('cost_discount_config', -.1), ('cost_margin_config', .25)])
def test_discount_and_margin(logger, base, monkeypatch, config, factor):
    "A discount or a margin is apart from what the counts cost"
    monkeypatch.setattr(litellm, config, dict(openai=abs(factor)))
    answers(chat())
    u = one(logger, litellm.completion, mini, said, api_base=base)
    r = rates('gpt-4o-mini', 'openai')
    list_price = 1000*r['input'] + 200*r['output']
    assert (u.inp_usd, u.out_usd)==pytest.approx((1000*r['input'], 200*r['output']))
    assert (u.other_usd, u.cost)==pytest.approx((factor*list_price, (1+factor)*list_price)) and u.cost_source=='litellm'

@pytest.mark.parametrize('own,usd', [(True, .0105), (False, .0005), (None, .0005)])
def test_own_key(logger, base, own, usd):
    "With one's own key at OpenRouter its fee and what is paid to the other provider are the cost; else the fee is the whole"
    answers(chat(tokens | dict(cost=.0005, is_byok=own, cost_details=dict(upstream_inference_cost=.01))))
    u = one(logger, litellm.completion, 'openrouter/openai/gpt-4o-mini', said, api_base=base)
    assert u.cost==pytest.approx(usd) and u.cost_source=='provider'

# What is counted

tool = lambda kind,i=0,**kw: dict(type=f'{kind}_call', id=f'{kind}_{i}', status='completed') | kw
search = lambda i,kind='search': tool('web_search', i, action=dict(type=kind, query='q'))
message = dict(type='message', id='m', role='assistant', status='completed', content=[dict(type='output_text', text='hi', annotations=[])])
tools = dict( # what is listed, what else is said, searches, rarer counts
    searches      = ([search(1), search(2), search(3)],                                             {}, 3, {}),
    said          = ([], dict(tool_usage=dict(web_search=dict(num_requests=3))),                        3, {}),
    files         = ([tool('file_search', i, queries=['q'], results=None) for i in range(2)],       {}, 0, dict(file_searches=2)),
    code          = ([tool('code_interpreter', i, code='1', container_id='c', outputs=[]) for i in range(2)], {}, 0, dict(code_sessions=1)))
_tools = [dict(type='web_search'), dict(type='file_search', vector_store_ids=['v']), dict(type='code_interpreter', container=dict(type='auto'))]

@pytest.mark.parametrize('name', tools)
@pytest.mark.parametrize('way', ways)
def test_tools_of_responses(logger, base, name, way):
    "What the tools of Responses did is counted, streamed or not, where the list or the sum of it is; what is not in LiteLLM's cost is said"
    out,more,n,det = tools[name]
    body = response(model='gpt-5.4-mini', output=[*out, message], tools=_tools, **more)
    answers(events(body) if 'stream' in way else body)
    u = one(logger, litellm.aresponses if 'async' in way else litellm.responses, model='openai/gpt-5.4-mini', input='x', tools=_tools, api_base=base, stream='stream' in way)
    r = rates('gpt-5.4-mini', 'openai')
    assert (u.web_search_requests, json.loads(u.details or '{}'))==(n, det)
    whole = u.web_usd==pytest.approx(n*r['web search'] + det.get('file_searches',0)*r['file search'] + det.get('code_sessions',0)*r['code session'])
    assert u.cost_lacks==(None if whole else dict(files='file search', code='code session')[name]) and u.other_usd==pytest.approx(0, abs=1e-12)

def _sound(secs):
    with wave.open(f := io.BytesIO(), 'wb') as w: w.setparams((1, 1, 8000, 0, 'NONE', '')); w.writeframes(b'\x80'*int(8000*secs))
    return 'x.wav',f.getvalue()

citation = dict(annotations=[dict(type='url_citation', url_citation=dict(url='u', title='t', start_index=0, end_index=1))])
maps = dict(candidates=[dict(content=dict(parts=[dict(text='hi')], role='model'), finishReason='STOP', groundingMetadata=dict(groundingChunks=[dict(maps=dict(uri='u', title='t', placeId='p'))]))],
    usageMetadata=dict(promptTokenCount=10, candidatesTokenCount=5, totalTokenCount=15), modelVersion='gemini-3.5-flash-lite')
units = dict( # call                     model and what is asked                                                     answer     kind, count, source
    rerank        = ('rerank',           dict(model='cohere/rerank-v3.5', query='q', documents=['a','b']),
                     dict(id='r', results=[dict(index=0, relevance_score=.9)], meta=dict(billed_units=dict(search_units=3))), 'search_units', 3, 'reported'),
    ocr           = ('ocr',              dict(model='mistral/mistral-ocr-latest', document=dict(type='document_url', document_url='https://x/y.pdf')),
                     dict(pages=[dict(index=0, markdown='x')]*3, model='mistral-ocr-latest', usage_info=dict(pages_processed=3)), 'pages', 3, 'reported'),
    speech        = ('speech',           dict(model='openai/tts-1', voice='alloy', input='Every call becomes a row.'), [b'sound'], 'characters', 25, 'missing'),
    seconds       = ('transcription',    dict(model='openai/whisper-1', file=_sound(5.2)), dict(text='hi', usage=dict(type='duration', seconds=6)), 'seconds', 6, 'reported'),
    video         = ('video_generation', dict(model='openai/sora-2', prompt='x', seconds='4'), dict(id='v', object='video', status='queued', model='sora-2', seconds='4', size='720x1280', created_at=1, progress=0), 'seconds', 4, 'reported'),
    images        = ('image_generation', dict(model='openai/dall-e-3', prompt='x', n=2), dict(created=1, data=[dict(url='u')]*2), 'images', 2, 'reported'),
    maps          = ('completion',       dict(model='gemini/gemini-3.5-flash-lite', messages=said, tools=[dict(googleMaps={})]), maps, 'maps', 1, 'reported'))

@pytest.mark.parametrize('name', units)
def test_units(logger, base, name):
    "What is billed in units that are no tokens is counted, and is not said to be reported if it was not"
    fn,ask,o,k,n,source = units[name]
    answers(o)
    u = one(logger, getattr(litellm, fn), api_base=base, **ask)
    assert json.loads(u.details)=={k:n} and u.usage_source==source and not u.web_search_requests

def test_a_sound_that_nobody_measured(logger, base):
    "Without the server's word, LiteLLM measures a sound if it can, which is an estimate; else nobody knows what it cost"
    answers(dict(text='hi'))
    u = one(logger, litellm.transcription, model='openai/whisper-1', file=_sound(5.2), api_base=base)
    assert (u.details, u.usage_source, u.cost)==(None, 'missing', None) or (json.loads(u.details), u.usage_source)==(dict(seconds=5.2), 'estimated') and u.cost > 0

def test_search_of_a_chat(logger, base):
    "The search that a chat is charged for is counted"
    answers(chat(model='gpt-4o-search-preview', **citation))
    u = one(logger, litellm.completion, 'openai/gpt-4o-search-preview', said, web_search_options={}, api_base=base)
    assert u.web_search_requests==1 and u.web_usd==pytest.approx(rates('gpt-4o-search-preview', 'openai')['web search'])

def test_a_search_without_a_price_is_not_free(logger, base):
    "Searches for which LiteLLM has no price leave the cost a lower bound, which the row says"
    answers(claude(server_tool_use=dict(web_search_requests=3)))
    u = one(logger, litellm.completion, 'anthropic/claude-haiku-4-5', said, api_base=base)
    assert u.web_search_requests==3 and u.web_usd==0 and u.cost_lacks=='web search'

@pytest.mark.parametrize('usd', [(0,0), (0,2e-6), (1e-7,2e-7), (1.5e-7,0)])
def test_a_price_of_the_caller(logger, base, own_prices, usd):
    answers(chat())
    own = dict(zip(('input_cost_per_token','output_cost_per_token'), usd))
    u = one(logger, litellm.completion, mini, said, api_base=base, **own)
    assert u.cost_lacks is None and u.cost_source=='litellm'
    assert (u.inp_usd, u.out_usd) == pytest.approx((usd[0]*u.prompt_tokens, usd[1]*u.completion_tokens), abs=1e-15)

def test_a_price_for_one_tier_only(logger, base, own_prices):
    "What a model costs that has a price for another tier only is not known, although LiteLLM says $0; nor is it, if only its output has none"
    litellm.register_model({'openai/only-fast':dict(input_cost_per_token_priority=1e-6, output_cost_per_token_priority=2e-6, litellm_provider='openai', mode='chat')})
    answers(chat(model='only-fast'))
    assert one(logger, litellm.completion, 'openai/only-fast', said, api_base=base).response_cost is None
    litellm.register_model({'openai/only-in':dict(input_cost_per_token=1e-6, output_cost_per_token_priority=2e-6, litellm_provider='openai', mode='chat')})
    answers(chat(model='only-in'))
    u = one(logger, litellm.completion, 'openai/only-in', said, api_base=base)
    assert u.inp_usd==pytest.approx(1e-3) and u.cost_lacks=='output'

# For whom, and which model

uuid = '0d3c9a52-6f0e-4c0b-9a1e-1f2e3d4c5b6a'
sessions = dict(json=json.dumps(dict(device_id='d1', account_uuid='', session_id=uuid)), text=f'user_{"ab"*32}_account_{uuid[::-1]}_session_{uuid}')

async def messages(**kw): return await litellm.anthropic.messages.acreate(model='anthropic/claude-haiku-4-5', messages=said, max_tokens=9, **kw)
def completed(**kw): return litellm.completion('anthropic/claude-haiku-4-5', said, **kw)

@pytest.mark.parametrize('fn,kw', [(completed, dict(user='c7')), (messages, dict(metadata=dict(user_id='c7'))), (messages, dict(metadata=dict(user_id='c7'), litellm_metadata=dict(user_id='bob')))])
def test_end_user(logger, base, fn, kw):
    "The user that a provider is told of is the customer, and not who makes the call"
    answers(claude())
    u = one(logger, fn, api_base=base, **kw)
    assert (u.end_user, u.user_id)==('c7', 'bob' if 'litellm_metadata' in kw else 'ada')

@pytest.mark.parametrize('name', sessions)
@pytest.mark.parametrize('fn,kw', [(completed, lambda v: dict(user=v)), (messages, lambda v: dict(metadata=dict(user_id=v)))])
def test_session_of_claude_code(logger, base, name, fn, kw):
    "A user that is named for a session of Claude Code is that session, and no customer"
    answers(claude())
    u = one(logger, fn, api_base=base, **kw(sessions[name]))
    assert (u.end_user, u.session_id)==(None, uuid)

def test_tags_add_up(logger, base):
    "Tags are added, wherever they are given"
    answers(chat())
    with logger.who(tags=['c','a']): u = one(logger, litellm.completion, mini, said, api_base=base, metadata=dict(tags=['a','b']), litellm_metadata=dict(tags=['d']))
    assert u.tags=='["a", "b", "c", "d"]'

def event(kw={}, res=None, meta={}, how=None, **slo):
    "A row of an event that is made up"
    base = dict(status='success', startTime=1.7e9, endTime=1.7e9+1, litellm_call_id='c', id='r', model='gpt-4o-mini', custom_llm_provider='openai', metadata=dict(usage_object=dict(tokens)) | meta, cost_breakdown=how)
    return Usage.from_event(dict(response_cost=2.7e-4, call_type='completion', standard_logging_object=base | slo) | kw, res)

@pytest.mark.parametrize('col,proxy,own', [('user_id','user_api_key_user_id','user_id'), ('team_id','user_api_key_team_id','team_id'), ('end_user','user_api_key_end_user_id','end_user')])
def test_the_proxy_is_believed(col, proxy, own):
    "Where the proxy says who it is, and the caller does, the proxy is right, in whichever order"
    for d in (dict({proxy:'p', own:'o'}), dict({own:'o', proxy:'p'})): assert getattr(event(meta=d), col)=='p'
    assert getattr(event(meta={own:'o'}), col)=='o'
    assert getattr(event(dict(litellm_params=dict(metadata={own:'o'})), meta={proxy:'p'}), col)=='p'
    assert event(meta=dict(end_user='o'), end_user='p').end_user=='p'

def group(base): return litellm.Router(model_list=[dict(model_name='my-group', litellm_params=dict(model=mini, api_base=base, api_key='x'))], model_group_alias=dict(al='my-group'), num_retries=0)
def alias(base): litellm.model_alias_map = dict(short=mini); return litellm

@pytest.mark.parametrize('who,asked,says,model', [(group,'my-group','gpt-4o-mini-2024-07-18','gpt-4o-mini-2024-07-18'), (group,'my-group','my-group','gpt-4o-mini'), (group,'al','al','gpt-4o-mini'),
    (alias,'short','gpt-4o-mini-2024-07-18','gpt-4o-mini-2024-07-18'), (alias,'short','short','gpt-4o-mini'), (alias,mini,'gpt-4o-mini','gpt-4o-mini')])
def test_asked_and_answered(logger, base, monkeypatch, who, asked, says, model):
    "What was asked for may be a group or an alias; what answered has a price, also if the reply repeats the alias"
    monkeypatch.setattr(litellm, 'model_alias_map', {})
    answers(chat(model=says))
    ask = who(base).completion
    u, = made(logger, lambda api_key, **kw: ask(model=asked, messages=said, **kw if who is group else dict(kw, api_key=api_key, api_base=base)))
    assert (u.requested_model, u.model)==(asked.removeprefix('openai/'), model)
    u.response_cost = u.inp_usd = None
    r = rates(model, 'openai')
    assert u.cost==pytest.approx(1000*r['input'] + 200*r['output'])

def test_fallback_asked(logger, base):
    "A fallback answers what was asked of another"
    answers(lambda m,p,b: chat(model=b['model']))
    one_ = lambda name,model,**kw: dict(model_name=name, litellm_params=dict(model=model, api_base=base, api_key='x', max_retries=0, **kw))
    r = litellm.Router(model_list=[one_('a', mini, mock_response=Exception('x')), one_('b', 'openai/gpt-4.1-mini')], fallbacks=[dict(a=['b'])], num_retries=0, retry_after=0)
    us = made(logger, lambda api_key: r.completion(model='a', messages=said))
    assert sorted((u.status, u.requested_model, u.model) for u in us)==[('failed','a','gpt-4o-mini'), ('ok','a','gpt-4.1-mini')]

# What cannot be

@pytest.mark.parametrize('n', [-1, 2**62, nan, inf, 1.5, 10**12+1])
@pytest.mark.parametrize('k', ['prompt_tokens', 'completion_tokens', 'total_tokens'])
def test_counts_that_cannot_be(n, k):
    "Of a usage with a count that cannot be one, nothing is believed, nor is a cost that was computed of it"
    u = event(meta=dict(usage_object=tokens | {k:n}))
    assert (u.prompt_tokens, u.completion_tokens, u.usage_source, u.response_cost, u.cost_source, u.status)==(None, None, 'missing', None, None, 'ok')

@pytest.mark.parametrize('usd', [-1e-9, -5, nan, inf, -inf, 1e9, 1e300, True, '1'])
def test_costs_that_cannot_be(usd):
    "A cost that cannot be one is unknown; a part that cannot be is none, and the cost stays"
    u = event(dict(response_cost=usd), how=dict(total_cost=usd, input_cost=1e-4, output_cost=1e-4))
    assert (u.response_cost, u.inp_usd, u.cost_source, u.prompt_tokens)==(None, None, None, 1000)
    if usd not in (True, '1'):
        v = event(how=dict(total_cost=2.7e-4, input_cost=usd, output_cost=1e-4))
        assert (v.response_cost, v.inp_usd, v.out_usd)==(2.7e-4, None, None)

@pytest.mark.parametrize('v', [nan, inf, [1, -inf], dict(a=dict(b=nan))])
def test_meta_is_json(v):
    "What JSON has no number for is text in the free keys of a row"
    m = event(meta=dict(spend_logs_metadata=dict(score=v, job='NaN of them', n=7))).meta
    d = json.loads(m, parse_constant=lambda o: pytest.fail(f'{o} is no JSON'))
    assert (d['job'], d['n'])==('NaN of them', 7) and any(o in str(d['score']) for o in ('NaN', 'Infinity'))

# What LiteLLM says beside

def test_a_hit_saves():
    "A reply from LiteLLM's cache costs nothing, and its row says what it saved"
    u = event(dict(response_cost=0.), cache_hit=True, saved_cache_cost=.0125)
    assert (u.origin, u.cost, u.billed, u.saved, json.loads(u.details))==('cache', 0., 0., .0125, dict(saved_usd=.0125))
    assert event(cache_hit=None, saved_cache_cost=.0125).saved==0

def test_the_tier_that_was_billed():
    "The tier that LiteLLM billed is the row's, where the reply names another"
    assert event(res=dict(service_tier='default', choices=[]), how=dict(service_tier='flex')).service_tier=='flex'
    assert event(res=dict(service_tier='priority', choices=[])).service_tier=='priority'

@pytest.mark.parametrize('read,write', [(3e-4, 0.), (0., 3e-4), (2e-4, 2e-4)])
def test_caches_that_were_not_billed(read, write):
    "Where the caches cost more than all input they were not billed, as Perplexity's are not, and no part is below zero"
    u = event(how=dict(total_cost=2.7e-4, input_cost=1.5e-4, output_cost=1.2e-4, cache_read_cost=read, cache_creation_cost=write))
    assert (u.inp_usd, u.cache_read_usd, u.cache_write_usd, u.out_usd)==(1.5e-4, 0, 0, 1.2e-4) and u.other_usd==pytest.approx(0, abs=1e-15)
    v = event(how=dict(total_cost=2.7e-4, input_cost=1.5e-4, output_cost=1.2e-4, cache_read_cost=5e-5))
    assert (v.inp_usd, v.cache_read_usd)==pytest.approx((1e-4, 5e-5))

def test_a_free_model_is_free(logger, base):
    "A model for which LiteLLM has a price of nothing costs nothing, though its replies report no tokens"
    answers(dict(id='m', model='omni-moderation-latest', results=[dict(flagged=False, categories={}, category_scores={})]))
    u = one(logger, litellm.amoderation, input='x', model='omni-moderation-latest', api_base=base)
    assert (u.cost, u.usage_source)==(0., 'missing')

# Two ways to make each call, of which the async one is noted first and read later: the rows are the same

both = pytest.mark.parametrize('way', [litellm.completion, litellm.acompletion])

whoms = dict( # what the caller gives                                                                   what the row says
    metadata      = (dict(metadata=dict(user_id='bob'), litellm_metadata=dict(user_id='eve')),           dict(user_id='bob')),
    the_other     = (dict(metadata=dict(team_id='red'), litellm_metadata=dict(user_id='eve')),           dict(user_id='eve', team_id='red')),
    empty         = (dict(metadata=dict(user_id='', team_id=None), litellm_metadata=dict(team_id='red')), dict(user_id='ada', team_id='red')),
    customer      = (dict(user='c7', metadata=dict(end_user='c8')),                                      dict(end_user='c8', user_id='ada')),
    of_the_proxy  = (dict(user='c7', metadata=dict(end_user='c8', user_api_key_end_user_id='c9')),       dict(end_user='c9')),
    named_session = (dict(user=sessions['json'], metadata=dict(session_id='s1')),                        dict(session_id='s1', end_user=None)),
    session       = (dict(litellm_session_id='s2'),                                                      dict(session_id='s2')),
    two_sessions  = (dict(litellm_session_id='s2', metadata=dict(session_id='s1')),                      dict(session_id='s1')),
    trace         = (dict(litellm_trace_id='t1'),                                                        dict(trace_id='t1')),
    named_trace   = (dict(metadata=dict(trace_id='t2')),                                                 dict(trace_id='t2')),
    agent         = (dict(metadata=dict(agent_name='Planner', agent_id='a1', agent='a0')),               dict(agent='a0')),
    free_keys     = (dict(metadata=dict(spend_logs_metadata=dict(a=2))),                                 dict(meta='{"a": 2, "b": 1}')),
    tags          = (dict(metadata=dict(tags=['b','a']), litellm_metadata=dict(tags=['c','a'])),         dict(tags='["a", "b", "c", "w"]')))

@both
@pytest.mark.parametrize('name', whoms)
def test_for_whom(logger, base, way, name):
    "Of two that say for whom a call is, the nearer to the call is believed: its metadata before those of LiteLLM, and both before the block"
    answers(chat())
    kw,want = whoms[name]
    with logger.who(tags=['w'], meta=dict(a=1, b=1)): u = one(logger, way, mini, said, api_base=base, **kw)
    assert {k:getattr(u,k) for k in want}==want

@both
@pytest.mark.parametrize('col', ['user_id', 'team_id', 'end_user', 'session_id', 'agent'])
def test_block_and_call(p, base, way, col):
    "A default gives way to a block, an outer block to an inner one, and each to the call itself; None takes back what an outer one says"
    answers(chat())
    with UsageLogger(p, **{col:'default'}) as l:
        us = [one(l, way, mini, said, api_base=base)]
        with l.who(**{col:'outer'}):
            us.append(one(l, way, mini, said, api_base=base))
            with l.who(**{col:'inner'}): us += [one(l, way, mini, said, api_base=base), one(l, way, mini, said, api_base=base, metadata={col:'call'})]
            with l.who(**{col:None}): us.append(one(l, way, mini, said, api_base=base))
    assert [getattr(u, col) for u in us]==['default', 'outer', 'inner', 'call', 'default']

@pytest.mark.parametrize('way', [litellm.responses, litellm.aresponses])
@pytest.mark.parametrize('stream', [False, True])
@pytest.mark.parametrize('end,status', [('completed','ok'), ('incomplete','ok'), ('failed','failed')])
def test_how_a_response_ends(logger, base, way, stream, end, status):
    "A response has failed or has not, by its own word, and is billed either way; one that ran out of tokens has not failed"
    last = response(status=end, error=dict(code='server_error', message='Sorry') if end=='failed' else None)
    parts = [dict(type='response.created', sequence_number=0, response=last | dict(status='in_progress', usage=None, error=None)),
        dict(type='response.output_text.delta', sequence_number=1, item_id='m', output_index=0, content_index=0, delta='hi'), dict(type=f'response.{end}', sequence_number=2, response=last)]
    answers(_sse(parts) if stream else last)
    try: us = made(logger, way, model=mini, input='x', api_base=base, stream=stream)
    except Exception:
        assert end=='failed' and stream and logger.flush()==[] # LiteLLM raises it, too
        us = logger.ledger.rows()
    r = rates('gpt-4o-mini', 'openai')
    assert [(u.status, bool(u.error), u.usage_source, u.prompt_tokens, u.completion_tokens, u.stream) for u in us]==[(status, status=='failed', 'reported', 1000, 200, stream)]
    assert us[0].cost==pytest.approx(1000*r['input'] + 200*r['output'])

@both
@pytest.mark.parametrize('stream', [False, True])
@pytest.mark.parametrize('off', [False, True])
def test_no_log(logger, base, monkeypatch, way, stream, off):
    "Of a call that its caller did not want logged there is no row, unless who runs LiteLLM does not let them say so"
    monkeypatch.setattr(litellm, 'global_disable_no_log_param', off)
    answers(chunks(tokens) if stream else chat())
    with measure() as s: us = made(logger, way, mini, said, api_base=base, stream=stream, **{'no-log':True})
    assert (len(us), s.calls, repr(s).endswith('under way'))==(off, off, False)

def test_no_log_left(logger, base):
    "Nor is there one of a stream that is left"
    answers(chunks(tokens))
    s = litellm.completion(mini, said, api_base=base, api_key='x', stream=True, **{'no-log':True})
    next(s)
    del s
    gc.collect() # it may be part of a cycle
    assert logger.flush()==[] and logger.ledger.rows()==[]

@both
@pytest.mark.parametrize('stream', [False, True])
def test_hits(logger, base, monkeypatch, way, stream):
    "A reply from LiteLLM's cache, streamed or not, costs nothing, has no parts, and saved what the first one cost"
    monkeypatch.setattr(litellm, 'cache', litellm.Cache())
    answers(chunks(tokens) if stream else chat())
    for n in (1,2):
        made(logger, way, mini, said, api_base=base, caching=True, stream=stream, **dict(stream_options=dict(include_usage=True)) if stream else {})
        logger.wait(n)
    first,hit = logger.ledger.rows()
    r = rates('gpt-4o-mini', 'openai')
    bill = 1000*r['input'] + 200*r['output']
    assert (first.origin, hit.origin, hit.response_cost, hit.inp_usd, hit.other_usd, hit.prompt_tokens, hit.status)==('live', 'cache', 0, None, None, 1000, 'ok')
    t = logger.ledger.total()
    assert (t.amount, t.saved, hit.saved)==pytest.approx((bill,)*3) and t.priced==2

@pytest.mark.parametrize('way', [litellm.completion, litellm.acompletion, litellm.responses, litellm.aresponses])
def test_a_hit_that_is_left(logger, base, monkeypatch, way):
    "Nor does a stream from LiteLLM's cache cost anything that is not read to its end"
    monkeypatch.setattr(litellm, 'cache', litellm.Cache())
    ask,body = (dict(messages=said, stream_options=dict(include_usage=True)),chunks(tokens)) if 'completion' in way.__name__ else (dict(input='x'),events(response(output=[message])))
    answers(body)
    ask |= dict(model=mini, api_base=base, caching=True, stream=True)
    made(logger, way, **ask)
    logger.wait(1)
    async def left(): await anext(await way(api_key='x', **ask))
    if way.__name__.startswith('a'): asyncio.run(left())
    else: next(way(api_key='x', **ask))
    gc.collect()
    logger.wait(2) # a thread of LiteLLM may have it still
    first,hit = logger.ledger.rows()
    assert (first.origin, hit.origin, hit.status, hit.cost, hit.inp_usd)==('live', 'cache', 'partial', 0, None) and logger.ledger.total().amount==first.cost > 0

def test_what_a_hit_saves_beside_tokens():
    "If LiteLLM does not say what its cache saved, it is what the counts would have cost, the place of the inference included; its cost has no parts"
    p = price('claude-sonnet-5-5', 'anthropic')
    r = p.rates()
    for geo,factor in (('', 1), ('us', p.factor(geo='us'))):
        u = event(dict(response_cost=0.), meta=dict(usage_object=tokens | dict(inference_geo=geo)), model='claude-sonnet-5-5', custom_llm_provider='anthropic', cache_hit=True,
            how=dict(total_cost=.0125, input_cost=.0125))
        assert u.saved==pytest.approx(factor*(1000*r['input'] + 200*r['output'])) and (u.cost, u.inp_usd, u.other_usd)==(0, None, None)
    assert p.factor(geo='us') > 1

def test_where_it_ran():
    "Regions that have prices of their own are details, each under the name by which it is priced"
    assert json.loads(event(how=dict(data_residency='eu', vertex_location='us-east5')).details)==dict(residency='eu', location='us-east5')

overs = dict(queued=0, in_progress=0, completed=1, incomplete=1, failed=1, cancelled=1)

@pytest.mark.parametrize('way', [litellm.get_responses, litellm.aget_responses])
@pytest.mark.parametrize('status', overs)
def test_when_a_background_response_is_over(logger, base, way, status):
    "It is billed at the price of any other call once it is over, however it ended, at no batch's price, and without a duration"
    answers(response(background=True, status=status, usage=resp_tokens if overs[status] else None))
    us = [u for _ in range(2) for u in made(logger, way, response_id='resp_1', custom_llm_provider='openai', api_base=base)]
    assert len(us)==overs[status]
    r = rates('gpt-4o-mini', 'openai')
    for u in us: assert (u.service_tier, u.latency, u.status)==(None, None, 'failed' if status=='failed' else 'ok') and u.cost==pytest.approx(1000*r['input'] + 200*r['output'])

frees = dict(image=dict(input_cost_per_image=.01), second=dict(input_cost_per_second=.001), page=dict(ocr_cost_per_page=.001), output=dict(input_cost_per_token=0, output_cost_per_token=1e-6))

@pytest.mark.parametrize('name', frees)
def test_nothing_by_mistake(monkeypatch, name):
    "The $0 of LiteLLM is no price where it has one for something else than what it charged"
    monkeypatch.setattr(litellm, 'model_cost', litellm.model_cost | {f'openai/by-{name}': frees[name] | dict(litellm_provider='openai')})
    assert event(dict(response_cost=0.), model=f'by-{name}').response_cost is None
    monkeypatch.setitem(litellm.model_cost, f'openai/by-{name}', dict.fromkeys(frees[name], 0) | dict(litellm_provider='openai'))
    assert event(dict(response_cost=0.), model=f'by-{name}').response_cost==0

import aiohttp, httpx

unsure = {httpx.ReadTimeout('x'):None, httpx.WriteTimeout('x'):None, aiohttp.ServerTimeoutError('x'):None, TimeoutError('x'):None,
          httpx.ConnectTimeout('x'):0, httpx.ConnectError('x'):0, httpx.PoolTimeout('x'):0, aiohttp.ConnectionTimeoutError('x'):0}

@pytest.mark.parametrize('cause,usd', unsure.items(), ids=repr)
@pytest.mark.parametrize('slo', [True, False])
def test_who_timed_out(cause, usd, slo):
    "A call that was sent and timed out may have been answered, and billed; one that never had a connection was not"
    try: raise litellm.Timeout('x', 'gpt-4o-mini', 'openai') from cause
    except Exception as e: kw = dict(response_cost=0, exception=e, litellm_call_id='c', call_type='completion')
    if slo: kw['standard_logging_object'] = dict(status='failure', error_information=dict(error_class='Timeout', error_code='408'))
    u = Usage.from_event(kw, None)
    assert (u.status, u.error.split()[0], u.response_cost)==('failed', 'Timeout', usd)

guesses = [('openai', None, 'reported'), ('openai', 'https://api.openai.com/v1', 'reported'), ('openai', 'http://127.0.0.1', 'estimated'),
           ('hosted_vllm', None, 'estimated'), ('anthropic', 'http://127.0.0.1', 'reported')]

@pytest.mark.parametrize('provider,api_base,source', guesses)
def test_whose_count(provider, api_base, source):
    "A stream of OpenAI's protocol from another's server, of which nobody saw the wire, is estimated if its prompt has the tokenizer's count to the last token"
    n = litellm.token_counter(model='gpt-4o-mini', messages=said)
    for stream,more,want in ((True, 0, source), (True, 1, 'reported'), (False, 0, 'reported')):
        u = event(dict(messages=said), meta=dict(usage_object=tokens | dict(prompt_tokens=n+more)), custom_llm_provider=provider, api_base=api_base, stream=stream)
        assert (u.usage_source, u.prompt_tokens)==(want, n+more)

def test_what_the_usage_says_of_searches():
    "A charge for tools is a search where the usage says nothing of them, and not where it says that there was none"
    how = dict(total_cost=.0103, input_cost=1e-4, output_cost=2e-4, tool_usage_cost=.01)
    of = lambda **more: event(res=dict(choices=[]), how=how, meta=dict(usage_object=tokens | more)).web_search_requests
    assert (of(), of(server_tool_use=dict(web_search_requests=0)), of(server_tool_use=dict(web_search_requests=2)))==(1, 0, 2)

def test_a_sound_with_tokens():
    "A sound that LiteLLM measured counts by the second only where nobody reported tokens of it"
    r = litellm.TranscriptionResponse(text='hi')
    r._hidden_params = dict(audio_transcription_duration=5.2)
    a,b = (event(dict(call_type='transcription'), r, meta=dict(usage_object=o)) for o in (tokens, {}))
    assert (a.details, a.usage_source, json.loads(b.details), b.usage_source)==(None, 'reported', dict(seconds=5.2), 'estimated')

def test_a_background_response_that_failed():
    "It is billed what its counts cost, though LiteLLM says $0"
    u = event(dict(call_type='get_responses', response_cost=0.), response(background=True, status='failed', error=dict(code='server_error', message='Sorry')), meta=dict(usage_object=None))
    r = rates('gpt-4o-mini', 'openai')
    assert (u.status, u.cost_source)==('failed', 'computed') and u.cost==pytest.approx(1000*r['input'] + 200*r['output'])

def test_the_error_of_another_try():
    "A call that succeeded has no error, though LiteLLM may still know one of an earlier try"
    u = event(dict(exception=ValueError()), error_information=dict(error_class='InternalServerError', error_code='500'))
    assert (u.status, u.error)==('ok', None)

@pytest.mark.parametrize('way', [litellm.responses, litellm.aresponses])
def test_searches_of_a_response_that_broke_off(logger, base, way):
    "What tools had done when a Responses stream broke off is counted, though no response lists it"
    answers(events(response(model='gpt-5.4-mini', output=[search(1), search(2), message]))[:-1])
    with suppress(litellm.APIConnectionError): made(logger, way, model='openai/gpt-5.4-mini', input='x', tools=_tools, api_base=base, stream=True)
    assert logger.flush()==[]
    u, = logger.ledger.rows()
    assert u.status!='ok' and (u.usage_source, u.web_search_requests)==('estimated', 2) and u.web_usd==pytest.approx(2*rates('gpt-5.4-mini', 'openai')['web search'])
