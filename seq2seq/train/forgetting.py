"""Forgetting: how much worse a model translates an old kind of text (``data.guard``) while it learns a new one.

It is measured in BLEU points below the model that the run started with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seq2seq.train.metrics import is_number


@dataclass(frozen=True)
class Forgetting:
    """What a run forgets, and what it may."""

    start: float | None  # guard BLEU before the first step; None if it was not measured
    most: float | None  # train.max_forgetting

    def lost(self, guard_bleu: float) -> float:
        """BLEU points below the start; negative above it, and 0 without a start."""
        return 0.0 if self.start is None else self.start - guard_bleu

    def allows(self, guard_bleu: float) -> bool:
        """Whether a model with this guard BLEU may be the best one; compared as the scores are printed."""
        return self.most is None or round(self.lost(guard_bleu), 2) <= self.most

    def why_no_best(self, records: Sequence[Mapping[str, Any]]) -> str | None:
        """In words, that no validation kept enough; None if a validation did, or had no finite numbers.

        Args:
            records: of the metrics file.
        """
        guarded = [
            r for r in records if r["step"] and is_number(r.get("guard_bleu")) and is_number(r.get("valid_loss"))
        ]
        if not guarded or any(self.allows(record["guard_bleu"]) for record in guarded):
            return None
        best = max(guarded, key=lambda record: record["guard_bleu"])
        return (
            f"every validation lost more than train.max_forgetting ({self.most:g}) of the guard BLEU before training, "
            f"{self.start:.2f}; the least, {self.lost(best['guard_bleu']):.2f}, at step {best['step']:,}. In a new "
            "run_dir, allow more, mix old text into data.train, or lower optim.lr; or interpolate the old and the new "
            "model: seq2seq average OLD NEW --weights 0.5 0.5 --output DIR"
        )
