"""``seq2seq evaluate``: scores of models or of finished translations, and comparisons of them."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from seq2seq.cli.common import MODEL_HELP, Subparsers, add_decode_options, given_decode_options, load_translator, path
from seq2seq.errors import UserError

if TYPE_CHECKING:
    from seq2seq.decode.calibration import Calibration
    from seq2seq.decode.translation import Translation
    from seq2seq.evaluate.card import SystemCard
    from seq2seq.evaluate.significance import Comparison

_LITTLE_MEMORY = 1 << 30  # bytes that need no check
_SAME_OUTPUT = ("batch_tokens", "engine", "n_best", "seed")  # keys of decoding that are not compared


def add(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="scores of a model or of translations; compare several",
        usage="seq2seq evaluate (MODEL ... --src FILE | --hyp FILE) --ref FILE [options]",
        description="BLEU, chrF2, chrF2++ and TER by sacreBLEU, with 95 percent intervals.",
        epilog="Scores are comparable only where their signatures are equal.",
    )
    argument = parser.add_argument
    argument("models", type=path, nargs="*", metavar="MODEL", help=f"{MODEL_HELP}; several: an ensemble")
    argument("--src", type=path, metavar="FILE", help="source text for models; -: standard input")
    argument("--hyp", type=path, metavar="FILE", help="translations to score; -: standard input")
    help_ = "reference translations; may be repeated"
    argument("--ref", type=path, metavar="FILE", action="append", default=[], help=help_)
    help_ = "in place of --src, --ref: as data.test in a config"
    argument("--test", metavar="DATASET", help=help_)
    help_ = "models or translations to test against the first"
    argument("--against", type=path, metavar="SYSTEM", nargs="+", action="extend", default=[], help=help_)
    help_ = "name, or a SentencePiece file; default: by language"
    argument("--tokenize", metavar="NAME", help=help_)
    argument("--tgt-lang", metavar="CODE", help="default: the model's, or the suffix of --ref")
    argument("--quick", action="store_true", help="no intervals and no tests")
    argument("--json", action="store_true", help="print a JSON record instead of text")
    argument("--save", type=path, metavar="FILE", help="also write the JSON record to FILE")
    help_ = "write all that is known of the first system's translations to DIR"
    argument("--card", type=path, metavar="DIR", help=help_)
    help_ = "write source, translation and reference for other metrics, as JSONL"
    argument("--exchange", type=path, metavar="FILE", help=help_)
    help_ = "scores of another metric for the lines of --exchange; may be repeated"
    argument("--learned", type=_named_file, metavar="NAME=FILE", action="append", default=[], help=help_)
    argument("--save-hyp", type=path, metavar="FILE", help="also write the translations to FILE")
    add_decode_options(parser)


def _named_file(text: str) -> tuple[str, Path]:
    name, _, file = text.partition("=")
    if not (name.strip() and file) or set(name) & set("|:\n"):
        raise argparse.ArgumentTypeError(f"must be NAME=FILE, such as COMET=scores.txt, not {text!r}")
    return name.strip(), path(file)


@dataclass(frozen=True)
class _Given:
    """A system as it is given: a file of translations, or models that translate together."""

    paths: list[Path]
    is_model: bool

    def __str__(self) -> str:
        return " + ".join(map(str, self.paths))


@dataclass(frozen=True)
class _TestSet:
    """The text that all systems translate."""

    src: list[str]  # empty if it is not needed, or not known
    references: list[list[str]]
    shown: str
    language: str | None  # of the references, as far as names say it
    tag: str | None
    record: dict[str, Any]


@dataclass(frozen=True)
class _System:
    """The translations of a system, and where they come from."""

    hypotheses: list[str]
    shown: str
    language: str | None
    record: dict[str, Any]
    card: SystemCard
    folder: Path | None = None  # of its model; None: several models, or translations from a file
    calibration: Calibration | None = None
    translations: Sequence[Translation] = ()  # of a model


def run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from seq2seq.evaluate.learned import exchange_lines, read_learned
    from seq2seq.evaluate.significance import METRICS, compare
    from seq2seq.evaluate.table import show
    from seq2seq.files import write_text

    given = _check(args)
    test = _read_test_set(args, given)
    num_lines = len(test.references[0])
    if not args.quick:
        _check_resampling(num_lines)
    learned = [read_learned(name, path, len(given), num_lines) for name, path in args.learned]
    read = {number: _read_system(one, num_lines) for number, one in enumerate(given) if not one.is_model}
    systems = [read.get(number) or _translate(one, args, test) for number, one in enumerate(given)]
    by_name = {name: system.hypotheses for name, system in zip(ascii_uppercase, systems, strict=False)}
    total = len(METRICS) * len(systems) * num_lines
    with tqdm(desc="scoring", total=total, unit=" lines", unit_scale=True, leave=False, disable=None) as bar:
        comparison = compare(
            by_name,
            test.references,
            args.tokenize,
            args.tgt_lang or systems[0].language or test.language,
            learned=learned,
            resample=not args.quick,
            progress=bar.update,
        )
    for note in (*comparison.notes, *_other_decoding(systems)):
        print(f"note: {note}", file=sys.stderr)
    text = json.dumps(_record(comparison, systems, test), indent=2, ensure_ascii=False)
    if args.exchange is not None:
        write_text(args.exchange, "".join(exchange_lines(by_name, test.src, test.references)))
    if args.save_hyp is not None:
        write_text(args.save_hyp, "".join(f"{line}\n" for line in systems[0].hypotheses))
    if args.save is not None:
        write_text(args.save, text + "\n")
    if args.card is not None:
        _write_card(args, systems[0], test, comparison)
    if args.json:
        print(text)
        return
    print(*comparison.systems[0].measures, "", sep="\n")
    for name, system in zip(ascii_uppercase, systems, strict=False):
        print(f"{name}: {system.shown}")
    print(f"{test.shown}, {num_lines:,} lines")
    if len(systems) > 1 or not args.quick:
        print("", show(comparison), sep="\n")


def _check(args: argparse.Namespace) -> list[_Given]:
    """Find mistakes in the arguments before the work begins; returns the systems, the first one first."""
    from seq2seq.config import load_test_set, paths_of
    from seq2seq.evaluate import load_tokenizer
    from seq2seq.evaluate.significance import METRICS

    if (args.hyp is None) == (not args.models) or (args.models and args.src is None and args.test is None):
        raise UserError("give either MODEL with --src, or --hyp")
    if args.test is None and not args.ref:
        raise UserError("give the reference translations: --ref FILE, or --test DATASET")
    if args.test is not None and args.src is not None:
        raise UserError("remove --src: --test has the source text")
    first = _Given(args.models, True) if args.models else _Given([args.hyp], False)
    given = [first, *(_Given([system], system.is_dir()) for system in args.against)]
    if len(given) > len(ascii_uppercase):
        raise UserError(f"--against: at most {len(ascii_uppercase) - 1} systems, not {len(given) - 1}")
    _check_systems(given)
    if models := [one for one in given if one.is_model]:
        if args.src is None and args.test is None:
            raise UserError(f"{models[0]} is a model: give the text to translate with --src FILE")
    elif unused := [
        *(["--src"] if args.src is not None and not (args.card or args.exchange or args.learned) else []),
        *given_decode_options(args),
    ]:
        raise UserError(f"remove {', '.join(unused)}: no effect with --hyp, where nothing is translated")
    if args.exchange is not None and args.src is None and args.test is None:
        raise UserError("--exchange: most other metrics read the source, too; give it with --src FILE")
    names = [name for name, _ in args.learned]
    if twice := [name for name in names if names.count(name) > 1 or name in METRICS]:
        raise UserError(f"--learned: {twice[0]} is the name of another metric here; choose another name")
    if args.tokenize is not None:
        load_tokenizer(args.tokenize)
    used = [path for path in (*(path for one in given for path in one.paths), args.src, *args.ref) if path is not None]
    if [str(path) for path in used].count("-") > 1:
        raise UserError("only one of --hyp, --src and --ref can be - (standard input); write the others to files")
    if args.test is not None:
        used += [path for paths in paths_of(load_test_set(args.test)).values() for path in paths]
    if args.tokenize is not None:
        used.append(Path(args.tokenize))
    used += (path for _, path in args.learned)
    outputs = [("--save", args.save), ("--save-hyp", args.save_hyp), ("--exchange", args.exchange)]
    if args.card is not None:
        from seq2seq.evaluate.make_card import CARD
        from seq2seq.report.card_page import CARD_HTML, CARD_MARKDOWN

        _check_folder("--card", args.card)
        outputs += (("--card", args.card / name) for name in (CARD, CARD_MARKDOWN, CARD_HTML))
    for option, output in outputs:
        if output is None:
            continue
        if output.is_dir():
            raise UserError(f"{option} {output}: is a folder, not a file; choose another name")
        if any(_are_same(output, other) for other in used):
            raise UserError(f"{option} {output}: would overwrite a file that is used here; choose another name")
        used.append(output)
    return given


def _check_folder(option: str, folder: Path) -> None:
    """Raise UserError if a folder cannot be made or written."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UserError(f"{option} {folder}: {there} is a file; choose the name of a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{option} {folder}: {there} cannot be written; choose another folder")


def _check_systems(given: Sequence[_Given]) -> None:
    """Raise UserError for a model that is none, translations that are a model, and for a system that is given twice."""
    found: dict[tuple[Path, ...], _Given] = {}
    for one in given:
        if one.is_model:
            from seq2seq.model_folder import find_model_folder

            for path in filter(Path.is_file, one.paths):
                raise UserError(f"{path}: is a file; a model is a folder, and translations are given with --hyp {path}")
            places = tuple(find_model_folder(path).resolve() for path in one.paths)
        else:
            (path,) = one.paths
            if path.suffix == ".safetensors":
                raise UserError(f"{path}: is a model; give its folder, {path.parent}")
            if path.is_dir():
                raise UserError(
                    f"--hyp {path}: is a folder; for a model: seq2seq evaluate {path} --src FILE --ref FILE"
                )
            places = (path.resolve(),)
        if places in found:
            raise UserError(f"{one}: the same system as {found[places]}; give each system once")
        found[places] = one


def _are_same(one: Path, other: Path) -> bool:
    """Whether two names lead to one file, which need not exist."""
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))


def _read_test_set(args: argparse.Namespace, given: Sequence[_Given]) -> _TestSet:
    from seq2seq.config import load_test_set, paths_of
    from seq2seq.data.formats.lines import read_text
    from seq2seq.data.formats.pairs import read_pairs
    from seq2seq.evaluate import fingerprint_lines
    from seq2seq.evaluate.significance import notes_of_blanks
    from seq2seq.languages import language_of

    references, names = [read_text(path) for path in args.ref], list(map(str, args.ref))
    record: dict[str, Any] = {}
    src: list[str] = []
    language, tag, shown = None, None, ""
    is_read = any(one.is_model for one in given) or args.src is not None
    if args.test is not None:
        dataset = load_test_set(args.test)
        pairs = list(read_pairs(dataset))
        src, language, tag = [pair.src for pair in pairs], dataset.languages[1], dataset.tag
        shown = " ".join(str(path) for paths in paths_of(dataset).values() for path in paths)
        references, names = [[pair.tgt for pair in pairs], *references], [shown, *names]
        record["test"] = dataset.model_dump(mode="json", exclude_defaults=True)
        shown = f"test set {shown}"
    elif is_read:
        src, shown = read_text(args.src), f"src {args.src}"
    if is_read:
        file = {} if args.src is None else {"file": str(args.src)}
        record["src"] = {**file, "blake2b": fingerprint_lines(src)}
    for name, reference in zip(names, references, strict=True):
        if len(reference) != len(src or references[0]):  # before the work begins
            other, count = (args.src, len(src)) if args.src is not None else (names[0], len(references[0]))
            raise UserError(f"{other} has {count} lines but {name} has {len(reference)}")
    notes_of_blanks(references)  # for its error; compare gives the notes
    refs = zip(names, references, strict=True)
    record["refs"] = [{"file": name, "blake2b": fingerprint_lines(lines)} for name, lines in refs]
    if args.ref:
        language = language or language_of(args.ref[0])
        shown = ", ".join(filter(None, [shown, f"ref {' '.join(map(str, args.ref))}"]))
    return _TestSet(src, references, shown, language, tag, record)


def _check_resampling(num_lines: int) -> None:
    """Raise UserError if there is too little memory for the resamples of a large test set, or no seed for them."""
    from seq2seq.evaluate.significance import check_seed, memory_needed

    check_seed()
    if (needed := memory_needed(num_lines)) < _LITTLE_MEMORY:
        return
    import torch

    from seq2seq.memory import memory_room, show_bytes

    room = memory_room(torch.device("cpu"))
    if room is not None and needed > room:
        raise UserError(
            f"intervals and tests for {num_lines:,} lines need {show_bytes(needed)} of memory, but there are "
            f"{show_bytes(room)}; give --quick, or a part of the lines"
        )


def _read_system(given: _Given, num_lines: int) -> _System:
    from seq2seq.data.formats.lines import read_text
    from seq2seq.evaluate import fingerprint_lines
    from seq2seq.evaluate.card import SystemCard

    hypotheses = read_text(given.paths[0])
    if len(hypotheses) != num_lines:
        raise UserError(f"{given} has {len(hypotheses)} lines, but the references have {num_lines} lines")
    record = {"hyp": {"file": str(given), "blake2b": fingerprint_lines(hypotheses)}}
    return _System(hypotheses, f"translations {given}", None, record, SystemCard(name=str(given), is_model=False))


def _translate(given: _Given, args: argparse.Namespace, test: _TestSet) -> _System:
    import torch
    from tqdm import tqdm

    from seq2seq.decode.calibration import calibration_for
    from seq2seq.device import device_name
    from seq2seq.evaluate import fingerprint_lines
    from seq2seq.evaluate.card import SystemCard
    from seq2seq.evaluate.make_card import search_in_words, without_config
    from seq2seq.model_folder import find_model_folder

    options = {**vars(args), "models": given.paths, "tag": test.tag if args.tag is None else args.tag}
    translator, decode = load_translator(argparse.Namespace(**options))
    calibration = None
    if args.card is not None:
        calibration = calibration_for(translator, decode, partial(print, "note:", file=sys.stderr))
    stream = translator.translate_stream(test.src, decode)
    bar = tqdm(stream, desc=str(given), total=len(test.src), unit=" lines", leave=False, disable=None)
    started = time.monotonic()
    best = [translations[0] for translations in bar]
    seconds, hypotheses = time.monotonic() - started, [one.text for one in best]
    record = {"model": str(given), "model_metadata": translator.metadata, "decode": decode.model_dump()}
    record["hyp"] = {"blake2b": fingerprint_lines(hypotheses)}
    step = translator.metadata.get("step", "")
    known = f" (step {int(step):,})" if step.isdecimal() else ""
    how = search_in_words(decode)
    if (reverse := translator.reverse) is not None:
        how += f", reranked by {args.rerank} (weight {reverse.weight})"
        record["rerank"] = {"model": str(args.rerank), **reverse.identity()}
    folders = " + ".join(str(find_model_folder(path)) for path in given.paths)
    data = translator.config.data
    card = SystemCard(
        name=folders,
        is_model=True,
        languages=(data.source_language, data.target_language),
        step=int(step) if step.isdecimal() else None,
        num_parameters=translator.engine.num_parameters,
        metadata=without_config(translator.metadata),
        decode=decode.model_dump(mode="json"),
        search=how,
        seconds=seconds,
        device=device_name(torch.device(translator.engine.identity["device"])),
    )
    folder = translator.folders[0] if len(translator.folders) == 1 else None
    shown = f"model {folders}{known}, {how}"
    return _System(hypotheses, shown, data.target_language, record, card, folder, calibration, best)


def _write_card(args: argparse.Namespace, system: _System, test: _TestSet, comparison: Comparison) -> None:
    """Write the card of the first system."""
    from tqdm import tqdm

    from seq2seq.evaluate.make_card import Evaluated, make_card, training_of, write_card
    from seq2seq.evaluate.slices import Translated
    from seq2seq.languages import language_of
    from seq2seq.report.card_page import write_card_pages

    known = None if system.folder is None else training_of(system.folder)
    notes = comparison.notes + ((known,) if isinstance(known, str) else ())
    src, tgt = system.card.languages
    languages = src or (language_of(args.src) if args.src else None), args.tgt_lang or tgt or test.language
    evaluated = Evaluated(
        system=system.card.model_copy(update={"languages": languages}),
        test=test.shown,
        measures=comparison.systems[0].measures,
        tokenize=args.tokenize,
        notes=notes,
        training=None if isinstance(known, str) else known,
        calibration=system.calibration,
        translations=system.translations or None,
    )
    texts = Translated(test.src or None, system.hypotheses, test.references, languages)
    with tqdm(desc="card: reading the training text", unit=" pairs", leave=False, disable=None) as bar:
        card = make_card(texts, evaluated, bar.update)
    for note in card.notes[len(comparison.notes) :]:
        print(f"note: {note}", file=sys.stderr)
    write_card(card, args.card)
    write_card_pages(card, args.card)


def _other_decoding(systems: Sequence[_System]) -> Iterator[str]:
    """Notes about models that decode otherwise than the first one: their configs may have other defaults."""
    (name, first), *others = [
        (name, system.record["decode"])
        for name, system in zip(ascii_uppercase, systems, strict=False)
        if "decode" in system.record
    ] or [("", {})]
    for other, decode in others:
        keys = [key for key in decode if decode[key] != first[key] and key not in _SAME_OUTPUT]
        if keys:
            what = ", ".join(f"{key} {decode[key]}, not {first[key]}" for key in keys)
            yield f"{other} decodes otherwise than {name}: {what}; an option sets it for all"


def _record(comparison: Comparison, systems: Sequence[_System], test: _TestSet) -> dict[str, Any]:
    """All of it as plain values; the first system at the top, the others under ``against``."""
    records: list[dict[str, Any]] = []
    for scored, system in zip(comparison.systems, systems, strict=True):
        bleu, chrf = scored.measures[:2]
        records.append(
            {
                **{"bleu": bleu.score, "bleu_signature": bleu.signature, "bleu_details": bleu.details},
                **{"chrf": chrf.score, "chrf_signature": chrf.signature, "num_lines": comparison.num_lines},
                "metrics": {measure.name: measure.as_json() for measure in scored.measures},
                **system.record,
            }
        )
        if len(records) > 1:
            records[-1] |= {"lines_that_differ": scored.num_different, "verdict": comparison.verdict(scored)}
    first, *others = records
    return {**first, **test.record, **({"against": others} if others else {})}
