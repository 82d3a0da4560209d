"""Attacks on the promises of this package, with real processes and real faults. Each ends with 0 if the promise held.

    python scripts/attack.py train       # kill -9 at random moments; the run ends as if nothing had happened
    python scripts/attack.py translate   # the same for a large file and `translate --resume`
    python scripts/attack.py shards      # the same for the parts of `translate --shard`, and for `merge`
    python scripts/attack.py serve       # hostile and slow clients of a server; kill -9 and SIGTERM under load
    python scripts/attack.py fuzz        # damaged and hostile files for every reader
    python scripts/attack.py --help      # all of them; `python scripts/attack.py train --help`: one

They work in ``--out`` (default: runs/attack), on the embedded corpus by default.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Modules of the folder `faults`: add_options(parser), and run(args), which gives lines about what did not hold.
_ATTACKS = (
    "train",
    "ranks",
    "poison",
    "cost",
    "size",
    "damage",
    "disk",
    "translate",
    "shards",
    "serve",
    "models",
    "fuzz",
)


def main() -> int:
    """Run the attack that the command line names."""
    sys.path.insert(1, str(ROOT))  # the package of this checkout, installed or not
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    attacks = parser.add_subparsers(dest="attack", required=True, metavar="ATTACK")
    for name in _ATTACKS:
        module = importlib.import_module(f"faults.{name}")
        text = module.__doc__ or ""
        formatter = argparse.RawDescriptionHelpFormatter
        attack = attacks.add_parser(name, help=text.split("\n")[0], description=text, formatter_class=formatter)
        attack.add_argument("--out", type=Path, default=Path("runs/attack") / name, help="folder to work in")
        module.add_options(attack)
        attack.set_defaults(run=module.run)
    args = parser.parse_args()
    args.out = args.out.resolve()
    problems: list[str] = args.run(args)
    for problem in problems:
        print(f"BROKEN: {problem}")
    if not problems:
        print("the promise held")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
