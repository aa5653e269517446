"""A reply is read before its caller has it"""
__all__ = ['as_event', 'listen_to_replies', 'stop_listening_to_replies']
import logging,time
from functools import wraps
from importlib import import_module
import litellm
from litellm.cost_calculator import get_usage_object,select_model_name_for_cost_calc
from litellm.utils import _get_base_model_from_metadata
from .event import _of,_secs,from_gemini

def _usage_of(res):
    "The usage of a reply in LiteLLM's words, where the reply has it in its vendor's"
    if isinstance(_of(res,'usage'), (litellm.Usage,type(None))): return {}
    u = get_usage_object(completion_response=res)
    return dict(usage_object=u.model_dump()) if u else {}

def as_event(
    log, # The `litellm_logging_obj` of the call
    res  # The reply
):
    "What LiteLLM will tell its callbacks of reply `res`, as far as a row needs it: the event, and the reply in LiteLLM's words"
    d = log.model_call_details
    if 'generate_content' in log.call_type: res = from_gemini(log, res)
    hidden = getattr(res, '_hidden_params', None)
    cost = hidden.get('response_cost') if isinstance(hidden, dict) else None
    if log.cost_breakdown is None or cost is None: cost = log._response_cost_calculator(result=res)
    key = select_model_name_for_cost_calc(model=None, completion_response=res, base_model=_get_base_model_from_metadata(d))
    slo = dict(litellm_call_id=log.litellm_call_id, status='success', stream=False, startTime=_secs(log.start_time), endTime=time.time(),
        cost_breakdown=log.cost_breakdown, model=d.get('model'), custom_llm_provider=d.get('custom_llm_provider'), call_type=log.call_type,
        trace_id=log.litellm_trace_id, hidden_params=hidden, metadata=_usage_of(res), model_map_information=dict(model_map_key=key))
    return dict(d, standard_logging_object=slo, response_cost=cost),res

_listeners,_wrapped = [],[]
_point = 'litellm.utils','update_response_metadata' # which is passed by every reply that is no stream

def _tell(log, res):
    for f in [*_listeners]:
        try: f(log, res)
        except Exception as e: logging.getLogger('llm_usage').warning(f'a reply was not read in place: {type(e).__name__}: {e}')

def _telling(old):
    @wraps(old)
    def update_response_metadata(result, logging_obj, *args, **kw):
        res = old(result, logging_obj, *args, **kw)
        if not hasattr(result, '__next__') and not hasattr(result, '__anext__'): _tell(logging_obj, result)
        return res
    return update_response_metadata

def listen_to_replies(fn):
    "Call `fn(log, reply)` for each reply that is no stream, before its caller has it; returns whether this LiteLLM allows it"
    if fn not in _listeners: _listeners.append(fn)
    if _wrapped: return True
    mod,name = import_module(_point[0]),_point[1]
    if not (old := getattr(mod, name, None)): return False # not in `vars`: LiteLLM makes some of its names when they are asked for
    setattr(mod, name, new := _telling(old))
    _wrapped.append((mod, name, old, new))
    return True

def stop_listening_to_replies(fn):
    "The reverse; when nobody listens any more, LiteLLM is as it was"
    _listeners[:] = [f for f in _listeners if f!=fn]
    while _wrapped and not _listeners:
        mod,name,old,new = _wrapped.pop()
        if vars(mod).get(name) is new: setattr(mod, name, old)
