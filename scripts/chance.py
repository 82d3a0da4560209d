#!/usr/bin/env python
"""How often sacreBLEU's tests call two systems different that differ by chance alone.

Both systems of a pair take each line from one of the given translations, drawn at random. So neither is better, and a
test should have p < 0.05 for about one pair in twenty.

  python scripts/chance.py --ref test.de one.de two.de three.de
"""

import argparse
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.significance import PairedTest
from tqdm import tqdm

from seq2seq.data.formats.lines import read_text
from seq2seq.evaluate.significance import LEVEL

TESTS = {"ar": "approximate randomisation", "bs": "bootstrap"}
_SHUFFLES = {"ar": 2000, "bs": 1000}  # fewer shuffles than sacreBLEU's 10,000: p-values near 0.05 differ by 0.005


def p_values(
    pool: Sequence[Sequence[str]], references: Sequence[str], num_pairs: int, num_lines: int, seed: int = 1
) -> Iterator[dict[str, float]]:
    """The p-values of BLEU by test for each pair, on ``num_lines`` lines that are drawn for that pair."""
    rng = random.Random(seed)
    for _ in range(num_pairs):
        chosen = rng.sample(range(len(references)), num_lines)
        pair: list[tuple[str, Sequence[str]]] = [
            (name, [rng.choice(pool)[line] for line in chosen]) for name in ("one", "other")
        ]
        refs = [[references[line] for line in chosen]]
        found = {}
        for test in TESTS:
            _, results = PairedTest(pair, {"BLEU": BLEU()}, refs, test, _SHUFFLES[test])()
            second: Any = results["BLEU"][1]
            found[test] = second.p_value
        yield found


def main() -> None:
    """Print the share of pairs that each test calls different."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("translations", type=Path, nargs="+", metavar="FILE", help="of the same text")
    parser.add_argument("--ref", type=Path, required=True, metavar="FILE")
    parser.add_argument("--pairs", type=int, default=400, metavar="N")
    parser.add_argument("--lines", type=int, default=300, metavar="N", help="of each pair")
    args = parser.parse_args()
    pool, references = [read_text(path) for path in args.translations], read_text(args.ref)
    found = list(tqdm(p_values(pool, references, args.pairs, args.lines), total=args.pairs, unit=" pairs"))
    for test, name in TESTS.items():
        share = sum(pair[test] < LEVEL for pair in found) / len(found)
        print(f"{name}: {share:.1%} of {len(found)} pairs have p < {LEVEL}")


if __name__ == "__main__":
    main()
