"""A stand-in for OpenMeter: its routes for events, as its source has them, and its faults, on loopback.

    python tools/openmeter.py [PORT]

It is no OpenMeter: it keeps events in memory and speaks three routes. `POST /api/v1/events` takes `application/cloudevents-batch+json` and
nothing else, answers 400 to a batch that it cannot read, as a whole, and 204 otherwise. It claims the pair of source and id before it
writes an event, as OpenMeter does, so a pair counts once. `GET /api/v2/events` answers with the events that a filter of ids finds, at most
100, each with a `validationError` if no meter takes it. `GET /api/v1/meters` answers with the meters.

A fault is what happens to one request:

    busy    429, with `Retry-After`                               error   500, before anything is claimed
    half    500, after half of the events was written             silent  everything is written, and nobody is told
    claim   500, after the ids were claimed and nothing written   lost    204, after the ids were claimed and nothing written

Of the last two, a resent event is a duplicate that nobody ever metered: openmeterio/openmeter#5118.
"""
import json, sys, threading
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

FAULTS = 'busy', 'error', 'half', 'silent', 'claim', 'lost'
must = 'id', 'source', 'specversion', 'type', 'subject'

class OpenMeter:
    "What the server has: events, claimed ids, and the requests that it got; `fault` says what befalls the nth of them"
    def __init__(self, fault=lambda n: None, types=('llm_usage',)):
        self.fault,self.types,self.stored,self.claimed,self.posts,self.lock = fault,types,{},set(),0,threading.Lock()

    def take(self, e, write=True):
        k = e['source'],e['id']
        if k in self.claimed: return
        self.claimed.add(k)
        if write: self.stored[k] = e

    def ingest(self, os):
        "The status for a batch, None for no answer"
        with self.lock:
            self.posts += 1
            what = self.fault(self.posts)
            if what in ('busy','error'): return 429 if what=='busy' else 500
            for e in os[:len(os)//2] if what=='half' else os: self.take(e, what not in ('claim','lost'))
            return {'half':500, 'claim':500, 'silent':None}.get(what, 204)

    def metered(self, key, subject=None):
        "The sum of the numbers at `key` of the events that a meter takes"
        with self.lock:
            return sum((Decimal(str(e['data'].get(key, 0))) for e in self.stored.values() if e['type'] in self.types and subject in (None, e['subject'])), Decimal(0))

    def find(self, filter, limit):
        ids,source = filter.get('id', {}).get('$in'),filter.get('source', {}).get('$eq')
        with self.lock: found = [e for (s,i),e in self.stored.items() if (ids is None or i in ids) and source in (None,s)][:limit]
        return [dict(event=e, ingestedAt=e['time'], storedAt=e['time']) | ({} if e['type'] in self.types else dict(validationError='no meter found for event type')) for e in found]

class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *args): pass

    def say(self, status, o=None, **hdrs):
        body = b'' if o is None else json.dumps(o).encode()
        self.send_response(status)
        for k,v in (hdrs | {'Content-Length':len(body)}).items(): self.send_header(k.replace('_','-'), str(v))
        self.end_headers()
        self.wfile.write(body)

    def problem(self, status, detail): self.say(status, dict(type='about:blank', title='Bad Request', status=status, detail=detail), Content_Type='application/problem+json')

    def do_POST(self):
        raw = self.rfile.read(int(self.headers['content-length']))
        if (kind := self.headers['content-type'])!='application/cloudevents-batch+json': return self.problem(400, f'invalid content type: {kind}')
        try: os = json.loads(raw)
        except ValueError as e: return self.problem(400, f'invalid event: {e}')
        bad = [f'invalid event: {k}: REQUIRED' for e in os for k in must if not e.get(k)]
        if bad: return self.problem(400, bad[0])
        status = self.server.om.ingest(os)
        if status is None: self.close_connection = True
        elif status==429: self.say(429, Retry_After=0)
        else: self.say(status)

    def do_GET(self):
        if self.path=='/api/v1/meters': return self.say(200, [dict(slug=o, eventType=o, valueProperty='$.cost', aggregation='SUM') for o in self.server.om.types])
        q = parse_qs(urlsplit(self.path).query)
        limit = int(q.get('limit', ['100'])[0])
        if not 1 <= limit <= 100: return self.problem(400, 'limit must be less than or equal to 100')
        self.say(200, dict(items=self.server.om.find(json.loads(q.get('filter', ['{}'])[0]), limit), nextCursor=None))

@contextmanager
def served(fault=lambda n: None, port=0, handler=None, **kw):
    "(URL, the `OpenMeter` behind it)"
    srv = ThreadingHTTPServer(('127.0.0.1', port), handler or _Handler)
    srv.om = OpenMeter(fault, **kw)
    threading.Thread(target=srv.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{srv.server_port}',srv.om
    finally: srv.shutdown(), srv.server_close()

if __name__=='__main__':
    with served(port=int(sys.argv[1]) if len(sys.argv)>1 else 8888) as (url,om):
        print(f'a stand-in for OpenMeter at {url}; Ctrl-C ends it')
        threading.Event().wait()
