"""A run as one web page: curves, scores, card, samples over time, text, skipped steps, settings, machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from seq2seq import __version__
from seq2seq.config import Config, changed_keys, paths_of
from seq2seq.evaluate.meaning import meaning_of
from seq2seq.files import write_text
from seq2seq.report import card_content
from seq2seq.report.blocks import Block, Cell, Code, Folded, Number, Page, Picture, Section, Texts, Words, rows
from seq2seq.report.drawing import COLORS, Line, draw_lines, show_number
from seq2seq.report.page import page_html
from seq2seq.report.run_files import Records, RunFiles, number

REPORT = "report.html"

_MOST_ROWS = 12  # of a table that is not folded
_MOST_SAMPLES = 8  # translations of one line
_MOST_BAD_STEPS, _MOST_BAD_LINES = 30, 5
_LEFT_OUT = {"empty": "blank on a side", "too_long": "too many tokens", "ratio": "too different in length"}
_FIRST, _SECOND, _THIRD, _FOURTH = COLORS


def write_run_page(run_dir: Path, path: Path) -> None:
    """Write the page of a run, which may be in progress, or damaged in places.

    Raises:
        UserError: it is no run folder, or the page cannot be written.
    """
    write_text(path, page_html(run_page(RunFiles.read(run_dir))))


def run_page(run: RunFiles) -> Page:
    """The page."""
    parts: dict[str, tuple[str, Iterator[Block]]] = {
        "curves": ("Curves", _curves(run)),
        "scores": ("Scores", _scores(run)),
        "samples": ("The same lines over time", _samples(run)),
        "card": ("Card of the test set", _card(run)),
        "text": ("Training text", _text(run)),
        "skipped": ("Skipped steps", _skipped(run)),
        "settings": ("Settings", _settings(run)),
        "machine": ("Versions and machine", _machine(run)),
    }
    found = [Section(name, title, tuple(blocks)) for name, (title, blocks) in parts.items()]
    sections = tuple(section for section in found if section.blocks)
    foot = f"Made by seq2seq {__version__} from the files of the run."
    return Page(str(run.folder), tuple(_top(run)), sections, foot)


def _top(run: RunFiles) -> Iterator[Block]:
    best = _best(run)
    bleu = number(run.test.get("bleu"))
    if bleu is not None:
        yield Words(f"Test BLEU {bleu:.2f}: {meaning_of(bleu)}.", "lead")
    elif best is not None and (bleu := number(best.get("valid_bleu"))) is not None:
        yield Words(f"Best validation BLEU {bleu:.2f}, after step {best['step']:,}: {meaning_of(bleu)}.", "lead")
    elif run.metrics:
        yield Words("No validation yet.", "lead")
    else:
        yield Words("The run has not made its first step.", "lead")
    yield from (Words(problem, "warning") for problem in run.problems)
    table: list[tuple[Cell, ...]] = []
    if run.config is not None:
        data, model = run.config.data, run.config.model
        if data.source_language or data.target_language:
            table.append(("languages", f"{data.source_language or '?'} to {data.target_language or '?'}"))
        shape = f"{model.encoder_layers} + {model.decoder_layers} layers, {model.d_model} wide"
        table.append(("model", f"{model.architecture}, {shape}"))
    if run.metrics:
        last = max(record["step"] for record in run.metrics)
        bounds = run.config.train.max_steps if run.config is not None else None
        epochs = [value for _, value in run.points("epoch")]
        of = f" of at most {bounds:,}" if bounds else ""
        table.append(("steps", f"{last:,}{of}" + (f", epoch {epochs[-1]:,.0f}" if epochs else "")))
    seconds = sum(value for name in ("seconds", "validation_seconds") for _, value in run.points(name, run.timing))
    if seconds:
        table.append(("time", f"{seconds / 60:,.1f} minutes, validations included"))
    if tokens := sum(value for _, value in run.points("tokens")):
        table.append(("target tokens", f"{tokens:,.0f}"))
    if table:
        yield rows(("", ""), *table)


# -------------------------------------------------------------------------------------------------- curves and scores


def _curves(run: RunFiles) -> Iterator[Block]:
    good = [record for record in run.metrics if not {"bad", "skipped"} & record.keys()]
    guard = bool(run.points("guard_bleu"))
    tokens = run.points("tokens_per_second", run.timing)
    losses = [
        Line("training", _FIRST, run.points("nll", good), steps=True),
        Line("validation", _SECOND, run.points("valid_loss")),
        *([Line("guard", _THIRD, run.points("guard_loss"))] if guard else []),
    ]
    scores = [
        Line("BLEU", _FIRST, run.points("valid_bleu")),
        Line("chrF", _SECOND, run.points("valid_chrf")),
        *([Line("BLEU, guard", _THIRD, run.points("guard_bleu"))] if guard else []),
        *([Line("chrF, guard", _FOURTH, run.points("guard_chrf"))] if guard else []),
    ]
    pictures = [
        draw_lines("Cross-entropy per target token (nats)", losses, zero=True),
        draw_lines("Validation scores", scores, zero=True),
        draw_lines("Learning rate", [Line("rate", _FIRST, run.points("lr", good))], zero=True),
        draw_lines(
            "Gradient norm before clipping", [Line("norm", _FIRST, run.points("grad_norm", good), steps=True)], log=True
        ),
        draw_lines("Speed (target tokens per second)", [Line("tokens/s", _FIRST, tokens, steps=True)], zero=True),
    ]
    drawn = tuple(picture for picture in pictures if isinstance(picture, Picture))
    if drawn:
        yield drawn
        yield Words("Over the steps. Pale areas: from the lowest to the highest of neighbouring steps. Point at a "
                    "picture to read its values.", "note")  # fmt: skip


def _scores(run: RunFiles) -> Iterator[Block]:
    if (bleu := number(run.test.get("bleu"))) is not None:
        chrf = number(run.test.get("chrf"))
        table = [("BLEU", Number(f"{bleu:.2f}"), Code(str(run.test.get("bleu_signature", ""))))]
        if chrf is not None:
            table.append(("chrF2", Number(f"{chrf:.2f}"), Code(str(run.test.get("chrf_signature", "")))))
        lines = number(run.test.get("num_lines"))
        yield rows(("test set", "score", "signature"), *table, caption="" if lines is None else f"{lines:,.0f} lines")
    validations = [record for record in run.metrics if number(record.get("valid_loss")) is not None]
    if not validations:
        return
    best = _best(run)
    names = [("valid_loss", "loss"), ("valid_ppl", "perplexity"), ("valid_bleu", "BLEU"), ("valid_chrf", "chrF")]
    guards = [("guard_loss", "guard loss"), ("guard_bleu", "guard BLEU"), ("guard_chrf", "guard chrF")]
    names += [pair for pair in guards if run.points(pair[0])]

    def row(record: dict[str, Any]) -> tuple[Cell, ...]:
        step = f"{record['step']:,}{' (best)' if record is best else ''}"
        return (step, *(_shown(record.get(name)) for name, _ in names))

    head = ("step", *(name for _, name in names))
    whole = rows(head, *map(row, validations), caption="Validations")
    if len(validations) <= _MOST_ROWS:
        yield whole
        return
    marked = [record for record in (validations[0], best, validations[-1]) if record is not None]
    shown = [record for record in validations if any(record is one for one in marked)]
    yield rows(head, *map(row, shown), caption="The first, best and last of the validations")
    yield Folded(f"All {len(validations):,} validations", (whole,))


def _shown(value: object) -> Number:
    found = number(value)
    return Number("" if found is None else f"{found:.3f}" if abs(found) < 10 else f"{found:,.2f}")


def _best(run: RunFiles) -> dict[str, Any] | None:
    """The validation of the best model; without a model, the one with the highest BLEU."""
    step = run.metadata.get("step")
    scored = [record for record in run.metrics if number(record.get("valid_bleu")) is not None]
    kept = [record for record in scored if str(record["step"]) == step]
    return max(kept or scored, key=lambda record: number(record["valid_bleu"]) or 0.0, default=None)


# ---------------------------------------------------------------------------------------------------- texts of the run


def _samples(run: RunFiles) -> Iterator[Block]:
    names = ("source", "translation", "reference")
    good = [record for record in run.samples if all(isinstance(record.get(name), str) for name in names)]
    src, tgt = _languages(run)
    for source, translations in _by(good, "source").items():
        kept = _some(translations, _MOST_SAMPLES)
        texts = [("source", source, src), *((f"step {one['step']:,}", one["translation"], tgt) for one in kept)]
        yield Texts("", (*texts, ("reference", kept[-1]["reference"], tgt)))
    if good:
        yield Words("Marked: what the last translation and the reference do not share.", "note")


def _by(records: Records, name: str) -> dict[str, Records]:
    groups: dict[str, Records] = {}
    for record in records:
        groups.setdefault(record[name], []).append(record)
    return groups


def _some(records: Records, most: int) -> Records:
    """At most so many of them, with the first and the last."""
    if len(records) <= most:
        return records
    return [records[round(i * (len(records) - 1) / (most - 1))] for i in range(most)]


def _languages(run: RunFiles) -> tuple[str | None, str | None]:
    data = None if run.config is None else run.config.data
    return (None, None) if data is None else (data.source_language, data.target_language)


def _card(run: RunFiles) -> Iterator[Block]:
    if run.card is not None:
        yield from card_content.summary(run.card)
        for section in card_content.sections(run.card):
            yield Folded(section.title, section.blocks)


def _text(run: RunFiles) -> Iterator[Block]:
    if run.config is not None:
        data = run.config.data
        texts = [("train", one) for one in data.train] + list(data.measured.items())
        files = [
            (part, ", ".join(str(path) for paths in paths_of(one).values() for path in paths)) for part, one in texts
        ]
        yield rows(("text", "files"), *files)
    counts = {name: count for name, value in run.corpus.items() if (count := number(value)) is not None}
    if counts:
        table: list[tuple[Cell, ...]] = [("pairs to learn from", int(counts.get("kept", 0)))]
        left_out = {name: count for name, count in counts.items() if name not in ("read", "kept") and count}
        table += [(f"left out: {_LEFT_OUT.get(name, name)}", int(count)) for name, count in left_out.items()]
        yield rows(("training corpus", "pairs"), *table)
    causes = [(name, int(count)) for name, value in run.left_out.items() if (count := number(value)) is not None]
    if causes:
        total = sum(count for _, count in causes)
        yield rows(("cause", "pairs"), *causes, caption=f"Cleaning (data.clean) left {total:,} pairs out")
        src, tgt = _languages(run)
        examples = [
            Texts(f"{cause}: {place}", (("source", source, src), ("target", target, tgt)), compare=False)
            for cause, place, source, target in run.examples
        ]
        if examples:
            yield Folded("Examples of pairs that were left out", tuple(examples))


def _skipped(run: RunFiles) -> Iterator[Block]:
    skipped = [
        (f"{record['step']:,}", str(record.get("bad", record.get("skipped"))))
        for record in run.metrics
        if {"bad", "skipped"} & record.keys()
    ]
    if skipped:
        yield rows(("step", "what was wrong"), *skipped[-_MOST_BAD_STEPS:])
    groups = [(step, list(lines)) for step, lines in groupby(run.bad_lines, key=lambda record: record["step"])]
    for step, lines in groups[-_MOST_BAD_STEPS:]:
        found: list[tuple[Cell, ...]] = [
            (str(line.get("src", "")), str(line.get("tgt", "")), Number(_loss(line.get("loss"))))
            for line in lines[:_MOST_BAD_LINES]
        ]
        more = f" (the worst {_MOST_BAD_LINES} of {len(lines):,})" if len(lines) > _MOST_BAD_LINES else ""
        yield Folded(f"Sentence pairs of step {step:,}{more}", (rows(("source", "target", "loss"), *found),))


def _loss(value: object) -> str:
    return show_number(float(value)) if isinstance(value, float) else ""


# ------------------------------------------------------------------------------------------------ settings and machine


def _settings(run: RunFiles) -> Iterator[Block]:
    if run.config is not None:
        reasons = _reasons(run)
        changed: list[tuple[Cell, ...]] = [
            (key, Code(_value(value)), Code(_value(default)), reasons.get((key, _value(value)), ""))
            for key, default, value in changed_keys(_without_choices(run.config), run.config)
        ]
        if not any(reason for *_, reason in changed):
            changed = [row[:-1] for row in changed]
        if changed:
            yield Words("What differs from the defaults. The run itself chose what is auto, unless it was stated.")
            yield rows(("key", "value", "default", "why the run chose it")[: len(changed[0])], *changed)
    if run.config_text:
        yield Folded("The whole config.yaml", (Code(run.config_text),))


def _without_choices(config: Config) -> Config:
    """A config of the same text that states nothing else."""
    text = config.data.model_dump(include={"train", *config.data.measured})
    values: dict[str, Any] = {"run_dir": config.run_dir, "data": text}
    return Config.model_validate({**values, "model": {"architecture": config.model.architecture}})


def _reasons(run: RunFiles) -> dict[tuple[str, str], str]:
    """Why the run chose a value, by key and value. A reason counts for its own value alone."""
    choices = [choice for start in run.starts for choice in _list(start.get("choices")) if isinstance(choice, dict)]
    return {(str(choice.get("key")), _value(choice.get("value"))): str(choice.get("reason", "")) for choice in choices}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _machine(run: RunFiles) -> Iterator[Block]:
    head = ("started", "after step", "machine", "processes", "threads", "dtype", "versions")
    table: list[tuple[Cell, ...]] = []
    for start in run.starts:
        versions = start.get("versions")
        shown = ", ".join(f"{name} {value}" for name, value in versions.items()) if isinstance(versions, dict) else ""
        rest = [str(start.get(name, "")) for name in ("device", "processes", "threads", "dtype")]
        table.append((str(start.get("date", "")).replace("T", " "), start["step"], *rest, shown))
    if table:
        yield rows(head, *table)
    if run.metadata:
        table = [(name, Code(value)) for name, value in run.metadata.items() if name != "config"]
        yield rows(("of the best model", ""), *table)
    if not run.starts:
        yield Words("The run was started with a version of seq2seq that did not record the machine.", "note")
