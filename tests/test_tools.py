"""The benchmark measures what it says, from its first section to its last."""
import json, subprocess, sys
from pathlib import Path

bench = Path(__file__).parents[1]/'tools/bench.py'

def test_bench(tmp_path):
    "A quick run has every table, with figures in it; no row of ours is lost, and a rollup is read faster than rows are"
    done = subprocess.run([sys.executable, bench, '--quick', '--only', 'calls', 'reports', '--save', tmp_path/'b.json'], capture_output=True, text=True, timeout=300)
    assert done.returncode==0, done.stderr
    ts = {' '.join(t['title'].split()[:2]): {r[0]:dict(zip(t['cols'][1:], r[1:])) for r in t['rows']} for t in json.loads((tmp_path/'b.json').read_text())['tables']}
    del ts['CPU that'] # what is added beyond the noise, which in so few turns may be nothing
    assert {'Hook after','Hook before','All hooks','CPU of','Wall time','Rows of','Reports of'} <= {*ts} and all(any(v is not None for r in t.values() for v in r.values()) for t in ts.values())
    assert (ts['Rows of']['lost']['ours'], ts['Rows of']['found']['ours'])==(0, 2080)
    ms = {k:r['ms'] for k,r in ts['Reports of'].items()}
    assert 0 < ms["spend('day','model')"] < ms["spend('day','model'), from the rows"]
