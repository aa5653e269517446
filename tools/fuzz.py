"""LiteLLM events that are wrong in every way that comes to mind, handed to all hooks of a `UsageLogger`.

    python tools/fuzz.py [N] [--seed S] [--only WORD]

Real events, of the cassette's calls to the real LiteLLM, are changed by hypothesis at any place: keys that are missing, other types,
numbers no table can hold, a megabyte of text, objects that raise whatever is asked of them. After each event its row is held
against that of the unchanged event: what was not touched has to arrive untouched, and a number has to be one that the event
has. `reads` says which columns may depend on what; no column may depend on anything else. Every ledger is then read in every
way, and its files are searched for secrets, which all events carry. Replies of the providers are treated likewise.

Hypothesis reduces what breaks a rule to the fewest events and changes that still break it. N is the number of ledgers, each of some
twenty events. `--only` keeps the kinds of values and the calls that have the word in their names. Exits with 1 if a rule is broken.
"""
import argparse, asyncio, copy, gc, json, logging, os, queue, re, sys, tempfile, time, warnings
from collections import Counter, namedtuple
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cache, lru_cache
from importlib.metadata import version
from itertools import combinations_with_replacement, count, islice
from math import fsum, isclose, isfinite
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock, patch

os.environ.setdefault('LITELLM_LOCAL_MODEL_COST_MAP', 'True')
import litellm, numpy as np, pandas as pd
from hypothesis import HealthCheck, Phase, given, seed, settings, strategies as st
from litellm.integrations.custom_logger import CustomLogger
from pydantic import BaseModel
from llm_usage import Ledger, Usage, UsageLogger, replaying
from llm_usage.replay import able, case, cases, cassettes, play

litellm.suppress_debug_info = True
secret,prompt,reply = (f'{o}-PLANTED-7f3a9c' for o in ('sk-proj', 'prompt', 'reply')) # of which nothing may be in a file
planted,done = (secret, prompt, reply, 'PLANTED'),Counter() # what was tried, and how often

# Trees of dictionaries and lists, which are never changed: a change makes new ones along its path
absent = object()
def is_(v, *types): return issubclass(type(v), types) # `isinstance` asks the object
def path(s): return tuple(s.split('.'))

def get(tree, path):
    for k in path:
        if not is_(tree, dict, list): return
        try: tree = tree[k]
        except (LookupError,TypeError): return
    return tree

def put(tree, path, v):
    "`tree` with `v` at `path`, without what is there if `v` is `absent`"
    if not path: return v
    (k,*rest),gone = path,v is absent and len(path)==1
    if is_(tree, list) and is_(k, int): return [*tree[:k], *([] if gone else [put(tree[k], rest, v)]), *tree[k+1:]]
    tree = dict(tree) if is_(tree, dict) else {}
    if gone: tree.pop(k, None)
    else: tree[k] = put(tree.get(k), rest, v)
    return tree

def puts(tree, changes):
    for p,v in changes.items(): tree = put(tree, path(p), v)
    return tree

def places(tree, at=(), deep=7):
    "The paths of all that is in `tree`, but for the price rows that LiteLLM encloses"
    yield at
    if not deep or not is_(tree, dict, list): return
    for k,v in [*tree.items()] if is_(tree, dict) else enumerate(tree[:20]):
        if k!='model_map_value': yield from places(v, (*at,k), deep-1)

def leaves(o, deep=8):
    "(name, value) of what is in `o`, dictionaries, lists and objects"
    if is_(o, BaseModel, SimpleNamespace): o = {**o.__dict__, **(getattr(o, '__pydantic_extra__', None) or {})}
    if not deep or not is_(o, dict, list, tuple): return
    for k,v in [*o.items()] if is_(o, dict) else [('',v) for v in o]: yield k,v; yield from leaves(v, deep-1)

def item(o, k):
    try: return o.get(k) if is_(o, dict) else getattr(o, k, None)
    except BaseException: return

def brief(v, n=200):
    "`v` in short, whatever it is"
    try: s = repr(v)
    except BaseException: s = f'<{type(v).__name__} without a repr>'
    return s if len(s) <= n else f'{s[:n]}… ({len(s):,})'

def error(e):
    try: return f'{type(e).__name__}: {str(e)[:80]}'
    except BaseException: return type(e).__name__

# Real events
few = ('chat', 'async chat', 'web search stream', 'cache read and write', 'openai stream', 'async responses', 'responses search', 'gemini search',
    'messages', 'embedding', 'by the second', 'speech', 'rerank', 'failure', 'unpriced', 'priced at nothing')
hooks = ['log_success_event', 'log_failure_event', 'async_log_success_event', 'async_log_failure_event']
twin  = {k:k.removeprefix('async_') if k.startswith('async_') else f'async_{k}' for k in hooks}

@dataclass(eq=False)
class Event:
    "What LiteLLM tells a callback of a call; `log` is its logging object, of asynchronous calls"
    name:str; hook:str; kw:dict; res:object; log:object = None

class Ear(CustomLogger):
    "Hears what LiteLLM tells of each call first"
    def __init__(self): self.logs,self.known,self.told = {},set(),queue.Queue()
    def hear(self, hook, kw, res):
        if (cid := kw['litellm_call_id']) not in self.known: self.known.add(cid); self.told.put((hook, kw, res))
    def log_success_event(self, kwargs, response_obj, start_time, end_time): self.hear('log_success_event', kwargs, response_obj)
    def log_failure_event(self, kwargs, response_obj, start_time, end_time): self.hear('log_failure_event', kwargs, response_obj)
    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time): self.hear('async_log_success_event', kwargs, response_obj)
    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time): self.hear('async_log_failure_event', kwargs, response_obj)
    async def async_post_call_success_deployment_hook(self, request_data, response, call_type):
        if log := request_data.get('litellm_logging_obj'): self.logs[log.litellm_call_id] = log

def real(names):
    "The events of the calls `names`"
    old,litellm.callbacks = litellm.callbacks,[ear := Ear()]
    async def told(c):
        await play(c)
        hook,kw,res = await asyncio.to_thread(ear.told.get, timeout=20) # for the first call much is imported
        return Event(c.name, hook, kw, res, ear.logs.get(kw['litellm_call_id']))
    try:
        with replaying(): return [asyncio.run(told(c)) for c in map(case, names) if able(c) and c.needs!='lisette']
    finally:
        litellm.callbacks = old
        for k,l in vars(litellm).items():
            if k.endswith('_callback') and is_(l, list): l[:] = [o for o in l if o is not ear]

slo,par = 'standard_logging_object','litellm_params'
said = [dict(role='user', content=f'{prompt} is a private question')]
_plant = {'api_key':secret, f'{par}.api_key':secret, f'{par}.metadata.headers.authorization':f'Bearer {secret}', f'{par}.metadata.user_api_key':secret,
    f'{par}.proxy_server_request.headers.authorization':f'Bearer {secret}', 'optional_params.secret_fields.raw_headers.authorization':f'Bearer {secret}',
    'additional_args.headers.x-api-key':secret, 'additional_args.complete_input_dict.messages':said, 'messages':said, 'input':said,
    f'{slo}.messages':said, f'{slo}.response':dict(choices=[dict(message=dict(content=reply))]), 'original_response':reply,
    f'{slo}.model_parameters.extra_headers.authorization':secret, f'{slo}.metadata.requester_metadata.headers.authorization':secret,
    f'{slo}.error_str':f'the key {secret} is wrong', f'{slo}.error_information.error_message':f'the key {secret} is wrong',
    f'{slo}.error_information.traceback':prompt}

def with_secrets(e):
    e.kw = puts(e.kw, _plant)
    if e.kw.get('exception') is not None: e.kw['exception'] = Exception(f'the key {secret} is wrong: {prompt}')
    for o in getattr(e.res, 'choices', None) or []:
        if hasattr(o, 'message'): o.message.content = reply
        else: o.text = reply
    if is_(out := getattr(e.res, 'output', None), list): e.res.output = [*out, dict(type='message', content=[dict(text=reply)])]
    return e

_proxy = {f'{slo}.metadata.{k}':v for k,v in dict(user_api_key_hash=secret, user_api_key_user_id='ada', user_api_key_team_id='maths',
    user_api_key_end_user_id='customer', agent_id='crawler', spend_logs_metadata=dict(job=7, path=['a','b'])).items()} | {
    f'{slo}.request_tags':['nightly','User-Agent: x','b'], f'{par}.metadata.session_id':'s1', f'{par}.metadata.tags':['c'],
    f'{slo}.model_group':'group', f'{par}.litellm_metadata':dict(user_id='bob')}

def variants(by):
    "More events, by changes of those in `by` that leave them events of LiteLLM"
    tokens = litellm.token_counter(model=get(by['openai stream'].kw, (slo,'model')), messages=said) if 'openai stream' in by else 0
    more = {'proxy':('chat', _proxy), 'cache hit':('chat', {f'{slo}.cache_hit':True, f'{slo}.saved_cache_cost':.01, 'response_cost':0.}),
        'usage in the reply':('chat', {f'{slo}.metadata.usage_object':absent}),
        'search in the reply':('responses search', {f'{slo}.metadata.usage_object':absent}),
        'partial':('async chat', {f'{slo}.error_information.error_code':'499'}),
        'estimated':('openai stream', {f'{slo}.api_base':'http://127.0.0.1:1/v1', 'optional_params.stream_options':absent,
            f'{slo}.metadata.usage_object.prompt_tokens':tokens})}
    return [replace(by[o], name=name, kw=puts(by[o].kw, changes)) for name,(o,changes) in more.items() if o in by]

@cache
def events(names=few):
    "The events to begin with"
    es = [*map(with_secrets, real(names))]
    return tuple(es + variants({e.name:e for e in es}))

@cache
def dumped(base):
    "The reply of event `base` as a dictionary, if it can be one"
    return base.res.model_dump(warnings=False) if hasattr(base.res, 'model_dump') else base.res

# Odd values
class Panic(BaseException): "As Rust's panics arrive: tokenizers and pydantic have some"
class Unsaid(BaseModel): model_config = dict(extra='allow'); usage: object = None; id: object = None
class Late(BaseModel):
    a: int = 1
    def model_dump(self, **kw): raise ValueError('not yet')
class Shut(dict):
    def get(self, *a): raise KeyError('shut')
class Colour(Enum): red = 1
Text,Count,Box,Wide = (type(name, (t,), {}) for name,t in (('Text',str), ('Count',int), ('Box',dict), ('N'*2000,Exception)))

def raising(e, names='str repr bool eq hash iter len getattr getitem contains float int index lt'):
    "An object whose methods `names` raise `e`"
    def f(self, *args): raise e
    return type('Evil', (), {f'__{k}__':f for k in names.split()})()
def nested(n, d=1):
    for i in range(n): d = {'a':d} if i%2 else [d]
    return d
def cyclic():
    d = dict(a=1, usage={}); d['a'] = d; d['l'] = [d]; d['usage']['usage'] = d
    return d
def anew(make):
    "One of the values that `make` makes, of which hypothesis asks nothing"
    return st.integers(0, len(make())-1).map(lambda i: make()[i])

evil,huge,deep,many = RuntimeError('evil'),'x'*1_000_000,[nested(n) for n in (50,900,20_000)],{f'key {i}':i for i in range(5000)}
mocks = [MagicMock(), MagicMock(spec=dict), MagicMock(side_effect=ValueError)]
sql   = ["'; DROP TABLE usage; --", '" OR 1=1 --', '%s{0}{{}}${x}', ':n', 'a\'b"c`d;', "1); DELETE FROM usage WHERE (1=1"]
some_ = anew(lambda: [1, 'x', None, [], {}])
odd   = {k:anew(make) for k,make in dict( # kinds of values
    nothing   = lambda: [None, '', [], {}, (), set()],
    bool      = lambda: [False, True],
    text      = lambda: ['?', '12', '1.5', 'None', 'true', 'nan', 'text', 'sk-x', ' ', 'ß∂\u202e', '{"a": 1}', 'success', '499'],
    bytes     = lambda: [b'12', b'\xff\0', bytearray(b'x'), memoryview(b'x')],
    int       = lambda: [0, 1, 2, 7, 10**6, 2**31, 2**53+1, 2**63-1],
    negative  = lambda: [-1, -7, -1.5, -2**63, -1e308, -0.],
    huge      = lambda: [2**63, 2**64, 10**19, 10**300, 10**400, 10**5000, -10**5000],
    float     = lambda: [0., 1., 1.5, 3.9999999, 1e-320, 1e15+.5, 9.3e18, 1e17, 1e25, 1e300, 1e308, 1.7976931348623157e308],
    nan       = lambda: [float('nan'), float('inf'), -float('inf'), Decimal('nan'), Decimal('sNaN'), np.float64('nan'), pd.NA, pd.NaT],
    number    = lambda: [Decimal('12'), Decimal('1.5'), Decimal('1e999'), Fraction(1,3), 3j, Count(12), Colour.red, timedelta(seconds=3)],
    numpy     = lambda: [np.int64(12), np.uint64(2**64-1), np.float64(12.), np.float64(1e308), np.float32(.1), np.bool_(True), np.str_('x'),
                         np.array([1,2]), np.array(3), np.datetime64('2026-01-01')],
    time      = lambda: [datetime(2026,1,1), datetime(2026,1,1,tzinfo=timezone.utc), datetime.now(), pd.Timestamp('2026-01-01'), time.time(),
                         0., 1e-9, 8.9e9, 1.8e12, 1.6e9, 1_700_000_000],
    far       = lambda: [datetime.min, datetime.max, datetime(1969,1,1), datetime(2400,1,1), datetime.max.replace(tzinfo=timezone.utc),
                         datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))],
    long      = lambda: [huge, 'é'*5000, '\ud800'*600, 'a'*501, '\U0001f600'*400, '漢'*501],
    surrogate = lambda: ['\ud800', 'a\udfffb', '\udcff'*3],
    nul       = lambda: ['\0', 'a\0b', '\0'*50, '\x1b[31m\r\n'],
    sql       = lambda: sql,
    tags      = lambda: [[f'tag {i}' for i in range(10_000)]],
    many      = lambda: [dict(many)],
    deep      = lambda: [*map(copy.copy, deep)],
    cyclic    = lambda: [cyclic()],
    subclass  = lambda: [Text('text'), Box(a=1), Count(3), Text(''), SimpleNamespace(usage=SimpleNamespace(prompt_tokens=3), id='x')],
    pydantic  = lambda: [Unsaid(), Unsaid(usage=dict(prompt_tokens=3), id='y', x=1), litellm.Usage(prompt_tokens=3), litellm.ModelResponse(), Late(),
                         Unsaid.model_construct(usage=Late())],
    generator = lambda: [(i for i in range(3)), iter([1]), map(str, [1]), range(3), open],
    klass     = lambda: [int, dict, litellm.ModelResponse, Unsaid, Wide, len, lambda *a: 1/0],
    mock      = lambda: mocks,
    error     = lambda: [ValueError('x'), litellm.APIError(500, 'm', 'p', 'm'), asyncio.CancelledError(), Wide('x')],
    evil      = lambda: [raising(evil)],
    shut      = lambda: [Shut(a=1), raising(evil, 'getattribute'), raising(RecursionError('evil'), 'bool eq'), raising(MemoryError('evil'), 'str bool')],
    panic     = lambda: [raising(e, 'str bool eq getattr len') for e in (Panic('panic'), asyncio.CancelledError(), GeneratorExit())]).items()}
for k,drawn in dict(list=st.lists(st.integers(0, 8), max_size=8), dict=st.dictionaries(st.sampled_from(['a','total_tokens','tags','id']), some_, max_size=3),
    text=st.text(max_size=20), bytes=st.binary(max_size=9), int=st.integers(0, 2**63-1), negative=st.integers(max_value=-1) | st.floats(max_value=-1e-9),
    huge=st.integers(min_value=2**63), float=st.floats(0, allow_infinity=False), number=st.decimals() | st.fractions(), time=st.datetimes(),
    surrogate=st.text(st.characters(categories=['Cs']), min_size=1, max_size=5),
    tags=st.lists(some_ | anew(lambda: [['b'], sql[0], '\ud800', 'x'*900, 1.5]), max_size=20).map(lambda l: l*10),
    evil=st.tuples(*[st.sampled_from('str repr bool eq hash iter len getattr getitem contains float int index lt'.split())]*2).map(lambda ks: raising(evil, ' '.join(ks)))
    ).items(): odd[k] = odd[k] | drawn if k in odd else drawn
odd_keys = anew(lambda: [0, 1, None, (1,'a'), b'x', True, 1.5, float('nan'), 'a\0b', '\ud800', sql[0], 'k'*2000, frozenset([1]), '', '__class__',
    'prompt_tokens', Colour.red, raising(evil, 'str repr')])

# Which columns may depend on what
counts = {k:v.split() for k,v in dict( # by what names, wherever in a usage they are
    prompt_tokens='prompt_tokens input_tokens prompt_token_count', completion_tokens='completion_tokens output_tokens candidates_token_count',
    total_tokens='total_tokens total_token_count', cache_read_tokens='cached_tokens cache_read_input_tokens cached_content_token_count prompt_cache_hit_tokens',
    cache_creation_tokens='cache_creation_tokens cache_write_tokens cache_creation_input_tokens cache_write_input_tokens',
    cache_creation_1h_tokens='ephemeral_1h_input_tokens', reasoning_tokens='reasoning_tokens thinking_tokens thoughts_token_count',
    web_search_requests='web_search_requests').items()}
parts = [f'{k}_usd' for k in 'inp cache_read cache_write out web other'.split()]
money,texts = ['response_cost', *parts],[k for k,f in Usage.__dataclass_fields__.items() if f.type is str]
metas = [('kw',slo,'metadata'), ('kw',par,'metadata'), ('kw',par,'litellm_metadata')]
roots = dict(kw=[('kw',)], res=[('res',)], slo=[('kw',slo)], par=[('kw',par)], how=[('kw',slo,'cost_breakdown')], meta=metas, usage=[(*metas[0],'usage_object')])
reads = {} # by column, the places in an event
for line in re.split('[;\n]', f'''
    @usage = meta.usage_object res.usage; @call = slo.call_type kw.call_type; @when = slo.startTime kw.start_time
    @who = slo.custom_llm_provider kw.custom_llm_provider; @end = slo.status slo.error_information kw.exception
    @tally = @usage @call kw.input how.tool_usage_cost res.choices res.output res.response res.candidates res.tool_usage res.usage_info
    @tally = res.meta res._hidden_params; @price = kw.response_cost @tally
    @model = slo.model slo.model_group slo.hidden_params kw.model res.model @who meta.original_model_group
    @free = @price @end @model slo.cache_hit slo.stream slo.model_map_information
    @named = slo.end_user meta.user_api_key_end_user_id meta.end_user meta.user_id kw.user kw.optional_params.user @call
    call_id = slo.litellm_call_id kw.litellm_call_id; response_id = slo.id res.id; trace_id = slo.trace_id kw.litellm_trace_id
    session_id = slo.session_id meta.session_id par.litellm_session_id @named; timestamp = @when; latency = @when slo.endTime kw.end_time
    ttft = @when slo.completionStartTime slo.stream kw.completion_start_time; provider = @who; model requested_model = @model
    call_type = @call; stream = slo.stream; status error = @end; origin = slo.cache_hit; user_id = meta.user_api_key_user_id meta.user_id @call
    team_id = meta.user_api_key_team_id meta.team_id; end_user = @named; api_key_hash = meta.user_api_key_hash
    agent = meta.agent meta.agent_id meta.agent_name; tags = slo.request_tags meta.tags; meta = meta.spend_logs_metadata
    {' '.join(counts)} = @tally
    usage_source = @tally @who slo.stream slo.api_base slo.model kw.optional_params.stream_options kw.messages
    details = @tally slo.cache_hit slo.saved_cache_cost how.data_residency how.vertex_location
    service_tier = how.service_tier res.service_tier @usage; response_cost = @price slo.stream; cost_source = @price how @who slo.stream
    price_key = @price slo.stream slo.model_map_information.model_map_key
    cost_lacks = @price how @model @end slo.stream slo.cache_hit slo.model_map_information res.service_tier @when
    {' '.join(parts)} = @price how @who slo.stream slo.cache_hit
    @code = slo.error_information.error_class slo.error_information.error_code
    @aims = kw res slo par meta kw.optional_params slo.model_map_information how.total_cost how.input_cost how.output_cost how.cache_read_cost
    @aims = how.cache_creation_cost usage.prompt_tokens_details usage.completion_tokens_details usage.cost usage.speed usage.inference_geo
    @aims = usage.server_tool_use usage.seconds usage.prompt_tokens_details.cached_tokens usage.prompt_tokens_details.audio_tokens
    @aims = usage.prompt_tokens_details.cache_creation_token_details usage.prompt_tokens_details.web_search_requests
    @aims = {' '.join(f'usage.{k}' for ks in counts.values() for k in ks)}'''.strip()):
    columns,ps = (o.split() for o in line.split('='))
    ps = [q for p in ps for q in (reads[p] if p in reads else [(*r,*path(p)[1:]) for r in roots[path(p)[0]]])]
    for k in columns: reads[k] = reads.get(k, []) + ps
groups = {k:reads.pop(k) for k in [*reads] if k[0]=='@'}
where_free = {c:reads[c]+groups['@free'] for c in ('response_cost','cost_source','price_key',*parts)} # where the cost is said to be 0
aims = sorted({*sum(reads.values(), []), *groups['@aims']})
everywhere = groups['@code'] + [p for c in texts if c in reads and c not in ('tags','meta','details','cost_lacks','status','origin','usage_source','cost_source')
    for p in reads[c] if p[0]=='kw' and p[-1] not in ('status','exception','error_information','usage_object')]

def touches(p, q): return all(a is b or a==b for a,b in zip(p, q))

# Changed events
Change  = namedtuple('Change', 'path kind value') # `value` is put at `path`

def told(changes):
    at = lambda p: '.'.join(k if is_(k, str) and k.isidentifier() else brief(k, 40) for k in p)
    return '; '.join(f'{at(c.path)} = {c.kind} {"" if c.value is absent else brief(c.value, 100)}' for c in changes) or 'unchanged'

def changed(tree, changes):
    "`tree` with the changes, and the paths that they touched"
    seen = []
    for c in changes:
        there = next((i for i in range(len(c.path)) if not is_(get(tree, c.path[:i]), dict, list)), len(c.path)) # there may be nothing on the way
        if there<len(c.path) and c.value is absent: continue
        if any(is_(l := get(tree, c.path[:i]), list) and not (is_(k, int) and k<len(l)) for i,k in enumerate(c.path)): continue
        tree = put(tree, c.path, c.value)
        seen.append(c.path[:there] if there<len(c.path) else c.path)
    return tree,seen

class Sent:
    "The event `base` as it is sent to `hook`: with changes, its reply in some form, announced, delivered again"
    numbers = count()
    def __init__(self, base, changes=(), hook=None, form='as it is', announce=True, again=None):
        self.base,self.changes,self.hook,self.form,self.announce,self.again = base,changes,hook or base.hook,form,announce,again
        self.i,self.what = next(self.numbers),''
        start = get(base.kw, (slo,'startTime')) or 0
        at = lambda k: 1.6e9+self.i*.01 + (get(base.kw, (slo,k)) or start)-start
        self.own = dict(call_id=f'call-{self.i}', response_id=f'id-{self.i}', timestamp=at('startTime')) # columns
        kw = puts(base.kw, {f'{slo}.{k}':at(k) for k in ('startTime','endTime','completionStartTime')} | {f'{slo}.id':f'id-{self.i}',
            f'{slo}.litellm_call_id':f'call-{self.i}', 'litellm_call_id':f'call-{self.i}'})
        res = base.res if form=='as it is' else dumped(base)
        if is_(res, dict): res = res | (dict(id=f'res-{self.i}') if 'id' in res else {})
        elif hasattr(res, 'model_copy') and hasattr(res, 'id'): res = res.model_copy(update=dict(id=f'res-{self.i}'))
        self.plain = kw,res
        cs = [c for c in changes if c.path[0]=='kw' or len(c.path)==1 or is_(res, dict)]
        tree,self.seen = changed(dict(kw=kw, res=res), cs)
        self.kw,self.res = tree.get('kw'),tree.get('res')
        if form=='namespace' and is_(self.res, dict):
            self.res = SimpleNamespace(**{str(k):v for k,v in self.res.items()})
            self.seen.append(('res',))

    def send(self, logger, hook=None):
        co = getattr(logger, hook or self.hook)(self.kw, self.res, None, None)
        try: co and co.send(None)
        except StopIteration: pass
    def __repr__(self):
        how = [self.base.name, self.form, self.hook, self.announce and 'announced', self.again and f'again by {self.again}', self.what]
        return f'<{", ".join(filter(None, how))}: {told(self.changes)}>'

@lru_cache(None, typed=True)
def among(*values): return st.sampled_from(values)

rarely = among(*[False]*11, True)
wraps  = among(lambda v:[v], lambda v:(v,), lambda v:{'value':v}, lambda v:[v,v], lambda v:SimpleNamespace(v=v))
tweaks = among(lambda v:-v, lambda v:v+.5, lambda v:v*1e300, str, float, Decimal, lambda v:v-1e10, lambda v:v*2, np.float64, lambda v:0*v)
forms  = among(*['as it is']*6, *['dict']*3, 'namespace')

@st.composite
def change(draw, tree, paths, hows):
    "A change of `tree` at one of `paths`"
    p = draw(paths)
    if draw(rarely) and is_(get(tree, p), dict): p = (*p, draw(odd_keys))
    old,how = get(tree, p),draw(hows)
    if how=='tweaked' and not is_(old, int, float): how = 'wrapped'
    return Change(p, how, absent if how=='missing' else draw(odd[how]) if how in odd else draw(wraps if how=='wrapped' else tweaks)(old))

def changes(tree, paths, kinds, n): return st.lists(change(tree, paths, among(*['missing']*5, *['wrapped']*3, *['tweaked']*4, *kinds)), max_size=n)

@cache
def changes_of(base, in_reply, kinds):
    there = among(*(('kw',*p) for p in places(base.kw)))
    return changes(dict(kw=base.kw, res=dumped(base) if in_reply else None), st.sampled_from(aims) | st.sampled_from(aims) | there |
        (among(*(('res',*p) for p in places(dumped(base)))) if in_reply else there), kinds, 5)

@st.composite
def sent(draw, bases, kinds):
    "An event that was changed"
    base,form = draw(among(*(bases or events()))),draw(forms)
    cs = draw(changes_of(base, form!='as it is', kinds))
    if draw(rarely): v = draw(odd['long'] | odd['nul'] | odd['surrogate'] | odd['sql']); cs = [Change(p, 'everywhere', v) for p in everywhere]
    hook = draw(among(*[base.hook]*12, *hooks))
    return Sent(base, cs, hook, form, draw(st.booleans()), draw(among(*[None]*8, hook, twin[hook])))

class Chunk(list):
    "Events, the first of which hypothesis prints"
    def _repr_pretty_(self, p, cycle): p.text('\n'.join(map(repr, self[:3])) + f' and {len(self)-3} more'*(len(self)>3))

def chunks(bases=None, kinds=tuple(odd)):
    "Events in chunks; after each of them the rows are read"
    return st.lists(st.lists(sent(bases, kinds), min_size=1, max_size=8).map(Chunk), min_size=1, max_size=8)

@st.composite
def at_each_place(draw, kind):
    "A value of the kind at each place that a column is read from, and a text at all others, one at a time"
    if not draw(among(False, *[True]*99)): return [] # the simplest example, which hypothesis tries first
    bases = among(*(e for e in events() if e.name in ('proxy','responses search','estimated','usage in the reply')))
    ps = [p for p in aims if p[0]=='kw' or len(p)==1] + [('kw',*p) for p in places(events()[0].kw) if kind=='text']
    return [Chunk(Sent(draw(bases), [Change(p, kind, draw(odd[kind]))], hooks[0], announce=i%2==0) for i,p in enumerate(ps))]

# The row of an event
def number(v): return is_(v, int, float) and type(v) is not bool
def whole(v):  return number(v) and 0<=v<2**63 and v==v//1

def stated_cost(s):
    "US dollars that the event states, if it does"
    v = get(s.kw, ('response_cost',))
    try: return float(v) if number(v) and isfinite(v) else None
    except OverflowError: return

def stated_counts(s):
    "The numbers by name that may be counts in the usages of the event"
    got = {}
    for u in [*(get(s.kw, (*m[1:],'usage_object')) for m in metas), item(s.res,'usage')]:
        for k,v in leaves(u):
            if is_(k, str) and whole(v): got.setdefault(k, set()).add(int(v))
    return got

def no_counts(u):
    for k in counts:
        if (v := getattr(u, k)) is not None and not (type(v) is int and 0 <= v <= 10**12): yield f'{k} is no such number — {brief(v)}'

def unsound(u):
    "What is wrong with row `u`, whatever its event: its numbers, and texts that are longer, or other, than they should be"
    yield from no_counts(u)
    for k in (*money, 'timestamp', 'latency', 'ttft'):
        if (v := getattr(u, k)) is not None and not (type(v) is float and isfinite(v)): yield f'{k} is no such number — {brief(v)}'
    if u.timestamp is None or not 0 <= u.timestamp < 9e9: yield f'timestamp is none — {u.timestamp}'
    if (u.latency or 0)<0 or (u.ttft or 0)<0: yield 'it ends before it starts'
    if u.status not in ('ok','failed','partial') or u.origin not in ('live','cache') or u.usage_source not in ('reported','estimated','missing'):
        yield f'an unknown state — {u.status}, {u.origin}, {u.usage_source}'
    ps = [getattr(u, k) for k in parts]
    if not 0 <= (u.response_cost or 0) < 1e9 or any((p or 0) < 0 for p in ps[:-1]): yield f'money that cannot be — {u.response_cost}, {ps}'
    if (u.cost_source is None)!=(u.response_cost is None): yield f'a cost without a source, or the reverse — {u.cost_source}'
    if u.response_cost is None and any(p is not None for p in (*ps, u.cost_lacks)): yield 'parts but no cost'
    elif ps[0] is not None and not isclose(fsum(p or 0 for p in ps), u.response_cost, rel_tol=1e-9, abs_tol=1e-9*max(1, *(abs(p or 0) for p in ps))):
        yield f'parts do not sum to the cost — {ps}, {u.response_cost}'
    for k in texts:
        if (v := getattr(u, k)) is not None and not is_(v, str): yield f'{k} is no text — {type(v).__name__}'
        elif v is not None and k not in ('tags','meta','details') and len(v) > 500: yield f'{k} is too long — {len(v):,} characters'
    tags,meta,details = (json.loads(v or empty) for v,empty in ((u.tags,'[]'), (u.meta,'{}'), (u.details,'{}')))
    if tags!=sorted(tags) or len(tags)>100 or any(not is_(o, str) or len(o)>500 for o in tags): yield 'tags are no sorted list of a hundred short texts'
    if len(meta)>100 or any(len(k)>100 or len(json.dumps(v))>1000 for k,v in meta.items()): yield 'meta is more than a hundred short values'
    if len(details)>20 or any(not number(v) and not (is_(v, str) and len(v)<=500) for v in details.values()): yield f'details are no short values — {brief(details)}'

def same(a, b, k):
    x,y = getattr(a, k),getattr(b, k)
    return x==y or is_(x, float) and is_(y, float) and isclose(x, y, rel_tol=1e-12, abs_tol=dict(timestamp=1e-6, latency=1e-5, ttft=1e-5).get(k, 1e-12))

@cache
def plain_row(base, form): return Usage.from_event(*Sent(base, form=form).plain)

def read(s):
    "The row of event `s`, None if it has to be read without what is odd"
    try: return Usage.from_event(s.kw if is_(s.kw, dict) else {}, s.res)
    except BaseException: return

def misrecorded(s, u):
    "What is wrong with the row `u` of event `s`"
    yield from unsound(u)
    if u.error and u.error.startswith('unreadable'): yield f'a row is unreadable — {u.error}'; return
    stated,cost,plain = stated_counts(s),stated_cost(s),replace(plain_row(s.base, s.form), **s.own)
    for k,names in counts.items():
        if (v := getattr(u, k)) and not any(v in stated.get(o, ()) for o in names) and not (k=='web_search_requests' and v<10_000):
            yield f'{k} is a number that is not in the event — {v}'
    changed = lambda ps: any(touches(p, q) for p in s.seen for q in ps)
    unsure = cost and (not 0<=cost<1e9 or changed(groups['@tally'])) # of counts that cannot be there is no cost
    if u.response_cost!=cost and (u.response_cost is not None or cost and not unsure): yield f'response_cost is not what the event says — {u.response_cost}, {cost}'
    if any(c.kind in ('tags','many','cyclic','deep') for c in s.changes) and not read(s): return # without its objects, so much of it is not read
    for k,ps in (reads if plain.response_cost else reads|where_free).items():
        if not same(u, plain, k) and not changed(ps):
            yield f'{k} is other, and nothing that it is read from was changed — {brief(getattr(u,k),60)}, not {brief(getattr(plain,k),60)}'

# A ledger, and many events
@contextmanager
def hearing():
    "What is written to stderr within the block, by C and Rust as well, as a function that tells it"
    sys.stderr.flush()
    old = os.dup(2)
    with tempfile.TemporaryFile('w+', errors='backslashreplace') as f:
        os.dup2(f.fileno(), 2)
        try:
            with redirect_stderr(f): yield lambda: (f.flush(), f.seek(0), f.read())[-1].strip()
        finally: os.dup2(old, 2); os.close(old)

class Trial(ExitStack):
    "A logger with a ledger of its own, and what is `wrong` with what it does, says, and leaves in its files"
    def __init__(self):
        super().__init__()
        self.wrong,self.rows,self.last = [],0,0
        self.warned,self.heard = self.enter_context(warnings.catch_warnings(record=True)),self.enter_context(hearing())
        warnings.simplefilter('always')
        self.dir = Path(self.enter_context(tempfile.TemporaryDirectory(prefix='fuzz')))
        self.logger = UsageLogger(f'{self.dir}/usage.db')
        self.ledger = self.logger.ledger
        self.callback(self.ledger.close)

    def say(self, what, s=None): self.wrong.append(f'{what}\n  {s}' if s else what)
    def guarded(self, what, f, *args, s=None):
        "What `f` returns, which is to raise nothing"
        try: return f(*args)
        except KeyboardInterrupt: raise
        except BaseException as e: self.say(f'{what} raises — {error(e)}', s)
    def fresh(self):
        "The rows since they were last asked for"
        us = self.ledger.rows('id>:n', n=self.last)
        if us: self.last = us[-1].id
        self.rows += len(us)
        return us
    def send(self, s):
        "Send the event `s`"
        done.update({'events', *(c.kind for c in s.changes)})
        before = dict(s.kw) if type(s.kw) is dict else None
        if s.announce: self.guarded('log_pre_api_call', self.logger.log_pre_api_call, 'm', said, s.kw, s=s)
        self.guarded(s.hook, s.send, self.logger, s=s)
        if before is not None and not ({*s.kw}-{*before} <= {'llm_usage'} and all(v is s.kw[k] for k,v in before.items())): self.say('an event was changed', s)
    def look(self, ss):
        "Look at the rows of the events `ss`, and deliver some again, which makes no more: a dictionary carries its call"
        us = self.guarded('rows', self.fresh) or []
        if len(us)!=len(ss): return self.say(f'rows are missing, or too many — {len(us)-len(ss):+}')
        for s,u in zip(ss, us):
            for w in misrecorded(s, u): self.say(w, s)
        twice = [s for s in ss if s.again]
        for s in twice: self.guarded(s.again, s.send, self.logger, s.again, s=s)
        if (n := len(self.guarded('rows', self.fresh) or [])) > sum(type(s.kw) is not dict for s in twice): self.say(f'a second delivery is a second row — {n} of {len(twice)}')
        if n := len(self.ledger.journal.begun) + len(self.logger._open): self.say(f'calls that are over are under way — {n}')

    def read(self):
        "Read the ledger in every way"
        l,n = self.ledger,self.rows
        self.guarded('flush', self.logger.flush, 0)
        us = self.guarded('rows', l.rows) or []
        got = {k:self.guarded(k, f) for k,f in dict(usage=lambda: l.usage(), df=l.df, total=l.total, check=l.check, repr=lambda: repr(l)).items()}
        for k,v in dict(rows=us, usage=got['usage'], df=got['df']).items():
            if v is not None and len(v)!=n: self.say(f'{k} has not all rows — {len(v)}, not {n}')
        if (t := got['total']) and not (isfinite(t.amount) and isfinite(t.saved) and t.calls==n): self.say(f'total is wrong — {t!r}')
        rich = any(abs(p or 0)>1e5 for u in us for p in (u.inp_usd, u.out_usd, u.other_usd))
        for o in got['check'] or []:
            if not any(k in o for k in ('more cached tokens', 'more reasoning', 'more hour-long', *['do not sum']*rich)): self.say(f'check says — {o}')
        for u in us:
            self.guarded('a receipt', lambda: (repr(u), u.receipt(), u._bill()))
            if (c := self.guarded('a cost', lambda: u.cost)) is not None and not isfinite(c): self.say(f'cost is infinite — {c}')
        if l.dropped: self.say(f'rows were dropped — {l.dropped}')

    def search(self):
        "No file, of the ledger or beside it, has a secret"
        for p in self.dir.iterdir():
            data = p.read_bytes()
            for o in planted:
                if o.encode() in data: self.say(f'a secret is in a file — {o!r}: {p.name}')
    def end(self, sick=False):
        "Close the ledger, and open it anew; what was said was said once, and has no secret"
        self.search()
        self.guarded('close', self.ledger.close)
        if left := [p.name for p in self.dir.iterdir() if 'journal' in p.name]: self.say(f'files are left — {", ".join(left)}')
        self.search()
        if l := self.guarded('opening it anew', Ledger, self.ledger.path):
            if (n := len(l.rows()))!=self.rows: self.say(f'other rows when it is opened anew — {n}, not {self.rows}')
            l.close()
        gc.collect(0)
        warned,text = [str(w.message) for w in self.warned if not issubclass(w.category, (DeprecationWarning,RuntimeWarning))],self.heard() # numpy's of an overflow
        for k,n in Counter(':'.join(w.split(':')[:2]) for w in warned).items():
            if n>1: self.say(f'more than one warning of a kind — {n}: {k}')
        if text and not sick: self.say(f'stderr — {text[-300:]}') # apsw says there what SQLite refused
        if any(o in w for o in planted for w in (*warned, text)): self.say('a secret is in a warning')
        done.update(ledgers=1, rows=self.rows)

def recorded(chunks, sick=False):
    "What is wrong when the events are sent to a ledger, which is `sick` if it refuses rows until each chunk is sent"
    with Trial() as t:
        for ss in chunks:
            if sick: t.ledger.con.execute('PRAGMA query_only=1')
            for s in ss: t.send(s)
            if sick:
                t.guarded('flush', t.ledger.flush)
                t.ledger.con.execute('PRAGMA query_only=0')
                t.guarded('check', t.ledger.check)
            t.look(ss)
            if t.wrong: break
        else: t.read(); t.end(sick)
    return t.wrong

def killed(chunks):
    "What is wrong with what a process leaves behind that noted the rows of the events, and did not store them"
    with Trial() as t, tempfile.TemporaryDirectory() as d:
        t.ledger.journal.thread = 'none' # nobody stores rows
        for s in (ss := sum(chunks, [])): t.send(s)
        t.search()
        for p in t.dir.iterdir(): (Path(d)/p.name).write_bytes(p.read_bytes())
        t.ledger.close()
        l = t.guarded('opening what is left', Ledger, f'{d}/usage.db')
        us = l.rows() if l else []
        if l: l.close()
    if len(us)!=len(ss): t.say(f'rows of a killed process — {len(us)}, not {len(ss)}')
    t.wrong += [f'after a kill, {w}' for u in us for w in unsound(u)]
    numbers = lambda us: Counter(tuple(getattr(u, k) for k in (*counts, *money, 'status', 'origin', 'usage_source', 'stream')) for u in us if u)
    if lost := numbers(map(read, ss)) - numbers(us): t.say(f'other numbers after a kill — {[*lost][:2]}')
    return t.wrong

# Replies that are read before their callers have them
@st.composite
def early(draw, bases=None, kinds=tuple(odd)):
    "The event of a call whose reply LiteLLM is about to return; of some it says nothing afterwards, and some replies are odd"
    s = draw(sent([b for b in bases or events() if b.log], kinds))
    s.announce,s.what,as_sent = False,draw(among('left','left','event','odd')),draw(st.booleans())
    s.kw = (s.kw if as_sent and is_(s.kw, dict) else s.plain[0]) | dict(litellm_call_id=f'call-{s.i}')
    s.log = draw(odd[draw(among(*kinds))]) if s.what=='odd' else copy.copy(s.base.log)
    if s.what=='odd' and draw(st.booleans()): s.log = SimpleNamespace(model_call_details=s.log)
    return s

def replied(ss):
    "What is wrong when the replies of the events are read early: each is one row, whatever it is"
    with Trial() as t:
        for o in ('LiteLLM','LiteLLM Proxy','LiteLLM Router'): t.enter_context(patch.object(logging.getLogger(o), 'disabled', True)) # it is given odd things by us
        for s in ss:
            kw,log = dict(s.kw),s.log
            if s.what!='odd': log.litellm_call_id,log.model_call_details = f'call-{s.i}',kw
            t.logger.log_pre_api_call('m', said, kw)
            t.guarded('a reply', t.logger._replied, log, s.res, s=s)
            if s.what!='left': t.guarded('an event', t.logger.log_success_event, dict(s.plain[0], llm_usage=kw['llm_usage']), s.plain[1], None, None, s=s)
            else: log.model_call_details = {} # and so the call is given up, if the reply was no reply
            del kw
            t.guarded('flush', t.logger.flush, 0, s=s)
            if len(us := t.fresh())!=1: t.say(f'not one row of a reply — {len(us)}', s)
            for w in (w for u in us for w in unsound(u)): t.say(f'of a reply, {w}', s)
        t.guarded('check', t.ledger.check); t.guarded('total', t.ledger.total)
        t.end()
    done['replies before their events'] += len(ss)
    return t.wrong

# Replies of the providers
@cache
def bodies(kinds):
    "What is on the cassette: the provider's reply as it came, the same read as JSON or as a list of events, and changes of it"
    got,kinds = [],[k for k in kinds if k not in ('panic','shut')] # what is no `Exception`, or not even has a class, is for who asks
    for line in (cassettes/'cachy.jsonl').read_text().splitlines():
        if (o := json.loads(line)).get('binary') or not is_(text := o.get('response'), str): continue
        evs = [x[5:] for x in text.splitlines() if x.startswith('data:') and '{' in x]
        try: o = [*map(json.loads, evs)] if evs else json.loads(text)
        except ValueError: continue
        ps = [*islice(places(o), 400)]
        got.append((text, o, changes(o, among(*([p for p in ps if any('sage' in str(k) for k in p)] or ps)) | among(*ps), kinds, 4)))
    return among(*map(Body, got)),among(*kinds)

def spaced(o):
    "`o` as objects of some client"
    if is_(o, dict): return SimpleNamespace(**{str(k):spaced(v) for k,v in o.items()})
    return [spaced(v) for v in o] if is_(o, list) else o

noise = among(b'', b'\xff', b'\0', b'"', b'}', b'[', b'1e999', b'-', b'9'*5000, b'NaN', b'data:', b'\n\n', b'['*100_000, b'null', b'"a":') | st.binary(max_size=9)
cuts  = st.lists(st.tuples(st.floats(0, 1), among(0, 1, 5, 50), noise), min_size=1, max_size=5)

class Body:
    "A reply to read"
    def __init__(self, reply, what=''): self.reply,self.what = reply,what
    def __repr__(self): return f'<{self.what}: {brief(self.reply, 1000)}>'

@st.composite
def body(draw, kinds=tuple(odd)):
    "What a provider said, and what it did not say"
    bases,kinds = bodies(kinds)
    (text,o,changes),form = draw(bases).reply,draw(among('dict','dict','dict','object','text','bytes','odd'))
    if form=='odd': v = draw(odd[draw(kinds)]); return Body([v, o] if draw(st.booleans()) else v, form)
    if form in ('text','bytes'):
        b = bytearray(text.encode())
        for at,n,new in draw(cuts): b[(i := int(at*len(b))):i+n] = new
        return Body(bytes(b) if form=='bytes' else b.decode('utf-8', draw(among('replace','surrogateescape'))), form)
    new,_ = changed(o, cs := draw(changes))
    try: return Body(spaced(new) if form=='object' else new, f'{form}, {told(cs)}')
    except RecursionError: return Body(new, f'dict, {told(cs)}')

def misfit(u, o):
    "What is wrong with the row `u` of the reply `o`"
    yield from no_counts(u)
    if u.usage_source not in ('reported','missing') or u.usage_source=='missing' and (u.prompt_tokens is not None or u.details):
        yield f'usage has another source — {u.usage_source}'
    for k in ('model','response_id','service_tier','details'):
        if (v := getattr(u, k)) is not None and not is_(v, str): yield f'{k} is no text — {brief(v)}'
    try: ints = {int(v) for _,v in leaves(o, 12) if whole(v)} | {0} if is_(o, dict, list) else ()
    except Exception: return
    if not 0 < len(ints) < 15: return
    sums = {sum(c) for n in range(1,5) for c in combinations_with_replacement(ints, n)}
    for k in counts:
        if k!='web_search_requests' and (v := getattr(u, k)) and v not in sums: yield f'{k} is no sum of what the reply has — {v}'

def misread(bodies):
    "What is wrong with how the replies are read, and with a ledger of their rows"
    done['bodies of replies'] += len(bodies)
    try:
        us = [Usage.from_response(b.reply, provider='p') for b in bodies]
        if wrong := [w for u,b in zip(us, bodies) for w in misfit(u, b.reply)]: return wrong
        l = Ledger(':memory:')
        for u in us: l.add(u)
        took = len(l.rows())==len({u.uid for u in us}) and isfinite(l.total().amount) and is_(l.check(), list)
        l.close()
        return [] if took else ['a ledger does not take the rows']
    except KeyboardInterrupt: raise
    except BaseException as e: return [f'reading a reply raises — {error(e)}']

# What is broken, and the command line
@cache
def broken(rule): return type('Broken', (AssertionError,), dict(rule=rule))
def expect(wrong):
    "Raise the first of what is wrong; by its class hypothesis tells which rule is broken"
    for w in wrong: raise broken(re.split(' — |\n', w)[0])(w)
def some(n, shrink=True, **kw):
    "Settings for `n` examples"
    return settings(max_examples=n, deadline=None, database=None, phases=[Phase.generate, *[Phase.shrink]*shrink], suppress_health_check=[*HealthCheck], **kw)

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('n', nargs='?', type=int, default=500, metavar='N', help='ledgers to fill')
    p.add_argument('--seed', type=int, default=1, help='of the examples')
    p.add_argument('--only', default='', metavar='WORD', help='kinds of values and calls that have it in their names')
    a,start,bad = p.parse_args(argv),time.time(),0
    bases = events(tuple(c.name for c in cases if able(c)))
    bases,kinds = [e for e in bases if a.only in e.name] or bases,tuple(k for k in odd if a.only in k) or tuple(odd)
    print(f'litellm {version("litellm")}, seed {a.seed}: {len(bases)} events to begin with, {len(kinds)} kinds of values ({time.time()-start:.0f} s)', flush=True)
    many,few_of = chunks(bases, kinds),lambda s: st.lists(s, min_size=1, max_size=8)
    for name,n,check,values in [('ledgers',a.n,recorded,many), ('ledgers that refuse rows',a.n//5,lambda cs: recorded(cs, sick=True),many),
            ('killed processes',a.n//5,killed,many), ('ledgers of early replies',a.n//2,replied,few_of(early(bases, kinds))),
            ('lists of bodies',a.n*2,misread,few_of(body(kinds)))]:
        @seed(a.seed)
        @some(max(n, 1))
        @given(values)
        def tried(example): expect(check(example))
        start = time.time()
        try: tried()
        except (AssertionError,ExceptionGroup) as e:
            for o in getattr(e, 'exceptions', [e]): bad += 1; print('BROKEN:', o, *getattr(o, '__notes__', []), sep='\n', flush=True)
        print(f'{n:,} {name} ({time.time()-start:.0f} s)', flush=True)
    print(f'\n{"what":<34}{"how many":>10}', *(f'{k:<34}{v:>10,}' for k,v in done.most_common()), f'{"rules broken":<34}{bad:>10,}', sep='\n')
    return bad and 1

if __name__=='__main__': sys.exit(main())
