"""The stand-ins speak the vendors' formats: event orders and keys from the public API references, read by the vendors' own clients.

In plain tests rather than on a page, since they are tools of the repository and no part of the package."""
import asyncio, json, time
from itertools import groupby
import anthropic, httpx, openai, pytest
import record
from standins import reply, serve, stand_in

urls = dict(messages='https://api.anthropic.com/v1/messages', chat='https://api.openai.com/v1/chat/completions',
    responses='https://api.openai.com/v1/responses', completions='https://api.openai.com/v1/completions',
    gemini='https://generativelanguage.googleapis.com/v1beta/models/g:streamGenerateContent?alt=sse',
    gemini_whole='https://generativelanguage.googleapis.com/v1beta/models/g:generateContent', rerank='https://api.cohere.com/v2/rerank')

def user(s): return [dict(role='user', content=s)]

def post(api, **b):
    "What the stand-in of `api` answers: status, headers, and the parsed body or events"
    status,hdrs,body = reply(httpx.Request('POST', urls[api], json=dict(model='m') | b))
    return status,hdrs,[event(e) for e in body] if isinstance(body, list) else json.loads(body)

def event(e):
    "The JSON of server-sent event `e`, whose `event:` line must repeat the type"
    name,data = '',e.decode().strip()
    if data.startswith('event: '): name,data = data[7:].split('\n', 1)
    data = data.removeprefix('data: ')
    if data=='[DONE]': return data
    res = json.loads(data)
    assert not name or name==res['type']
    return res

def runs(evs, kind): return [k for k,_ in groupby(map(kind, evs))]


# The order of events

def claude(e):
    at = e.get('content_block') or (e.get('delta') if e['type']=='content_block_delta' else None)
    return f"{e['type']} {at['type']}" if at else e['type']

text  = ['content_block_start text', 'ping', 'content_block_delta text_delta', 'content_block_stop']
again = [o for o in text if o!='ping']
orders = {
    'Count from 1 to 5': text,
    'Add 17 and 25 with the tool.': ['content_block_start tool_use', 'ping', 'content_block_delta input_json_delta', 'content_block_stop'],
    'How many primes are below 1000?': ['content_block_start thinking', 'ping', 'content_block_delta thinking_delta',
        'content_block_delta signature_delta', 'content_block_stop', *again],
    'What is the weather like in NYC? Search web.': ['content_block_start server_tool_use', 'ping', 'content_block_delta input_json_delta',
        'content_block_stop', 'content_block_start web_search_tool_result', 'content_block_stop', *again,
        'content_block_start text', 'content_block_delta citations_delta', *again[1:]]}

@pytest.mark.parametrize('q', orders)
def test_messages_events(q):
    evs = post('messages', messages=user(q), stream=True)[2]
    assert runs(evs, claude)==['message_start', *orders[q], 'message_delta', 'message_stop']

item = ['response.output_item.added', 'response.output_item.done']
said = ['response.output_item.added', 'response.content_part.added', 'response.output_text.delta', 'response.output_text.done',
    'response.content_part.done', 'response.output_item.done']
call = [item[0], 'response.function_call_arguments.delta', 'response.function_call_arguments.done', item[1]]
find = [item[0], *[f'response.web_search_call.{s}' for s in ('in_progress','searching','completed')], item[1]]
cite = [*said[:3], 'response.output_text.annotation.added', *said[3:]]

@pytest.mark.parametrize('q,mid', [('What is the capital of Peru?', said), ('Add 17 and 25 with your tool.', call),
    ('Which city hosts the next Olympics? Search the web.', item+find+cite)])
def test_responses_events(q, mid):
    evs = post('responses', input=q, stream=True)[2]
    assert runs(evs, lambda e: e['type'])==['response.created', 'response.in_progress', *mid, 'response.completed']
    assert [e['sequence_number'] for e in evs]==list(range(len(evs)))

def test_chat_events():
    *evs,usage,done = post('chat', messages=user('Name three primes.'), stream=True, stream_options=dict(include_usage=True))[2]
    assert [*runs(evs, lambda e: ' '.join(e['choices'][0]['delta'])), done]==['role content refusal', 'content', '', '[DONE]']
    assert usage['choices']==[] and usage['usage']['total_tokens']==21
    assert evs[-1]['choices'][0]['finish_reason']=='stop'

def test_chat_without_usage():
    *evs,done = post('chat', messages=user('Name three primes.'), stream=True)[2]
    assert done=='[DONE]' and len(evs) > 2 and not any('usage' in e for e in evs)

def test_gemini_events():
    evs = post('gemini', contents=[dict(role='user', parts=[dict(text='What is the weather in New York now? Search.')])])[2]
    cands = [e['candidates'][0] for e in evs]
    assert [c.get('finishReason') for c in cands]==[None]*(len(evs)-1) + ['STOP']
    assert cands[-1]['groundingMetadata']['webSearchQueries']==['weather in New York']
    counts = [e['usageMetadata']['candidatesTokenCount'] for e in evs]
    assert counts==sorted(counts)


# The keys of what is used

claude_keys = {'input_tokens','cache_creation_input_tokens','cache_read_input_tokens','output_tokens'}
usages = [
    ('messages',     dict(messages=user('What is 2+2?')), 'usage', claude_keys | {'cache_creation','service_tier','inference_geo'}),
    ('chat',         dict(messages=user('Name three primes.')), 'usage',
        {'prompt_tokens','completion_tokens','total_tokens','prompt_tokens_details','completion_tokens_details'}),
    ('completions',  dict(prompt='Roses are red,'), 'usage', {'prompt_tokens','completion_tokens','total_tokens'}),
    ('responses',    dict(input='What is the capital of Peru?'), 'usage',
        {'input_tokens','input_tokens_details','output_tokens','output_tokens_details','total_tokens'}),
    ('gemini_whole', dict(contents=[dict(parts=[dict(text='How many seconds are in a week?')])]), 'usageMetadata',
        {'promptTokenCount','promptTokensDetails','candidatesTokenCount','thoughtsTokenCount','totalTokenCount'}),
    ('rerank',       dict(query='Which page is about money?', documents=['a','bb']), 'meta', {'api_version','billed_units'})]

@pytest.mark.parametrize('api,b,at,keys', usages)
def test_usage_keys(api, b, at, keys): assert set(post(api, **b)[2][at])==keys

def test_search_known_at_the_end():
    evs = post('messages', messages=user('What is the weather like in NYC? Search web.'), stream=True)[2]
    start,end = evs[0]['message']['usage'],evs[-2]['usage']
    assert (start['input_tokens'], start['output_tokens'])==(2224, 1) and 'server_tool_use' not in start
    assert (end['input_tokens'], end['output_tokens'], end['server_tool_use']['web_search_requests'])==(12012, 318, 1)

def test_same_request_same_bytes():
    def go(): return reply(httpx.Request('POST', urls['messages'], json=dict(model='m', messages=user('anything at all'))))
    (_,h1,b1),(_,h2,b2) = go(),go()
    assert b1==b2 and h1['request-id']==h2['request-id']
    assert b'You said: anything at all' in b1


# Read by the vendors' clients

@pytest.fixture(scope='module')
def base():
    slow = {'Say hello in Breton.': dict(delay=.01), 'Name three primes.': dict(cut=2)}
    with serve(slow) as url: yield url

@pytest.fixture
def cli(base): return openai.OpenAI(base_url=f'{base}/v1', api_key='stand-in', max_retries=0)

def test_openai_chat(cli):
    r = cli.chat.completions.create(model='gpt-5.6-luna', messages=user('Summarise the minutes.'))
    assert (r.usage.prompt_tokens, r.usage.prompt_tokens_details.cached_tokens)==(2006, 1920)
    r = cli.chat.completions.create(model='gpt-5.6-luna', messages=user('Add 17 and 25 with your tool.'), stream=True)
    assert ''.join(c.choices[0].delta.tool_calls[0].function.arguments for c in r if c.choices[0].delta.tool_calls)=='{"a": 17, "b": 25}'

def test_openai_responses(cli):
    with cli.responses.stream(model='gpt-5.4-mini', input='What is the capital of Peru?') as s: r = s.get_final_response()
    assert (r.output_text, r.usage.total_tokens, r.model)==('Lima.', 20, 'gpt-5.4-mini-2026-03-17')

def test_openai_others(cli):
    assert len(cli.embeddings.create(model='text-embedding-3-small', input='x', dimensions=8).data[0].embedding)==8
    assert cli.images.generate(model='gpt-image-2', prompt='A red square').usage.output_tokens==196
    assert cli.audio.transcriptions.create(model='whisper-1', file=('eight.wav', b'RIFF')).usage.seconds==6
    assert cli.audio.transcriptions.create(model='gpt-4o-mini-transcribe', file=('seven.wav', b'RIFF')).usage.input_tokens==45
    assert cli.audio.speech.create(model='tts-1', voice='alloy', input='hm').content.startswith(b'\xff\xf3')
    assert cli.completions.create(model='gpt-3.5-turbo-instruct', prompt='Roses are red,').usage.total_tokens==10

errors = {400:openai.BadRequestError, 404:openai.NotFoundError, 429:openai.RateLimitError, 500:openai.InternalServerError}

@pytest.mark.parametrize('status', errors)
def test_openai_errors(cli, status):
    fault = {'x-stand-in': json.dumps(dict(status=status))}
    with pytest.raises(errors[status]): cli.chat.completions.create(model='m', messages=user('hm'), extra_headers=fault)

def test_anthropic(base):
    a = anthropic.Anthropic(base_url=base, api_key='stand-in', max_retries=0)
    ask = dict(model='claude-sonnet-5-5', max_tokens=9, messages=user('What did the last visitor ask for?'))
    with a.messages.stream(**ask) as s: u = s.get_final_message().usage
    assert (u.input_tokens, u.cache_read_input_tokens, u.cache_creation_input_tokens)==(25, 3200, 820)
    assert u.cache_creation.ephemeral_1h_input_tokens==640


# Faults

def test_cut(base):
    got,ask = b'',dict(model='m', messages=user('Name three primes.'), stream=True)
    with httpx.stream('POST', f'{base}/v1/chat/completions', json=ask) as r, pytest.raises(httpx.RemoteProtocolError):
        for o in r.iter_bytes(): got += o
    assert got.count(b'data: ')==2

def test_delay(base):
    t,ask = time.perf_counter(),dict(model='m', messages=user('Say hello in Breton.'), stream=True)
    n = httpx.post(f'{base}/v1/messages', json=ask).content.count(b'event: ')
    assert n > 5 and time.perf_counter()-t > .01*n

def test_stand_in():
    with stand_in():
        assert httpx.post(urls['messages'], json=dict(model='m', messages=user('What is 2+2?'))).json()['usage']['output_tokens']==11
        with pytest.raises(ValueError, match='no stand-in for example.com'): httpx.get('https://example.com')

def test_stand_in_async():
    async def go():
        async with httpx.AsyncClient() as c: return await c.post(urls['messages'], json=dict(model='m', messages=user('What is 3+3?')))
    with stand_in(): assert asyncio.run(go()).json()['usage']['output_tokens']==13


# The recorded cassette

bad = dict(key=dict(response='sk-'+'a1'*12), sk=dict(response='sk-ant-api03-abcdefghijklmnop'), token=dict(response='Bearer abc'), account=dict(response='user-'+'b2'*10),
    header=dict(headers={'set-cookie':'x'}), cookie=dict(headers={'set-cookie':'a=b'}), organisation=dict(response='{"organization_id":"x"}'), server=dict(headers={'server':'x'}))

@pytest.mark.parametrize('kind', bad)
def test_refused(kind):
    with pytest.raises(ValueError, match=dict(sk='key', cookie='set-cookie').get(kind, kind)): record.check(json.dumps(dict(key='0', response='', headers={}) | bad[kind]))

def test_key_of_this_environment(monkeypatch):
    monkeypatch.setenv('COHERE_API_KEY', 'a-key-of-no-known-shape')
    with pytest.raises(ValueError, match='COHERE_API_KEY'): record.check(json.dumps(dict(key='0', response='a-key-of-no-known-shape')))

def test_shipped():
    record.check_file(record.folder/'cachy.jsonl')
    said = json.loads((record.folder/'recorded.json').read_text())
    assert {r['key'] for r in said.values()}==set(record._lines(record.folder/'cachy.jsonl'))
    assert {r['source'] for r in said.values()}<={'stand-in','provider'}
