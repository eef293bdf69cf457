"""Prints the packages of these sets with their hashes, for `pip install --require-hashes`.

    python scripts/requirements.py api worker torch-cpu

from requirements.lock, which names the sets. `torch-cpu` is torch of an index for CPUs: its version alone where that
index's hashes are not locked. Needs the standard library alone: images run it before anything is installed.
"""

import sys
from pathlib import Path

_, *blocks = (Path(__file__).parents[1] / "requirements.lock").read_text().strip().split("\n\n")
pins = [(block.partition("\n")[0].split()[1:], block.partition("\n")[2]) for block in blocks]
if not any("torch-cpu" in sets for sets, _ in pins):
    pins += [(["torch-cpu"], pin.split()[0]) for _, pin in pins if pin.startswith("torch==")]
wanted = set(sys.argv[1:])
known = {name for sets, _ in pins for name in sets}
if not wanted or wanted - known:
    sys.exit(f"Name sets of requirements.lock: {', '.join(sorted(known))}.")
print(*(pin for sets, pin in pins if wanted & set(sets)), sep="\n")
