"""Stand-ins for the paid providers: the documented wire formats with scripted words and counts, and no model behind them.

`reply` answers a request the way Anthropic, OpenAI, Gemini or Cohere lays an answer out, whole or streamed event by event.
What is said, and the tokens it is said to have cost, comes from the table `says`; any other text is echoed and counted at
four characters a token. Ids are hashes of the request and `created` is a constant, so the same request gets the same bytes
again; only the `date` header is the time of the answer.

There are two ways in. `stand_in()` takes the network's place below httpx in this process, so that cassettes keep the real
addresses; `serve()` listens on a loopback port, writes one event at a time, and adds the faults a cassette cannot hold.
"""
import base64, hashlib, json, re, struct, time, zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from unittest.mock import patch

import httpx
try: import httpx2
except ImportError: httpx2 = None

created = 1767225600   # every answer's `created`: 2026-01-01, so that recording again changes nothing


# What is said

@dataclass
class Say:
    "An answer and the tokens reported for it: `inp` is what no cache served or kept, `out` includes `think`"
    text:str=''; inp:int=0; out:int=0; read:int=0; write:int=0; write_1h:int=0; think:int=0
    search:str=''; first:int=0; found:int=0   # a web search: its query, the input before it, and the results that Gemini counts apart
    tool:tuple=(); secs:float=0               # the name and arguments of a tool call; the length of the audio
    status:int=200                            # that of an error, whose message is `text`
    @property
    def prompt(self): return self.inp + self.read + self.write + self.write_1h

_nyc  = 'New York is 8°C and cloudy, with rain expected this evening.'
_add  = ('add', dict(a=17, b=25))
_too_long = 'max_tokens: 9000000 > 128000, which is the maximum allowed number of output tokens for claude-sonnet-5-5'

says = {
    'What is 2+2?':                          Say('2 + 2 = 4', 14, 11),
    'Count from 1 to 5':                     Say('1, 2, 3, 4, 5', 15, 17),
    'What is 3+3?':                          Say('3 + 3 = **6**', 14, 13),
    'Count from 10 to 15':                   Say('10, 11, 12, 13, 14, 15', 38, 20),
    'How many primes are below 1000?':       Say('There are 168.', 17, 620, think=540),
    'What is the weather like in NYC? Search web.': Say(_nyc, 12012, 318, search='NYC weather today', first=2224),
    'Who may open the archive?':             Say('Anyone with a reader card.',     21, 40, write=3200),
    'When does the archive close?':          Say('At six, and at four on Sundays.', 23, 35, read=3200),
    'Who may open the archive at night?':    Say('Only the two night wardens.',    21, 40, write_1h=3200),
    'What did the last visitor ask for?':    Say('The harbour map of 1887.',       25, 30, read=3200, write=180, write_1h=640),
    'Summarise the minutes.':                Say('The board met, voted twice and went home.', 86, 300, read=1920),
    'Summarise the minutes again.':          Say('It met, voted twice and went home.',        86, 280, write=1920),
    'Name three primes.':                    Say('2, 3 and 5.', 12, 9),
    'How many primes are below 100?':        Say('There are 25.', 120, 900, think=832),
    'What is the capital of France?':        Say('Paris.', 14, 6),
    'What is the capital of Peru?':          Say('Lima.', 14, 6),
    'What is the capital of Chile?':         Say('Santiago.', 14, 7),
    'Which city hosts the next Olympics? Search the web.': Say('Los Angeles, in 2028.', 8327, 149, think=59, search='next Olympics host city'),
    'How many seconds are in a week?':       Say('604,800.', 9, 152, think=141),
    'What is the weather in New York? Search.':           Say(_nyc, 12, 295, think=148, search='weather in New York', found=88),
    'What is the weather in New York now? Search.':       Say(_nyc, 13, 301, think=152, search='weather in New York', found=73),
    'Add 17 and 25 with the tool.':          Say('', 740, 57, tool=_add),
    'Add 17 and 25 with your tool.':         Say('', 65, 20, tool=_add),
    'Say hello in Welsh.':                   Say('Helo!', 11, 7),
    'Say hello in Breton.':                  Say('Demat!', 11, 8),
    'Review: total = sum(costs)':            Say('An unknown cost is None, and sum raises. Leave it out, and count it.', 61, 24),
    'Test: total = sum(costs)':              Say('assert total([1, None])==(1, 1)', 58, 19),
    'Document: total = sum(costs)':          Say('The known costs added up, and how many are unknown.', 59, 17),
    'Roses are red,':                        Say(' violets are blue.', 4, 6),
    'The ledger never loses a call.':        Say(inp=8),
    'A red square':                          Say(inp=12, out=196),
    'seven.wav':                             Say('Seven calls, seven rows.', 45, 9, secs=4.5),
    'eight.wav':                             Say('Eight calls, eight rows.', 52, 9, secs=5.2),
    'Which page is about money?':            Say(),
    'Write as much as you can.':             Say(_too_long, status=400),
    'Is anybody there?':                     Say('The model `gpt-5.6-absent` does not exist or you do not have access to it.', status=404),
    'What does nobody charge for?':          Say('A kind word.', 16, 8),
    'What costs nothing?':                   Say('A smile.', 14, 7),
}

def _echo(s):
    "An answer to a text nobody scripted"
    t = f'You said: {s}'
    return Say(t, len(s)//4 or 1, len(t)//4)


# What is asked

@dataclass
class Ask:
    "One request: its body as a dict, its path, a hash of both, and what is to be said"
    b:dict; path:str; id:str; say:Say
    @property
    def model(self): return snapshots.get(m:=self.b.get('model') or self.path.split('/')[-1].split(':')[0], m)
    @property
    def stream(self): return bool(self.b.get('stream')) or 'stream' in self.path

snapshots = {'gpt-5.4-mini': 'gpt-5.4-mini-2026-03-17'}   # models that answer under a dated name

def body(req):
    "The body of `req` as a dict; in a form, a file is shown by its name"
    raw,ct = req.read(),req.headers.get('content-type', '')
    if 'multipart' not in ct: return json.loads(raw or b'{}')
    form = message_from_bytes(f'content-type: {ct}\r\n\r\n'.encode() + raw)
    return {p.get_param('name', header='content-disposition'): p.get_filename() or p.get_payload() for p in form.get_payload()}

def _words(c):
    "The text of a message's content: a string, or the text of its parts"
    return c if isinstance(c, str) else ' '.join(p.get('text', '') for p in c or [])

def asked(b):
    "The last text the user put into body `b`"
    v = next((b[k] for k in ('messages','contents','input','prompt','query','file') if k in b), '')
    if isinstance(v, str): return v
    if isinstance(v[-1], str): return v[-1]
    m = [o for o in v if o.get('role', 'user')=='user'][-1]
    return _words(m.get('content') or m.get('parts')).strip()

def ask(req):
    "What `req` asks, and what to say to it"
    b,path = body(req),req.url.path
    h,t = hashlib.sha256(f'{path}{json.dumps(b, sort_keys=True)}'.encode()).hexdigest()[:16],asked(b)
    return Ask(b, path, h, says.get(t) or _echo(t))

def pieces(s, n=12):
    "Text `s` in the pieces a stream delivers"
    return [s[i:i+n] for i in range(0, len(s), n)]


# Anthropic: /v1/messages

def _claude_usage(s):
    u = dict(input_tokens=s.inp, cache_creation_input_tokens=s.write+s.write_1h, cache_read_input_tokens=s.read,
        cache_creation=dict(ephemeral_5m_input_tokens=s.write, ephemeral_1h_input_tokens=s.write_1h),
        output_tokens=s.out, service_tier='standard', inference_geo='global')
    if s.search: u |= dict(server_tool_use=dict(web_search_requests=1, web_fetch_requests=0))
    if s.think:  u |= dict(output_tokens_details=dict(thinking_tokens=s.think))
    return u

_page = dict(url='https://weather.example/nyc', title='Forecast')

def _claude_search(q):
    "The blocks of a web search: the query, what it found, and an answer that cites it"
    i,who = f'srvtoolu_standin_{q.id}',dict(caller=dict(type='direct'))
    hit  = dict(type='web_search_result', **_page, encrypted_content='c3RhbmQtaW4=', page_age='1 hour ago')
    cite = dict(type='web_search_result_location', cited_text=q.say.text, **_page, encrypted_index='c3RhbmQtaW4=')
    return [dict(type='server_tool_use', id=i, name='web_search', input=dict(query=q.say.search), **who),
        dict(type='web_search_tool_result', tool_use_id=i, content=[hit], **who),
        dict(type='text', text='Here is what I found: '),
        dict(citations=[cite], type='text', text=q.say.text)]

def _claude_blocks(q):
    "The content blocks of an answer"
    if q.say.search: return _claude_search(q)
    if q.say.tool:   return [dict(type='tool_use', id=f'toolu_standin_{q.id}', name=q.say.tool[0], input=q.say.tool[1])]
    think = [dict(type='thinking', thinking='', signature='c3RhbmQtaW4=')]*bool(q.say.think)
    return think + [dict(type='text', text=q.say.text)]

def messages(q):
    "A message"
    return dict(model=q.model, id=f'msg_standin_{q.id}', type='message', role='assistant', content=_claude_blocks(q),
        stop_reason='tool_use' if q.say.tool else 'end_turn', stop_sequence=None, usage=_claude_usage(q.say))

def _text_deltas(b):
    return ([dict(type='citations_delta', citation=c) for c in b.get('citations', [])]
        + [dict(type='text_delta', text=p) for p in pieces(b['text'])])

def _json_deltas(b): return [dict(type='input_json_delta', partial_json=p) for p in ['', *pieces(json.dumps(b['input']))]]

def _think_deltas(b): return [dict(type='thinking_delta', thinking=b['thinking']), dict(type='signature_delta', signature=b['signature'])]

_blocks = dict(   # type of block -> how it starts, and the deltas that fill it
    thinking              =(lambda b: b | dict(thinking='', signature=''), _think_deltas),
    text                  =(lambda b: b | dict(text='') | (dict(citations=[]) if 'citations' in b else {}), _text_deltas),
    tool_use              =(lambda b: b | dict(input={}), _json_deltas),
    server_tool_use       =(lambda b: b | dict(input={}), _json_deltas),
    web_search_tool_result=(lambda b: b, lambda b: []))

_early = 'cache_creation','service_tier','inference_geo'   # the counts that only `message_start` has
_late  = 'server_tool_use','output_tokens_details'         # and those that only `message_delta` has

def _without(d, ks): return {k:v for k,v in d.items() if k not in ks}

def _block_events(i, b):
    start,deltas = _blocks[b['type']]
    return [dict(type='content_block_start', index=i, content_block=start(b)),
        *[dict(type='ping')]*(i==0),
        *[dict(type='content_block_delta', index=i, delta=d) for d in deltas(b)],
        dict(type='content_block_stop', index=i)]

def messages_events(q, m):
    "The events that spell message `m`; what is used is known only at the end"
    now = _without(m['usage'], _late)  | dict(input_tokens=q.say.first or q.say.inp, output_tokens=1)
    end = _without(m['usage'], _early)
    yield dict(type='message_start', message=m | dict(content=[], stop_reason=None, usage=now))
    for i,b in enumerate(m['content']): yield from _block_events(i, b)
    yield dict(type='message_delta', delta=dict(stop_reason=m['stop_reason'], stop_sequence=None), usage=end)
    yield dict(type='message_stop')

def claude_error(q, status, msg):
    return dict(type='error', error=dict(type=_claude_kinds.get(status, 'api_error'), message=msg), request_id=f'req_standin_{q.id}')

_claude_kinds = {400:'invalid_request_error', 401:'authentication_error', 404:'not_found_error', 429:'rate_limit_error', 529:'overloaded_error'}


# OpenAI: /v1/chat/completions and /v1/completions

def _chat_usage(s):
    return dict(prompt_tokens=s.prompt, completion_tokens=s.out, total_tokens=s.prompt+s.out,
        prompt_tokens_details=dict(cached_tokens=s.read, audio_tokens=0, cache_write_tokens=s.write),
        completion_tokens_details=dict(reasoning_tokens=s.think, audio_tokens=0, accepted_prediction_tokens=0, rejected_prediction_tokens=0))

def _call(q, args): return dict(id=f'call_standin_{q.id}', type='function', function=dict(name=q.say.tool[0], arguments=args))

def chat(q):
    "A chat completion"
    tool = dict(tool_calls=[_call(q, json.dumps(q.say.tool[1]))]) if q.say.tool else {}
    msg  = dict(role='assistant', content=q.say.text or None, **tool, refusal=None, annotations=[])
    return dict(id=f'chatcmpl-standin_{q.id}', object='chat.completion', created=created, model=q.model,
        choices=[dict(index=0, message=msg, finish_reason='tool_calls' if tool else 'stop')],
        usage=_chat_usage(q.say), service_tier='default', system_fingerprint=None)

def _chat_deltas(q):
    "The deltas of an answer: who speaks, then the words or the arguments of the call"
    if not q.say.tool: return [dict(role='assistant', content='', refusal=None), *[dict(content=p) for p in pieces(q.say.text)]]
    args = [dict(tool_calls=[dict(index=0, function=dict(arguments=p))]) for p in pieces(json.dumps(q.say.tool[1]))]
    return [dict(role='assistant', content=None, tool_calls=[dict(index=0, **_call(q, ''))], refusal=None), *args]

def _with_usage(q): return (q.b.get('stream_options') or {}).get('include_usage')

def chat_events(q, c):
    "The chunks of completion `c`; usage comes last, in a chunk without choices, if it was asked for"
    base = {k:c[k] for k in ('id','created','model','service_tier','system_fingerprint')} | dict(object='chat.completion.chunk')
    none = dict(usage=None) if _with_usage(q) else {}
    ends = [(d,None) for d in _chat_deltas(q)] + [({},c['choices'][0]['finish_reason'])]
    for d,end in ends: yield base | dict(choices=[dict(index=0, delta=d, logprobs=None, finish_reason=end)], **none, obfuscation=q.id[:9])
    if none: yield base | dict(choices=[], usage=c['usage'], obfuscation=q.id[:9])

def completions(q):
    "A text completion"
    u = _without(_chat_usage(q.say), ('prompt_tokens_details','completion_tokens_details'))
    return dict(id=f'cmpl-standin_{q.id}', object='text_completion', created=created, model=q.model,
        choices=[dict(text=q.say.text, index=0, logprobs=None, finish_reason='stop')], usage=u)

def completions_events(q, c):
    "The chunks of text completion `c`"
    base = {k:c[k] for k in ('id','object','created','model')}
    none = dict(usage=None) if _with_usage(q) else {}
    ends = [(p,None) for p in pieces(q.say.text)] + [('','stop')]
    for p,end in ends: yield base | dict(choices=[dict(text=p, index=0, logprobs=None, finish_reason=end)], **none)
    if none: yield base | dict(choices=[], usage=c['usage'])

def openai_error(q, status, msg):
    typ,code = _openai_kinds.get(status, ('server_error',None))
    return dict(error=dict(message=msg, type=typ, param=None, code=code))

_openai_kinds = {400:('invalid_request_error',None), 401:('invalid_request_error','invalid_api_key'),
    404:('invalid_request_error','model_not_found'), 429:('requests','rate_limit_exceeded')}


# OpenAI: /v1/responses

def _resp_usage(s):
    return dict(input_tokens=s.prompt, input_tokens_details=dict(cached_tokens=s.read, cache_write_tokens=s.write),
        output_tokens=s.out, output_tokens_details=dict(reasoning_tokens=s.think), total_tokens=s.prompt+s.out)

def _resp_search(q):
    return dict(id=f'ws_standin_{q.id}', type='web_search_call', status='completed',
        action=dict(type='search', queries=[q.say.search], query=q.say.search))

def _resp_message(q):
    cite = dict(type='url_citation', start_index=0, end_index=len(q.say.text), **_page)
    part = dict(type='output_text', annotations=[cite] if q.say.search else [], logprobs=[], text=q.say.text)
    return dict(id=f'msg_standin_{q.id}', type='message', status='completed', content=[part], phase='final_answer', role='assistant')

def _resp_call(q):
    return dict(id=f'fc_standin_{q.id}', type='function_call', status='completed', arguments=json.dumps(q.say.tool[1]),
        call_id=f'call_standin_{q.id}', name=q.say.tool[0])

def _resp_output(q):
    "The items of an answer: thoughts, then a search, then words or a call"
    think = [dict(id=f'rs_standin_{q.id}', type='reasoning', summary=[])]*bool(q.say.think)
    return think + [_resp_search(q)]*bool(q.say.search) + [_resp_call(q) if q.say.tool else _resp_message(q)]

_asked = dict(background=False, frequency_penalty=0.0, instructions=None, max_output_tokens=None, max_tool_calls=None, moderation=None,
    parallel_tool_calls=True, presence_penalty=0.0, previous_response_id=None, prompt_cache_key=None, prompt_cache_retention='in_memory',
    reasoning=dict(effort='none', summary=None), safety_identifier=None, store=True, temperature=1.0,
    text=dict(format=dict(type='text'), verbosity='medium'), tool_choice='auto', tools=[], top_logprobs=0, top_p=0.98,
    truncation='disabled', user=None, metadata={})   # what a response repeats of its request

def responses(q):
    "A response"
    return dict(id=f'resp_standin_{q.id}', object='response', created_at=created, status='completed', billing=dict(payer='developer'),
        completed_at=created+1, error=None, incomplete_details=None, output=_resp_output(q), service_tier='default',
        usage=_resp_usage(q.say), **(_asked | {k:v for k,v in q.b.items() if k in _asked} | dict(model=q.model)))

def _search_events(it):
    return [dict(type=f'response.web_search_call.{s}', item_id=it['id']) for s in ('in_progress','searching','completed')]

def _call_events(it):
    fill = [dict(type='response.function_call_arguments.delta', item_id=it['id'], delta=p, obfuscation='') for p in pieces(it['arguments'])]
    return fill + [dict(type='response.function_call_arguments.done', item_id=it['id'], arguments=it['arguments'])]

def _message_events(it):
    at,part = dict(item_id=it['id'], content_index=0),it['content'][0]
    note = [dict(type='response.output_text.annotation.added', **at, annotation_index=i, annotation=a) for i,a in enumerate(part['annotations'])]
    return [dict(type='response.content_part.added', **at, part=part | dict(annotations=[], text='')),
        *[dict(type='response.output_text.delta', **at, delta=p, logprobs=[], obfuscation='') for p in pieces(part['text'])], *note,
        dict(type='response.output_text.done', **at, logprobs=[], text=part['text']),
        dict(type='response.content_part.done', **at, part=part)]

_items = dict(   # type of item -> what it lacks when added, and the events that fill it
    reasoning      =({}, lambda it: []),
    web_search_call=(dict(status='in_progress'), _search_events),
    function_call  =(dict(status='in_progress', arguments=''), _call_events),
    message        =(dict(status='in_progress', content=[]), _message_events))

def _item_events(i, it):
    bare,fill = _items[it['type']]
    new = _without(it, ['action']) | bare
    evs = [dict(type='response.output_item.added', item=new), *fill(it), dict(type='response.output_item.done', item=it)]
    return [e | dict(output_index=i) for e in evs]

def responses_events(q, r):
    "The events that spell response `r`, numbered"
    r   = _without(r, ['billing'])
    new = r | dict(status='in_progress', completed_at=None, output=[], usage=None, service_tier='auto')
    evs = [dict(type='response.created', response=new), dict(type='response.in_progress', response=new)]
    for i,it in enumerate(r['output']): evs += _item_events(i, it)
    return [e | dict(sequence_number=i) for i,e in enumerate([*evs, dict(type='response.completed', response=r)])]


# OpenAI: embeddings, images, audio

def _vector(q, n):
    "A unit vector that depends on the request only"
    v = [b-127.5 for b in hashlib.shake_256(q.id.encode()).digest(n)]
    return [o/sum(x*x for x in v)**.5 for o in v]

def embeddings(q):
    "A list of embeddings, as floats or as the base64 of their bytes"
    v = _vector(q, q.b.get('dimensions') or 1536)
    if q.b.get('encoding_format')=='base64': v = base64.b64encode(struct.pack(f'<{len(v)}f', *v)).decode()
    return dict(object='list', data=[dict(object='embedding', index=0, embedding=v)], model=q.model,
        usage=dict(prompt_tokens=q.say.inp, total_tokens=q.say.inp))

def _png():
    "A red picture of one pixel"
    def chunk(t, d): return struct.pack('>I', len(d)) + t + d + struct.pack('>I', zlib.crc32(t+d))
    head = chunk(b'IHDR', struct.pack('>2I5B', 1, 1, 8, 2, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + head + chunk(b'IDAT', zlib.compress(b'\0\xff\0\0')) + chunk(b'IEND', b'')

def images(q):
    "A list of pictures"
    s,det = q.say,lambda t,i: dict(image_tokens=i, text_tokens=t)
    return dict(created=created, background='opaque', data=[dict(b64_json=base64.b64encode(_png()).decode())], output_format='png',
        quality=q.b.get('quality', 'medium'), size=q.b.get('size', '1024x1024'),
        usage=dict(input_tokens=s.inp, input_tokens_details=det(s.inp, 0), output_tokens=s.out, output_tokens_details=det(0, s.out),
            total_tokens=s.inp+s.out))

def transcriptions(q):
    "What was heard: billed by the second by whisper, by the token by later models"
    s,whisper = q.say,q.model.startswith('whisper')
    tokens = dict(type='tokens', input_tokens=s.inp, input_token_details=dict(text_tokens=0, audio_tokens=s.inp),
        output_tokens=s.out, total_tokens=s.inp+s.out)
    res = dict(text=s.text, usage=dict(type='duration', seconds=-(-s.secs//1)) if whisper else tokens)
    if q.b.get('response_format')!='verbose_json': return res
    return dict(task='transcribe', language='english', duration=s.secs, segments=[dict(id=0, seek=0, start=0.0, end=s.secs, text=s.text,
        tokens=[], temperature=0.0, avg_logprob=-.2, compression_ratio=1.0, no_speech_prob=.01)]) | res

def speech(q):
    "A moment of silence: eight empty MP3 frames"
    return (b'\xff\xf3\x14\xc4' + bytes(20))*8


# Gemini: generateContent and streamGenerateContent

def _gemini_count(name, details, n): return {name:n, details:[dict(modality='TEXT', tokenCount=n)]} if n else {}

def _gemini_usage(s):
    return dict(promptTokenCount=s.prompt, candidatesTokenCount=s.out-s.think, totalTokenCount=s.prompt+s.out+s.found,
        **_gemini_count('cachedContentTokenCount', 'cacheTokensDetails', s.read),
        promptTokensDetails=[dict(modality='TEXT', tokenCount=s.prompt)],
        **_gemini_count('toolUsePromptTokenCount', 'toolUsePromptTokensDetails', s.found),
        **(dict(thoughtsTokenCount=s.think) if s.think else {}))

def _grounding(s):
    seg = dict(segment=dict(startIndex=0, endIndex=len(s.text.encode()), text=s.text), groundingChunkIndices=[0])
    return dict(searchEntryPoint=dict(renderedContent='<div>stand-in</div>'), groundingSupports=[seg], webSearchQueries=[s.search],
        groundingChunks=[dict(web=dict(uri=_page['url'], title=_page['title']))])

def _candidate(q, part, last=True):
    "One candidate around `part`; only the last one is finished and grounded"
    seen = dict(groundingMetadata=_grounding(q.say) if last else {}) if q.say.search else {}
    return dict(content=dict(parts=[part], role='model')) | (dict(finishReason='STOP') if last else {}) | dict(index=0) | seen

def _gemini(q, part, usage, last=True):
    return dict(candidates=[_candidate(q, part, last)], usageMetadata=usage, modelVersion=q.model, responseId=f'standin_{q.id}')

def _sign(q): return dict(thoughtSignature='c3RhbmQtaW4=') if q.say.think else {}

def _gemini_part(q):
    call = dict(functionCall=dict(name=q.say.tool[0], args=q.say.tool[1])) if q.say.tool else dict(text=q.say.text)
    return call | _sign(q)

def gemini(q):
    "Generated content"
    return _gemini(q, _gemini_part(q), _gemini_usage(q.say))

def gemini_events(q, g):
    "The same content in chunks, each with the counts so far"
    u,ps = g['usageMetadata'],[dict(text=p) for p in pieces(q.say.text, 24)] or [_gemini_part(q), dict(text='')]
    for i,p in enumerate(ps,1):
        less = u['candidatesTokenCount']*(len(ps)-i)//len(ps)
        yield _gemini(q, p, u | dict(candidatesTokenCount=u['candidatesTokenCount']-less, totalTokenCount=u['totalTokenCount']-less), i==len(ps))

def gemini_error(q, status, msg):
    return dict(error=dict(code=status, message=msg, status=_gemini_kinds.get(status, 'INTERNAL')))

_gemini_kinds = {400:'INVALID_ARGUMENT', 401:'UNAUTHENTICATED', 404:'NOT_FOUND', 429:'RESOURCE_EXHAUSTED', 503:'UNAVAILABLE'}


# Cohere: /v2/rerank

def rerank(q):
    "Documents by relevance, the longest first"
    n = sorted(range(len(q.b['documents'])), key=lambda i: -len(q.b['documents'][i]))
    return dict(id=f'standin-{q.id}', results=[dict(index=i, relevance_score=round(.9/(k+1), 4)) for k,i in enumerate(n)][:q.b.get('top_n')],
        meta=dict(api_version=dict(version='2'), billed_units=dict(search_units=1)))

def cohere_error(q, status, msg): return dict(id=f'standin-{q.id}', message=msg)


# Who answers what, and on the wire how

def _dumps(o): return json.dumps(o, ensure_ascii=False, separators=(',',':'))
def _named(e): return f'event: {e["type"]}\ndata: {_dumps(e)}\n\n'.encode()
def _plain(e, end='\n\n'): return f'data: {_dumps(e)}{end}'.encode()

def named(evs): return [_named(e) for e in evs]
def plain(evs): return [_plain(e, '\r\n\r\n') for e in evs]
def done (evs): return [*map(_plain, evs), b'data: [DONE]\n\n']

@dataclass
class Voice:
    "One API: the end of its path, a whole answer, the events of a streamed one and their frame, its errors, its request-id header"
    path:str; whole:callable; events:callable=None; frame:callable=None; error:callable=openai_error; rid:str='x-request-id'

voices = [Voice('/messages', messages, messages_events, named, claude_error, 'request-id'),
    Voice('/chat/completions',     chat,        chat_events,        done),
    Voice('/completions',          completions, completions_events, done),
    Voice('/responses',            responses,   responses_events,   named),
    Voice('/embeddings',           embeddings),
    Voice('/images/generations',   images),
    Voice('/audio/transcriptions', transcriptions),
    Voice('/audio/speech',         speech),
    Voice('enerateContent',        gemini,      gemini_events,      plain, gemini_error, ''),   # generate… and streamGenerate…
    Voice('/rerank',               rerank,      error=cohere_error, rid='')]

hosts = 'api.anthropic.com','api.openai.com','generativelanguage.googleapis.com','api.cohere.com','api.cohere.ai'

def voice(req):
    "The API that `req` is for"
    v = next((v for v in voices if req.url.path.endswith(v.path)), None)
    if not v: raise ValueError(f'no stand-in answers {req.method} {req.url.path}; known: {", ".join(v.path for v in voices)}')
    return v

def _headers(q, v, ctype):
    rid = {v.rid: f'req_standin_{q.id}'} if v.rid else {}
    return {'content-type':ctype, 'date':formatdate(usegmt=True)} | rid

def fail(req, status, msg='the stand-in was asked to fail'):
    "The answer of `req`'s API to an error"
    q,v = ask(req),voice(req)
    return status,_headers(q, v, 'application/json'),_dumps(v.error(q, status, msg)).encode()

def mute(o):
    "`o` without the usage that a server may not send"
    if isinstance(o, dict): return {k:mute(v) for k,v in o.items() if k not in ('usage','usageMetadata')}
    return [mute(v) for v in o] if isinstance(o, list) else o

def _break(q, v, evs, n):
    "The first `n` of the events `evs`, and the one by which `v` says that it fails; `n` is 'failed' or 'incomplete' for the two ends of a response"
    if isinstance(n, str): return [*evs[:-1], evs[-1] | dict(type=f'response.{n}', response=evs[-1]['response'] | _ends[n])]
    if v.path=='/responses': return [*evs[:n], dict(type='error', code='server_error', message=_broken, param=None, sequence_number=n)]
    return [*evs[:n], v.error(q, 529 if v.path=='/messages' else 503, _broken)]

_broken = 'the stand-in was asked to break off'
_ends   = dict(failed=dict(status='failed', error=dict(code='server_error', message=_broken)),
    incomplete=dict(status='incomplete', incomplete_details=dict(reason='max_output_tokens')))

def _events(q, v, res, silent, error):
    "The events of a streamed answer, without usage if it is `silent`, until an `error` after so many"
    evs = [*v.events(q, res)]
    if silent: evs = [mute(e) for e in evs if e.get('choices')!=[]]
    return evs if error is None else _break(q, v, evs, error)

def reply(req, silent=False, error=None):
    "Answer httpx request `req`: status, headers, and the body, in a list of events if it is streamed"
    q,v = ask(req),voice(req)
    if q.say.status>=400: return fail(req, q.say.status, q.say.text)
    res,hdrs = v.whole(q),partial(_headers, q, v)
    if isinstance(res, bytes): return 200,hdrs('audio/mpeg'),res
    if q.stream: return 200,hdrs('text/event-stream; charset=utf-8'),v.frame(_events(q, v, res, silent, error))
    return 200,hdrs('application/json'),_dumps(mute(res) if silent else res).encode()


# In this process, below httpx

def _answer(lib, req, reply):
    "The response of module `lib` to `req`; only known hosts are answered, and nothing goes out"
    if req.url.host not in hosts: raise ValueError(f'no stand-in for {req.url.host}; known: {", ".join(hosts)}')
    status,hdrs,body = reply(req)
    return lib.Response(status, headers=hdrs, content=b''.join(body) if isinstance(body, list) else body, request=req)

class _Inside:
    "A transport which asks `reply` instead of the network"
    def __init__(self, lib, reply): self.answer = partial(_answer, lib, reply=reply)
    def handle_request(self, req): return self.answer(req)
    async def handle_async_request(self, req): return self.answer(req)

@contextmanager
def stand_in(reply=reply):
    "Answer every httpx request of this process with `reply`; anything that records `send` sees the real addresses"
    clients = [(lib,c) for lib in (httpx,httpx2) if lib for c in (lib.Client,lib.AsyncClient)]
    with ExitStack() as s:
        for lib,c in clients: s.enter_context(patch.object(c, '_transport_for_url', lambda self, url, t=_Inside(lib, reply): t))
        yield


# On a loopback port, with faults

class _Handler(BaseHTTPRequestHandler):
    "Plays `reply` over HTTP, event by event"
    protocol_version = 'HTTP/1.1'
    faults = {}
    def log_message(self, *args): pass

    def _request(self):
        "This request, as httpx would have it"
        raw = self.rfile.read(int(self.headers.get('content-length', 0)))
        return httpx.Request('POST', f'http://{self.headers["host"]}{self.path}', headers=dict(self.headers), content=raw)

    def _fault(self, req):
        "The fault for this request: from its `x-stand-in` header, else from the table"
        return json.loads(self.headers.get('x-stand-in') or '{}') or self.faults.get(asked(body(req)), {})

    def do_POST(self):
        req = self._request()
        f = self._fault(req)
        said = fail(req, f['status']) if 'status' in f else reply(req, **{k:f[k] for k in ('silent','error') if k in f})
        try: self._play(*said, **{k:f[k] for k in ('delay','cut') if k in f})
        except ConnectionError: self.close_connection = True

    def _play(self, status, hdrs, body, delay=0, cut=None):
        "Send one event at a time, `delay` seconds before each; hang up after `cut` of them"
        evs = body if isinstance(body, list) else [body]
        self.send_response_only(status)
        for k,v in (hdrs | {'transfer-encoding':'chunked'}).items(): self.send_header(k, v)
        self.end_headers()
        for e in evs[:cut]: self._chunk(e, delay)
        if cut is None: self._chunk(b'')
        else: self.close_connection = True

    def _chunk(self, e, delay=0):
        time.sleep(delay)
        self.wfile.write(f'{len(e):x}\r\n'.encode() + e + b'\r\n')
        self.wfile.flush()

@contextmanager
def serve(faults=None):
    "Play the stand-ins on a free loopback port and yield its URL; `faults` maps a prompt to any of `delay`, `status`, `cut`, `silent` and `error`"
    srv = ThreadingHTTPServer(('127.0.0.1', 0), type('Handler', (_Handler,), dict(faults=faults or {})))
    Thread(target=srv.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{srv.server_port}'
    finally: srv.shutdown(), srv.server_close()
