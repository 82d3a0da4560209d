"""The second engine translates as the first one, under the same rules for lines, limits, ranks and resuming."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from seq2seq.cli.main import main
from seq2seq.config import DecodeConfig
from seq2seq.data.symbols import EOS_ID
from seq2seq.decode.ctranslate2_engine import CTranslate2Engine
from seq2seq.decode.engine import Source, TorchEngine
from seq2seq.decode.explain import run_once
from seq2seq.decode.translation import Translation
from seq2seq.decode.translator import Translator
from seq2seq.errors import ConfigError, ModelError, UserError
from seq2seq.model_folder import load_model_folder
from tests.toy import sentences, write_lines

pytest.importorskip("ctranslate2")
LINES = ["", "kato", *(src for src, _ in sentences(30, seed=9)), "\u3000", "sol " * 40]
BEAM = DecodeConfig(beam_size=3, max_length_ratio=1, max_length_offset=3)


@pytest.fixture(scope="module")
def folder(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of its own, in which the converted model is kept."""
    return Path(shutil.copytree(model / "best", tmp_path_factory.mktemp("second") / "model"))


@pytest.fixture(scope="module")
def second(folder: Path) -> Translator:
    return Translator.load(folder, engine="ctranslate2")


def _copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("ctranslate2")))


def _check_the_same(ours: list[list[Translation]], theirs: list[list[Translation]]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert other[0].text == mine[0].text
        assert (other[0].score, other[0].log_prob) == pytest.approx((mine[0].score, mine[0].log_prob), abs=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"length_penalty": 0.0},
        {"length_penalty": 2.0, "n_best": 3},
        {"beam_size": 1},
        {"max_length_ratio": 0.0, "max_length_offset": 2},
        {"max_length_ratio": 0.0, "max_length_offset": 1},
        {"batch_tokens": 1, "split_sentences": True},
        {"beam_size": 1, "no_repeat_ngram": 1},
        {"beam_size": 1, "no_repeat_ngram": 2, "suppress": ("dor",)},
        {"beam_size": 1, "suppress": ("fe", "gu hex", "dorfe", "dorji")},
    ],
    ids=str,
)
def test_both_engines_translate_alike(second: Translator, translator: Translator, options: dict[str, Any]) -> None:
    """Guards against other ranks, limits of length, blank and long lines, and against an order that batches change."""
    found: dict[str, list[list[Translation]]] = {}
    problems: dict[str, list[tuple[int, str]]] = {"first": [], "second": []}
    decode = BEAM.model_copy(update=options)
    for name, one in (("first", translator), ("second", second)):

        def keep(line: int, problem: str, name: str = name) -> None:
            problems[name].append((line, problem))

        found[name] = list(one.translate_stream(LINES, decode, keep))
    _check_the_same(found["first"], found["second"])
    assert {line for line, _ in problems["first"]} <= {line for line, _ in problems["second"]}
    if decode.n_best > 1:
        assert [len({one.text for one in several}) for several in found["second"]] == [
            len(several) for several in found["second"]
        ]
        assert all(several == sorted(several, key=lambda one: -one.score) for several in found["second"])


def test_what_is_banned_is_not_written(second: Translator, translator: Translator) -> None:
    """Guards against bans that only greedy search obeys, and against log-probabilities to which the banned pieces have
    given theirs: those of the same texts are the other engine's."""
    decode = BEAM.model_copy(update={"no_repeat_ngram": 2, "suppress": ("dor", "gu hex")})
    plain = second.translate(LINES, BEAM)
    found = list(second.translate_stream(LINES, decode))
    ours = list(translator.translate_stream(LINES, decode))
    assert sum(a[0].text == b[0].text for a, b in zip(ours, found, strict=True)) > 8
    for several, others in zip(found, ours, strict=True):
        assert not any(f" {text} " in f" {several[0].text} " for text in decode.suppress)
        if several[0].text == others[0].text:
            assert several[0].log_prob == pytest.approx(others[0].log_prob, abs=1e-3)
    assert plain != [several[0].text for several in found]


def test_a_translation_does_not_depend_on_its_batch(second: Translator) -> None:
    """Contract 3, also for int8, which rounds each token by itself."""
    alone = [second.translate(line, BEAM) for line in LINES]
    assert second.translate(LINES, BEAM) == alone
    assert second.translate(LINES[::-1], BEAM.model_copy(update={"batch_tokens": 40})) == alone[::-1]
    assert len(set(alone)) > 10


def test_int8_is_computed_in_int8(second: Translator) -> None:
    """Guards against int8 that is asked for and not used, or not switched off again."""
    fp32, int8, again = (list(second.translate_stream(LINES, BEAM, quantize=kind)) for kind in (None, "int8", None))
    assert again == fp32
    scores = [[several[0].score for several in found] for found in (fp32, int8)]
    assert scores[0] != scores[1]
    assert sum(a[0].text == b[0].text for a, b in zip(fp32, int8, strict=True)) > 0.7 * len(LINES)


def test_what_no_output_may_have_is_never_chosen(folder: Path, second: Translator, tmp_path: Path) -> None:
    """Guards against padding, unknown, BOS and tags in an output, which a model may like but our search never chooses,
    and against log-probabilities to which the forbidden ones have given theirs."""
    (source,), (usual,) = (
        second.tokenizers.src.encode(["kato"]),
        second.tokenizers.tgt.encode([second.translate("kato")]),
    )
    model = load_model_folder(folder).model
    # As if the first token of the translation, and all before it, were tags.
    model.tags = (range(EOS_ID + 1, usual[0] + 1),)
    source = [*source, EOS_ID]
    ((best, *_),) = CTranslate2Engine(model, {}, tmp_path).search([Source(source, (0, 0))], BEAM)
    assert usual[0] not in best.ids
    assert all(i > usual[0] for i in best.ids)
    target = [*best.ids, EOS_ID]
    expected = run_once(TorchEngine(model), source, target).log_probs[range(len(target)), target].sum()
    assert best.log_prob == pytest.approx(expected, abs=1e-3)


def test_the_model_is_converted_once(folder: Path, tmp_path: Path) -> None:
    """Guards against a conversion at every start, and against a converted model that belongs to other weights, or that
    is damaged."""
    copy = _copied(folder, tmp_path)
    expected = Translator.load(copy, engine="ctranslate2").translate(LINES, BEAM)
    assert {path.name for path in (copy / "ctranslate2").iterdir()} >= {"model.bin", "seal"}
    assert {path.name for path in copy.iterdir()} == {*(path.name for path in folder.iterdir())}
    write = "seq2seq.decode.ctranslate2_engine.write_model"
    with mock.patch(write, side_effect=AssertionError):
        assert Translator.load(copy, engine="ctranslate2").translate(LINES, BEAM) == expected
    damaged = bytearray((copy / "ctranslate2/model.bin").read_bytes())
    damaged[-100] ^= 64
    for content in (damaged, b""):
        (copy / "ctranslate2/model.bin").write_bytes(content)
        assert Translator.load(copy, engine="ctranslate2").translate(LINES, BEAM) == expected
    seal = copy / "ctranslate2/seal"
    seal.write_text("0" * 32 + seal.read_text()[32:])
    with pytest.raises(AssertionError), mock.patch(write, side_effect=AssertionError):
        Translator.load(copy, engine="ctranslate2")
    loaded = Translator.load(copy, engine="ctranslate2")
    shutil.rmtree(copy / "ctranslate2")
    with pytest.raises(ModelError, match="was removed or replaced while the model is in use"):
        loaded.translate("kato", quantize="int8")


def test_a_folder_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    """Guards against a read-only model that the second engine cannot use, and against silence about it."""
    copy = _copied(folder, tmp_path)
    (copy / "ctranslate2").write_text("in the way")
    with mock.patch("seq2seq.decode.ctranslate2_engine.temporary_folder", side_effect=PermissionError(13, "denied")):
        translator = Translator.load(copy, engine="ctranslate2")
    with pytest.warns(UserWarning, match="cannot be written .* into a temporary folder, each time"):
        assert translator.translate("kato", BEAM)
    assert (copy / "ctranslate2").read_text() == "in the way"


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    """Guards against a folder from a stranger that makes the engine read, or replace, another one."""
    copy = _copied(folder, tmp_path)
    (copy / "ctranslate2").symlink_to(folder / "ctranslate2")
    with pytest.raises(ModelError, match=r"is a link; remove .*, which is made again"):
        Translator.load(copy, engine="ctranslate2")


def test_what_the_engine_cannot_do(second: Translator, folder: Path) -> None:
    """Guards against options that are silently ignored."""
    with pytest.raises(UserError, match=r"does not sample; translate with decode\.engine: torch"):
        second.translate("kato", sample=True)
    with pytest.raises(UserError, match=r"has no decode\.protect; translate with decode\.engine: torch"):
        second.translate("kato", protect=["tags"])
    for wanted in ({"prefix": "dor"}, {"glossary": {"kato": "dor"}}):
        with pytest.raises(UserError, match=r"has no prefixes and glossaries; use decode\.engine: torch"):
            second.translate("kato", **wanted)
    with pytest.raises(UserError, match=r"cannot run several models together"):
        Translator.load([folder, folder], engine="ctranslate2")
    for options in ({"device": "cuda"}, {"precision": "bf16"}):
        with pytest.raises(UserError, match=f"in fp32 on the CPU, not {next(iter(options.values()))};"):
            Translator.load(folder, engine="ctranslate2", **options)
    with pytest.raises(UserError, match=r"only decode\.engine: torch can look into a model"):
        second.explain("kato")
    with pytest.raises(UserError, match="the engine is chosen when a model is loaded"):
        second.translate("kato", engine="torch")
    with pytest.raises(ConfigError, match="engine"):
        Translator.load(folder, engine="other")
    with mock.patch.dict("sys.modules", ctranslate2=None), pytest.raises(UserError, match="install the extra"):
        Translator.load(folder, engine="ctranslate2")


def test_another_architecture_is_refused(make_model: Callable[..., Any], tmp_path: Path) -> None:
    """Guards against a traceback for a model that CTranslate2 does not know."""
    model = make_model(architecture="recurrent")
    with pytest.raises(
        UserError, match=r"^decode\.engine: CTranslate2 has no recurrent .* with decode\.engine: torch$"
    ):
        CTranslate2Engine(model, {}, tmp_path)


def test_a_forked_child_translates(second: Translator) -> None:
    """Guards against a child that waits for ever for the threads of its parent."""
    expected = second.translate("kato miren", BEAM)
    child = os.fork()
    if child == 0:
        os._exit(0 if second.translate("kato miren", BEAM) == expected else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against --engine that has no effect, against records without it, and against a resumed translation that
    mixes two engines."""
    write_lines(tmp_path / "in", LINES[1:12])
    assert main(["evaluate", str(folder), "--src", str(tmp_path / "in"), "--ref", str(tmp_path / "in"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["decode"]["engine"] == "torch"
    command = ["translate", str(folder), "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--resume"]
    record = tmp_path / ".out.partial.json"
    with mock.patch("seq2seq.decode.files.OutputFile.finish", side_effect=KeyboardInterrupt):
        main([*command, "--engine", "ctranslate2"])
    run = json.loads(record.read_text())["run"]
    assert run["engine"].startswith("ctranslate2 4.")
    assert run["decode.engine"] == "ctranslate2"
    capsys.readouterr()
    assert main(command) == 2
    assert "decode.engine was ctranslate2, now it is torch" in capsys.readouterr().err
    assert main([*command, "--engine", "ctranslate2"]) == 0
    first = (tmp_path / "out").read_bytes()
    assert main([*command[:-3], "--output", str(tmp_path / "other")]) == 0
    assert (tmp_path / "other").read_bytes() == first


def test_both_engines_score_alike(second: Translator, translator: Translator) -> None:
    """Guards against labels that are shifted, a missing </s>, and an empty target that is left out."""
    pairs = [*sentences(30, seed=4), ("ka to", ""), ("", "dor"), ("", "")]
    src, tgt = ([pair[side] for pair in pairs] for side in (0, 1))
    for ours, theirs in zip(translator.score(src, tgt), second.score(src, tgt), strict=True):
        assert [piece for piece, _ in theirs.tokens] == [piece for piece, _ in ours.tokens]
        assert [x for _, x in theirs.tokens] == pytest.approx([x for _, x in ours.tokens], abs=1e-4)
        assert theirs.log_prob == (None if ours.log_prob is None else pytest.approx(ours.log_prob, abs=1e-3))
