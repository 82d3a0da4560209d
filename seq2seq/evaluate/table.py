"""A comparison of systems as text: a table of scores, intervals and p-values, and a sentence for each system."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from seq2seq.evaluate.significance import LEVEL, Comparison, Measure, show_p

_LABEL, _CELL = 10, 22  # characters: 98 with four metrics


def show(comparison: Comparison) -> str:
    """The table, what its rows mean, and the sentences; at most 100 characters wide, but for the sentences."""
    others = comparison.systems[1:]
    lines = [*_rows(comparison), ""]
    if comparison.resampling is not None:
        lines.append(f"[95 percent interval] {comparison.resampling}")
    tested = [system for system in others if system.measures[0].p_randomisation is not None]
    if tested:
        lines.append("p (ar): paired approximate randomisation, which decides; p (bs): paired bootstrap")
    if len(tested) > 1:
        lines.append(f"Of {round(1 / LEVEL)} comparisons of equal systems, about one has p < {LEVEL} by chance.")
    lines += ["", *map(comparison.verdict, others)] if others else []
    return "\n".join(lines).rstrip()


def _rows(comparison: Comparison) -> Iterator[str]:
    first, *others = comparison.systems
    yield _row("", (f"{one.name} (less is better)" if one.name == "TER" else one.name for one in first.measures))
    yield _row(first.name, map(_score, first.measures))
    for system in others:
        yield _row(system.name, map(_score, system.measures))
        yield _row(f"{system.name} - {first.name}", (f"{one.difference:+.{one.digits}f}" for one in system.measures))
        if system.measures[0].p_randomisation is not None:
            yield _row("  p (ar)", (_p(one.p_randomisation) for one in system.measures))
            yield _row("  p (bs)", (_p(one.p_bootstrap) for one in system.measures))


def _row(label: str, cells: Iterable[str]) -> str:
    return label.ljust(_LABEL) + "".join(cell.rjust(_CELL) for cell in cells)


def _score(measure: Measure) -> str:
    if measure.interval is None:
        return f"{measure.score:.{measure.digits}f}"
    low, high = measure.interval
    fewer = measure.digits - 1
    return f"{measure.score:.{measure.digits}f} [{low:.{fewer}f}, {high:.{fewer}f}]"


def _p(p: float | None) -> str:
    return "" if p is None else show_p(p).removeprefix("= ")
