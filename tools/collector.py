"""A stand-in for an OpenTelemetry collector: OTLP over HTTP with protobuf, on loopback. It keeps what it gets, and is not the real one.

    with collector() as c:
        OTLPSpanExporter(f'{c.url}/v1/traces') …
        c.spans, c.points

`collector(status=503)` refuses all; `c.status = 200` takes them again. As a program, `collector.py [PORT]` prints a line for each span and point."""
import gzip,json,sys,threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler,ThreadingHTTPServer
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest,ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest,ExportTraceServiceResponse

def attributes(kvs): return {o.key:getattr(o.value, o.value.WhichOneof('value')) for o in kvs}

def _span(o): return dict(name=o.name, trace=o.trace_id.hex(), id=o.span_id.hex(), parent=o.parent_span_id.hex(), start=o.start_time_unix_nano, end=o.end_time_unix_nano,
    kind=o.kind, status=o.status.code, message=o.status.message, attributes=attributes(o.attributes))

def _spans(batch): return [_span(o) for r in batch.resource_spans for s in r.scope_spans for o in s.spans]

def _points(batch):
    "(name, unit, value, count, attributes) of each point"
    for m in (m for r in batch.resource_metrics for s in r.scope_metrics for m in s.metrics):
        for p in getattr(m, m.WhichOneof('data')).data_points:
            number = p.WhichOneof('value') if hasattr(p, 'as_int') else None
            yield dict(name=m.name, unit=m.unit, value=getattr(p, number) if number else p.sum, count=None if number else p.count, attributes=attributes(p.attributes))

_kinds = {'/v1/traces':(ExportTraceServiceRequest,ExportTraceServiceResponse), '/v1/metrics':(ExportMetricsServiceRequest,ExportMetricsServiceResponse)}

class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *a): pass
    def do_POST(self):
        c,body = self.server.collector,self.rfile.read(int(self.headers['content-length']))
        if self.headers.get('content-encoding')=='gzip': body = gzip.decompress(body)
        ask,answer = _kinds.get(self.path, (None,None))
        status = 404 if not ask else 415 if self.headers['content-type']!='application/x-protobuf' else c.status
        if status==200: c.take(self.path, ask.FromString(body))
        data = answer().SerializeToString() if status==200 else b''
        self.send_response(status)
        self.send_header('content-type', 'application/x-protobuf')
        self.send_header('content-length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)

class Collector:
    def __init__(self, status=200): self.status,self.spans,self.points = status,[],[]
    def take(self, path, batch):
        if path=='/v1/traces': self.spans += _spans(batch)
        else: self.points = [*_points(batch)] # which are sums so far

@contextmanager
def collector(port=0, **kw):
    srv = ThreadingHTTPServer(('127.0.0.1', port), _Handler)
    srv.collector = c = Collector(**kw)
    c.url = f'http://127.0.0.1:{srv.server_port}'
    threading.Thread(target=srv.serve_forever, daemon=True).start()
    try: yield c
    finally:
        srv.shutdown()
        srv.server_close()

if __name__=='__main__':
    with collector(int([*sys.argv[1:],'4318'][0])) as c:
        c.take = lambda path, batch: [print(json.dumps(o), flush=True) for o in (_spans if path=='/v1/traces' else _points)(batch)]
        print(f'a stand-in collector at {c.url}', flush=True)
        threading.Event().wait()
