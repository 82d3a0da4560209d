"""What the pages of a card say, as blocks: the same for HTML and Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from seq2seq.evaluate.card import Card, ConfidenceCard, MetricScore, Overlap, Rate, Slice, TestConfidence
from seq2seq.evaluate.meaning import meaning_of
from seq2seq.report.blocks import Block, Cell, Code, Number, Page, Section, Table, Texts, Words, rows
from seq2seq.report.drawing import Bin, draw_reliability

_MUCH_OVERLAP = 0.01  # share of the test set from which on a reader is warned
_NOTICEABLE = 0.5  # BLEU
_OFTEN = 2.0  # times the references' rate
_MANY_LINES = 5
_FLAGS = {
    "empty": "no translation",
    "looping": "a part is repeated again and again",
    "copied": "the source, not translated",
    "short": "much shorter than its source",
    "long": "much longer than its source",
    "script": "letters of another script",
    "numbers": "other numbers than in the source",
    "tags": "tags, placeholders or addresses are lost",
}


def card_page(card: Card) -> Page:
    """The whole card."""
    system, test = card.system, card.test
    title = f"{system.name} on {test.name}"
    foot = f"Written by seq2seq {card.version}, {card.date.replace('T', ' ')}. Scores by sacreBLEU."
    return Page(title, tuple(summary(card)), tuple(sections(card)), foot)


def summary(card: Card) -> Iterator[Block]:
    """The first score, what it means, and warnings."""
    if card.scores:
        first = card.scores[0]
        meaning = f": {meaning_of(first.score)}" if first.name == "BLEU" else ""
        yield Words(f"{_named(first)}{meaning}.", "lead")
        if first.interval is not None:
            yield Words("In brackets: the interval that has the score of such texts with a confidence of 95 percent.")
        yield Code(f"{first.name}|{first.signature}")
        if first.name == "BLEU":
            yield Words(
                "What a BLEU means depends on the languages and the text; compare it on one test set only.", "note"
            )
    yield from (Words(note, "warning") for note in card.notes)
    if card.overlap is not None and _share(card.overlap.exact_sources, card.test.lines) >= _MUCH_OVERLAP:
        yield Words(_overlap_warning(card.overlap, card), "warning")
    for rate in card.rates:
        if rate.lines >= max(_MANY_LINES, _OFTEN * rate.reference_lines) and rate.share >= 0.01:
            explained = _FLAGS.get(rate.flag, rate.flag)
            yield Words(
                f"{rate.lines:,} of {card.test.lines:,} translations are flagged “{rate.flag}” ({explained}); "
                f"of the references, {rate.reference_lines:,} are.",
                "warning",
            )


def sections(card: Card) -> Iterator[Section]:
    """Everything else."""
    yield Section("scores", "Scores", tuple(_scores(card)))
    if card.overlap is not None:
        yield Section("overlap", "Overlap with the training text", tuple(_overlap(card.overlap, card)))
    if card.rates:
        yield Section("flags", "Lines to look at", tuple(_rates(card.rates)))
    if card.slices:
        yield Section("parts", "Parts of the test set", tuple(_slices(card)))
    if card.recalls:
        yield Section("words", "Words found", tuple(_recalls(card)))
    if card.confidence is not None:
        yield Section("confidence", "Confidence", tuple(_confidence(card.confidence)))
    if any(kind.examples for kind in card.examples):
        yield Section("examples", "Examples", tuple(_examples(card)))
    yield Section("origin", "How it was made", tuple(_origin(card)))
    if card.data or card.left_out:
        yield Section("training", "Training text", tuple(_training(card)))


def _named(score: MetricScore) -> str:
    return f"{score.name} {_with_interval(score)}"


def _with_interval(score: MetricScore) -> str:
    if score.interval is None:
        return f"{score.score:.2f}"
    return f"{score.score:.2f} [{score.interval[0]:.1f}, {score.interval[1]:.1f}]"


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _scores(card: Card) -> Iterator[Block]:
    table = []
    for one in card.scores:
        name = f"{one.name} (less is better)" if one.name == "TER" else one.name
        interval = "" if one.interval is None else f"{one.interval[0]:.2f} to {one.interval[1]:.2f}"
        table.append((name, Number(f"{one.score:.2f}"), Number(interval), Code(one.signature)))
    yield rows(("metric", "score", "95 percent interval", "signature"), *table)
    for one in card.scores:
        if one.details:
            yield Words(f"{one.name}: {one.details}", "note")
    test = card.test
    lines: list[tuple[Cell, ...]] = [("test set", test.name), ("lines", test.lines)]
    if test.src_blake2b is not None:
        lines.append(("BLAKE2b of the source", Code(test.src_blake2b)))
    for number, digest in enumerate(test.ref_blake2b, start=1):
        which = f" {number}" if len(test.ref_blake2b) > 1 else ""
        lines.append((f"BLAKE2b of reference{which}", Code(digest)))
    yield rows(("", ""), *lines)


def _overlap_warning(overlap: Overlap, card: Card) -> str:
    share = _share(overlap.exact_sources, card.test.lines)
    said = (
        f"{overlap.exact_sources:,} of {card.test.lines:,} test lines ({_percent(share)}) are also in the training "
        "text. The model may know them by heart, so the score says too much about new text"
    )
    if overlap.without_exact and card.scores:
        with_, without = card.scores[0], overlap.without_exact[0]
        said += f"; without them {without.name} is {without.score:.2f}"
        if abs(with_.score - without.score) < _NOTICEABLE:
            said += ", which is about the same"
    return f"{said}."


def _overlap(overlap: Overlap, card: Card) -> Iterator[Block]:
    if not overlap.lines:
        yield Words(f"No test line is among the {overlap.training_pairs:,} training pairs, exactly or nearly.")
        return
    counts = {
        "source and reference together": overlap.exact_pairs,
        "source, with any translation": overlap.exact_sources,
        "reference, with any source": overlap.exact_references,
        "source nearly, and not exactly": overlap.near_sources,
        "any of these": len(overlap.lines),
    }
    table = [(name, count, _bar(_share(count, card.test.lines))) for name, count in counts.items()]
    caption = f"Test lines that are among {overlap.training_pairs:,} training pairs"
    yield rows(("in the training text", "lines", "share"), *table, caption=caption)
    yield Words(
        "Exact: except for case, spaces and punctuation. Near: at most a quarter of the words differ from those of one "
        "training sentence. That is usual for short sentences: text of one kind has many that are like each other.",
        "note",
    )
    if overlap.without:
        scores = {one.name: one for one in card.scores}
        left = card.test.lines - len(overlap.lines)
        changes = [
            (
                one.name,
                Number(_with_interval(scores[one.name]) if one.name in scores else ""),
                Number(_with_interval(one)),
            )
            for one in overlap.without
        ]
        yield rows(("metric", "all lines", f"the {left:,} lines that do not overlap"), *changes)
    if overlap.without_exact:
        of_these = ", ".join(map(_named, overlap.without_exact))
        yield Words(f"All lines but those that are there exactly: {of_these}.")
    source = card.system.languages[0]
    for line, text, found in overlap.examples:
        yield Texts(f"line {line:,}", (("test", text, source), ("training", found, source)))


def _rates(rates: tuple[Rate, ...]) -> Iterator[Block]:
    yield Words("Faults that can be seen without a reference. What the references do as often may be no fault.")
    total = max((_share(rate.reference_lines * rate.share, rate.lines) for rate in rates if rate.lines), default=0.0)
    most = max([total, *(rate.share for rate in rates)]) or 1.0
    table = []
    for rate in rates:
        mark = rate.reference_lines * rate.share / rate.lines / most if rate.lines else None
        bar = Number(_percent(rate.share), rate.share / most, mark)
        table.append((f"{rate.flag}: {_FLAGS.get(rate.flag, '')}".rstrip(": "), bar, rate.lines, rate.reference_lines))
    yield rows(("flag", "share", "translations", "references"), *table)
    yield Words("The line across a bar is the share of the references.", "note")


def _bar(share: float) -> Number:
    return Number(_percent(share), share)


def _slices(card: Card) -> Iterator[Block]:
    whole = {one.name: one.score for one in card.scores}
    bleu, chrf = whole.get("BLEU"), whole.get("chrF2")
    most = [max([value for value in (*values, all_) if value is not None] or [0]) or 1.0 for values, all_ in (
        ([one.bleu for one in card.slices], bleu), ([one.chrf for one in card.slices], chrf))]  # fmt: skip

    def row(one: Slice) -> tuple[Cell, ...]:
        marks = [None if value is None else value / top for value, top in zip((bleu, chrf), most, strict=True)]
        bars = (one.bleu, one.chrf)
        numbers = [Number(f"{v:.1f}", v / top, mark) for v, top, mark in zip(bars, most, marks, strict=True)]
        return (one.name, one.lines, *numbers)

    groups = groupby(card.slices, key=lambda one: one.kind)
    yield Table(("part", "lines", "BLEU", "chrF"), tuple((kind, tuple(map(row, of_kind))) for kind, of_kind in groups))
    yield Words("The line across a bar is the score of the whole test set. BLEU of few lines is uncertain.", "note")


def _recalls(card: Card) -> Iterator[Block]:
    yield Words("Of the words in the references, how many are in the translations of the same lines.")
    table = [(one.kind, _bar(_share(one.found, one.words)), one.found, one.words) for one in card.recalls]
    yield rows(("words", "share", "found", "in the references"), *table)


def _confidence(confidence: ConfidenceCard) -> Iterator[Block]:
    yield Words(
        f"The model says for each line how likely its translation is acceptable: {confidence.metric} of "
        f"{confidence.threshold:g} or more. Method: {confidence.method}."
    )
    measured: list[tuple[str, int, ConfidenceCard | TestConfidence]] = []
    if confidence.test is not None:
        measured.append(("this test set", confidence.test.lines, confidence.test))
    measured.append(("its own text (cross-validation)", confidence.calibration_lines, confidence))
    yield rows(
        ("", *(name for name, _, _ in measured)),
        ("lines", *(lines for _, lines, _ in measured)),
        (
            "expected calibration error (0 is perfect)",
            *(Number(f"{one.calibration_error:.3f}") for _, _, one in measured),
        ),
        (
            "area under the curve: acceptable before others (1 is perfect, 0.5 is chance)",
            *(Number(f"{one.auc:.3f}") for _, _, one in measured),
        ),
        (
            "the same of the plain log-probability per token",
            *(Number(f"{one.auc_per_token:.3f}") for _, _, one in measured),
        ),
    )
    drawn = [(name, one.bins) for name, _, one in measured if one.bins]
    if drawn:
        yield tuple(
            draw_reliability(
                f"Confidence against the share that is acceptable: {name}",
                [Bin(one.low, one.high, one.lines, one.mean_probability, one.acceptable) for one in bins],
                "confidence",
                "acceptable",
            )
            for name, bins in drawn
        )
        yield Words("Points on the dashed line are perfect; above it the model is too modest, below it too sure. "
                    "Pale bars: how many lines have such a confidence.", "note")  # fmt: skip
    for name, bins in drawn:
        table = [
            (f"{one.low:.0%} to {one.high:.0%}", one.lines, _bar(one.mean_probability), _bar(one.acceptable))
            for one in bins
        ]
        yield rows(("confidence", "lines", "mean confidence", "acceptable"), *table, caption=name)


def _examples(card: Card) -> Iterator[Block]:
    yield Words("The worst lines of each kind. Marked: words of the translation that the reference does not have "
                "there, and (dashed) words of the reference that the translation lacks.")  # fmt: skip
    src, tgt = card.system.languages
    for kind in card.examples:
        for number, one in enumerate(kind.examples, start=1):
            which = f" ({number} of {len(kind.examples)})" if len(kind.examples) > 1 else ""
            yield Texts(
                f"{kind.kind}{which}: line {one.line:,}, chrF {one.chrf:.1f}",
                (("source", one.source, src), ("translation", one.translation, tgt), ("reference", one.reference, tgt)),
            )


def _origin(card: Card) -> Iterator[Block]:
    system = card.system
    table: list[tuple[Cell, ...]] = [("model" if system.is_model else "translations", system.name)]
    if any(system.languages):
        table.append(("languages", " to ".join(code or "?" for code in system.languages)))
    if system.step is not None:
        table.append(("training steps", system.step))
    if system.num_parameters is not None:
        table.append(("parameters", system.num_parameters))
    if system.search:
        table.append(("search", system.search))
    if system.device is not None:
        table.append(("machine", system.device))
    if system.seconds is not None:
        table.append(("time to translate", f"{system.seconds:,.1f} s"))
        if system.seconds > 0:
            table.append(("speed", f"{card.test.lines / system.seconds:,.1f} lines/s"))
    table += [(name, Code(value)) for name, value in system.metadata.items()]
    yield rows(("", ""), *table)
    if system.decode:
        settings = [(name, Code(_setting(value))) for name, value in system.decode.items()]
        yield rows(("setting of the search", "value"), *settings)


def _setting(value: object) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _training(card: Card) -> Iterator[Block]:
    if card.data:
        table = [
            (
                one.name,
                "not known" if one.pairs is None else one.pairs,
                Number(f"{one.weight:g}"),
                one.tag or "",
                ", ".join(one.files),
            )
            for one in card.data
        ]
        yield rows(("dataset", "pairs", "weight", "tag", "files"), *table)
    if card.left_out:
        total = sum(card.left_out.values())
        left_out = [(cause, count) for cause, count in card.left_out.items()]
        yield rows(("cause", "pairs"), *left_out, caption=f"Cleaning left {total:,} pairs out")
