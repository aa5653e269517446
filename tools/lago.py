"""A stand-in for Lago, on loopback: the part of its API that takes events, says what it has, and makes an invoice.

It keeps the server's rules as its source has them: who may ask, which fields a batch has to have, at most a hundred events, one event for
each id of a subscription, and no word about a subscription or a metric that is not there. `older=True` stores the rest of a batch that it
answers with 422, as servers did; `faults` has what goes wrong with the next requests that post events."""
import json, threading
from collections import defaultdict
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

FAULTS = '429', '500', 'hang up', 'take and hang up', 'take and 500', 'lose' # 'lose': 200, and nothing is stored

def _when(s): return datetime.fromisoformat(s.replace('Z', '+00:00')).timestamp()

def _wrong(e):
    "What is wrong with an event, as Lago says it; empty if nothing is"
    blank = {k:['value_is_mandatory'] for k in ('transaction_id','code') if not e.get(k)}
    try:
        for k in ('timestamp','precise_total_amount_cents'):
            if e.get(k) is not None: Decimal(str(e[k]))
    except InvalidOperation: return {k:['invalid_format']}
    return blank

class Lago:
    "A stand-in for Lago, which serves within `with`"
    def __init__(self, key, subscriptions=(), metrics=None, older=False):
        self.key,self.subscriptions,self.metrics,self.older = key,[*subscriptions],dict(metrics or {}),older # {code: rounding function}
        self.events,self.faults,self.posts,self.lock = {},[],0,threading.Lock()

    def __enter__(self):
        self.server = ThreadingHTTPServer(('127.0.0.1', 0), type('Handler', (_Handler,), dict(lago=self)))
        self.url = f'http://127.0.0.1:{self.server.server_port}'
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_): self.server.shutdown(), self.server.server_close()

    def take(self, es):
        "Store events, as Lago does; returns (status, body)"
        if not es: return self._no({'events':['no_events']})
        if len(es) > 100: return self._no({'events':['too_many_events']})
        errs,seen = {str(i):x for i,e in enumerate(es) if (x := _wrong(e))},set()
        for i,e in enumerate(es):
            k = e.get('external_subscription_id'),e.get('transaction_id')
            if str(i) not in errs and (k in self.events or k in seen): errs[str(i)] = {'transaction_id':['value_already_exist']}
            seen.add(k)
        if not errs or self.older:
            for i,e in enumerate(es):
                if str(i) not in errs: self.events[e.get('external_subscription_id'),e['transaction_id']] = e
        return self._no(errs) if errs else (200, dict(events=[self.shown(e) for e in es]))

    def _no(self, details): return 422, dict(status=422, error='Unprocessable Entity', code='validation_errors', error_details=details)

    def shown(self, e):
        t = datetime.fromtimestamp(float(e['timestamp']), timezone.utc).isoformat()
        return dict(lago_id='stand-in', lago_customer_id=None, lago_subscription_id=None, created_at=t) | {k:e.get(k) for k in
            ('transaction_id','code','external_subscription_id','precise_total_amount_cents','properties')} | dict(timestamp=t)

    def _counted(self): return [e for (s,_),e in self.events.items() if s in self.subscriptions and e['code'] in self.metrics]

    def billed(self):
        "{subscription: cents of all of its events}, as decimals; what is for a subscription or a metric that is not there is not billed"
        res = defaultdict(Decimal)
        for e in self._counted(): res[e['external_subscription_id']] += Decimal(e.get('precise_total_amount_cents') or 0)
        return dict(res)

    def invoice(self, subscription, month):
        "The invoice of a month, such as '2026-11': a fee for each metric, and whole cents in all"
        of = lambda e: f'{datetime.fromtimestamp(float(e["timestamp"]), timezone.utc):%Y-%m}'
        fees = defaultdict(lambda: dict(events_count=0, precise_amount=Decimal()))
        for e in self._counted():
            if e['external_subscription_id']!=subscription or of(e)!=month: continue
            f = fees[e['code']]
            f['events_count'] += 1
            f['precise_amount'] += Decimal(e.get('precise_total_amount_cents') or 0)
        whole = sum((f['precise_amount'] for f in fees.values()), Decimal())
        return dict(subscription=subscription, month=month, currency='USD', fees=[dict(code=k, **v) for k,v in fees.items()], total_amount_cents=int(whole.quantize(Decimal(1))))

class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *args): pass
    def handle(self):
        try: super().handle()
        except ConnectionError: pass # who asked was killed

    def _say(self, status, body, **headers):
        data = json.dumps(body, default=str).encode()
        self.send_response(status)
        for k,v in dict({'content-type':'application/json', 'content-length':str(len(data))}, **headers).items(): self.send_header(k, v)
        self.end_headers()
        self.wfile.write(data)

    def _allowed(self):
        if self.headers.get('authorization')==f'Bearer {self.lago.key}': return True
        self._say(401, dict(status=401, error='Unauthorized'))

    def do_POST(self):
        l,body = self.lago,json.loads(self.rfile.read(int(self.headers['content-length'])))
        if not self._allowed(): return
        with l.lock:
            l.posts += 1
            fault = l.faults.pop(0) if l.faults else None
            if fault=='429': return self._say(429, dict(status=429, error='Too Many Requests'), **{'x-ratelimit-limit':'1', 'x-ratelimit-remaining':'0', 'x-ratelimit-reset':'0'})
            if fault in ('500','hang up'): return self._fail(fault)
            es = body.get('events') if self.path.endswith('/batch') else [body['event']]
            status,said = (200, dict(events=[])) if fault=='lose' else l.take(es)
        if fault: fault = fault.removeprefix('take and ')
        if fault in ('500','hang up'): return self._fail(fault)
        self._say(status, said)

    def _fail(self, fault):
        if fault=='500': return self._say(500, dict(status=500, error='Internal Server Error'))
        self.close_connection = True
        self.connection.shutdown(2)

    def do_GET(self):
        if not self._allowed(): return
        l,u = self.lago,urlsplit(self.path)
        _,what,*id = u.path.removeprefix('/api').strip('/').split('/')
        id = unquote(id[0]) if id else None
        if what=='subscriptions' and id in l.subscriptions: return self._say(200, dict(subscription=_subscription(id)))
        if what=='billable_metrics' and id in l.metrics: return self._say(200, dict(billable_metric=_metric(id, l.metrics[id])))
        if what=='events' and not id: return self._events({k:v[0] for k,v in parse_qs(u.query).items()})
        self._say(404, dict(status=404, error='Not Found', code=f'{what[:-1]}_not_found'))

    def _events(self, q):
        l,page = self.lago,int(q.get('page', 1))
        with l.lock: es = [e for (s,_),e in l.events.items() if s==q.get('external_subscription_id', s)]
        es = [e for e in es if _when(q.get('timestamp_from', '1970-01-01T00:00:00Z')) <= float(e['timestamp']) <= _when(q.get('timestamp_to', '2199-01-01T00:00:00Z'))]
        n  = int(q.get('per_page', 20))
        some,more = es[(page-1)*n:page*n],len(es) > page*n
        self._say(200, dict(events=[l.shown(e) for e in some], meta=dict(current_page=page, next_page=page+1 if more else None, prev_page=page-1 or None, total_pages=-(-len(es)//n), total_count=len(es))))

_now = '2026-11-01T00:00:00Z'
def _subscription(id): return dict(lago_id='stand-in', external_id=id, lago_customer_id='stand-in', external_customer_id=id, status='active', billing_time='calendar', plan_code='usage', created_at=_now, started_at=_now, subscription_at=_now)
def _metric(code, rounding): return dict(lago_id='stand-in', name=code, code=code, description='', aggregation_type='sum_agg', field_name='response_cost', recurring=False, created_at=_now, rounding_function=rounding, filters=[])
