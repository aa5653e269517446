"Rows as telemetry, over the wire: names and values of both versions, a collector that is down, a kill, and nothing that should not be there"
import json, signal
import pytest
from collector import collector
from helpers import python
from llm_usage import Ledger, OTelSink, Usage, UsageSpanProcessor
from llm_usage.outbox import Outbox, Refused, Retry
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

def call(i=0, **kw):
    return Usage(**dict(uid=f'0199d0c5a1f2-{i:016x}', call_id=f'call-{i}', trace_id='3f2a1b4c-5d6e-4f70-8a9b-0c1d2e3f4a5b', timestamp=1795678824.25+i, latency=2., ttft=.5, stream=True, provider='bedrock',
        model='claude-sonnet-5-5', requested_model='sonnet', call_type='completion', usage_source='reported', prompt_tokens=4000, cache_read_tokens=3200, cache_creation_tokens=500,
        completion_tokens=40, reasoning_tokens=30, total_tokens=4040, response_cost=.0125, cost_source='provider') | kw)

def sink(c, version='latest', **kw):
    "A sink that sends to the collector"
    meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter(f'{c.url}/v1/metrics', timeout=2), export_interval_millis=float('inf'))], shutdown_on_exit=False)
    return OTelSink(version, exporter=OTLPSpanExporter(f'{c.url}/v1/traces', timeout=1), meter_provider=meters, **kw)

def sent(c, us, *args, **kw):
    s = sink(c, *args, **kw)
    assert s.send([e for u in us for e in s.events(u)])=={}
    return s


# What arrives

def test_spans():
    "Two calls arrive with their ids, times, names and values, in either version"
    for version in ('1.41','latest'):
        with collector() as c:
            sent(c, [call(), call(1, trace_id=None, status='failed', error='RateLimitError 429', prompt_tokens=None, completion_tokens=None, response_cost=0.)], version)
            ok,failed = c.spans
        assert {k:v for k,v in ok.items() if k not in ('attributes','id')}==dict(name='chat sonnet', trace='3f2a1b4c5d6e4f708a9b0c1d2e3f4a5b', parent='', start=1795678824_250_000_000, end=1795678826_250_000_000, kind=3, status=0, message='')
        assert ok['attributes']=={'gen_ai.operation.name':'chat', 'gen_ai.provider.name':'aws.bedrock', 'gen_ai.request.model':'sonnet', 'gen_ai.response.model':'claude-sonnet-5-5', 'gen_ai.request.stream':True,
            'gen_ai.response.time_to_first_chunk':.5, 'gen_ai.usage.input_tokens':4000, 'gen_ai.usage.output_tokens':40, 'gen_ai.usage.cache_read.input_tokens':3200, 'gen_ai.usage.cache_write.input_tokens':500,
            'gen_ai.usage.cache_creation.input_tokens':500, 'gen_ai.usage.reasoning.output_tokens':30, 'gen_ai.usage.cost.amount':.0125, 'gen_ai.usage.cost.currency':'USD', 'gen_ai.usage.cost.source':'provider',
            'llm_usage.uid':'0199d0c5a1f2-0000000000000000'}
        assert (failed['status'], failed['message'], failed['attributes']['error.type'], failed['attributes']['gen_ai.usage.cost.amount'])==(2, '', 'RateLimitError 429', 0.)
        assert failed['trace']!=ok['trace'] and failed['id']!=ok['id']

_since = {'gen_ai.client.inference.usage.input_tokens':(8000,None,'{token}'), 'gen_ai.client.inference.usage.output_tokens':(80,None,'{token}'), 'gen_ai.client.inference.usage.cache_read.input_tokens':(6400,None,'{token}'),
    'gen_ai.client.inference.usage.cache_write.input_tokens':(1000,None,'{token}'), 'gen_ai.client.inference.usage.reasoning.output_tokens':(60,None,'{token}'), 'gen_ai.client.inference.operation.input_tokens':(8000,2,'{token}'),
    'gen_ai.client.inference.operation.output_tokens':(80,2,'{token}'), 'gen_ai.client.inference.duration':(4.,2,'s'), 'gen_ai.client.inference.time_to_first_chunk':(1.,2,'s'), 'gen_ai.client.operation.cost':(.025,2,'USD')}

def test_metrics():
    "Two calls are added up, under the names of the version"
    with collector() as c:
        sent(c, [call(), call(1)])
        new = {o['name']:(o['value'], o['count'], o['unit']) for o in c.points}
        modes = {o['attributes'].get('gen_ai.token.modality') for o in c.points if '.usage.' in o['name']}
    with collector() as c:
        sent(c, [call(), call(1)], '1.41')
        old = {(o['name'], o['attributes'].get('gen_ai.token.type')):(o['value'], o['count']) for o in c.points}
    assert (new, modes)==(_since, {'unknown'})
    pre = 'gen_ai.client.'
    assert old=={(pre+'token.usage','input'):(8000,2), (pre+'token.usage','output'):(80,2), (pre+'operation.duration',None):(4.,2), (pre+'operation.time_to_first_chunk',None):(1.,2), (pre+'operation.cost',None):(.025,2)}
    known = {v for k,v in vars(gen_ai_metrics).items() if k.startswith('GEN_AI_CLIENT')}
    assert {n for n,_ in old} - known=={pre+'operation.cost'} # the cost is proposed; the SDK's package has the names of 1.41

def test_own_exporters(monkeypatch):
    "Without an exporter, OpenTelemetry's own settings say where spans and metrics go"
    with collector() as c:
        monkeypatch.setenv('OTEL_EXPORTER_OTLP_ENDPOINT', c.url)
        s = OTelSink()
        s.send(s.events(call()))
        assert (len(c.spans), {o['name'] for o in c.points}==set(_since))==(1, True)

def test_privacy():
    "No user, customer, key, tag or free text leaves, but the user that is asked for"
    secrets = dict(user_id='ada', team_id='payers', end_user='acme', api_key_hash='f00d', key_alias='adas key', tags='["secret"]', meta='{"note":"private"}', api_base='https://inner.example')
    with collector() as c:
        sent(c, [call(**secrets)])
        sent(c, [call(**secrets)], user='end_user')
        plain,named = (json.dumps(o) for o in c.spans)
        assert not any(o in json.dumps(c.points) for o in ('ada','payers','acme','f00d','secret','private','inner'))
    assert not any(o in plain for o in ('ada','payers','acme','f00d','secret','private','inner'))
    assert '"user.id": "acme"' in named and not any(o in named for o in ('ada','payers','f00d','secret','private','inner'))

def test_unpriced():
    "A call without a price has no cost, neither on its span nor in the metrics; one of a cache costs 0 and adds to no metric"
    with collector() as c:
        sent(c, [call(response_cost=None, cost_source=None), call(1, origin='cache')])
        a,b = (o['attributes'] for o in c.spans)
        assert not any('cost' in k for k in a) and not any('cost' in o['name'] for o in c.points)
        assert (b['gen_ai.usage.cost.amount'], b['llm_usage.origin'])==(0., 'cache')
        assert sum(o['value'] for o in c.points if o['name'].endswith('usage.input_tokens'))==4000

def test_adjustment():
    "An adjustment is refused in words, and so is a call without a time; a row of a span is not sent again"
    with collector() as c:
        for u,why in ((call(origin='adjustment', adjusts='x'), 'an adjustment is not a call'), (call(timestamp=None), 'without a time')):
            with pytest.raises(Refused, match=why): sink(c).events(u)
        assert sink(c).events(call(call_id='a1'*16+'/'+'b2'*8))==[]


# What goes wrong

def test_collector_is_down():
    "A collector that answers 503, or none that listens, is tried again; the span that arrives then has the same id, and metrics count once"
    with collector(status=503) as c:
        s = sink(c)
        es = s.events(call())
        with pytest.raises(Retry): s.send(es)
        assert c.spans==c.points==[]
        c.status = 200
        s.send(es)
        first = c.spans[0]['id']
        assert [o['value'] for o in c.points if o['name'].endswith('usage.input_tokens')]==[4000]
    with pytest.raises(Retry): s.send(es)
    with collector() as c:
        sent(c, [call()])
        assert c.spans[0]['id']==first

def test_closed_provider():
    "A provider that was shut down cannot send, and the sink says so"
    p = TracerProvider(shutdown_on_exit=False)
    with collector() as c:
        p.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f'{c.url}/v1/traces', timeout=1)))
        s = OTelSink(tracer_provider=p)
        s.send(s.events(call()))
        assert [o['attributes']['llm_usage.uid'] for o in c.spans]==[call().uid]
        p.shutdown()
        with pytest.raises(Retry): s.send(s.events(call(1)))

def test_outbox(tmp_path):
    "A ledger goes out once: what failed goes with the next run, an adjustment is refused, and a run more sends nothing"
    l = Ledger(tmp_path/'usage.db')
    l.insert_all([*map(call, range(1200)), call(5000, origin='adjustment', adjusts=call().uid, response_cost=-.001)])
    with collector(status=503) as c:
        box = Outbox(l, sink(c), tries=1, sleep=lambda s: None)
        assert box.run().states==dict(waiting=1200, refused=1) and c.spans==[]
        c.status = 200
        assert box.run().states==dict(sent=1200, refused=1)
        assert (box.run().requests, len(c.spans), len({o['id'] for o in c.spans}))==(0, 1200, 1200)
        assert {o['name']:o['value'] for o in c.points}['gen_ai.client.inference.usage.input_tokens']==1200*4000
        assert sum(o['attributes']['gen_ai.usage.cost.amount'] for o in c.spans)==pytest.approx(1200*.0125)
    l.close()

_kill = '''
import os, signal, sys
from llm_usage import OTelSink, Usage
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
s = OTelSink(exporter=OTLPSpanExporter(sys.argv[1]+'/v1/traces'))
s.send(s.events(Usage(uid='0199d0c5a1f2-0000000000000000', timestamp=1.8e9)))
os.kill(os.getpid(), signal.SIGKILL)
'''

def test_kill():
    "A process that is killed after it has sent, and another one that sends again, send one span, by its ids"
    with collector() as c:
        for _ in range(2):
            with python(_kill, c.url) as o: assert o.wait(60)==-signal.SIGKILL, o.stderr.read()
        assert (len(c.spans), len({(o['trace'],o['id']) for o in c.spans}))==(2, 1)

def test_no_loop(tmp_path):
    "A span processor on the provider that we send through makes no row of our spans, but one of a program's"
    l,p = Ledger(tmp_path/'usage.db'),TracerProvider(shutdown_on_exit=False)
    p.add_span_processor(UsageSpanProcessor(l))
    s = OTelSink(tracer_provider=p)
    s.send([e for i in range(5) for e in s.events(call(i))])
    with p.get_tracer('program').start_as_current_span('chat', attributes={'gen_ai.operation.name':'chat', 'gen_ai.request.model':'claude-haiku-5-5', 'gen_ai.usage.input_tokens':5, 'gen_ai.usage.output_tokens':1}): pass
    p.force_flush()
    assert [u.model for u in l.rows()]==['claude-haiku-5-5']
    assert s.events(l.rows()[0])==[]
    p.shutdown()
    l.close()

def test_without_the_sdk():
    "The error says what to install"
    code = "import sys; sys.modules['opentelemetry.sdk.trace'] = None\nfrom llm_usage import OTelSink\ntry: OTelSink()\nexcept ImportError as e: print(e)"
    with python(code) as o: assert "pip install 'llm-usage-ledger[otel]'" in o.communicate(timeout=60)[0]
