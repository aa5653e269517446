"""Check files of AUDR records with the `audr` package, which is the reference implementation.

    python -m venv /tmp/audr && /tmp/audr/bin/pip install audr==0.2.0
    /tmp/audr/bin/python tools/audr.py FILE...

Prints what is wrong, a line each, and how many records are right; the exit code is 1 if any is wrong. It needs nothing of this
package, and has an environment of its own, as it pins pydantic.
"""
import sys
sys.path.pop(0) # else this file would be `audr`
from audr import AUDR, ValidationError

def issues(line):
    "What is wrong with a record, in words"
    try: AUDR.from_json(line)
    except ValidationError as e: return [*map(str, e.issues)]

bad = n = 0
for file in sys.argv[1:]:
    for i,line in enumerate(open(file), 1):
        n += 1
        if found := issues(line): bad += 1; print(f'{file}, line {i}: ' + '; '.join(found))
print(f'{n-bad} of {n} records are right')
sys.exit(bool(bad))
