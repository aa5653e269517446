"""Files out and in again: every row of every kind comes back as it was, and what is cut, full or killed leaves no half file."""
import csv, json, os, time
from contextlib import closing
from datetime import datetime
from zoneinfo import ZoneInfo
import apsw, pytest
from helpers import python, row
from hypothesis import HealthCheck, given, settings, strategies as st
from llm_usage import Ledger, Usage, audr, exports, restores
from llm_usage.columns import FIELDS, kind_of, row_values
from llm_usage.exports import FORMATS, RISKY, row_batches

kinds = pytest.mark.parametrize('kind', FORMATS)


# Rows of all kinds

odd    = st.sampled_from(['=HYPERLINK("http://x")', '-1', '+1', '@a', "'", "''", '', ' ', '\t', '\r\n', '\n', ',', '"', '""', '\0', '\0=1', 'a\0b', 'NULL', 'null', 'nan', '\\N', '1e5', '007', 'é', '＝1',
    '\ufeff', '\u2028', '\u0085', '\U0001f600', '~', '[', '{', '\x7f', ',"uid":null', '\ufffe', '\xa0=1'])
texts  = odd | st.lists(odd, max_size=4).map(''.join) | st.text(st.characters(exclude_categories=['Cs']), max_size=30)
counts = st.sampled_from([0, 1, 10**12]) | st.integers(0, 10**12)
usd    = st.sampled_from([0., 5e-324, 1e-9, .1+.2, 999_999_999.99]) | st.floats(0, 10**9, exclude_max=True)
change = st.floats(-10**9, 10**9, exclude_max=True)
values = dict(count=counts, time=st.floats(0, 9e9, exclude_max=True), seconds=change, usd=usd, change=change, flag=st.booleans(), text=texts,
    details=st.dictionaries(texts, counts).map(json.dumps), object=st.dictionaries(texts, texts|st.none()|counts).map(json.dumps), list=st.lists(texts).map(json.dumps))
of     = {f.name: st.none() | values[kind_of[f.name]] for f in FIELDS}
of    |= dict(uid=texts.filter(bool), timestamp=values['time'], status=st.sampled_from('ok failed partial orphaned'.split()),
    origin=st.sampled_from('live cache replay'.split()), usage_source=st.sampled_from('reported estimated missing'.split()))
rows   = st.builds(Usage, **of) | st.builds(Usage, **of | dict(origin=st.just('adjustment'), response_cost=st.none()|change, adjusts=texts))

def same(a, b):
    assert [*map(row_values, a.rows())]==[*map(row_values, b.rows())]
    assert a.total()==b.total()

@kinds
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(us=st.lists(rows, min_size=1, max_size=6, unique_by=lambda u: u.uid))
def test_every_row_comes_back(tmp_path, kind, us):
    "A ledger that is made from an export has the same rows, to the last bit and in the same order, and the same total; once more adds nothing"
    with closing(Ledger(':memory:')) as a, closing(Ledger(':memory:')) as b:
        a.insert_all(us)
        file, = a.export(tmp_path/f'x.{kind}', tz='Asia/Kolkata')
        assert b.import_rows(file)==(len(us), 0, '')
        same(a, b)
        assert b.import_rows(file)==(0, len(us), '')

@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts|st.sampled_from(RISKY).flatmap(lambda c: texts.map(lambda s: c+s)))
def test_no_cell_of_csv_is_a_formula(tmp_path, text):
    "No text of a CSV file begins with what a spreadsheet computes, spaces before it included"
    with closing(Ledger(':memory:')) as l:
        l.add(Usage(uid='u', timestamp=1., agent=text))
        with open(l.export(tmp_path/'x.csv')[0], newline='', encoding='utf-8') as f: cell = [*csv.DictReader(f)][0]['agent']
    assert cell[:1] not in {*RISKY}-{"'"} and cell.lstrip()[:1] not in {*'=+-@＝＋－＠'}
    assert cell==(text if cell[:1]!="'" else f"'{text}") and cell!=''


@kinds
def test_a_long_row(tmp_path, kind):
    "A row of megabytes comes back, and so does the one after it"
    with closing(Ledger(':memory:')) as a, closing(Ledger(':memory:')) as b:
        a.insert_all([Usage(uid='long', timestamp=1., meta=json.dumps(dict(k='"\\n'*600_000))), Usage(uid='short', timestamp=2.)])
        assert b.import_rows(a.export(tmp_path/f'x.{kind}')[0])==(2, 0, '')
        same(a, b)


# What another program stored

@kinds
def test_values_that_cannot_be(p, tmp_path, kind):
    "What another program stored where it cannot be is dropped, as `rows` does it, and spoils no other row"
    with closing(Ledger(p)) as a, closing(Ledger(':memory:')) as b:
        a.insert_all(row(f'r{i}', timestamp=1.5+i, uid=f'u{i}') for i in range(7))
        with closing(apsw.Connection(str(p))) as con:
            for i,o in enumerate(("prompt_tokens='=1+1'", "response_cost='five'", "agent=x'ff41'", "stream='yes'", 'response_cost=9e999', "completion_tokens=1.5")): con.execute(f'UPDATE usage SET {o} WHERE id={i+1}')
        assert b.import_rows(a.export(tmp_path/f'x.{kind}')[0])[:2]==(7,0)
        assert [*map(row_values, a.rows())]==[*map(row_values, b.rows())]

def test_columns_do_not_depend_on_the_first_rows(tmp_path):
    "A Parquet file has the same types whether its rows have values or not"
    import pyarrow.parquet as pq
    with closing(Ledger(':memory:')) as l:
        l.insert_all(Usage(uid=f'{i:06}', timestamp=float(i)) for i in range(25_000)) # more than a group of rows
        none = pq.read_schema(l.export(tmp_path/'none.parquet')[0])
        l.add(Usage(uid='last', timestamp=1., meta='{"k": 1}', stream=True, response_cost=.5, prompt_tokens=3))
        assert pq.read_schema(l.export(tmp_path/'some.parquet')[0])==none==exports.parquet_schema()
        assert pq.read_table(tmp_path/'some.parquet').to_pylist()[-1]['response_cost']==.5


# Files that are cut, full or killed

def test_cut_anywhere(tmp_path):
    "Of a CSV file that is cut at any byte, the whole rows come back, and nothing that was cut passes for a row"
    with closing(Ledger(':memory:')) as l:
        l.insert_all([Usage(uid='a', timestamp=1., adjusts='1234', cost_lacks='web'), Usage(uid='b', timestamp=2., agent='two\r\nlines "x"', cost_lacks='searches')])
        file,us = tmp_path/'x.csv',[*map(row_values, l.rows())]
        l.export(file)
    data = file.read_bytes()
    for n in range(len(data)):
        file.write_bytes(data[:n])
        with closing(Ledger(':memory:')) as b:
            new,_,bad = b.import_rows(file)
            assert [*map(row_values, b.rows())]==us[:new] and (bad or data[:n].endswith((b'\r\n', b'\r')))

full = """
import resource, signal, sys
from llm_usage import Ledger, exports
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
try: Ledger(sys.argv[1], asking=True).export(sys.argv[2])
except OSError as e: print(e.filename, e.strerror)
"""

@kinds
def test_full_disk(p, tmp_path, kind):
    "A disk that fills up leaves the older file and no other, and the error names the file"
    file = tmp_path/'out'/f'x.{kind}'
    file.parent.mkdir()
    file.write_text('older')
    with closing(Ledger(p)) as l: l.insert_all(row(f'{os.urandom(16).hex()}', meta=json.dumps(dict(k=os.urandom(40).hex())), timestamp=1.) for _ in range(3000))
    with python(full, p, file) as o: out,err = o.communicate(timeout=60)
    assert str(file) in out and 'File too large' in out, err
    assert [o.name for o in file.parent.iterdir()]==[file.name] and file.read_text()=='older'

killed = """
import os, signal, sys
from llm_usage import Ledger, exports
Ledger(sys.argv[1]).export(sys.argv[2], progress=lambda n,of: os.kill(os.getpid(), signal.SIGKILL))
"""

@kinds
def test_killed(p, tmp_path, kind):
    "A kill leaves the older file; what it left beside is not taken in, and the next export is whole"
    file = tmp_path/'out'/f'x.{kind}'
    file.parent.mkdir()
    with closing(Ledger(p)) as l:
        l.insert_all(row(f'r{i}', timestamp=1.+i) for i in range(100))
        l.export(file)
        was = file.read_bytes()
        l.insert_all(row(f'r{i}', timestamp=1.+i) for i in range(100,200))
        with python(killed, p, file) as o: o.communicate(timeout=60)
        assert o.returncode==-9 and file.read_bytes()==was
        assert len(l.export(file)) and Ledger(':memory:').import_rows(file.parent)==(200,0,'')


# Periods

def test_months(tmp_path):
    "A file a month of the zone; the month that goes on is marked, and its file goes when the month is over; rows without a time are kept"
    begin = lambda *d: datetime(*d, tzinfo=ZoneInfo('Asia/Kolkata')).timestamp()
    with closing(Ledger(':memory:')) as l, closing(Ledger(':memory:')) as b:
        l.insert_all([row('a', timestamp=begin(2025,3,31,23,59,59)), row('b', timestamp=begin(2025,4,1)), row('c', timestamp=begin(2025,12,31,23)), row('d', timestamp=time.time())])
        l.con.execute("INSERT INTO usage (uid, model) VALUES ('undated','m')")
        (tmp_path/'usage_2025-04_so_far.csv').write_text('of April, as it was in April')
        files = l.export(tmp_path, 'csv', by='month', tz='Asia/Kolkata')
        now   = datetime.fromtimestamp(l.rows("call_id='d'")[0].timestamp, ZoneInfo('Asia/Kolkata'))
        names = ['usage_2025-03.csv', 'usage_2025-04.csv', 'usage_2025-12.csv', f'usage_{now:%Y-%m}_so_far.csv', 'usage_undated.csv']
        assert [os.path.basename(o) for o in files]==names and sorted(os.listdir(tmp_path))==sorted(names) and files.rows==5
        new,_,bad = b.import_rows(tmp_path)
        assert new==4 and 'usage_undated.csv: 1 row is none' in bad
        assert [*map(row_values, b.rows())]==[*map(row_values, l.rows('timestamp NOT NULL'))]
        april = l.export(tmp_path/'some', 'jsonl', by='month', tz='Asia/Kolkata', since='2025-04-15', until='2025-04-20')
        assert [os.path.basename(o) for o in april]==['usage_2025-04.jsonl'] and april.rows==1 # a month is whole, or marked

def test_one_moment(p):
    "Rows that are stored while others are read are not among them"
    with closing(Ledger(p)) as l:
        l.insert_all(row(f'r{i}', timestamp=1.) for i in range(10))
        it = row_batches(l, size=4)
        some = len(next(it))
        with closing(Ledger(p)) as other: other.add(row('late', timestamp=1.))
        assert some + sum(map(len, it))==10 and len(l.rows())==11

def test_a_condition_stays_within_its_parentheses(tmp_path):
    "A condition with a parenthesis too many is an error, and no file"
    with closing(Ledger(':memory:')) as l:
        l.add(row('a', timestamp=1.))
        with pytest.raises(apsw.SQLError): l.export(tmp_path/'x.csv', where='0) OR (1')
        with pytest.raises(apsw.SQLError): l.export(tmp_path, 'csv', by='month', where='0) OR (1')
    assert os.listdir(tmp_path)==[]


# Agent usage detail records

@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(costs=st.lists(st.tuples(st.none()|st.floats(0, 100), st.lists(st.floats(0, 10), max_size=3)), min_size=1, max_size=4))
def test_records_add_up(tmp_path, costs):
    "The last record of each call has its cost with all corrections so far, and together they are the ledger's total; ids stay the same"
    with closing(Ledger(':memory:')) as l:
        for i,(cost,later) in enumerate(costs):
            l.add(Usage(uid=f'u{i}', timestamp=1.5+i, team_id='t', prompt_tokens=9, cache_read_tokens=4, usage_source='reported', response_cost=cost))
            for j,o in enumerate(later): l.add(Usage(uid=f'u{i}-{j}', timestamp=100.+j, origin='adjustment', adjusts=f'u{i}', response_cost=o))
        done  = l.audr(tmp_path/'x.jsonl', 'production')
        recs  = [json.loads(o) for o in (tmp_path/'x.jsonl').open()]
        final = {o.get('corrects', o['record_id']): o for o in recs}
        assert done.held=={} and done.rows==len(recs)==len({o['record_id'] for o in recs})==len(l.rows()) and len(final)==len(costs)
        assert sum(o.get('cost',{}).get('total_cost', 0) for o in final.values())==pytest.approx(l.total().amount, abs=1e-9)
        assert all(o['usage']['llm']=={'input_tokens':5, 'cache_read_tokens':4, 'requests':1} for o in recs)
        l.audr(tmp_path/'y.jsonl', 'production')
        assert (tmp_path/'y.jsonl').read_bytes()==(tmp_path/'x.jsonl').read_bytes()
