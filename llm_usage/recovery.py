"""What processes that are gone left beside a ledger"""
__all__ = ['recover', 'waiting']
import glob,json,os,pickle,stat,struct
from contextlib import contextmanager
from io import BytesIO
from itertools import islice
from zlib import crc32
import orjson
from .core import *
from .journal import fcntl,lock,nofollow

MAX_LINE,MAX_FILE = 1<<20,1<<28 # bytes
MAX_CALLS,MAX_BAD = 200_000,1000 # calls in flight in a file; lines that are not understood, after which the rest is not read

@contextmanager
def _taken(name):
    "The file `name`, if its process is gone: locked, so that nobody else takes it; else None"
    with open(os.open(name, os.O_RDWR|nofollow|getattr(os,'O_NONBLOCK',0)), 'rb') as f: yield f if lock(f.fileno()) else None

def _refusal(st):
    "Why a file is not read, or None"
    if not stat.S_ISREG(st.st_mode): return 'it is no regular file'
    if st.st_uid!=getattr(os, 'geteuid', lambda: st.st_uid)(): return 'it is of another user'
    if st.st_size > MAX_FILE: return f'it has more than {MAX_FILE:,} bytes'

def _parsed(data):
    "A line of a journal: a dictionary, empty if it is none"
    try: o = orjson.loads(data)
    except ValueError: return {}
    return o if isinstance(o, dict) else {}

def _rows(f, bad):
    "The rows in the journal `f`, then those of calls that only began; the places of lines that are not understood go to `bad`"
    begun = {}
    while len(bad) < MAX_BAD and (data := f.readline(MAX_LINE)):
        if not data.endswith(b'\n') and len(data) < MAX_LINE: break # half a line: a kill, or a full disk
        o = _parsed(data)
        if isinstance(o.get('call'), dict) and len(begun) < MAX_CALLS: begun[str(o.get('begin'))] = o['call']
        elif 'ends' in o or 'stored' in o: begun.pop(str(o.get('ends')), None)
        else: bad.append(f.tell()-len(data))
        if isinstance(o.get('row'), dict): yield o['row']
    yield from (o|dict(status='orphaned') for o in begun.values())

def _recover(name, store):
    "Store the rows in the file `name`: how many were new, and why it stays, if it does"
    with _taken(name) as f:
        if not f: return 0,None # its process is alive
        if why := _refusal(os.fstat(f.fileno())): return 0,why
        bad,n = [],0
        rows = (_rows if name.endswith('.journal') else _old_rows)(f, bad)
        while some := [*islice(rows, 1000)]: n += store(some)
        if not bad: return os.unlink(name) or n,None
        os.rename(name, f'{name}.left')
        return n,f'{len(bad)} lines or slots are not understood, the first at byte {bad[0]}; it is now {name}.left'

def _names(path, *ends): return [o for e in ends or ('journal','calls') for o in glob.glob(f'{glob.escape(path)}.*.{e}')]

def recover(
    path, # Of the ledger
    store # Stores a list of rows, as dictionaries, and returns how many were new
):
    "Store what processes that are gone left: how many rows were new, and {file that stays: why}"
    n,stays = 0,{o: 'it has lines that are not understood' for o in _names(path, 'left')}
    for name in _names(path):
        try:
            new,why = _recover(name, store)
            n += new
        except (FileNotFoundError,PermissionError): continue # somebody else has done it, or it is another user's
        except Exception as e: why = f'{type(e).__name__}: {e}'
        if why: stays[name] = why
    return n,stays

def waiting(path):
    "The files of processes that are gone, in which there is something to store"
    return [o for o in _names(path) if _waits(o)]

def _waits(name):
    try:
        with _taken(name) as f: return bool(f and os.fstat(f.fileno()).st_size)
    except OSError: return False

# --- files of an older version
class _Plain(pickle._Unpickler): # in Python, which takes no number in a file for the size of a table
    def find_class(self, mod, name): raise pickle.UnpicklingError(f'{mod}.{name} is no plain type')

_lens  = dict(u='<i', t='<i', a='<i', A='<i', z='B', Z='B') | {'(':'<i', ')':'B', '[':'<i'}
_fixed = dict(N=None, T=True, F=False)
_nums  = dict(i='<i', g='<d', r='<i')

def _unmarshalled(f, refs):
    "The next value in `f`, of the plain ones that `marshal` writes; `marshal` itself would believe any length"
    get = lambda fmt: struct.unpack(fmt, f.read(struct.calcsize(fmt)))[0]
    code, = f.read(1)
    k,i = chr(code & 127),len(refs)
    if code & 128: refs.append(None)
    if k in _fixed: v = _fixed[k]
    elif k in _nums: v = refs[get('<i')] if k=='r' else get(_nums[k])
    elif k in '()[': v = [_unmarshalled(f, refs) for _ in range(get(_lens[k]))]
    elif k=='{': v = dict(iter(lambda: _pair(f, refs), None))
    else: v = f.read(get(_lens[k])).decode('utf-8', 'replace')
    if code & 128: refs[i] = v
    return v

def _pair(f, refs):
    if f.getvalue()[f.tell():f.tell()+1]==b'0': f.read(1); return
    return _unmarshalled(f, refs), _unmarshalled(f, refs)

def _slot(s):
    "What is in a slot of the bytes `s`"
    n,crc = struct.unpack_from('<II', s)
    d = s[8:8+n]
    if len(d)!=n or crc32(d)!=crc: raise ValueError('it was not written whole')
    return _Plain(BytesIO(d)).load() if d[0]==0x80 else _unmarshalled(BytesIO(d), [])

_columns = 'call_id timestamp model call_type stream provider end_user trace_id'.split()

def _old_call(who, *values): return dict(who, status='orphaned') | {k:v for k,v in zip(_columns, values) if v is not None}

_slo = 'call_id response_id trace_id session_id provider call_type end_user model group start end first stream status'.split()

def _old_event(call, start, who, more, hit, *facts):
    d = dict(zip(_slo, facts))
    u = Usage.from_response(dict(usage=facts[-1]), d['provider'], **who, **{k:d[k] for k in _slo if k in vars(Usage()) and k!='provider' and k!='status'})
    return vars(u) | dict(timestamp=d['start'], latency=d['end']-d['start'], response_cost=facts[22], cost_source='litellm') | more

_kinds = dict(call=_old_call, row=lambda o: o, event=_old_event)

def _old_rows(f, bad):
    "The rows in the slots of `f`"
    while s := f.read(4096):
        if not any(s[:4]): continue
        try:
            kind,*o = _slot(s)
            yield _kinds[kind](*o)
        except Exception: bad.append(f.tell()-len(s))
