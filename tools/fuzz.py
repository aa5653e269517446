"""LiteLLM events that are wrong in every way that comes to mind, handed to all hooks of a `UsageLogger`.

    python tools/fuzz.py [N] [--seed S] [--only WORD]

Real events, of the cassette's calls to the real LiteLLM, are changed at random places: keys that are missing, other types,
numbers no table can hold, a megabyte of text, objects that raise whatever is asked of them. After each event its row is held
against that of the unchanged event: what was not touched has to arrive untouched, and a number has to be one that the event
has. `reads` says which columns may depend on what; no column may depend on anything else. Every ledger is then read in every
way, and its files are searched for secrets, which all events carry. Replies of the providers are treated likewise.

What breaks a rule is reduced to the fewest changes of the smallest event that still break it. Exits with 1 if anything does.
`--only` keeps the kinds of values and the calls that have the word in their names.
"""
import argparse, asyncio, copy, gc, json, logging, os, random, sys, tempfile, time, warnings
from collections import Counter, namedtuple
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from itertools import combinations_with_replacement, islice
from math import fsum, isclose, isfinite
from pathlib import Path
from types import SimpleNamespace as NS
from unittest.mock import MagicMock

os.environ.setdefault('LITELLM_LOCAL_MODEL_COST_MAP', 'True')
import litellm, numpy as np, pandas as pd
from litellm.integrations.custom_logger import CustomLogger
from pydantic import BaseModel
from llm_usage import Ledger, Usage, UsageLogger, replaying
from llm_usage.replay import able, case, cases, play
from llm_usage.ledger import breaks
from llm_usage.replay import cassettes

litellm.suppress_debug_info = True
secret,prompt,reply = (f'{o}-PLANTED-7f3a9c' for o in ('sk-proj', 'prompt', 'reply')) # of which nothing may be in a file
planted = secret,prompt,reply,'PLANTED'


def is_(v, t): return issubclass(type(v), t) # `isinstance` asks the object


# Trees of dictionaries and lists, which are never changed: a change makes new ones along its path

_drop = object()

def get(t, path):
    for k in path:
        if not issubclass(type(t), (dict,list)): return
        try: t = t[k]
        except (LookupError,TypeError): return
    return t

def put(t, path, v):
    "`t` with `v` at `path`, without what is there if `v` is `_drop`"
    if not path: return v
    k,*rest = path
    if is_(t, list) and is_(k, int): return [*t[:k], *([] if v is _drop and not rest else [put(t[k], rest, v)]), *t[k+1:]]
    t = dict(t) if is_(t, dict) else {}
    if v is _drop and not rest: t.pop(k, None)
    else: t[k] = put(t.get(k), rest, v)
    return t

def puts(t, changes):
    for p,v in changes.items(): t = put(t, tuple(p.split('.')), v)
    return t

def places(t, path=(), deep=7):
    "The paths of all that is in `t`, but for the price rows that LiteLLM encloses"
    yield path
    if deep and is_(t, (dict,list)):
        for k,v in [*t.items()] if is_(t, dict) else enumerate(t[:20]):
            if k!='model_map_value': yield from places(v, (*path,k), deep-1)

def leaves(o, deep=8):
    "(name, value) of what is in `o`, dictionaries, lists and objects"
    if issubclass(type(o), (BaseModel,NS)): o = {**o.__dict__, **(getattr(o, '__pydantic_extra__', None) or {})}
    if not deep or not issubclass(type(o), (dict,list,tuple)): return
    for k,v in [*o.items()] if issubclass(type(o), dict) else [('',v) for v in o]:
        yield k,v
        yield from leaves(v, deep-1)


# Real events

Event = namedtuple('Event', 'name hook kw res log') # `log`: LiteLLM's logging object, of asynchronous calls
few = ['chat', 'async chat', 'web search stream', 'cache read and write', 'openai stream', 'async responses', 'responses search', 'gemini search',
    'messages', 'embedding', 'by the second', 'speech', 'rerank', 'failure', 'unpriced', 'priced at nothing']

class _Ear(CustomLogger):
    def __init__(self): self.logs,self.got = {},[]
    def hear(self, hook, kw, res): self.got.append((hook, kw, res))
    def log_success_event(self, kwargs, response_obj, start_time, end_time): self.hear('log_success_event', kwargs, response_obj)
    def log_failure_event(self, kwargs, response_obj, start_time, end_time): self.hear('log_failure_event', kwargs, response_obj)
    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time): self.hear('async_log_success_event', kwargs, response_obj)
    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time): self.hear('async_log_failure_event', kwargs, response_obj)
    async def async_post_call_success_deployment_hook(self, request_data, response, call_type):
        if log := request_data.get('litellm_logging_obj'): self.logs[log.litellm_call_id] = log

async def _heard(ear, c):
    await play(c)
    for _ in range(500):
        if ear.got: return await asyncio.sleep(.02)
        await asyncio.sleep(.01)
    raise TimeoutError(f'LiteLLM reported nothing of {c.name}')

def real(names=few):
    "What LiteLLM tells its callbacks of the calls `names`"
    old,litellm.callbacks = litellm.callbacks,[ear := _Ear()]
    try:
        with replaying():
            asyncio.run(_warm(ear))
            for c in map(case, names):
                if not able(c) or c.needs=='lisette': continue
                ear.got = []
                asyncio.run(_heard(ear, c))
                hook,kw,res = ear.got[0]
                yield Event(c.name, hook, kw, res, ear.logs.get(kw['litellm_call_id']))
    finally: litellm.callbacks = old; _forget(ear)

async def _warm(ear):
    "The first calls are reported late, since much is imported for them"
    await play(case('chat'))
    for _ in range(1000):
        if ear.got: return
        await asyncio.sleep(.01)

def _forget(ear):
    for l in [o for a in ('','_async_') for b in ('input','success','failure') if (o := getattr(litellm, f'{a}{b}_callback', None))]: l[:] = [o for o in l if o is not ear]

slo,par = 'standard_logging_object','litellm_params'
_said = [dict(role='user', content=f'{prompt} is a private question')]
_plant = {'api_key':secret, f'{par}.api_key':secret, f'{par}.metadata.headers.authorization':f'Bearer {secret}', f'{par}.metadata.user_api_key':secret,
    f'{par}.proxy_server_request.headers.authorization':f'Bearer {secret}', 'optional_params.secret_fields.raw_headers.authorization':f'Bearer {secret}',
    'additional_args.headers.x-api-key':secret, 'additional_args.complete_input_dict.messages':_said, 'messages':_said, 'input':_said, f'{slo}.messages':_said,
    f'{slo}.response':dict(choices=[dict(message=dict(content=reply))]), 'original_response':reply, f'{slo}.model_parameters.extra_headers.authorization':secret,
    f'{slo}.metadata.requester_metadata.headers.authorization':secret, f'{slo}.error_str':f'the key {secret} is wrong',
    f'{slo}.error_information.error_message':f'the key {secret} is wrong', f'{slo}.error_information.traceback':prompt}

def _planted(e):
    kw,res = puts(e.kw, _plant),e.res
    if kw.get('exception') is not None: kw = kw | dict(exception=type(e.kw['exception']).__mro__[-3](f'the key {secret} is wrong: {prompt}'))
    for o in getattr(res, 'choices', None) or []:
        if hasattr(o, 'message'): o.message.content = reply
        else: o.text = reply
    if is_(out := getattr(res, 'output', None), list): res.output = [*out, dict(type='message', content=[dict(text=reply)])]
    return e._replace(kw=kw, res=res)

_proxy = {f'{slo}.metadata.{k}':v for k,v in dict(user_api_key_hash=secret, user_api_key_user_id='ada', user_api_key_team_id='maths', user_api_key_end_user_id='customer',
    agent_id='crawler', spend_logs_metadata=dict(job=7, path=['a','b'])).items()} | {f'{slo}.request_tags':['nightly','User-Agent: x','b'],
    f'{par}.metadata.session_id':'s1', f'{par}.metadata.tags':['c'], f'{slo}.model_group':'group', f'{par}.litellm_metadata':dict(user_id='bob')}

def _variants(es):
    "More events, by changes that leave them events of LiteLLM"
    by = {e.name:e for e in es}
    def of(name, what, **kw): return [by[name]._replace(name=what, **kw)] if name in by else []
    def with_(name, what, changes): return of(name, what, kw=puts(by[name].kw, changes)) if name in by else []
    n = litellm.token_counter(model=get(by['openai stream'].kw, (slo,'model')), messages=_said) if 'openai stream' in by else 0
    return [*with_('chat', 'proxy', _proxy), *with_('chat', 'cache hit', {f'{slo}.cache_hit':True, f'{slo}.saved_cache_cost':.01, 'response_cost':0.}),
        *with_('chat', 'usage in the reply', {f'{slo}.metadata.usage_object':_drop}), *with_('responses search', 'search in the reply', {f'{slo}.metadata.usage_object':_drop}),
        *with_('async chat', 'partial', {f'{slo}.error_information.error_code':'499'}),
        *with_('openai stream', 'estimated', {f'{slo}.api_base':'http://127.0.0.1:1/v1', 'optional_params.stream_options':_drop, f'{slo}.metadata.usage_object.prompt_tokens':n})]

_events = {}

def events(names=few):
    "The events to begin with"
    if (key := tuple(names)) not in _events:
        es = [_planted(e) for e in real(names)]
        _events[key] = es + _variants(es)
    return _events[key]


# Odd values

class _Panic(BaseException): "As Rust's panics arrive: tokenizers and pydantic have some"

def _raises(e, *names):
    def f(self, *args): raise e
    return type('Evil', (), {f'__{k}__':f for k in names})

class Unsaid(BaseModel): model_config = dict(extra='allow'); usage: object = None; id: object = None
class Colour(Enum): red = 1
class Text(str): pass
class Count(int): pass
class Box(dict): pass
class Shut(dict):
    def get(self, *a): raise KeyError('shut')
class Late(BaseModel):
    a: int = 1
    def model_dump(self, **kw): raise ValueError('not yet')

def deep(n, d=None):
    for i in range(n): d = {'a':d} if i%2 else [d]
    return d

def cyclic():
    d = dict(a=1, usage={}); d['a'] = d; d['l'] = [d]; d['usage']['usage'] = d
    return d

_huge = 'x'*1_000_000
_deep = [deep(50, 1), deep(900, 1), deep(20_000, 1)]
_many = {f'key {i}':i for i in range(5000)}
_tags = [f'tag {i}' for i in range(10_000)]
_mock = [MagicMock(), MagicMock(spec=dict), MagicMock(side_effect=ValueError)]
_wide = type('N'*2000, (Exception,), {})
_sql  = ["'; DROP TABLE usage; --", '" OR 1=1 --', '%s{0}{{}}${x}', ':n', 'a\'b"c`d;', "1); DELETE FROM usage WHERE (1=1"]
_all  = 'str repr bool eq hash iter len getattr getitem contains float int index lt'.split()
_far  = [datetime.min, datetime.max, datetime(1969,1,1), datetime(2400,1,1), datetime.max.replace(tzinfo=timezone.utc), datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))]

odd = dict( # kinds of values, each of a random generator
    nothing    = lambda r: r.choice([None, '', [], {}, (), set()]),
    bool       = lambda r: r.random()<.5,
    text       = lambda r: r.choice(['?', '12', '1.5', 'None', 'true', 'nan', 'text', 'sk-x', ' ', 'ß∂\u202e', '{"a": 1}', 'success', '499']),
    bytes      = lambda r: r.choice([b'12', b'\xff\0', bytearray(b'x'), memoryview(b'x')]),
    list       = lambda r: [r.randrange(9) for _ in range(r.randrange(9))],
    dict       = lambda r: {r.choice(['a', 'total_tokens', 'tags', 'id']):r.choice([1, 'x', None, [], {}]) for _ in range(3)},
    int        = lambda r: r.choice([0, 1, 2, 7, 10**6, 2**31, 2**53+1, 2**63-1]),
    negative   = lambda r: r.choice([-1, -7, -1.5, -2**63, -1e308, -0.]),
    huge       = lambda r: r.choice([2**63, 2**64, 10**19, 10**300, 10**400, 10**5000, -10**5000]),
    float      = lambda r: r.choice([0., 1., 1.5, 3.9999999, 1e-320, 1e15+.5, 9.3e18, 1e17, 1e25, 1e300, 1e308, 1.7976931348623157e308]),
    nan        = lambda r: r.choice([float('nan'), float('inf'), -float('inf'), Decimal('nan'), Decimal('sNaN'), np.float64('nan'), pd.NA, pd.NaT]),
    number     = lambda r: r.choice([Decimal('12'), Decimal('1.5'), Decimal('1e999'), Fraction(1,3), 3j, Count(12), Colour.red, timedelta(seconds=3)]),
    numpy      = lambda r: r.choice([np.int64(12), np.uint64(2**64-1), np.float64(12.), np.float64(1e308), np.float32(.1), np.bool_(True), np.str_('x'), np.array([1,2]), np.array(3), np.datetime64('2026-01-01')]),
    time       = lambda r: r.choice([datetime(2026,1,1), datetime(2026,1,1,tzinfo=timezone.utc), datetime.now(), pd.Timestamp('2026-01-01'), time.time(), 0., 1e-9, 8.9e9, 1.8e12, 1.6e9, 1_700_000_000]),
    far        = lambda r: r.choice(_far),
    long       = lambda r: r.choice([_huge, 'é'*5000, '\ud800'*600, 'a'*501, '\U0001f600'*400, '漢'*501]),
    surrogate  = lambda r: r.choice(['\ud800', 'a\udfffb', '\udcff'*3]),
    nul        = lambda r: r.choice(['\0', 'a\0b', '\0'*50, '\x1b[31m\r\n']),
    sql        = lambda r: r.choice(_sql),
    tags       = lambda r: _tags if r.random()<.3 else [r.choice(['a', 1, None, ['b'], {}, _sql[0], '\ud800', 'x'*900, 1.5]) for _ in range(r.randrange(200))],
    many       = lambda r: _many,
    deep       = lambda r: r.choice(_deep),
    cyclic     = lambda r: cyclic(),
    subclass   = lambda r: r.choice([Text('text'), Box(a=1), Count(3), Text(''), NS(usage=NS(prompt_tokens=3), id='x')]),
    pydantic   = lambda r: r.choice([Unsaid(), Unsaid(usage=dict(prompt_tokens=3), id='y', x=1), litellm.Usage(prompt_tokens=3), litellm.ModelResponse(), Late(), Unsaid.model_construct(usage=Late())]),
    generator  = lambda r: r.choice([(i for i in range(3)), iter([1]), map(str, [1]), range(3), open]),
    klass      = lambda r: r.choice([int, dict, litellm.ModelResponse, Unsaid, _wide, len, lambda *a: 1/0]),
    mock       = lambda r: r.choice(_mock),
    error      = lambda r: r.choice([ValueError('x'), litellm.APIError(500, 'm', 'p', 'm'), asyncio.CancelledError(), _wide('x')]),
    evil       = lambda r: _raises(RuntimeError('evil'), *(_all if r.random()<.3 else r.sample(_all, 2)))(),
    shut       = lambda r: r.choice([Shut(a=1), _raises(RuntimeError('evil'), 'getattribute')(), _raises(RecursionError('evil'), 'bool', 'eq')(), _raises(MemoryError('evil'), 'str', 'bool')()]),
    panic      = lambda r: _raises(r.choice([_Panic('panic'), asyncio.CancelledError(), GeneratorExit()]), 'str', 'bool', 'eq', 'getattr', 'len')())
_odd_keys = [0, 1, None, (1,'a'), b'x', True, 1.5, float('nan'), 'a\0b', '\ud800', _sql[0], 'k'*2000, frozenset([1]), '', '__class__', 'prompt_tokens', Colour.red, _raises(RuntimeError('evil'), 'str', 'repr')()]

def _str(e):
    try: return str(e)
    except BaseException: return '?'

def brief(v, n=200):
    "`v` in short, whatever it is"
    try: s = repr(v)
    except BaseException: s = f'<{type(v).__name__} without a repr>'
    return s if len(s) <= n else f'{s[:n]}… ({len(s):,})'


# Changes, and which columns may depend on what

_meta = [f'kw.{slo}.metadata', f'kw.{par}.metadata', f'kw.{par}.litellm_metadata']
def _in(*ks): return [f'{m}.{k}' for m in _meta for k in ks]
def _slo(*ks): return [f'kw.{slo}.{k}' for k in ks]
def _kw(*ks): return [f'kw.{k}' for k in ks]

_usage = [*_in('usage_object'), 'res.usage']
_call  = _slo('call_type') + _kw('call_type')
_tally = [*_usage, *_call, *(f'res.{k}' for k in 'choices output response candidates tool_usage usage_info meta _hidden_params'.split()), 'kw.input', f'kw.{slo}.cost_breakdown.tool_usage_cost']
_who   = _slo('custom_llm_provider') + _kw('custom_llm_provider')
_when  = _slo('startTime') + _kw('start_time')
_how   = f'kw.{slo}.cost_breakdown'
_model = [*_slo('model','model_group','hidden_params'), 'kw.model', 'res.model', *_who, *_in('original_model_group')]
_end   = _slo('status','error_information') + _kw('exception')
_price = [*_kw('response_cost'), *_tally] # of counts that cannot be there is no cost
_free  = [*_price, *_end, *_usage, *_model, *_tally, *_slo('cache_hit','stream','model_map_information')] # what tells a free call from one without a price
_parts = [f'{k}_usd' for k in 'inp cache_read cache_write out web other'.split()]
_names = dict( # of the counts, wherever in a usage they are
    prompt_tokens='prompt_tokens input_tokens prompt_token_count', completion_tokens='completion_tokens output_tokens candidates_token_count',
    total_tokens='total_tokens total_token_count', cache_read_tokens='cached_tokens cache_read_input_tokens cached_content_token_count prompt_cache_hit_tokens',
    cache_creation_tokens='cache_creation_tokens cache_write_tokens cache_creation_input_tokens cache_write_input_tokens',
    cache_creation_1h_tokens='ephemeral_1h_input_tokens', reasoning_tokens='reasoning_tokens thinking_tokens thoughts_token_count',
    web_search_requests='web_search_requests')

_named = [*_slo('end_user'), *_in('user_api_key_end_user_id','end_user','user_id'), *_kw('user','optional_params.user'), *_call]

reads = dict( # columns               what of an event they may depend on
    call_id         = _slo('litellm_call_id') + _kw('litellm_call_id'),
    response_id     = [*_slo('id'), 'res.id'],
    trace_id        = _slo('trace_id') + _kw('litellm_trace_id'),
    session_id      = [*_slo('session_id'), *_in('session_id'), f'kw.{par}.litellm_session_id', *_named],
    timestamp       = _when,
    latency         = _when + _slo('endTime') + _kw('end_time'),
    ttft            = _when + _slo('completionStartTime','stream') + _kw('completion_start_time'),
    provider        = _who,
    model           = _model,
    requested_model = _model,
    call_type       = _call,
    stream          = _slo('stream'),
    status          = _end,
    error           = _end,
    origin          = _slo('cache_hit'),
    user_id         = _in('user_api_key_user_id', 'user_id') + _call,
    team_id         = _in('user_api_key_team_id', 'team_id'),
    end_user        = _named,
    api_key_hash    = _in('user_api_key_hash'),
    agent           = _in('agent', 'agent_id', 'agent_name'),
    tags            = [*_slo('request_tags'), *_in('tags')],
    meta            = _in('spend_logs_metadata'),
    **dict.fromkeys(_names, _tally),
    usage_source    = [*_tally, *_who, *_slo('stream','api_base','model'), *_kw('optional_params.stream_options','messages')],
    details         = [*_tally, *_slo('cache_hit','saved_cache_cost'), f'{_how}.data_residency', f'{_how}.vertex_location'],
    service_tier    = [f'{_how}.service_tier', 'res.service_tier', *_usage],
    response_cost   = [*_price, *_slo('stream')],
    cost_source     = [*_price, _how, *_who, *_slo('stream')],
    price_key       = [*_price, *_slo('stream','model_map_information.model_map_key')],
    cost_lacks      = [*_price, _how, *_model, *_end, *_slo('stream','cache_hit','model_map_information'), 'res.service_tier', *_when],
    **dict.fromkeys(_parts, [*_price, _how, *_who, *_slo('stream','cache_hit')]))
_counted = [tuple(p.split('.')) for p in _tally]
_reads = {c:[tuple(p.split('.')) for p in ps] for c,ps in reads.items()}
_zero  = {c:[*_reads[c], *(tuple(p.split('.')) for p in _free)] for c in ('response_cost','cost_source','price_key',*_parts)} # where the cost is said to be 0
_aims  = sorted({p for ps in _reads.values() for p in ps} | {('kw',), ('res',), ('kw',slo), ('kw',par), ('kw','optional_params'), ('kw',slo,'model_map_information')}
    | {(*tuple(m.split('.')),*k) for m in _meta for k in [()]} | {tuple(f'{_how}.{k}'.split('.')) for k in 'total_cost input_cost output_cost cache_read_cost cache_creation_cost tool_usage_cost'.split()}
    | {('kw',slo,'metadata','usage_object',k) for ks in _names.values() for k in ks.split()} | {('kw',slo,'metadata','usage_object',k) for k in ('prompt_tokens_details','completion_tokens_details','cost','speed','inference_geo','server_tool_use','seconds')}
    | {('kw',slo,'metadata','usage_object','prompt_tokens_details',k) for k in ('cached_tokens','audio_tokens','cache_creation_token_details','web_search_requests')})

_everywhere = [p for c in 'call_id response_id trace_id session_id provider model requested_model call_type error user_id team_id end_user agent service_tier price_key'.split() for p in _reads[c]
    if p[-1] not in ('status','exception','error_information','usage_object','usage')] + [('kw',slo,'error_information',k) for k in ('error_class','error_code')]

def touches(p, q): return all(a is b or a==b for a,b in zip(p, q))

Change = namedtuple('Change', 'path kind value') # `value` is put at `path`

def _new(r, kinds, old, tree):
    "(how, what) to put where `old` is"
    how = r.random()
    if how<.14: return 'missing',_drop
    if how<.22: return 'wrapped',r.choice([lambda v:[v], lambda v:(v,), lambda v:{'value':v}, lambda v:[v,v], lambda v:NS(v=v)])(old)
    if how<.34 and is_(old, (int,float)): return 'tweaked',r.choice([lambda v:-v, lambda v:v+.5, lambda v:v*1e300, str, float, Decimal, lambda v:v-1e10, lambda v:v*2, np.float64, lambda v:0*v])(old)
    k = r.choice(kinds)
    return k,odd[k](r)

def change(r, tree, kinds, all_places):
    "A random change of `tree`"
    p = r.choice(_aims) if r.random()<.6 else r.choice(all_places)
    if r.random()<.12 and is_(d := get(tree, p), dict): p = (*p, r.choice(_odd_keys))
    how,v = _new(r, kinds, get(tree, p), tree)
    return Change(p, how, v)

def changed(tree, cs):
    "`tree` with the changes `cs`, and the paths that they touched"
    seen = []
    for c in cs:
        at = next((i for i in range(len(c.path)) if not is_(get(tree, c.path[:i]), (dict,list))), len(c.path)) # there may be nothing on the way
        if at<len(c.path) and c.value is _drop: continue
        if any(is_(l := get(tree, c.path[:i]), list) and not (is_(k, int) and k<len(l)) for i,k in enumerate(c.path)): continue
        tree = put(tree, c.path, c.value)
        seen.append(c.path[:at] if at<len(c.path) else c.path)
    return tree,seen


# One event, and its row

class Sent:
    "An event as it is sent: `base` with the changes `cs`, and what its row may be"
    def __init__(self, base, cs, i, hook, form='as it is', announce=False, again=None):
        self.base,self.cs,self.i,self.hook,self.form,self.announce,self.again = base,cs,i,hook,form,announce,again
        at,name = 1.6e9+i*.01,f'{i}'
        old = get(base.kw, (slo,'startTime')) or 0
        lag = lambda k: (get(base.kw, (slo,k)) or old)-old
        kw = puts(base.kw, {'litellm_call_id':f'call-{name}', f'{slo}.litellm_call_id':f'call-{name}', f'{slo}.id':f'id-{name}',
            f'{slo}.startTime':at, f'{slo}.endTime':at+lag('endTime'), f'{slo}.completionStartTime':at+lag('completionStartTime')})
        res = base.res
        if form=='dict' and hasattr(res, 'model_dump'): res = res.model_dump(warnings=False)
        elif hasattr(res, 'model_copy') and hasattr(res, 'id'): res = res.model_copy(update=dict(id=f'res-{name}'))
        if is_(res, dict) and 'id' in res: res = res | dict(id=f'res-{name}')
        self.plain = kw,res
        inner = [c for c in cs if c.path[0]=='kw' or len(c.path)==1 or is_(res, dict)]
        t,self.seen = changed(dict(kw=kw, res=res), inner)
        self.kw,self.res = t.get('kw'),t.get('res')
        if form=='namespace' and is_(self.res, dict): self.res,self.seen = NS(**{str(k):v for k,v in self.res.items()}),[*self.seen,('res',)]

    def send(self, logger, hook=None):
        f = getattr(logger, hook or self.hook)
        co = f(self.kw, self.res, None, None)
        if co is not None:
            try: co.send(None)
            except StopIteration: pass

    def name(self):
        try: v = self.res.get('id') if is_(self.res, dict) else getattr(self.res, 'id', None)
        except BaseException: return
        return v if issubclass(type(v), (str,int)) and v else None

_money = ['response_cost', *_parts]
_texts = [k for k,f in Usage.__dataclass_fields__.items() if f.type is str]
_close = dict(timestamp=1e-6, latency=1e-5, ttft=1e-5)

def _number(v): return issubclass(type(v), (int,float)) and type(v) is not bool

def _stated(s):
    "The cost that the event states, if it does"
    v = get(s.kw, ('response_cost',))
    try: return float(v) if _number(v) and isfinite(v) else None
    except OverflowError: return

def _given(s):
    "The numbers by name that may be counts in the usages of the event"
    got = {}
    for u in [get(s.kw, (slo,'metadata','usage_object')), get(s.kw, (par,'metadata','usage_object')), get(s.kw, (par,'litellm_metadata','usage_object')), _attr(s.res,'usage')]:
        for k,v in leaves(u):
            if is_(k, str) and _number(v) and 0<=v<2**63 and v==v//1: got.setdefault(k, set()).add(int(v))
    return got

def _attr(o, k):
    try: return o.get(k) if is_(o, dict) else getattr(o, k, None)
    except BaseException: return

def _json(s): return json.loads(s) if s else None

def bounded(u):
    "What about the texts of row `u` is longer, or other, than it should be"
    for k in _texts:
        v = getattr(u, k)
        if v is not None and not is_(v, str): yield f'{k} is no text — {type(v).__name__}'
        elif v is not None and k not in ('tags','meta','details') and len(v) > 500: yield f'{k} is too long — {len(v):,} characters'
    tags,meta,det = _json(u.tags) or [],_json(u.meta) or {},_json(u.details) or {}
    if tags!=sorted(tags) or len(tags)>100 or any(not is_(o, str) or len(o)>500 for o in tags): yield 'tags are no sorted list of a hundred short texts'
    if len(meta)>100 or any(len(k)>100 or len(json.dumps(v))>1000 for k,v in meta.items()): yield 'meta is more than a hundred short values'
    if len(det)>20 or any(not _number(v) and not (is_(v, str) and len(v)<=500) for v in det.values()): yield f'details are no short values — {brief(det)}'

def sound(u):
    "What is wrong with the numbers of row `u`"
    for k in _names:
        if (v := getattr(u, k)) is not None and not (type(v) is int and 0 <= v <= 10**12): yield f'{k} is no such number — {brief(v)}'
    for k in (*_money, 'timestamp', 'latency', 'ttft'):
        if (v := getattr(u, k)) is not None and not (type(v) is float and isfinite(v)): yield f'{k} is no such number — {brief(v)}'
    if u.timestamp is None or not 0 <= u.timestamp < 9e9: yield f'timestamp is none — {u.timestamp}'
    if (u.latency or 0)<0 or (u.ttft or 0)<0: yield 'it ends before it starts'
    if u.status not in ('ok','failed','partial') or u.origin not in ('live','cache') or u.usage_source not in ('reported','estimated','missing'): yield f'an unknown state — {u.status}, {u.origin}, {u.usage_source}'
    ps = [getattr(u, k) for k in _parts]
    if not 0 <= (u.response_cost or 0) < 1e9 or any((p or 0) < 0 for p in ps[:-1]): yield f'money that cannot be — {u.response_cost}, {ps}'
    if (u.cost_source is None)!=(u.response_cost is None): yield f'a cost without a source, or the reverse — {u.cost_source}'
    if u.response_cost is None and any(p is not None for p in (*ps, u.cost_lacks)): yield 'parts but no cost'
    if ps[0] is not None and not isclose(fsum(p or 0 for p in ps), u.response_cost, rel_tol=1e-9, abs_tol=1e-9*max(1, *(abs(p or 0) for p in ps))): yield f'parts do not sum to the cost — {ps}, {u.response_cost}'

def same(a, b, k):
    x,y = getattr(a, k),getattr(b, k)
    return x==y or is_(x, float) and is_(y, float) and isclose(x, y, rel_tol=1e-12, abs_tol=_close.get(k, 1e-12))

def wrong(s, u, plain):
    "What is wrong with the row `u` of event `s`, whose row would be `plain` without its changes"
    yield from sound(u)
    yield from bounded(u)
    if u.error and u.error.startswith('unreadable'): yield f'a row is unreadable — {u.error}'; return
    given = _given(s)
    for k,names in _names.items():
        v = getattr(u, k)
        if v and v not in {n for o in names.split() for n in given.get(o, ())} and not (k=='web_search_requests' and v<10_000): yield f'{k} is a number that is not in the event — {v}'
    cost = _stated(s)
    odd = cost and (not 0<=cost<1e9 or any(touches(p, q) for p in s.seen for q in _counted))
    if u.response_cost!=cost and (u.response_cost is not None or cost and not odd): yield f'response_cost is not what the event says — {u.response_cost}, {cost}'
    for k,ps in _reads.items():
        if k in _zero and not plain.response_cost: ps = _zero[k]
        if not same(u, plain, k) and not any(touches(p, q) for p in s.seen for q in ps): yield f'{k} is other, and nothing that it is read from was changed — {brief(getattr(u,k),60)}, not {brief(getattr(plain,k),60)}'


# A ledger, and many events

Wrong = namedtuple('Wrong', 'what events')

@contextmanager
def _quiet():
    "Within the block LiteLLM, which is given odd things by us, does not complain"
    logs = [logging.getLogger(o) for o in ('LiteLLM','LiteLLM Proxy','LiteLLM Router')]
    old  = [o.level for o in logs]
    for o in logs: o.setLevel(logging.CRITICAL+1)
    try: yield
    finally:
        for o,level in zip(logs, old): o.setLevel(level)

@contextmanager
def hearing():
    "What is written to the file descriptor of stderr within the block, as a function that takes it"
    sys.stderr.flush()
    old = os.dup(2)
    with tempfile.TemporaryFile() as f:
        os.dup2(f.fileno(), 2)
        was,sys.stderr = sys.stderr,open(2, 'w', closefd=False, errors='backslashreplace') # pytest has put another there
        def said():
            sys.stderr.flush()
            f.seek(0); s = f.read().decode(errors='replace'); f.seek(0); f.truncate()
            return s
        try: yield said
        finally: sys.stderr.flush(); sys.stderr = was; os.dup2(old, 2); os.close(old)

def _files(d): return {p.name:p.read_bytes() for p in Path(d).iterdir()}

def _leaks(d):
    for n,b in _files(d).items():
        for s in planted:
            if s.encode() in b: yield f'a secret is in a file — {s!r}: {n}'

class Run:
    "A logger with a ledger of its own, to which events are sent"
    def __init__(self, sick=False):
        self.sick,self.wrong,self.rows,self.n,self.slow = sick,[],0,Counter(),(0.,0)
        self.dir = tempfile.TemporaryDirectory(prefix='fuzz')
        self.logger = UsageLogger(f'{self.dir.name}/usage.db')
        self.ledger,self.last,self.warned = self.logger.ledger,0,Counter()

    def say(self, what, *ss): self.wrong.append(Wrong(what, ss))

    def guarded(self, what, ss, f, *args, **kw):
        try: return f(*args, **kw)
        except KeyboardInterrupt: raise
        except BaseException as e: self.say(f'{what} raises — {type(e).__name__}: {brief(_str(e),80)}', *ss)

    def fresh(self):
        "The rows since they were last asked for, of a ledger that is well again"
        us = self.ledger.rows('id>:n', n=self.last)
        if us: self.last = us[-1].id
        return us

    def settle(self):
        "Forget what is left of events that went wrong, so that it is said only once"
        self.logger._open.clear()
        for k in [*self.ledger.journal.begun]: self.ledger.journal.forget(k)

    def chunk(self, ss):
        "Send the events `ss`, and look at their rows"
        self.settle()
        if self.sick: self.ledger.con.execute('PRAGMA query_only=1')
        for s in ss:
            before = dict(s.kw) if type(s.kw) is dict else None
            if s.announce: self.guarded('log_pre_api_call', [s], self.logger.log_pre_api_call, 'm', _said, s.kw)
            t = time.perf_counter()
            self.guarded(s.hook, [s], s.send, self.logger)
            self.slow = max(self.slow, (time.perf_counter()-t, s.i))
            if before is not None and not ({*s.kw}-{*before} <= {'llm_usage'} and all(v is s.kw[k] for k,v in before.items())): self.say('an event was changed', s)
        if self.sick:
            self.guarded('flush', ss, self.ledger.flush)
            self.ledger.con.execute('PRAGMA query_only=0')
            self.guarded('check', ss, self.ledger.check)
        us = self.guarded('rows', ss, self.fresh) or []
        if len(us)!=len(ss): return self.say(f'rows are missing, or too many — {len(us)-len(ss):+}', *ss)
        self.rows += len(us)
        for s,u in zip(ss, us):
            for w in wrong(s, u, _plain_row(s)): self.say(w, s)
        for s in ss:
            if s.again: self.guarded(s.again, [s], s.send, self.logger, s.again)
        more = Counter((u.call_id, u.response_id) for u in self.guarded('rows', ss, self.fresh) or [])
        for s,u in zip(ss, us):
            if not s.again: continue
            key,known = (u.call_id, u.response_id),type(s.kw) is dict # which carries its call
            self.n['delivered twice'] += 1
            if more[key] and known: self.say('a second delivery is a second row', s)
            elif more[key]: self.n['twice, without a name or a time'] += 1
        self.rows += sum(more.values())
        if n := len(self.ledger.journal.begun): self.say(f'calls that are over are in flight — {n}', *ss)
        if len(self.logger._open): self.say(f'calls that are over are open — {len(self.logger._open)}', *ss)

    def end(self, ss, said, warned):
        "Read the ledger in every way, and close it"
        l = self.ledger
        self.guarded('flush', ss, self.logger.flush, 0)
        for k,v in vars(self.logger).items():
            if is_(v, (dict,set)) and len(v)>10_000: self.say(f'too many entries — {k}: {len(v):,}', *ss)
        us = self.guarded('rows', ss, l.rows) or []
        if len(us)!=self.rows: self.say(f'rows at the end — {len(us)}, not {self.rows}', *ss)
        for what,f in dict(usage=lambda: l.usage(), df=l.df, total=l.total, check=l.check, repr=lambda: repr(l)).items():
            v = self.guarded(what, ss, f)
            if v is None: continue
            if what in ('usage','df') and len(v)!=len(us): self.say(f'{what} has not all rows — {len(v)} of {len(us)}', *ss)
            if what=='total' and fsum(abs(u.response_cost or 0)/1e10 for u in us)<1e295 and not (isfinite(v.amount) and isfinite(v.saved) and v.calls==len(us)): self.say(f'total is wrong — {v!r}', *ss)
            if what=='check':
                for o in v:
                    if not any(k in o for k in ('more cached tokens', 'more reasoning', 'more hour-long')) and not ('do not sum' in o and any(abs(p or 0)>1e5 for u in us for p in (u.inp_usd, u.out_usd, u.other_usd))): self.say(f'check says — {o}', *ss)
        for u in us: self.guarded('a receipt', ss, lambda: (repr(u), u.receipt(), u.bill()))
        for u in us:
            if (c := self.guarded('a cost', ss, lambda: u.cost)) is not None and not isfinite(c): self.say(f'cost is infinite — {c}', *ss)
        if l.dropped: self.say(f'rows were dropped — {l.dropped}', *ss)
        for w in _leaks(self.dir.name): self.say(w, *ss)
        self.guarded('close', ss, l.close)
        left = [f for f in _files(self.dir.name) if 'journal' in f]
        if left: self.say(f'files are left — {", ".join(left)}', *ss)
        for w in _leaks(self.dir.name): self.say(w, *ss)
        again = self.guarded('opening it anew', ss, lambda: Ledger(l.path))
        if again:
            if (n := len(again.rows()))!=self.rows: self.say(f'other rows when it is opened anew — {n}, not {self.rows}', *ss)
            again.close()
        gc.collect(0)
        kinds = Counter(str(w.message).split(':')[1] for w in warned)
        for k,n in kinds.items():
            if n>1: self.say(f'more than one warning of a kind — {n}: {k}', *ss)
        text = said() if not self.sick else '' # where apsw says what SQLite refused
        if text.strip(): self.say(f'stderr — {text.strip()[-300:]}', *ss)
        for s in planted:
            if any(s in str(w.message) for w in warned) or s in text: self.say(f'a secret is in a warning — {s!r}', *ss)
        self.warned = kinds
        self.dir.cleanup()

def _row(s):
    try: return Usage.from_event(s.kw if is_(s.kw, dict) else {}, s.res)
    except BaseException: return None # read without what is odd

def _plain_row(s): return Usage.from_event(*s.plain)

def run(ss, sick=False, chunk=40):
    "Send the events `ss` to a new ledger: what went wrong, and how many rows there are"
    with warnings.catch_warnings(record=True) as warned, hearing() as said:
        warnings.simplefilter('always')
        r = Run(sick)
        n = chunk if sick else 1
        for i in range(0, len(ss), n): r.chunk(ss[i:i+n])
        ours = [w for w in warned if not issubclass(w.category, (DeprecationWarning,RuntimeWarning))] # numpy's of an overflow
        r.end(ss, said, ours)
    return r

_hooks = ['log_success_event', 'log_failure_event', 'async_log_success_event', 'async_log_failure_event']
_twin  = {k:k.removeprefix('async_') if k.startswith('async_') else f'async_{k}' for k in _hooks}

def sends(r, n, start=0, bases=None, kinds=None):
    "`n` random events, numbered from `start`"
    bases,kinds = bases or events(),kinds or [*odd]
    for i in range(start, start+n):
        b = r.choice(bases)
        if id(b.kw) not in _places_of: _places_of[id(b.kw)] = (b.kw, [('kw',*p) for p in places(b.kw)])
        ps = _places_of[id(b.kw)][1]
        form = r.choices(['as it is','dict','namespace'], [6,3,1])[0]
        if form!='as it is' and hasattr(b.res, 'model_dump') and r.random()<.5:
            if id(b.res) not in _places_of: _places_of[id(b.res)] = (b.res, [('res',*p) for p in places(b.res.model_dump(warnings=False))])
            ps = _places_of[id(b.res)][1]
        cs = [change(r, dict(kw=b.kw, res=None), kinds, ps) for _ in range(r.choice([0,1,1,1,1,1,2,2,3,5,9]))]
        if r.random()<.02: # every text is odd, and the same
            k = r.choice(['long','long','nul','surrogate','sql'])
            v = odd[k](r)
            cs = [Change(p, 'everywhere', v) for p in _everywhere if p[0]=='kw']
        hook = b.hook if r.random()<.8 else r.choice(_hooks)
        again = r.choice([hook, _twin[hook]]) if r.random()<.2 else None
        yield Sent(b, cs, i, hook, form, r.random()<.5, again)

_places_of = {}


# Fewer and smaller

def _kind(what): return what.partition(' — ')[0]

def _again(s, **kw):
    d = dict(base=s.base, cs=s.cs, i=s.i, hook=s.hook, form=s.form, announce=s.announce, again=s.again) | kw
    return Sent(**d)

def smallest(w, sick=False, kill=False, secs=10):
    "The fewest events of `w`, with the fewest changes of the smallest base, that still break the rule"
    until = time.monotonic()+secs
    def breaks_(ss): return time.monotonic()<until and bool(ss) and any(_kind(o.what)==_kind(w.what) for o in (killed(ss) if kill else run(ss, sick)).wrong)
    ss = [*w.events]
    if not breaks_(ss): return ss
    n = len(ss)//2
    while n: # halves, quarters, ...
        i = 0
        while i<len(ss) and len(ss)>1:
            if breaks_(less := ss[:i]+ss[i+n:]): ss = less
            else: i += n
        n //= 2
    for i,s in enumerate(ss):
        def better(**kw):
            nonlocal s
            try: t = _again(s, **kw)
            except Exception: return
            if breaks_([*ss[:i], t, *ss[i+1:]]): s = ss[i] = t
        for kw in (dict(form='as it is'), dict(announce=False), dict(again=None)): better(**kw)
        for c in [*s.cs]: better(cs=[o for o in s.cs if o is not c])
        better(base=s.base._replace(res=None))
        for at in ((), (slo,), (par,), (slo,'metadata'), (slo,'cost_breakdown')):
            for k in [*(get(s.base.kw, at) or {})]: better(base=s.base._replace(kw=put(s.base.kw, (*at,k), _drop)))
    return ss

def told(w, ss):
    "The rule that is broken, and what breaks it, as text"
    lines = [f'BROKEN: {w.what}']
    for s in ss[:3]:
        lines += [f'  {s.base.name}, {s.form}, {s.hook}{", announced" if s.announce else ""}{", again by "+s.again if s.again else ""}']
        lines += [f'    {".".join(brief(k,40) if not is_(k,str) else k for k in c.path)}: {c.kind} {"" if c.value is _drop else brief(c.value)}' for c in s.cs]
        lines += [f'    kwargs = {brief(s.kw,1500)}', f'    response_obj = {brief(s.res,300)}']
    return '\n'.join([*lines, f'  and {len(ss)-3} more events'] if len(ss)>3 else lines)


# Rows that a killed process leaves behind

def killed(ss):
    "Send the events `ss` to a logger whose rows are noted and not stored, and read what it leaves behind: what went wrong, and the rows"
    with warnings.catch_warnings(record=True), hearing(), tempfile.TemporaryDirectory() as d:
        warnings.simplefilter('always')
        r = Run()
        r.ledger.journal.thread = 'none' # nobody stores rows
        for s in ss:
            if s.announce: r.guarded('log_pre_api_call', [s], r.logger.log_pre_api_call, 'm', _said, s.kw)
            r.guarded(s.hook, [s], s.send, r.logger)
        for n,b in _files(r.dir.name).items(): (Path(d)/n).write_bytes(b)
        for w in _leaks(d): r.say(w, *ss)
        r.ledger.close(); r.dir.cleanup()
        l = r.guarded('opening what is left', ss, lambda: Ledger(f'{d}/usage.db'))
        us = l.rows() if l else []
        if len(us)!=len(ss): r.say(f'rows of a killed process — {len(us)}, not {len(ss)}', *ss)
        for u in us:
            for w in sound(u): r.say(f'{w}, after a kill', *ss)
        tally = lambda us: Counter(tuple(getattr(u, k) for k in (*_names, *_money, 'status', 'origin', 'usage_source', 'stream')) for u in us)
        if lost := tally(u for s in ss if (u := _row(s))) - tally(us): r.say(f'other numbers after a kill — {[*lost][:2]}', *ss)
        if l: l.close()
    r.rows = len(us)
    return r

# Replies that are read before their callers have them

def replied(r, n, bases=None, kinds=None):
    "`n` replies that LiteLLM is about to return, and then says nothing of, or reports; returns what went wrong, and the rows"
    bases,kinds,bad,rows = [b for b in bases or events() if b.log],kinds or [*odd],[],0
    with warnings.catch_warnings(record=True), tempfile.TemporaryDirectory() as d, hearing() as said, _quiet():
        warnings.simplefilter('always')
        logger = UsageLogger(f'{d}/usage.db')
        for i in range(n):
            s = next(sends(r, 1, i, bases, kinds))
            what,log = r.choice(['left','left','event','odd']),copy.copy(s.base.log)
            log.litellm_call_id,log.model_call_details = f'call-{i}',s.kw if is_(s.kw, dict) and r.random()<.5 else s.plain[0]
            log.model_call_details = kw = log.model_call_details | dict(litellm_call_id=f'call-{i}')
            logger.log_pre_api_call('m', _said, kw)
            before = len(logger.ledger.rows())
            try:
                logger._replied(r.choice([odd[r.choice(kinds)](r), NS(model_call_details=odd[r.choice(kinds)](r))]) if what=='odd' else log, s.res)
                if what!='left': logger.log_success_event(dict(s.plain[0], llm_usage=kw['llm_usage']), s.plain[1], None, None)
                else: del kw; log.model_call_details = {} # and so the call is given up, if the reply was no reply
                logger.flush(0)
            except Exception as e: bad.append(Wrong(f'a reply raises — {type(e).__name__}: {brief(_str(e),80)} ({what})', [s]))
            us = logger.ledger.rows()[before:]
            if len(us)!=1: bad.append(Wrong(f'not one row of a reply — {len(us)} ({what})', [s]))
            for u in us: bad += [Wrong(f'{o} — ({what})', [s]) for o in [*sound(u), *bounded(u)]]
            rows += len(us)
        logger.ledger.check(); logger.ledger.total()
        bad += [Wrong(o, []) for o in _leaks(d)]
        logger.ledger.close()
        bad += [Wrong(o, []) for o in _leaks(d)]
        if (text := said().strip()): bad.append(Wrong(f'stderr — {text[-3000:]}', []))
    return bad,rows


# Replies of the providers

def bodies():
    "What is on the cassette: (provider's reply as it came, the same read as JSON or as a list of events)"
    for l in (cassettes/'cachy.jsonl').read_text().splitlines():
        o = json.loads(l)
        if o.get('binary') or not is_(s := o.get('response'), str): continue
        evs = [x[5:] for x in s.splitlines() if x.startswith('data:') and '{' in x]
        try: yield s,[json.loads(e) for e in evs] if evs else json.loads(s)
        except ValueError: continue

def _spaced(o):
    "`o` as objects of some client"
    if is_(o, dict): return NS(**{str(k):_spaced(v) for k,v in o.items()})
    return [_spaced(v) for v in o] if is_(o, list) else o

def garbled(r, b):
    b = bytearray(b)
    for _ in range(r.randrange(1, 6)):
        i = r.randrange(len(b)+1)
        b[i:i+r.choice([0,1,1,5,50])] = r.choice([b'', b'\xff', b'\0', b'"', b'}', b'[', b'1e999', b'-', b'9'*5000, b'NaN', b'data:', b'\n\n', b'['*100_000, b'null', b'"a":'])
    return bytes(b)

def a_reply(r, all_bodies, kinds=None):
    "(what it is, a reply to read)"
    s,o = r.choice(all_bodies)
    form = r.choice(['dict','dict','dict','object','text','bytes','odd'])
    if form=='bytes': return form,garbled(r, s.encode())
    if form=='text':  return form,garbled(r, s.encode()).decode('utf-8', r.choice(['replace','surrogateescape']))
    kinds = [k for k in kinds or odd if k not in ('panic','shut')] # what is no `Exception`, or not even has a class, is for who asks
    if form=='odd' and r.random()<.3: k = r.choice(kinds); return k,r.choice([odd[k](r), [odd[k](r), o]])
    t,ps = o,[*islice(places(o), 400)]
    cs = []
    for _ in range(r.choice([0,1,1,2,3,6])):
        p = r.choice([q for q in ps if any('sage' in str(k) for k in q)] or ps) if r.random()<.6 else r.choice(ps)
        if r.random()<.1 and is_(get(t, p), dict): p = (*p, r.choice(_odd_keys))
        cs.append(Change(p, *_new(r, kinds, get(t, p), t)))
    t,_ = changed(t, cs)
    why = '; '.join(f'{".".join(map(brief,c.path))}: {c.kind} {brief(c.value,60)}' for c in cs)
    try: return f'{form}: {why}',_spaced(t) if form=='object' else t
    except Exception: return f'dict: {why}',t

def _ints(o):
    try: return {int(v) for _,v in leaves(o, 12) if _number(v) and 0<=v<2**63 and v==v//1} | {0}
    except Exception: return

def misread(o):
    "What is wrong with how the reply `o` is read"
    try: u = Usage.from_response(o, provider='p')
    except KeyboardInterrupt: raise
    except BaseException as e: yield f'from_response raises — {type(e).__name__}: {brief(_str(e),80)}'; return
    for k in _names:
        if (v := getattr(u, k)) is not None and not (type(v) is int and 0 <= v <= 10**12): yield f'{k} is no such number — {brief(v)}'
    if u.usage_source not in ('reported','missing') or u.usage_source=='missing' and (u.prompt_tokens is not None or u.details): yield f'usage has another source — {u.usage_source}'
    for k in ('model','response_id','service_tier','details'):
        if (v := getattr(u, k)) is not None and not is_(v, str): yield f'{k} is no text — {type(v).__name__}'
    if is_(o, (dict,list)) and (ns := _ints(o)) and len(ns)<15:
        sums = {sum(c) for n in range(1,5) for c in combinations_with_replacement(ns, n)}
        for k in _names:
            if k!='web_search_requests' and (v := getattr(u, k)) and v not in sums: yield f'{k} is no sum of what the reply has — {v}'
    try:
        l = Ledger(':memory:')
        if not l.add(u) or len(l.rows())!=1 or not isfinite(l.total().amount) or not is_(l.check(), list): yield 'a ledger does not take it'
        l.close()
    except Exception as e: yield f'a ledger does not take it — {type(e).__name__}: {brief(_str(e),80)}'


# The command line

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('n', nargs='?', type=int, default=10_000, metavar='N')
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--only', default='')
    p.add_argument('--without', default='')
    a = p.parse_args(argv)
    r,t0 = random.Random(a.seed),time.time()
    every = [c.name for c in cases if able(c) and c.needs!='lisette']
    bases = events(every)
    kinds = [k for k in odd if a.only in k and k not in a.without.split(',')] or [*odd]
    bases = [b for b in bases if a.only in b.name] or bases
    print(f'litellm {litellm_version()}, seed {a.seed}: {len(bases)} events to begin with, {len(kinds)} kinds of values ({time.time()-t0:.0f} s)', flush=True)
    c,byk,seen,t0,i,shown,slow = Counter(),Counter(),Counter(),time.time(),0,t0,(0.,0)
    def broke(w, ss=None, mode=''):
        seen[_kind(w.what)] += 1
        if seen[_kind(w.what)]==1: print(f'{told(w, w.events if ss is None else ss)}{mode}', flush=True)
    while i < a.n:
        mode = r.choices(['well','sick','killed'], [8,1,1])[0]
        n = min(a.n-i, 250 if mode=='well' else 60)
        ss = [*sends(r, n, i, bases, kinds)]
        x = killed(ss) if mode=='killed' else run(ss, mode=='sick')
        for w in x.wrong:
            new = not seen[_kind(w.what)]
            broke(w, smallest(w, mode=='sick', mode=='killed') if new else w.events, f'\n  ({mode} ledger)')
        i,slow = i+n,max(slow, x.slow)
        byk.update(o.kind for s in ss for o in s.cs)
        c.update(x.n); c.update(events=n, rows=x.rows, ledgers=1, changes=sum(len(s.cs) for s in ss), exceptions=sum('raises' in w.what for w in x.wrong), announced=sum(s.announce for s in ss))
        c.update({f'in {mode} ledgers':n, 'unchanged events':sum(not s.cs for s in ss)}); c['warnings, once a kind and ledger'] += sum(x.warned.values())
        if r.random()<.25:
            bad,rows = replied(r, 8, bases, kinds)
            for w in bad: broke(w)
            c.update({'replies before their events':8, 'their rows':rows})
        if time.time()>shown+15: shown = time.time(); print(f'  {i:,} events, {i/(shown-t0):,.0f} a second, {sum(seen.values())} violations', flush=True)
    secs = time.time()-t0
    t1,bs = time.time(),[*bodies()]
    for _ in range(a.n//5):
        what,o = a_reply(r, bs, kinds)
        c['replies by from_response'] += 1
        for w in misread(o): broke(Wrong(f'{w}', []), mode=f'\n  from_response, {what}\n  {brief(o,600)}')
    print(f'\n{"kind of change":<34}{"times":>10}')
    for k,v in byk.most_common(): print(f'{k:<34}{v:>10,}')
    print(f'\n{"what":<34}{"how many":>10}')
    for k,v in c.items(): print(f'{k:<34}{v:>10,}')
    print(f'{"violations":<34}{sum(seen.values()):>10,}\n{"events a second":<34}{a.n/secs:>10,.0f}\n{"replies a second":<34}{a.n/5/(time.time()-t1):>10,.0f}\n{"seconds":<34}{time.time()-t0:>10,.0f}\n{"slowest hook, in ms":<34}{slow[0]*1e3:>10,.0f}')
    for k,v in seen.most_common(): print(f'  {v:>7,} × {k}')
    return 1 if seen else 0

def litellm_version():
    from importlib.metadata import version
    return version('litellm')

if __name__=='__main__': sys.exit(main())
