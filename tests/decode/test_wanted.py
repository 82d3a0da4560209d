"""Promise: what is wanted from a translation is in its text, or the line is reported; other lines stay the same."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from seq2seq.cli.main import main
from seq2seq.config import DecodeConfig, TokenizerConfig
from seq2seq.data.symbols import EOS_ID
from seq2seq.data.tokenizer import train_tokenizer
from seq2seq.decode import engine as engine_module
from seq2seq.decode import stepper as stepper_module
from seq2seq.decode.engine import Source, TorchEngine, widened
from seq2seq.decode.glossary import Glossary, has_term
from seq2seq.decode.parts import Part, PartTranslator
from seq2seq.decode.protect import without_strings
from seq2seq.decode.speller import Speller
from seq2seq.decode.terms import DIGIT
from seq2seq.decode.translator import Translator
from seq2seq.errors import UserError
from seq2seq.model import state as state_module
from seq2seq.model.kernels.cuda_graphs import Graphs
from tests.toy import sentences, write_lines

BEAM = DecodeConfig(beam_size=3, max_length_ratio=1, max_length_offset=12)
GLOSSARY = {"kato": "zwezwe hex", "miren": "guno", "sol": "dordor"}


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """Lines of unsorted lengths, some with a term of the glossary."""
    return ["kato", "", *(src for src, _ in sentences(30, seed=9)), "miren kato sol", "ren sol. Pa kato."]


def texts(translator: Translator, lines: list[str], decode: DecodeConfig = BEAM, **wanted: Any) -> list[list[str]]:
    """All translations of every line; nothing may be reported."""

    def problem(line: int, message: str) -> None:
        assert "length limit" in message, (line, message)

    return [[one.text for one in some] for some in translator.translate_stream(lines, decode, problem, **wanted)]


@pytest.mark.parametrize("options", [{}, {"beam_size": 1}, {"n_best": 3}, {"split_sentences": True}], ids=str)
def test_terms_of_a_glossary_are_used(translator: Translator, lines: list[str], options: dict[str, Any]) -> None:
    """Guards against lines without their terms, in any place of an n-best list, and against lines without terms that a
    glossary changes."""
    decode = BEAM.model_copy(update=options)
    without = texts(translator, lines, decode)
    found = texts(translator, lines, decode, glossary=GLOSSARY)
    changed = 0
    for line, some, others in zip(lines, found, without, strict=True):
        wanted = [target for source, target in GLOSSARY.items() if has_term(line, source)]
        assert all(has_term(text, target) for text in some for target in wanted), line
        assert wanted or some == others
        changed += some != others
    assert changed > 2
    shuffled = texts(translator, lines[::-1], decode.model_copy(update={"batch_tokens": 1}), glossary=GLOSSARY)
    assert shuffled[::-1] == found


def test_what_is_there_anyway_needs_no_other_search(translator: Translator, lines: list[str]) -> None:
    """Guards against worse translations of lines that have their terms in any case, and against lines that are kept
    without them: a search for terms is ranked otherwise."""
    alone = [some[0] for some in translator.translate_stream(lines, BEAM)]
    ((target, _),) = Counter(word for one in alone for word in one.text.split()).most_common(1)
    there = {line: has_term(one.text, target) for line, one in zip(lines, alone, strict=True)}
    words = sorted({word for line in lines for word in line.split() if word.isalpha()})
    with_word = {word: {there[line] for line in lines if has_term(line, word)} for word in words}
    source = next(word for word, kinds in with_word.items() if kinds == {False, True})
    found = [some[0] for some in translator.translate_stream(lines, BEAM, glossary={source: target})]
    changed = [line for line, one, other in zip(lines, alone, found, strict=True) if one != other]
    assert changed == [line for line in lines if has_term(line, source) and not there[line]]
    explained = translator.explain("sol", decode=BEAM.model_copy(update={"protect": ("numbers",)}))
    assert explained.translation.text == translator.translate("sol", BEAM)


def test_every_line_is_counted_once(translator: Translator, lines: list[str]) -> None:
    """Guards against a bar that ends early, or beyond its end, with lines that are searched once, twice or never."""
    counts: list[int] = []
    decode = BEAM.model_copy(update={"split_sentences": True})
    there = translator.translate("kato", decode).split()[0]
    wanted = translator.wanted(decode, glossary=Glossary.of({**GLOSSARY, "kato": there}))
    list(translator.translate_windows(lines, decode, wanted=wanted, on_lines=counts.append))
    assert sum(counts) == len(lines)


def test_a_term_that_has_no_room_costs_nothing(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against thousands of hypotheses for a row of a glossary that is a paragraph."""
    seen: list[int] = []
    monkeypatch.setattr(engine_module, "beam_for", lambda terms, size: seen.append(len(terms)) or size)
    reported: list[str] = []
    text = " ".join(["gu"] * 300)
    stream = translator.translate_stream(
        ["kato"], BEAM, lambda _, message: reported.append(message), glossary={"kato": text}
    )
    assert [some[0].text for some in stream] == translator.translate(["kato"], BEAM)
    assert set(seen) == {0}
    assert "the translation lacks 'gu gu" in reported[0]


def test_protected_numbers_are_exact(translator: Translator) -> None:
    """Guards against 12 in 123 or twice, and against strings that are glued to a word."""
    (twelve,) = translator.wanted(BEAM.model_copy(update={"protect": ("numbers",)})).terms("12 sol, 12")
    assert (twelve.count, twelve.exact) == (2, True)
    assert {spelling.after for spelling in twelve.spellings} == {DIGIT}
    wide = widened(BEAM, Source([1], (0, 0), terms=(twelve,)))
    assert (wide.length_penalty, wide.beam_size > BEAM.beam_size) == (0.0, True)
    assert widened(BEAM, Source([1], (0, 0))) == BEAM


def test_a_string_stands_where_attention_says(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against the first source token for all strings."""

    def look(sources: list[list[int]], targets: list[list[int]]) -> list[NDArray[np.float64]]:
        return [np.eye(len(tgt), len(src)) for src, tgt in zip(sources, targets, strict=True)]

    monkeypatch.setattr(translator.engine, "alignments", look)
    sources = ["kato {x} miren sol vu", "kato miren {x} sol vu", "kato miren sol vu {x}"]
    found = [text.index("{x}") for (text,) in texts(translator, sources, protect=["placeholders"])]
    assert 0 < found[0] < found[1] < found[2]


@pytest.mark.parametrize("num_tags", [0, 2])
def test_ids_of_tags_are_no_places(translator: Translator, num_tags: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against strings that stand too early or too late in models with tags before the source."""

    def look(sources: list[list[int]], targets: list[list[int]]) -> list[NDArray[np.float64]]:
        return [np.eye(len(tgt), len(src), num_tags) for src, tgt in zip(sources, targets, strict=True)]

    assert isinstance(translator.engine, TorchEngine)
    monkeypatch.setattr(translator.engine, "alignments", look)
    bare, text = without_strings("kato miren {x} sol vu", ["placeholders"]), "kato miren sol vu"
    ((source,), (target,)) = (some.encode([text]) for some in (translator.tokenizers.src, translator.tokenizers.tgt))
    part = Part(Source([5] * num_tags + [*source, EOS_ID], (0, 0)), bare)
    parts = PartTranslator(translator.engine, translator.tokenizers, None, num_tags)
    assert parts.with_elements([part], [target], [text]) == ["kato miren {x} sol vu"]


def test_strings_do_not_depend_on_the_batch(translator: Translator, lines: list[str]) -> None:
    """Guards against attention of another sentence of the batch, or of its padding."""
    planted = [line.replace(" ", " {x} ", 1) for line in lines]
    found = texts(translator, planted, protect=["tags", "placeholders"])
    assert sum("{x}" in text for (text,) in found) > 3
    assert found == [texts(translator, [line], protect=["tags", "placeholders"])[0] for line in planted]
    ids = [[*some, EOS_ID] for some in translator.tokenizers.src.encode([line for line in lines if line])]
    assert isinstance(translator.engine, TorchEngine)
    together = translator.engine.alignments(ids, ids[::-1])
    for source, target, weights in zip(ids, ids[::-1], together, strict=True):
        assert weights.shape == (len(target), len(source))
        np.testing.assert_allclose(weights, translator.engine.alignments([source], [target])[0], atol=1e-6)


def test_fixed_shapes_change_nothing(translator: Translator, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The search that CUDA runs gives the text of the other one."""
    wanted: list[dict[str, Any]] = [
        {"glossary": GLOSSARY},
        {"prefix": ["dor" if n % 2 else "" for n in range(len(lines))]},
        {"suppress": ["dor", "gu hex"], "no_repeat_ngram": 2},
        {"suppress": ["dor"], "no_repeat_ngram": 3, "sample": True},
    ]
    blank = [line for line in lines if line]
    for one in wanted:
        if "prefix" in one:
            one["prefix"] = one["prefix"][: len(blank)]
    expected = [texts(translator, blank, **one) for one in wanted]
    monkeypatch.setattr(stepper_module, "_SENTENCES", 2)
    monkeypatch.setattr(state_module, "_STEPS", 2)
    monkeypatch.setattr(translator.engine, "_graphs", Graphs(torch.device("cpu")))
    for one, others in zip(wanted, expected, strict=True):
        for batch_tokens in (10**6, 50):
            decode = BEAM.model_copy(update={"batch_tokens": batch_tokens})
            assert texts(translator, blank, decode, **one) == others


@pytest.mark.parametrize("options", [{}, {"beam_size": 1}, {"n_best": 2}, {"sample": True, "n_best": 3}], ids=str)
def test_translations_begin_with_their_prefixes(translator: Translator, options: dict[str, Any]) -> None:
    """Guards against prefixes of another line, against a last word that cannot be completed, or that grows after a
    space, and against a blank prefix that changes a translation."""
    decode = BEAM.model_copy(update=options)
    lines = ["kato miren", "sol vu", "palin", "ren ren", "kato miren"]
    prefixes = ["gu", "dorfe  hex ", "", "zwe no bra", "gu "]
    found = texts(translator, lines, decode, prefix=prefixes)
    for some, prefix in zip(found, prefixes, strict=True):
        assert all(text.startswith(" ".join(prefix.split())) for text in some)
    assert all(text == "dorfe hex" or text.startswith("dorfe hex ") for text in found[1])
    assert all(text == "gu" or text.startswith("gu ") for text in found[4])
    assert found[2] == texts(translator, lines, decode)[2]
    if not decode.sample:
        assert [
            texts(translator, [line], decode, prefix=[one])[0] for line, one in zip(lines, prefixes, strict=True)
        ] == (found)


def test_a_last_word_can_become_any_piece() -> None:
    """Guards against a beginning whose last word stays as the tokenizer cuts it alone: "Hau" can become "Haus"."""
    words = ["Haus", "Hausaufgabe", "Maus", "auf", "gut", "Hut"]
    tokenizer, _ = train_tokenizer(
        [" ".join(words)] * 50, TokenizerConfig(kind="bpe", vocab_size=40, byte_fallback=False)
    )
    speller = Speller(tokenizer)
    pieces = tokenizer.pieces(range(tokenizer.vocab_size))
    ranks = speller.table.ranks.tolist()

    def completions(text: str) -> set[str]:
        """All texts of the beginning with one more piece in the place of its end."""
        beginning = speller.beginning(text)
        assert beginning is not None
        found = set()
        for at, (low, high) in enumerate(beginning.ranges):
            longer = [i for i, rank in enumerate(ranks) if low <= rank < high]
            found |= {"".join(pieces[i] for i in (*beginning.ids[:at], last)) for last in longer}
        return found

    assert "▁Haus" in completions("Hau")
    assert "▁gut▁Haus" in completions("gut Ha")
    assert all(text.startswith("▁gut▁Ha") for text in completions("gut Ha"))
    assert all(text.startswith("▁Hau▁") for text in completions("Hau "))
    assert speller.beginning("Häu") is None


def test_protected_strings_are_copied(translator: Translator) -> None:
    """Guards against strings that are lost, doubled or glued to words, and against lines that have them and are
    reported, or the other way round."""
    lines = ["kato <b>miren</b> sol", "vu {x} 12 palin 7", "see www.a.org or a@b.org", "kato miren", "12 12"]
    kinds = ["tags", "placeholders", "urls", "emails", "numbers"]
    problems: dict[int, str] = {}
    decode = BEAM.model_copy(update={"max_length_offset": 60})
    found = list(translator.translate_stream(lines, decode, problems.setdefault, protect=kinds))
    strings = [["<b>", "</b>"], ["{x}", "12", "7"], ["www.a.org", "a@b.org"], [], ["12"]]
    for number, (line, some, wanted) in enumerate(zip(lines, found, strings, strict=True), start=1):
        kept = all(some[0].text.count(one) == line.count(one) for one in wanted)
        assert kept or number in problems, (some[0].text, problems)
        assert not kept or "not copied" not in problems.get(number, ""), (some[0].text, problems)
        assert kept or number != 5
    assert [found[3][0].text] == translator.translate(lines[3:4], decode)


def test_strings_are_placed_by_attention(translator: Translator, model: Path) -> None:
    """Guards against words that a string changes, a line of strings that is lost, other candidates without them, and
    models of an ensemble whose attention is mixed."""
    lines, kinds = (
        ["<b>kato miren</b> sol", "kato {x} miren sol", "<b> {x}", "kato miren sol"],
        ["tags", "placeholders"],
    )
    both = Translator.load([model, model], device="cpu")
    for one in (translator, both):
        found = texts(one, lines, protect=kinds)
        assert found[2] == ["<b> {x}"]
        words = [" ".join(text.replace("<b>", "").replace("</b>", "").replace("{x}", "").split()) for (text,) in found]
        assert words[0] == words[1] == words[3]
        assert found[0][0].index("<b>") < found[0][0].index("</b>")
    assert all("{x}" in text for text in texts(translator, lines[1:2], protect=kinds, n_best=3)[0])
    begun = texts(translator, ["kato {x}"], prefix=["gu"], protect=kinds)
    assert begun[0][0].startswith("gu")


def test_what_cannot_be_kept_is_reported(translator: Translator, lines: list[str]) -> None:
    """Guards against silence about a line that lacks its terms because of its length or a ban; it is translated
    without them."""
    reports: list[tuple[int, str]] = []

    def report(line: int, message: str) -> None:
        if "limit" not in message:
            reports.append((line, message))

    tight = DecodeConfig(beam_size=3, max_length_ratio=0, max_length_offset=3)
    some = translator.translate_stream(["kato", "ren"], tight, report, glossary={"kato": "gu no fe hex"})
    assert [one[0].text for one in some] == translator.translate(["kato", "ren"], tight)
    assert reports == [(1, "the translation lacks 'gu no fe hex' (glossary['kato'])")]
    reports.clear()
    banned = list(translator.translate_stream(lines, BEAM, report, glossary={"kato": "gu"}, suppress=["gu"]))
    assert [one[0].text for one in banned] == translator.translate(lines, BEAM, suppress=["gu"])
    found = dict(reports)
    assert {number for number, line in enumerate(lines, 1) if has_term(line, "kato")} == set(found)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"glossary": {"kato": "gu\u2581no"}},
            r"glossary\['kato'\]: the model cannot write the target term 'gu\u2581no'",
        ),
        ({"glossary": {"kato": "gu"}, "sample": True}, "a glossary needs beam search, and decode.sample is true"),
        ({"protect": ["numbers"], "sample": True}, "protect: needs beam search"),
        ({"protect": ["number"]}, "protect: must be a list, each one of tags"),
        ({"suppress": [" "]}, "suppress: has a blank text; remove it"),
        ({"prefix": ["gu"]}, "prefix: has only 1 lines; it needs one for each line to translate"),
        ({"prefix": ["gu"] * 3}, "prefix: has more than the 2 lines to translate"),
        ({"prefix": ["", "gu " * 30]}, r"prefix:2: has \d+ tokens, but the translation of its line has at most"),
        ({"prefix": ["gu\u2581no", ""]}, "prefix:1: the model cannot write 'gu\u2581no'"),
    ],
    ids=str,
)
def test_mistakes_are_named(translator: Translator, wanted: dict[str, Any], message: str) -> None:
    """Guards against wishes that are silently not granted."""
    with pytest.raises(UserError, match=message):
        translator.translate(["kato", "miren"], **wanted)


def test_a_prefix_is_a_list(translator: Translator) -> None:
    """Guards against the letters of a string as prefixes of lines."""
    with pytest.raises(TypeError, match="prefix must be a list of strings, one for each line, not str"):
        translator.translate(["kato"], prefix="gu")  # type: ignore[call-overload]


# ---------------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def place(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(model)
    write_lines(tmp_path / "in", ["kato", "", "miren sol", "ren kato"])
    write_lines(tmp_path / "prefix", ["gu", "", "", "dor "])
    (tmp_path / "terms.csv").write_text("source,target\nkato,zwezwe\n", encoding="utf-8")
    return tmp_path


TRANSLATE = "translate model/best --input in --output out --device cpu --max-length-offset 12"


def test_files_beside_the_text(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against files that are not used, and against a total that is not told."""
    assert main(f"{TRANSLATE} --prefix prefix --glossary terms.csv --suppress hex --no-repeat-ngram 2".split()) == 0
    lines = (place / "out").read_text().splitlines()
    assert lines[0].startswith("gu")
    assert lines[3].startswith("dor ")
    assert all("zwezwe" in line.split() for line in (lines[0], lines[3]))
    assert lines[1] == ""
    assert "in: lines with terms of the glossary: 2; translations with all of it: 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("a\n", "prefix: has 1 lines, but in has 4; it needs a line for each"),
        ("\n\n" + "gu " * 60 + "\n\n", "prefix:3: has "),
        ("\n\n\n\udcff\n", "prefix:4: not valid UTF-8"),
    ],
)
def test_wrong_files_leave_nothing(prefix: str, message: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against half a translation for a wrong file."""
    (place / "prefix").write_bytes(prefix.encode("utf-8", "surrogateescape"))
    assert main(f"{TRANSLATE} --prefix prefix".split()) == 2
    assert f"seq2seq translate: error: {message}" in capsys.readouterr().err
    assert not (place / "out").exists()
    for option in ("--prefix", "--glossary"):
        assert main(f"{TRANSLATE} {option} nowhere".split()) == 2
        assert f"{option}: no such file: nowhere" in capsys.readouterr().err
        assert main(f"{TRANSLATE.replace('--output out', '--output prefix')} {option} prefix".split()) == 2
        assert f"--output is the same file as {option}" in capsys.readouterr().err


def test_resume_knows_the_files(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a translation that continues with another glossary, other prefixes, or those of other lines."""
    monkeypatch.setattr("seq2seq.decode.windows.WINDOW_LINES", 2)
    arguments = f"{TRANSLATE} --resume --prefix prefix --glossary terms.csv".split()
    assert main(arguments) == 0
    expected = (place / "out").read_bytes()
    (place / "out").unlink()
    original = Translator._translate_window
    calls: list[int] = []

    def stops(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise UserError("stopped")
        return original(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Translator, "_translate_window", stops)
        assert main(arguments) == 2
    for name in ("prefix", "terms.csv"):
        before = (place / name).read_bytes()
        (place / name).write_bytes(before.replace(b"dor ", b"dor") + (b"" if name == "prefix" else b"sol,gu\n"))
        capsys.readouterr()
        assert main(arguments) == 2
        assert f"{name.removeprefix('terms.csv') or 'glossary'} was" in capsys.readouterr().err
        (place / name).write_bytes(before)
    assert main(arguments) == 0
    assert (place / "out").read_bytes() == expected
    assert "(without the first 2 lines)" in capsys.readouterr().err


def test_settings_of_a_model_hold(place: Path, model: Path, make_copy: Callable[[Path], Path]) -> None:
    """Guards against settings in a config that only the command line knows, also in explanations."""
    folder = make_copy(model / "best")
    config = folder / "config.yaml"
    found = Translator.load(folder, device="cpu").translate("kato miren")
    first = found.split()[0]
    text = config.read_text().replace("sample: false", f"sample: false\n  suppress: [{json.dumps(first)}]")
    config.write_text("".join(line for line in text.splitlines(True) if line.strip() != "suppress: []"))
    edited = Translator.load(folder, device="cpu")
    assert edited.config.decode.suppress == (first,)
    again = edited.translate("kato miren")
    assert again != found
    assert first not in again.split()
    assert edited.explain("kato miren").translation.text == again
    copied = edited.translate("kato 12", protect=["numbers"], max_length_offset=20)
    explained = edited.explain("kato 12", protect=["numbers"], max_length_offset=20)
    assert "12" in copied
    assert explained.translation.text == copied
    assert explained.beam[explained.best].score == pytest.approx(explained.translation.score, abs=1e-3)


@pytest.fixture
def make_copy(tmp_path: Path) -> Callable[[Path], Path]:
    import shutil

    return lambda folder: Path(shutil.copytree(folder, tmp_path / "copy"))
