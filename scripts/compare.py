"""The comparison of the lessons as an experiment: several models, the same text, the same time, one table.

    python scripts/compare.py                   # the seven models of configs/lessons: within 30 minutes on two cores
    python scripts/compare.py --quick           # a fifth of the time
    python scripts/compare.py configs/lessons/transformer.yaml configs/lessons/without-*.yaml
    python scripts/compare.py my.yaml other.yaml --minutes 10 --out runs/mine

Each config is trained by ``seq2seq train`` for the same minutes, one after the other. Then all models translate the
test set of their configs, which must be the same. ``--out`` gets the table (``compare.md``), all numbers
(``compare.json``), a picture of the models side by side (``compare.png``), one of their training (``curves.png``), the
run folders, and what training printed (``logs``).

The same command continues after a stop: finished runs are kept, and an interrupted one continues.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_LESSONS = ROOT / "configs" / "lessons"
FAMILY = ("rnn", "gru", "lstm-additive", "lstm-dot", "convolutional", "window", "transformer")
_MINUTES = 3.5  # of training: seven models, with their start and their translations, within half an hour
_QUICK = 0.2


def _minutes(text: str) -> float:
    """The type of an option that takes a number above 0."""
    if not 0 < (number := float(text)) < math.inf:
        raise argparse.ArgumentTypeError("must be a number above 0")
    return number


def make_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line asks for, with defaults filled in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    family = [_LESSONS / f"{name}.yaml" for name in FAMILY]
    help_ = f"default: {', '.join(FAMILY)} of configs/lessons"
    parser.add_argument("configs", nargs="*", type=Path, default=family, metavar="CONFIG", help=help_)
    help_ = f"training time of each model; default: {_MINUTES:g}"
    parser.add_argument("--minutes", type=_minutes, default=_MINUTES, metavar="M", help=help_)
    parser.add_argument("--quick", action="store_true", help="a fifth of the time")
    help_ = "folder for results and runs; default: runs/compare-M-minutes"
    parser.add_argument("--out", type=Path, metavar="DIR", help=help_)
    options = parser.parse_args(arguments)
    options.minutes *= _QUICK if options.quick else 1
    options.out = (options.out or Path(f"runs/compare-{options.minutes:g}-minutes")).resolve()
    return options


def compare(options: argparse.Namespace) -> int:
    """Train, measure and show; returns the exit code: 1 if a training failed.

    Raises:
        UserError: a config cannot be used, or the folder holds another comparison.
    """
    from comparison import report
    from comparison.measure import measure, read_test_set
    from comparison.training import draw_curves, plan, train_all

    contestants = plan(options.configs, options.out, options.minutes)  # mistakes are reported before the first training
    trained, failed = train_all(contestants, options.minutes)
    if trained:
        test, earlier = read_test_set(trained[0].config), report.saved_records(options.out)
        records = [measure(contestant, test, options.out, earlier) for contestant in trained]
        tables = report.save(options, records)
        report.draw(options.out / "compare.png", records)
        draw_curves(trained, options.out / "curves.png")
        print(f"{tables}\n\nresults: {options.out}", flush=True)
    for line in failed:
        print(f"compare: {line}", file=sys.stderr)
    return int(bool(failed))


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison that the command line asks for; returns the exit code."""
    options = make_options(arguments)
    sys.path[1:1] = [str(ROOT), str(ROOT / "data")]  # the package of this checkout, and the corpus' generator
    from seq2seq.errors import UserError
    from seq2seq.signals import ended_by_signals

    try:
        with ended_by_signals("compare"):
            return compare(options)
    except UserError as error:
        print(f"compare: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of the tables has enough (| head); the exit code is that of SIGPIPE
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("\ncompare: stopped; the same command continues from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
