"Calls that other tools have logged: logs that grow, move, repeat themselves, or are broken."
import json, os, random, shutil, sqlite3, time
from contextlib import closing
from datetime import datetime, timezone
import ccusage, pytest
from hypothesis import given, settings, strategies as st
from llm_usage import Ledger
from llm_usage.agents import read_codex
from llm_usage.imports import Bad, SOURCES
import llm_usage.logs

@pytest.fixture
def l(p):
    with closing(Ledger(p)) as l: yield l

@pytest.fixture
def home(tmp_path):
    rnd = random.Random(7)
    for f in (ccusage.claude,ccusage.codex,ccusage.gemini,ccusage.opencode): f(rnd, tmp_path/'home')
    return tmp_path/'home'

def places(home, tool): return [p for o in SOURCES[tool].places() if os.path.exists(p := o.replace('~', str(home)))]
def line(**kw): return json.dumps(dict(type='assistant', timestamp='2026-11-20T10:00:00.000Z', sessionId='s', requestId='r', message=dict(id='m', model='claude-sonnet-4-5', usage=dict(input_tokens=10, output_tokens=5))) | kw)

@pytest.mark.parametrize('tool', ccusage.tools)
def test_where_the_tool_keeps_them(l, home, tool, monkeypatch):
    "Without a path a source is read where its tool keeps it; twice is once, also after the files have moved; the ledger is sound"
    monkeypatch.setenv('HOME', str(home))
    for k in ('CLAUDE_CONFIG_DIR','CODEX_HOME','GEMINI_DATA_DIR','OPENCODE_DATA_DIR'): monkeypatch.delenv(k, raising=False)
    a = l.import_from(tool)
    assert a.new > 3 and a.known==0
    shutil.copytree(home, home.parent/'moved')
    b = l.import_from(tool, *places(home.parent/'moved', tool))
    assert (b.new, b.known)==(0, a.new) and l.check()==[]
    assert {u.agent for u in l.rows()}=={tool} and all(u.response_cost > 0 and u.origin=='live' for u in l.rows())

def test_environment(l, home, monkeypatch):
    "Folders that the tool's own variable names, with commas between"
    shutil.copytree(home/'.claude', home.parent/'other')
    monkeypatch.setenv('CLAUDE_CONFIG_DIR', f'{home}/.claude,{home.parent}/other')
    t = l.import_from('claude-code')
    assert t.files==2*len([*(home/'.claude').rglob('*.jsonl')]) and t.known==0

def test_an_answer_that_still_grows(l, tmp_path):
    "A call of this minute may not be over, so the next import takes it, and nothing of it is counted before"
    f,now = tmp_path/'s.jsonl',datetime.fromtimestamp(time.time(), timezone.utc).isoformat()
    f.write_text(line(timestamp=now) + '\n')
    t = l.import_from('claude-code', str(f))
    assert (t.new, t.late)==(0, 1) and '1 calls of the last minutes' in t.bad

def test_what_is_inside_what(l, tmp_path):
    "Codex's input has cached and written tokens inside; Claude Code's stand beside it, and its cache writes at the top or by lifetime"
    f,g = tmp_path/'c.jsonl',tmp_path/'s.jsonl'
    used = dict(input_tokens=100, cached_input_tokens=40, cache_write_input_tokens=30, output_tokens=5)
    f.write_text('\n'.join(map(json.dumps, [dict(type='turn_context', payload=dict(model='gpt-5-codex')), dict(type='event_msg', timestamp='2026-11-20T10:00:00Z', payload=dict(type='token_count', info=dict(total_token_usage=used, last_token_usage=used)))])))
    said = lambda id, **kw: line(message=dict(id=id, model='claude-sonnet-4-5', usage=dict(input_tokens=10, output_tokens=5, cache_read_input_tokens=40, cache_creation_input_tokens=30) | kw))
    g.write_text('\n'.join([said('a'), said('b', cache_creation=dict(ephemeral_5m_input_tokens=10, ephemeral_1h_input_tokens=20))]))
    l.import_from('codex', str(f)), l.import_from('claude-code', str(g))
    assert [(u.prompt_tokens, u.cache_read_tokens, u.cache_creation_tokens, u.billable()['input'], u.cache_creation_1h_tokens) for u in l.rows()]==[(100,40,30,30,None), (80,40,30,10,0), (80,40,30,10,20)]

def test_an_answer_that_grew_later(l, tmp_path):
    "A row never changes; a call that has more tokens in a later log is named"
    f = tmp_path/'s.jsonl'
    f.write_text(line() + '\n')
    l.import_from('claude-code', str(f))
    f.write_text(line() + '\n' + line(message=dict(id='m', model='claude-sonnet-4-5', usage=dict(input_tokens=10, output_tokens=50))) + '\n')
    t = l.import_from('claude-code', str(f))
    assert (t.new, t.known, t.bad)==(0, 1, '1 calls have other tokens than when they were taken in, and keep those')

def test_spend_logs_that_are_odd(l, tmp_path):
    "A quote without an end swallows no money, an image has a cost without tokens, and a time that cannot be is no time"
    f,head = tmp_path/'spend.csv','request_id,startTime,model,prompt_tokens,completion_tokens,spend\n'
    f.write_text(head + 'u,2026-11-01,gpt-4o-mini,10,5,5.0\ni,2026-11-01,gpt-image-1,0,0,0.04\nx,nan,gpt-4o-mini,10,5,1\nz,2026-11-01,gpt-4o-mini,10,5,much\nw,2026-11-01,gpt-4o-mini,10,5,"0.001\nv,2026-11-01,gpt-4o-mini,10,5,5.0\n')
    t = l.import_from('litellm', str(f))
    assert [(u.call_id, u.response_cost) for u in l.rows()]==[('u',5.), ('i',.04)]
    assert all(o in t.bad for o in ('startTime: 1, at', 'a spend that is no number: 1, at', 'lines are no CSV: 1, at'))

def test_lines_that_are_broken(l, tmp_path):
    "What cannot be read is named with its file and line, and the rest goes on"
    f = tmp_path/'s.jsonl'
    f.write_text('\n'.join([line(), '{"usage"', line(timestamp='soon'), '["usage"]', line(message=dict(id='n', usage=7)), line(message=dict(id='o', model='claude-sonnet-4-5', usage=dict(input_tokens='many', output_tokens=5)))]))
    t = l.import_from('claude-code', str(f))
    assert t.new==2 and t.bad==f'lines are no JSON: 2, at {f}, line 2, {f}, line 4; lines have no time: 1, at {f}, line 3'

@pytest.mark.parametrize('tool', [*ccusage.tools, 'llm', 'litellm'])
@pytest.mark.parametrize('data', [b'', b'\x00\xff'*50, b'{}', b'[]', b'[1]', b'{"messages":7}', b'{"type":"event_msg","payload":{"type":"token_count","info":{"total_token_usage":7}}}', b'a,b\n1,2\n', b'SQLite format 3\x00'])
def test_files_of_something_else(l, tmp_path, tool, data):
    "A foreign or cut file gives no rows, and that is said"
    f = tmp_path/{'opencode':'opencode.db', 'llm':'logs.db', 'litellm':'spend.csv', 'gemini':'s.json'}.get(tool, 's.jsonl')
    f.write_bytes(data)
    t = l.import_from(tool, str(f))
    assert t.new==0 and l.rows()==[] and t.bad

def test_a_database_in_use(l, tmp_path):
    "A database that its tool is writing to is read as it is, and not changed"
    con = sqlite3.connect(tmp_path/'logs.db')
    con.execute('PRAGMA journal_mode=WAL')
    con.execute('CREATE TABLE responses (id, model, datetime_utc, input_tokens, output_tokens)')
    con.execute("INSERT INTO responses VALUES ('a', 'gpt-4o-mini', '2026-11-20T10:00:00', 10, 20)")
    con.commit()
    con.execute('BEGIN IMMEDIATE')
    con.execute("INSERT INTO responses VALUES ('b', 'gpt-4o-mini', '2026-11-20T10:00:00', 10, 20)")
    assert l.import_from('llm', str(tmp_path/'logs.db')).new==1
    con.commit()
    assert l.import_from('llm', str(tmp_path/'logs.db')).new==1
    con.close()

counters = st.lists(st.tuples(st.integers(1, 9000), st.integers(0, 9000), st.integers(1, 900), st.integers(1, 3)), min_size=1, max_size=12)

@settings(max_examples=50, deadline=None)
@given(counters, st.integers(0, 5))
def test_counters_of_codex(tmp_path_factory, calls, own):
    "However often counters are shown, and whatever a fork copies: the rows of a session sum to its last total"
    d,total,events = tmp_path_factory.mktemp('codex'),[0]*3,[]
    def used(a): return dict(input_tokens=a[0], cached_input_tokens=a[1], output_tokens=a[2])
    def event(total, last): return dict(timestamp='2026-11-20T10:00:00Z', type='event_msg', payload=dict(type='token_count', info=dict(total_token_usage=used(total), last_token_usage=used(last))))
    for n,cached,out,shown in calls:
        last = [n, min(n, cached), out]
        total = [a+b for a,b in zip(total, last)]
        events += [event(total, last)]*shown
    def session(id, es, **kw): (d/f'{id}.jsonl').write_text('\n'.join(map(json.dumps, [dict(type='session_meta', payload=dict(id=id) | kw), dict(type='turn_context', payload=dict(model='gpt-5-codex')), *es])))
    session('a', events)
    more = [event([total[0]+10*(i+1), total[1], total[2]+i+1], [10,0,1]) for i in range(own)]
    session('b', events + more, forked_from_id='a')
    us = [*read_codex([str(d/'a.jsonl'), str(d/'b.jsonl')], Bad())]
    of = lambda s: [sum(getattr(u, k) for u in us if u.session_id==s) for k in ('prompt_tokens','cache_read_tokens','completion_tokens')]
    assert of('a')==total and of('b')==[10*own, 0, own]
