"""What a process has not stored yet, in a file that outlives it"""
__all__ = ['Journal']
import ctypes,errno,json,logging,os,threading,time,weakref
from itertools import count,islice
from uuid import uuid4
import orjson
try: import fcntl
except ImportError: fcntl = None
from fastcore.basics import patch

log = logging.getLogger('llm_usage')

# --- lines
def line(**what):
    "`what` as a line of JSON"
    try: return orjson.dumps(what, default=str) + b'\n'
    except TypeError: return json.dumps(what, default=str).encode() + b'\n' # half a character, or a number of more than 64 bits

# --- files
try: _libc = ctypes.PyDLL(None, use_errno=True)
except (TypeError,OSError): _libc = None # Windows

def _write(fd, data):
    "Append all of `data`, or nothing"
    n = _libc.write(fd, data, len(data)) if _libc and len(data) < 1<<16 else os.write(fd, data)
    if n==len(data): return
    e = ctypes.get_errno() if n < 0 else errno.ENOSPC
    if n > 0: os.ftruncate(fd, os.fstat(fd).st_size-n)
    raise OSError(e, os.strerror(e))

def lock(fd):
    "Lock the file of `fd` until it is closed; False if somebody else has"
    try: fcntl and fcntl.flock(fd, fcntl.LOCK_EX|fcntl.LOCK_NB)
    except BlockingIOError: return False
    return True

nofollow = getattr(os, 'O_NOFOLLOW', 0)

def _create(path):
    "A new journal beside the ledger at `path`, locked: its descriptor and its name"
    while True:
        name = f'{path}.{os.getpid()}-{uuid4().hex[:8]}.journal'
        fd = os.open(name, os.O_WRONLY|os.O_CREAT|os.O_EXCL|os.O_APPEND|nofollow, 0o600)
        if lock(fd) and os.fstat(fd).st_nlink: return fd,name
        os.close(fd) # somebody took it for one that was left, before it was locked

# --- the journal
MAX_ROWS,MAX_GROUP,SLACK = 100_000,1000,1<<22 # rows in memory; rows in a transaction; bytes that a file may have more than it needs
_journals = weakref.WeakSet()

class Journal:
    "The calls that a process has in flight, and its rows until they are stored"
    def __init__(self,
        path,     # Of the ledger; None for one in memory, which has no file
        store,    # Stores a list of rows; to be given a row again has to do no harm
        every=.25 # Seconds for which rows are gathered
    ):
        self.path,self.store,self.every,self.numbers = path,store,every,count(1)
        self._reset()
        _journals.add(self)

    def _reset(self):
        self.lock,self.storing,self.bell,self.thread = threading.RLock(),threading.RLock(),threading.Event(),None
        self.begun,self.rows = {},{} # lines of calls, by number; rows and their lines, by uid
        self.fd,self.name,self.size,self.behind,self.dropped,self.ended = None,None,0,self.path is None,0,None

@patch
def begin(self:Journal,
    **columns # What is known of the call
):
    "Note that a call is about to be sent, and return its number"
    n = next(self.numbers)
    data = line(begin=n, call=columns)
    with self.lock:
        self.begun[n] = data
        self._append(data)
    return n

@patch
def add(self:Journal,
    u:'Usage', # The row
    call=None  # Number of the call that it ends
):
    "Note row `u`, and store it soon"
    data = line(row={k:v for k,v in vars(u).items() if v is not None}, ends=call)
    with self.lock:
        self.begun.pop(call, None)
        if len(self.rows) >= MAX_ROWS: self._hand_on()
        if len(self.rows) >= MAX_ROWS: self.dropped += 1; return
        self.rows[u.uid] = u,data
        self._append(data)
    self._wake()

@patch
def forget(self:Journal, call):
    "What began as `call` is none"
    with self.lock:
        if self.begun.pop(call, None): self._append(line(ends=call))

@patch
def _append(self:Journal, data):
    "Write `data`; where there is no room, the file lacks it until it is rewritten"
    if self.behind: return
    try:
        if self.fd is None: self._open()
        _write(self.fd, data)
        self.size += len(data)
    except OSError as e:
        self.behind = True
        log.warning(f'what waits for {self.path} is in memory only: {e}')

@patch
def _open(self:Journal):
    self.fd,self.name = _create(self.path)
    self._at_exit()

@patch
def _rewrite(self:Journal):
    "Begin a new file with what is still needed, and remove the old one"
    data,fd = b''.join([*self.begun.values(), *(l for _,l in self.rows.values())]),None
    try:
        fd,name = _create(self.path)
        _write(fd, data)
    except OSError:
        if fd is not None: os.close(fd); os.unlink(name)
        self.behind = True
        return
    self._remove()
    self.fd,self.name,self.size,self.behind = fd,name,len(data),False

@patch
def _remove(self:Journal):
    if self.fd is None: return
    try: os.ftruncate(self.fd, 0) # so that nobody finds calls in it when it is let go
    finally: os.close(self.fd); self.fd = None
    try: os.unlink(self.name)
    except OSError: pass # somebody has removed it

@patch
def _hand_on(self:Journal):
    "Leave the file to who recovers it, with the rows that nobody has stored for so long"
    if self.behind: return
    os.close(self.fd)
    self.fd,self.rows = None,{}
    self._rewrite()

@patch
def _tidy(self:Journal):
    "Keep the file whole, and small"
    with self.lock:
        if self.path is None: return
        st = self.fd is not None and os.fstat(self.fd)
        if self.behind or st and (not st.st_nlink or st.st_size!=self.size): self._rewrite()
        elif not self.begun and not self.rows: self._empty()
        elif len(self.rows) < MAX_GROUP and self.size > 2*(SLACK + sum(map(len, self.begun.values()))): self._rewrite()

@patch
def _empty(self:Journal):
    if self.size: os.ftruncate(self.fd, 0)
    self.size,self.begun,self.rows = 0,{},{} # whose memory is given back

# --- storing
@patch
def _store_some(self:Journal):
    some = [*islice(self.rows.copy().items(), MAX_GROUP)]
    self.store([u for _,(u,_) in some])
    with self.lock:
        for uid,_ in some: self.rows.pop(uid, None)
        self._append(line(stored=[uid for uid,_ in some]))

@patch
def flush(self:Journal):
    "Store all rows there are, in the thread that asks"
    with self.storing:
        try:
            while self.rows: self._store_some()
        finally: self._tidy()

@patch(as_prop=True)
def unsafe(self:Journal):
    "How many rows are in no file"
    return self.dropped + len(self.rows)*self.behind

@patch
def _wake(self:Journal):
    if self.ended: return self.try_flush()
    if not self.thread: self._start()
    if not self.bell.is_set(): self.bell.set()

@patch
def try_flush(self:Journal):
    try: self.flush()
    except Exception as e: return e

@patch
def _start(self:Journal):
    self._at_exit()
    self.thread = threading.Thread(target=self._run, daemon=True, name='llm_usage')
    try: self.thread.start()
    except RuntimeError: self.ended = True; self.try_flush() # the interpreter ends

@patch
def _run(self:Journal):
    while self.thread is threading.current_thread():
        self.bell.wait()
        self.bell.clear()
        time.sleep(self.every)
        if e := self.try_flush():
            log.warning(f'{len(self.rows)} rows wait for {self.path}: {e}')
            time.sleep(1)
            self.bell.set()

# --- the end
@patch
def close(self:Journal):
    "Store what there is, and give back the file; it stays if something in it is needed"
    self.thread = None
    self.bell.set()
    if e := self.try_flush(): log.warning(f'{len(self.rows)} rows of {self.path} {"are lost" if self.behind else "stay in its journal"}: {e}')
    with self.lock:
        if not self.begun and not self.rows: self._remove()

@patch
def _at_exit(self:Journal):
    if self.ended is not None: return
    from multiprocessing.util import Finalize # like atexit, but for children of multiprocessing too
    self.ended = False
    Finalize(None, _end, (weakref.ref(self),), exitpriority=10)

def _end(ref):
    if o := ref(): o.ended = True; o.close()

def _in_child():
    "A forked child has calls of its own; its parent keeps the lock of its file"
    for o in [*_journals]:
        if o.fd is not None: os.close(o.fd)
        o._reset()

if hasattr(os, 'register_at_fork'): os.register_at_fork(after_in_child=_in_child)

@patch
def __repr__(self:Journal): return f'Journal({self.name}: {len(self.begun):,} calls in flight, {len(self.rows):,} rows to store)'
