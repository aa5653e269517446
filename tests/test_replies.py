"""Replies of many shapes, as their providers document them, read into rows: a table of bodies and of what has to be counted."""
import json
import pytest
from llm_usage import Usage

def read(*os): return Usage.from_response(list(os) if len(os)>1 else os[0])
def told(u): return json.loads(u.details or '{}')

# Anthropic: more than one iteration

def iteration(kind, i, o, read=0, write=0, hour=0, **kw):
    return dict(type=kind, input_tokens=i, output_tokens=o, cache_read_input_tokens=read, cache_creation_input_tokens=write,
        cache_creation=dict(ephemeral_5m_input_tokens=write-hour, ephemeral_1h_input_tokens=hour)) | kw

def claude(*its, **usage):
    return dict(id='msg_1', type='message', model='claude-sonnet-5-5', content=[], usage=usage | dict(iterations=list(its)))

def test_compaction_is_counted():
    "The totals of a compacted call leave the compaction out: what is billed is the sum of its iterations"
    u = read(claude(iteration('compaction', 180_000, 3500, read=100, hour=200, write=300), iteration('message', 23_000, 1000, write=50), input_tokens=23_000, output_tokens=1000))
    assert (u.prompt_tokens, u.completion_tokens) == (180_000+23_000+100+300+50, 4500)
    assert (u.cache_read_tokens, u.cache_creation_tokens, u.cache_creation_1h_tokens) == (100, 350, 200)

def test_an_advisor_is_not_lost():
    "An advisor is another model, at another price: its tokens are kept apart, named, and the row has no price without them"
    its = iteration('message', 412, 89), iteration('advisor_message', 823, 1612, model='claude-opus-5-5'), iteration('message', 1348, 442, read=412)
    u = read(claude(*its, input_tokens=412, output_tokens=531))
    assert (u.prompt_tokens, u.completion_tokens, u.cache_read_tokens) == (412+1348+412, 89+442, 412)
    assert told(u)['advisor']=='claude-opus-5-5' and told(u)['advisor_tokens']==823+1612
    assert u.billable()['advisor']==823+1612 and Usage(**vars(u) | dict(provider='anthropic')).cost is None
    alone = read(claude(iteration('advisor_message', 10, 20, read=30, write=40), input_tokens=412, output_tokens=89))
    assert (alone.prompt_tokens, alone.completion_tokens, told(alone)) == (412, 89, dict(advisor_tokens=10+20+30+40))

def test_thinking_is_in_a_step_too():
    its = [iteration('message', 10, 50, output_tokens_details=dict(thinking_tokens=n)) for n in (20, 7)]
    u = read(claude(*its, input_tokens=20, output_tokens=100))
    assert (u.completion_tokens, u.reasoning_tokens) == (100, 27)

def test_one_iteration_is_the_call():
    u = read(claude(iteration('message', 10, 5, read=7), input_tokens=10, output_tokens=5, cache_read_input_tokens=7))
    assert (u.prompt_tokens, u.completion_tokens, u.details) == (17, 5, None)

def test_iterations_of_a_stream():
    "The last event has them, and events before it had less"
    start = dict(type='message_start', message=claude(input_tokens=23_000, output_tokens=1))
    end   = dict(type='message_delta', usage=claude(iteration('compaction', 180_000, 3500), iteration('message', 23_000, 1000), input_tokens=23_000, output_tokens=1000)['usage'])
    assert (read(start, end).prompt_tokens, read(start, end).completion_tokens) == (203_000, 4500)

def test_totals_beside_iterations():
    "A step may leave out what the totals have; where and how fast it was served is kept, as it multiplies the price"
    u = read(claude(dict(type='message', input_tokens=10, output_tokens=5), input_tokens=10, output_tokens=5, cache_read_input_tokens=7, inference_geo='us', speed='fast', service_tier='batch', server_tool_use=dict(web_search_requests=2)))
    assert (u.prompt_tokens, u.cache_read_tokens, told(u)) == (17, 7, dict(geo='us', speed='fast'))
    assert (u.service_tier, u.web_search_requests) == ('batch', 2)

# Gemini

def gemini(meta=None, **usage): return dict(modelVersion='gemini-3.5-flash-lite', candidates=[dict(groundingMetadata=meta or {})], usageMetadata=usage)

@pytest.mark.parametrize('queries,n', [([], 0), ([''], 0), (['', ' ', 'rain'], 1), (['rain', 'rain'], 1), (['rain', 'wind', None], 2)])
def test_queries_that_are_none(queries, n):
    assert read(gemini(dict(webSearchQueries=queries), promptTokenCount=5, candidatesTokenCount=1)).web_search_requests==n

def test_cached_audio():
    "Audio that was read from the cache has a rate of its own; the prompt's audio has it inside"
    modal = lambda **kw: [dict(modality=k.upper(), tokenCount=n) for k,n in kw.items()]
    u = read(gemini(promptTokenCount=2600, cachedContentTokenCount=2000, candidatesTokenCount=9, totalTokenCount=2609,
        promptTokensDetails=modal(text=600, audio=2000), cacheTokensDetails=modal(text=200, audio=1800)))
    c = u.billable()
    assert told(u)==dict(audio_in=2000, cached_audio=1800)
    assert (c['cached audio'], c['cache read'], c['audio input'], c['input']) == (1800, 200, 200, 400)

def test_maps():
    "Queries of an answer that stands on maps are not web searches; one is counted even if none is named"
    maps = dict(groundingChunks=[dict(maps=dict(uri='u'))])
    u,v = (read(gemini(maps | o, promptTokenCount=5, candidatesTokenCount=1)) for o in ({}, dict(webSearchQueries=['cafe', 'bar'])))
    assert [(o.web_search_requests, told(o)) for o in (u,v)] == [(0, dict(maps=1)), (0, dict(maps=2))]
    assert told(read(gemini(maps, promptTokenCount=5), gemini({}, promptTokenCount=5, candidatesTokenCount=1)))==dict(maps=1)
    both = maps | dict(groundingChunks=[dict(maps={}), dict(web={})], webSearchQueries=['cafe'])
    assert (read(gemini(both, promptTokenCount=5)).web_search_requests, told(read(gemini(both, promptTokenCount=5)))) == (1, dict(maps=1))

# Responses

def call(action=None, kind='web_search_call', **kw): return dict(type=kind, status='completed') | (dict(action=dict(type=action)) if action else {}) | kw
def response(*items, **kw): return dict(id='resp_1', object='response', model='gpt-5.6-luna', output=list(items), usage=dict(input_tokens=9, output_tokens=1, total_tokens=10)) | kw

@pytest.mark.parametrize('actions,n', [(['search','open_page','find_in_page','search'], 2), (['open_page'], 0), ([None], 1), ([], 0)])
def test_only_a_search_is_a_search(actions, n):
    r = response(*map(call, actions))
    done = [dict(type='response.output_item.done', item=o) for o in r['output']] + [dict(type='response.completed', response=r | dict(output=[]))]
    assert [read(r).web_search_requests, read(dict(type='response.completed', response=r)).web_search_requests, read(*done).web_search_requests] == [n]*3

def test_the_providers_own_count_wins():
    "`tool_usage` says what is billed, beside the usage or in it; the events of a stream begin with 0"
    said = lambda n: dict(tool_usage=dict(web_search=dict(num_requests=n)))
    items = [call('search')]*3
    assert read(response(*items, **said(2))).web_search_requests==2
    assert read(response(*items, usage=dict(input_tokens=9, output_tokens=1, server_tool_use=dict(web_search_requests=1)))).web_search_requests==1
    assert read(response(*items, usage=dict(input_tokens=9, output_tokens=1) | said(2))).web_search_requests==2
    first,last = (dict(type=f'response.{k}', response=response(*o, **said(n))) for k,o,n in (('created', [], 0), ('completed', items, 2)))
    assert read(first, last).web_search_requests==2

def test_a_count_that_is_said_twice_is_one():
    "Beside the usage and in it, or in each event of a stream"
    said = dict(tool_usage=dict(web_search=dict(num_requests=2)))
    twice = response(usage=dict(input_tokens=9, output_tokens=1) | said, **said)
    events = [dict(type=f'response.{k}', response=twice) for k in ('in_progress','completed')]
    assert (read(twice).web_search_requests, read(*events).web_search_requests) == (2, 2)
    zero = dict(tool_usage=dict(web_search=dict(num_requests=0)))
    assert read(response(usage=dict(input_tokens=9, output_tokens=1) | zero, **said)).web_search_requests==2

def test_other_tools():
    "Searches in files, sessions of the code interpreter (a container is one, however often it is used), and images made"
    r = response(call(kind='file_search_call'), call(kind='file_search_call'), call(kind='code_interpreter_call', container_id='a'), call(kind='code_interpreter_call', container_id='a'),
        call(kind='code_interpreter_call', container_id='b'), call(kind='image_generation_call'), call(kind='image_generation_call', status='failed'), call(kind='function_call'))
    want = dict(file_searches=2, code_sessions=2, images=1)
    done = [dict(type='response.output_item.done', item=o) for o in r['output']] + [dict(type='response.completed', response=r)]
    assert told(read(r))==told(read(*done))==want

# Others

bodies = {
    'Cohere chat': (dict(id='c', usage=dict(billed_units=dict(input_tokens=17, output_tokens=12), tokens=dict(input_tokens=215, output_tokens=13))), dict(prompt_tokens=17, completion_tokens=12, total_tokens=29)),
    'Cohere, first version': (dict(text='hi', meta=dict(billed_units=dict(input_tokens=17, output_tokens=12), tokens=dict(input_tokens=215, output_tokens=13))), dict(prompt_tokens=17, completion_tokens=12)),
    'Cohere chat, streamed': ([dict(type='message-start', id='c'), dict(type='message-end', delta=dict(finish_reason='COMPLETE', usage=dict(billed_units=dict(input_tokens=5, output_tokens=9), tokens=dict(input_tokens=70, output_tokens=9))))], dict(prompt_tokens=5, completion_tokens=9)),
    'Cohere, first version, streamed': ([dict(event_type='text-generation', text='hi'), dict(event_type='stream-end', response=dict(text='hi', meta=dict(billed_units=dict(input_tokens=5, output_tokens=9))))], dict(prompt_tokens=5, completion_tokens=9)),
    'Cohere embeddings': (dict(id='e', embeddings=dict(float=[[.1]]), meta=dict(api_version=dict(version='2'), billed_units=dict(input_tokens=4))), dict(prompt_tokens=4, completion_tokens=0)),
    'Cohere rerank': (dict(id='r', results=[], meta=dict(billed_units=dict(search_units=3))), dict(details='{"search_units": 3}')),
    'Mistral': (dict(model='mistral-large-latest', usage=dict(prompt_tokens=100, completion_tokens=5, total_tokens=105, num_cached_tokens=64)), dict(prompt_tokens=100, cache_read_tokens=64)),
    'Mistral OCR': (dict(model='mistral-ocr-latest', pages=[{},{}], usage_info=dict(pages_processed=2, doc_size_bytes=9)), dict(details='{"pages": 2}')),
    'Mistral OCR, annotated': (dict(usage_info=dict(pages_processed=3, pages_processed_annotation=2)), dict(details='{"annotated": 2, "pages": 3}')),
    'OpenAI transcription': (dict(text='hi', usage=dict(type='duration', seconds=9)), dict(details='{"seconds": 9}')),
    'OpenAI images': (dict(created=1, data=[dict(url='u'), dict(b64_json='b')]), dict(details='{"images": 2}')),
    'OpenAI video': (dict(id='v', usage=dict(duration_seconds=8)), dict(details='{"seconds": 8}')),
    'OpenAI Responses, cached': (dict(output=[], usage=dict(input_tokens=100, output_tokens=9, input_tokens_details=dict(cached_tokens=20, cache_write_tokens=30), output_tokens_details=dict(reasoning_tokens=4))),
        dict(prompt_tokens=100, cache_read_tokens=20, cache_creation_tokens=30, completion_tokens=9, reasoning_tokens=4)),
    'Anthropic, reads only':  (dict(usage=dict(input_tokens=10, output_tokens=5, cache_read_input_tokens=64)), dict(prompt_tokens=74, cache_read_tokens=64, cache_creation_tokens=0)),
    'Anthropic, writes only': (dict(usage=dict(input_tokens=10, output_tokens=5, cache_creation_input_tokens=32)), dict(prompt_tokens=42, cache_read_tokens=0, cache_creation_tokens=32)),
    'Bedrock, reads only':    (dict(usage=dict(inputTokens=10, outputTokens=5, cacheReadInputTokens=64)), dict(prompt_tokens=74, cache_read_tokens=64, cache_creation_tokens=0)),
    'Bedrock, writes only':   (dict(usage=dict(inputTokens=10, outputTokens=5, cacheWriteInputTokens=32)), dict(prompt_tokens=42, cache_read_tokens=0, cache_creation_tokens=32)),
    'DeepSeek': (dict(usage=dict(prompt_tokens=100, completion_tokens=5, prompt_cache_hit_tokens=64, prompt_cache_miss_tokens=36)), dict(prompt_tokens=100, cache_read_tokens=64)),
    'Anthropic, thinking': (dict(usage=dict(input_tokens=10, output_tokens=90, output_tokens_details=dict(thinking_tokens=70))), dict(prompt_tokens=10, completion_tokens=90, reasoning_tokens=70)),
    'Anthropic, twelve hours': (dict(usage=dict(prompt_tokens=100, prompt_tokens_details=dict(cache_creation_tokens=50, cache_creation_token_details=dict(ephemeral_1h_input_tokens=20, ephemeral_12h_input_tokens=30)))),
        dict(cache_creation_tokens=50, cache_creation_1h_tokens=20, details='{"write_12h": 30}')),
    'Perplexity': (dict(usage=dict(prompt_tokens=10, completion_tokens=5, citation_tokens=7)), dict(details='{"citations": 7}')),
    'every modality': (dict(usage=dict(prompt_tokens=99, completion_tokens=99, prompt_tokens_details=dict(audio_tokens=1, image_tokens=2, video_tokens=3), completion_tokens_details=dict(audio_tokens=4, image_tokens=5, video_tokens=6))),
        dict(details='{"audio_in": 1, "audio_out": 4, "image_in": 2, "image_out": 5, "video_in": 3, "video_out": 6}')),
    'Gemini, every modality': (dict(usageMetadata=dict(promptTokenCount=99, candidatesTokenCount=99, promptTokensDetails=[dict(modality=o, tokenCount=n) for n,o in enumerate(('AUDIO','IMAGE','VIDEO'),1)],
        candidatesTokensDetails=[dict(modality=o, tokenCount=n) for n,o in enumerate(('AUDIO','IMAGE','VIDEO'),4)])), dict(details='{"audio_in": 1, "audio_out": 4, "image_in": 2, "image_out": 5, "video_in": 3, "video_out": 6}')),
    'Gemini, as LiteLLM says it': (dict(usage=dict(prompt_tokens=90, completion_tokens=10, total_tokens=104, completion_tokens_details=dict(reasoning_tokens=4), prompt_tokens_details=dict(tool_use_tokens=4))),
        dict(prompt_tokens=90, completion_tokens=10, reasoning_tokens=4)), # its total has the results of tools, and as many tokens of reasoning
    'Voyage': (dict(object='list', data=[dict(embedding=[.1], index=0)], model='voyage-4', usage=dict(total_tokens=7)), dict(prompt_tokens=7, completion_tokens=0, details=None)),
}

@pytest.mark.parametrize('name', bodies)
def test_others(name):
    body,want = bodies[name]
    u = read(body)
    assert {k:getattr(u,k) for k in want}==want and u.usage_source=='reported'

# A cost that was stated

byok = dict(prompt_tokens=100, completion_tokens=20, total_tokens=120, cost=.0001, is_byok=True, cost_details=dict(upstream_inference_cost=.002))

def test_ones_own_key():
    "With one's own key OpenRouter states its fee, and beside it what the key's owner pays; without one both are the same money"
    chunk = lambda **kw: dict(object='chat.completion.chunk', model='x/y') | kw
    own,theirs = read(dict(model='x/y', usage=byok)), read(dict(model='x/y', usage=byok | dict(is_byok=False, cost=.002)))
    assert own.response_cost==pytest.approx(.0021, abs=1e-15) and own.cost_source=='provider'
    assert theirs.response_cost==.002 and read(dict(model='x/y', usage=byok | dict(is_byok='no'))).response_cost==.0001
    assert read(chunk(choices=[{}]), chunk(choices=[], usage=byok)).response_cost==own.response_cost

@pytest.mark.parametrize('cost', [-1., float('nan'), float('inf'), 1e300, 'free', True, None])
def test_a_cost_that_is_none(cost):
    u = read(dict(model='x/y', usage=byok | dict(cost=cost)))
    assert u.response_cost is None and u.cost_source is None and u.prompt_tokens==100

def test_a_cost_of_litellm_is_not_the_providers():
    "LiteLLM puts its own figure there, which the provider never said"
    assert read(dict(model='x/y', usage=dict(prompt_tokens=100, completion_tokens=20, total_tokens=120, cost=.01))).response_cost is None

# Streams

def test_snapshots_are_not_added():
    "Every chunk of a stream may have the usage so far; the last one that says something counts, field by field"
    chunk = lambda **kw: dict(object='chat.completion.chunk', model='m', usage=kw)
    u = read(chunk(prompt_tokens=50, completion_tokens=1, total_tokens=51), chunk(prompt_tokens=50, completion_tokens=9, total_tokens=59, prompt_tokens_details=dict(cached_tokens=30)),
        chunk(prompt_tokens=None, completion_tokens=12, total_tokens=62), dict(model='m', usage=None))
    assert (u.prompt_tokens, u.completion_tokens, u.total_tokens, u.cache_read_tokens) == (50, 12, 62, 30)

def test_what_is_announced_gives_way():
    "Where, how fast and at which tier it was served is what the last event says; what is unavailable is not noted"
    said = [dict(type='message_start', message=dict(usage=dict(input_tokens=5, output_tokens=1, inference_geo=g, speed=s, service_tier=t))) for g,s,t in (('not_available','standard','auto'), ('us','fast','priority'))]
    assert [(told(u), u.service_tier) for u in (read(said[0]), read(*said))]==[({}, 'auto'), (dict(geo='us', speed='fast'), 'priority')]

def test_lists_of_an_earlier_chunk():
    a = gemini(promptTokenCount=300, candidatesTokenCount=1, promptTokensDetails=[dict(modality='AUDIO', tokenCount=200)])
    b = gemini(promptTokenCount=300, candidatesTokenCount=2, promptTokensDetails=[dict(modality='AUDIO', tokenCount=250)])
    assert told(read(a, gemini(promptTokenCount=300, candidatesTokenCount=5)))==dict(audio_in=200)
    assert told(read(a, b))==dict(audio_in=250)

@pytest.mark.parametrize('size', [1, 7, 100])
def test_bytes_that_are_cut_anywhere(size):
    "What came over the wire may be cut in the middle of a line"
    wire = b''.join(b'data: ' + json.dumps(dict(model='m', usage=dict(prompt_tokens=5, completion_tokens=i, total_tokens=5+i))).encode() + b'\n\n' for i in (1,2,3))
    u = Usage.from_response([wire[i:i+size] for i in range(0, len(wire), size)])
    assert (u.prompt_tokens, u.completion_tokens) == (5, 3)

# Counts that cannot be

@pytest.mark.parametrize('n', [10**12+1, 2**62, 1e300, float('inf'), float('nan'), -1, 1.5, '12', True])
def test_counts_that_cannot_be(n):
    "A count is a whole number up to a trillion; another one is not taken, and the row says that nothing is known"
    u = read(dict(model='gpt-5.6-luna', usage=dict(prompt_tokens=n, completion_tokens=n, total_tokens=n)))
    assert (u.prompt_tokens, u.completion_tokens, u.usage_source, u.cost) == (None, None, 'missing', None)

def test_the_total_is_the_providers():
    "A total is as its provider adds it up, whatever else it has in it"
    assert read(gemini(promptTokenCount=12, candidatesTokenCount=5, totalTokenCount=90)).total_tokens==90
