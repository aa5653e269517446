"""Rows that write themselves: the LiteLLM callback

`UsageLogger` is a LiteLLM callback. Once it is installed, every call through LiteLLM becomes a row of a ledger: sync or async, streamed or not, whatever the endpoint, and failures too. It never breaks the call it logs, and it never fails silently.

Docs: https://llm-usage.github.io/llm_usage/logger.html.md"""

# %% auto #0
__all__ = ['watching', 'UsageLogger', 'counters', 'installed']

import asyncio,gc,json,logging,os,sys,threading,time,warnings
from collections import deque
from contextlib import contextmanager
from functools import reduce
from traceback import walk_stack,walk_tb
from uuid import uuid4
from weakref import WeakSet
import litellm
from litellm._internal_context import is_internal_call
from litellm.constants import MAX_CALLBACKS
from litellm.integrations.custom_logger import CustomLogger
from fastcore.basics import listify,patch
from .block import Block,blocks,carry,uncarry
from .cassette import _hit,_mark,listen,unlisten
from .core import *
from .event import _due,_fatal,_is_upkeep,_of,_secs,_sub,_text,make_event
from .interrupted import as_reply,track,unwatch,watch,watch_native
from .ledger import Ledger,_checks
from .replies import *
import llm_usage.reprice

# %% the logger
watching = [] # who is told of every call, if it counts it or not: see `measure`

def _made_plain(v):
    "`v`, which may be one of numpy's texts or numbers, as one of Python's, if it can be"
    if type(v) in (str,int,float,bool,type(None)): return v
    try: return json.loads(json.dumps(v, default=lambda o: [*o] if isinstance(o, (set,frozenset)) else str(o)))
    except Exception: return v

def _columns(kw):
    "`kw` as columns of `Usage`; refuses what is none"
    names = Usage.__dataclass_fields__
    if bad := set(kw) - set(names): raise TypeError(f'{sorted(bad)} are no columns of Usage: {", ".join(names)}')
    if not isinstance(kw.get('meta',{}), dict): raise TypeError(f'meta={kw["meta"]!r}: it has to be a dictionary')
    return {k:_made_plain(v) for k,v in kw.items()}

_loggers = WeakSet()

class UsageLogger(CustomLogger):
    "A LiteLLM callback that writes every call to a ledger"
    def __init__(self,
        ledger=None,     # A `Ledger`, or a path to one
        user_id=None,    # Who makes the calls, where neither the call nor `who` says it
        user_id_fn=None, # Or a function without arguments which tells; it runs where the call is made
        ask_usage=False, # Ask servers that speak OpenAI's protocol for the usage of streams, where the caller does not?
        **defaults       # Columns for every row, where the call says nothing; `tags` are added
    ):
        super().__init__()
        self.ledger = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
        self.ledger_path,self.logger_id = self.ledger.path,uuid4().hex
        self.ask_usage = ask_usage
        if user_id_fn: self.user_id_fn = user_id_fn
        self._defaults,self._warned = {k:v for k,v in _columns(dict(defaults, user_id=user_id)).items() if v is not None},set()
        self._renew()
        _loggers.add(self)

    counts = () # what is told of calls where no block says it
    lost   = 0  # how often another program took this logger out of LiteLLM's lists

    def _renew(self): self._change,self._open,self._given_up,self._seen = threading.Condition(),WeakSet(),deque(),0

    def user_id_fn(self): "Override or patch it to say who makes the call"

def _in_child():
    "A forked child has calls of its own, and LiteLLM's threads are not in it"
    for o in [*_loggers]: o._renew()
    try:
        from litellm.litellm_core_utils.thread_pool_executor import executor as e
        e.__init__(e._max_workers, e._max_pending_tasks)
    except Exception as e: warnings.warn(f'llm_usage: calls of this forked process may not be reported by LiteLLM: {e}')

if hasattr(os, 'register_at_fork'): os.register_at_fork(after_in_child=_in_child)

# %% whose
def _add(a, b):
    "The columns `a`, then `b`, with the tags and the keys of both"
    return a | b | dict(tags=[*listify(a.get('tags')), *listify(b.get('tags'))], meta=a.get('meta',{}) | b.get('meta',{}))

@patch
def _now(self:UsageLogger):
    "Who makes the call that is being made here and now"
    try: fn = _made_plain(self.user_id_fn())
    except Exception as e: fn = self._warn('user_id_fn', e)
    d = self._defaults | dict(user_id=fn) if fn else self._defaults
    w = reduce(_add, [o.who for o in blocks() if o.who], {})
    return _add(d, {k:v for k,v in w.items() if v is not None}) if w else d

@patch
def _warn(self:UsageLogger, what, e):
    "Say once that `what` went wrong, where warnings are errors too"
    if what in self._warned: return
    self._warned.add(what)
    text = f'llm_usage: {what}: {type(e).__name__}: {_safe(e)}'[:500]
    try: warnings.warn(text)
    except Warning: logging.getLogger('llm_usage').warning(text)

def _safe(e):
    try: return str(e)
    except Exception: return ''

def counters(): return tuple(o for b in blocks() for o in b.counts)

# %% a call
class _Call:
    "A call under way: who made it, when, and who counts it. LiteLLM's dictionary of the call carries it, and it dies with that"
    number = stream = None # in the journal; what is read of it, if it is a stream
    over,hit = False,0.    # has it a row? when a cassette last played for it
    def __init__(self, logger, kw):
        self.logger,self.who,self.counts,self.start = logger,logger._now(),counters() or logger.counts,time.time()
        self.key = _text(kw.get('litellm_call_id'))

    def __deepcopy__(self, memo): return self
    def __del__(self):
        if not self.over: self.logger._gave_up(self)

_known = 'litellm_call_id litellm_trace_id model call_type stream custom_llm_provider user start_time'.split()

def _facts(kw):
    "What is known of a call before it is sent, without what would keep it alive"
    some = lambda k,ks: {o:v for o in ks if (v := _sub(kw,k).get(o))}
    return {k:kw.get(k) for k in _known} | dict(litellm_params=some('litellm_params', ('metadata','litellm_metadata')), optional_params=some('optional_params', ('metadata','user')))

def _private(kw):
    "Will LiteLLM report nothing of this call: because its caller said `no-log`, or because it is a part of another that is reported?"
    return is_internal_call.get() or _sub(kw,'litellm_params').get('no-log') is True and not litellm.global_disable_no_log_param

@patch
def _mine(self:UsageLogger, kw):
    "The call of LiteLLM's dictionary `kw`, or None"
    return _sub(kw, 'llm_usage').get(self.logger_id)

@patch
def _begun(self:UsageLogger, kw):
    "A call that LiteLLM's dictionary `kw` carries from now on"
    c = _Call(self, kw)
    kw.setdefault('llm_usage', {})[self.logger_id] = c
    return c

@patch
def log_pre_api_call(self:UsageLogger, model, messages, kwargs):
    try:
        if _private(kwargs) or (c := self._mine(kwargs)) and not c.over: return
        c = self._begun(kwargs)
        listen()
        _mark.set(c)
        self._open.add(c)
        for o in c.counts: o._began(c, kwargs)
        for o in [*watching]: o._beside(c, c.counts)
        if self not in litellm.callbacks: self._stand()
        if not _is_upkeep(str(kwargs.get('call_type'))): self._note(c, kwargs)
        watch_native(kwargs.get('call_type'))
    except _fatal: raise
    except BaseException as e: self._warn('a call was not announced', e)

@patch
def _note(self:UsageLogger, c, kw):
    "Note the call in the journal, with what is easily known of it"
    c.facts = _facts(kw)
    t = lambda k: _text(kw.get(k))
    c.number = self.ledger.begin(**c.who, call_id=c.key, timestamp=c.start, model=t('model'), call_type=t('call_type'), stream=kw.get('stream') is True,
        provider=t('custom_llm_provider'), end_user=t('user'), trace_id=t('litellm_trace_id'))

# %% a row
@patch
def _row(self:UsageLogger, kw, res, c, more):
    "The row of an event, whose columns `more` are certain"
    hit = max(c.hit, _hit.get())
    try: u = Usage.from_event(kw, res, **c.who)
    except _fatal: raise
    except BaseException as e:
        self._warn('an event cannot be read', e)
        u = Usage(**c.who, call_id=c.key, timestamp=c.start, error='unreadable')
    if hit >= min(c.start, u.timestamp or c.start) and hit and u.origin=='live' and 'origin' not in c.who: u.origin = 'replay'
    for k,v in more.items(): setattr(u, k, v)
    return u

@patch
def _record(self:UsageLogger, kw, res, more={}, call=None):
    "Make a row of an event, unless its call has one"
    try:
        c = call or self._mine(kw) or self._begun(kw)
        if c.over or c.stream and not more: return
        c.over = True
        due = _due(kw, res)
        u = None if due is False else self._row(kw, res, c, more)
        if u: self.ledger.enqueue(u, c.number)
        else: self.ledger.journal.forget(c.number)
        self._ended(c, u)
    except _fatal: raise
    except BaseException as e: self._warn('a row is lost', e)

@patch
def _ended(self:UsageLogger, c, u):
    "Let those know who wait for call `c`, or count it"
    for o in c.counts: o._ended(c, u)
    with self._change:
        self._open.discard(c)
        self._seen += u is not None
        self._change.notify_all()

@patch
def _replied(self:UsageLogger, log, res):
    "Record a reply before its caller has it"
    kw = log.model_call_details
    if (c := self._mine(kw)) and not c.over and not c.stream: self._record(*as_event(log, res))

# %% events
@patch
def log_success_event(self:UsageLogger, kwargs, response_obj, start_time, end_time): self._record(kwargs, response_obj)
@patch
def log_failure_event(self:UsageLogger, kwargs, response_obj, start_time, end_time): self._record(kwargs, response_obj)
@patch
async def async_log_success_event(self:UsageLogger, kwargs, response_obj, start_time, end_time): self._record(kwargs, response_obj)
@patch
async def async_log_failure_event(self:UsageLogger, kwargs, response_obj, start_time, end_time): self._record(kwargs, response_obj)

@patch(as_prop=True)
def dropped(self:UsageLogger):
    "How many rows are in no file: 0, unless neither the ledger nor its journal can be written to"
    return self.ledger.dropped
@patch(as_prop=True)
def usage(self:UsageLogger):
    "The ledger's table"
    return self.ledger.usage
@patch(as_prop=True)
def db(self:UsageLogger):
    "The ledger's fastlite database"
    return self.ledger.db

# %% streams
@patch
def _stream(self:UsageLogger, r, left):
    "A stream begins, with `left` as None, or is over"
    try:
        kw = r.log.model_call_details
        if _private(kw): return # nothing is reported of that
        c = self._mine(kw) or self._begun(kw)
        if left is None: c.stream = r
        elif not c.over: self._record_stream(r, left, c)
    except Exception as e: self._warn('a stream that is over was not recorded', e)

@patch
def _record_stream(self:UsageLogger, r, left, c):
    more = dict(stream=True) | r.columns(left)
    try: event = make_event(r.log, res := as_reply(r), stream=True) | dict(wire_usage=r.stated())
    except Exception as e:
        self._warn('a stream has no tokens', e)
        event,res,more = r.log.model_call_details,None,more | dict(usage_source='missing')
    self._record(event, res, more, c)

@patch
def track(self:UsageLogger,
    stream # What a function of LiteLLM gave for `stream=True`
):
    "The same stream, which becomes a `partial` row if it is not read to its end"
    return track(stream, self._stream)

# %% given up
@patch
def _gave_up(self:UsageLogger, c):
    "Nobody goes on with the call `c`, of which LiteLLM has said nothing"
    if c.number is None: return
    self._given_up.append((c, time.time()-c.start))
    self._record_given_up()

@patch
def _is_writing(self:UsageLogger):
    "Is this thread in the middle of writing? An object may die at any time"
    j = self.ledger.journal
    return any(o._is_owned() for o in (self._change, self.ledger._lock, j.lock, j.storing))

@patch
def _record_given_up(self:UsageLogger):
    while self._given_up and not self._is_writing():
        try: c,secs = self._given_up.popleft()
        except IndexError: return
        why = 'CancelledError' if str(c.facts['call_type']).startswith('a') else 'KeyboardInterrupt'
        self._record(c.facts, None, dict(status='partial', error=why, latency=secs), c)

def _frames(*es):
    "The frames that were left by the exceptions `es`, and by those that caused them"
    seen,todo = set(),[*es]
    while todo:
        if (e := todo.pop()) is None or id(e) in seen: continue
        seen.add(id(e))
        yield from (f for f,_ in walk_tb(e.__traceback__))
        todo += [e.__cause__, e.__context__, *getattr(e, 'exceptions', ())]

@patch
def _within(self:UsageLogger, fs):
    "The calls that the frames `fs` are in the middle of"
    logs = [v for f in fs for v in f.f_locals.values() if isinstance(getattr(v,'model_call_details',None), dict)]
    return {c for o in logs if (c := self._mine(o.model_call_details)) and not c.over}

@patch
def give_up(self:UsageLogger):
    "Record the calls that the exceptions at hand have left"
    left = self._within(_frames(sys.exc_info()[1], getattr(sys, 'last_value', None))) if self._open else set()
    if left: left -= self._within(f for o in sys._current_frames().values() for f,_ in walk_stack(o)) # of threads that go on with it
    for c in left: self._gave_up(c)
    self._record_given_up()

# %% install
_lists = ['callbacks'] + [f'{a}{b}_callback' for a in ('','_async_') for b in ('input','success','failure')]

_standing = WeakSet() # loggers that were installed, and not uninstalled

@patch
def uninstall(self:UsageLogger):
    "Let LiteLLM forget this logger"
    _standing.discard(self)
    uncarry(self)
    stop_listening_to_replies(self._replied)
    for f in (self._stream, self._stream_ended): unwatch(f)
    for l in _lists:
        cbs = getattr(litellm, l, [])
        cbs[:] = [o for o in cbs if o is not self]
    if not any(isinstance(o, UsageLogger) for o in litellm.callbacks): unlisten()
    return self

@patch
def _lacks(self:UsageLogger):
    "The lists of LiteLLM that this logger is not in"
    out = lambda cbs: isinstance(cbs, list) and not any(o is self for o in cbs)
    return [l for l in _lists if l!='_async_input_callback' and out(getattr(litellm, l, None))]

@patch
def _join(self:UsageLogger):
    "Be in `litellm.callbacks`, and in those lists that are too full to get a copy"
    for l in self._lacks():
        cbs = getattr(litellm, l)
        if l=='callbacks' or len(cbs) >= MAX_CALLBACKS: cbs.append(self)

@patch
def install(self:UsageLogger):
    "Let LiteLLM report its calls to this logger"
    all_ = [o for l in _lists for o in getattr(litellm, l, []) if isinstance(o, UsageLogger)]
    for o in [*all_, *_standing]:
        if o.ledger_path==self.ledger_path: o.uninstall()
    self._join()
    _standing.add(self)
    carry(self)
    listen_to_replies(self._replied)
    watch(self._stream, self.ask_usage)
    watch(self._stream_ended)
    try: self.ledger.note_prices()
    except Exception as e: self._warn('the price tables in use could not be recorded', e)
    return self

@patch
def _stream_ended(self:UsageLogger, r, left): self._stand()

@patch
def _stand(self:UsageLogger):
    "Put this logger back if another program took it out of LiteLLM's lists, and say so if calls may be missing"
    if self not in _standing: return
    before = self._lacks()
    self._join()
    if 'callbacks' not in before and self._lacks()==before or before==['callbacks']: return # the lists that are left do
    self.lost += 1
    self._warned.discard(what := 'this logger was taken out of litellm.callbacks')
    self._warn(what, RuntimeError('it is back, and calls that were made meanwhile may be missing'))

def installed():
    "The loggers to which LiteLLM reports"
    for o in [*_standing]: o._stand()
    return [o for o in litellm.callbacks if isinstance(o, UsageLogger)]

def _taken_out(ledger):
    "What `ledger` lacks since its logger was taken out"
    ls = [o for o in [*_standing] if o.ledger is ledger or o.ledger.path==ledger.path!=':memory:']
    for o in ls: o._stand()
    return [f'times that its logger was taken out of litellm.callbacks, so that calls may be missing: {n}' for o in ls if (n := o.lost)]

_checks.append(_taken_out)

# %% waiting
@patch
def _wait_for(self:UsageLogger, calls, timeout):
    "Wait until none of `calls` is under way; returns those that are"
    until = time.monotonic()+timeout
    with self._change:
        while (calls := [c for c in calls if not c.over]) and (left := until-time.monotonic()) > 0: self._change.wait(min(left, .1))
    return calls

@patch
def flush(self:UsageLogger, timeout=10):
    "Wait until every call made so far is in the ledger; returns the ids of those that are not after `timeout` seconds"
    self._stand()
    self.give_up()
    if self._wait_for([*self._open], min(timeout, .25)): gc.collect(); self._record_given_up() # what was left may be part of a cycle
    late = self._wait_for([*self._open], timeout)
    for c in late: self._open.discard(c)
    self.ledger.flush()
    return [c.key for c in late]

@patch
async def aflush(self:UsageLogger, timeout=10):
    "`flush` for async code: the event loop, which has rows to write, goes on meanwhile"
    self.give_up()
    return await asyncio.to_thread(self.flush, timeout)

@patch
def wait(self:UsageLogger, n, timeout=10):
    "Wait until this logger has written `n` rows in all"
    with self._change: there = self._change.wait_for(lambda: self._seen >= n, timeout)
    self.ledger.flush()
    if there: return self._seen
    raise TimeoutError(f'{self._seen} of {n} rows were written within {timeout} s')

@patch
def __enter__(self:UsageLogger): return self.install()
@patch
def __exit__(self:UsageLogger, *args): self.flush(); self.uninstall()
@patch
async def __aenter__(self:UsageLogger): return self.install()
@patch
async def __aexit__(self:UsageLogger, *args): await self.aflush(); self.uninstall()

# %% who
@patch
@contextmanager
def who(self:UsageLogger,
    **kw # Columns for the rows of the calls made within the block; `tags` and `meta` are added
):
    "Attribute the calls made within the block"
    self._stand()
    with Block(_columns(kw)): yield self

@patch
def replaying(self:UsageLogger):
    "The calls made within the block are answered from a recording, and not billed"
    return self.who(origin='replay')
