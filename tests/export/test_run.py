"""An export is proved: the other program translates the probe as ours does, or nothing is written."""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from seq2seq.cli.main import main
from seq2seq.config import Config
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.decode import ctranslate2_model
from seq2seq.decode.translator import Translator
from seq2seq.errors import UserError
from seq2seq.export import ctranslate2
from seq2seq.export.run import Order, export
from seq2seq.model.transformer import Transformer
from seq2seq.model_folder import build_model, save_model_folder
from tests.toy import ROOT, sentences, write_lines

pytest.importorskip("ctranslate2")


def _export(*order: Any) -> list[str]:
    """The lines for the user."""
    said: list[str] = []
    export(Order(*order), said.append)
    return said


def _report(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "parity.json").read_text(encoding="utf-8"))
    return report


@pytest.fixture
def edited(model: Path, tmp_path: Path) -> Callable[..., Path]:
    """``edited(key=value)``: a copy of the model with other settings in its config.yaml."""

    def make(**settings: str) -> Path:
        folder = tmp_path / "model"
        folder.mkdir()
        for path in (model / "best").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        config = (folder / "config.yaml").read_text(encoding="utf-8")
        for key, value in settings.items():
            config = re.sub(rf"(?m)^  {key}: .*", f"  {key}: {value}", config)
        (folder / "config.yaml").write_text(config, encoding="utf-8")
        return folder

    return make


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every conversion swaps two heads of the encoder: their queries, but not their keys and values."""
    write_model = ctranslate2_model.write_model

    def swapped(model: Transformer, *more: Any) -> None:
        weight = model.encoder_layers[0].self_attention.qkv.weight
        half = model.config.d_model // model.config.num_heads
        kept = weight.detach().clone()
        with torch.no_grad():
            weight[:half], weight[half : 2 * half] = kept[half : 2 * half], kept[:half]
            write_model(model, *more)
            weight.copy_(kept)

    monkeypatch.setattr(ctranslate2, "write_model", swapped)


def test_the_export_is_proved_and_complete(model: Path, tmp_path: Path) -> None:
    """Guards against a report of something else, and against paths of the trainer's machine."""
    said = _export(model, "ctranslate2", tmp_path / "out")
    assert said[0].startswith("6 of 6 lines have the same tokens and the same score")
    assert said[1].startswith("with int8, ")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"README.md", "parity.json", "parity.txt", "model.bin", "config.json", "tokenizer.model"}
    report = _report(tmp_path / "out")
    assert (report["num_lines"], report["num_same"], report["differences"]) == (6, 6, [])
    assert report["probe"] == "probe.txt of the model"
    assert 0 < report["largest_gap"] < 1e-4
    for path in (tmp_path / "out").iterdir():
        for foreign in (model.parent, tmp_path, ROOT, Path.home()):
            assert str(foreign).encode() not in path.read_bytes(), path
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_program_of_the_card_translates(edited: Callable[..., Path], tmp_path: Path) -> None:
    """Guards against a model card whose program does not run, or runs with other settings. There is no penalty for
    length in it, because CTranslate2 has another one."""
    model = edited(length_penalty="0", max_length_offset="200")
    _export(model, "ctranslate2", tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```", card, re.DOTALL | re.MULTILINE)
    program = program.replace('model = "."', f"model = {str(tmp_path / 'out')!r}")
    translator = Translator.load(model, device="cpu")
    for text in ("kato miren", "sol\u00a0vu  pa"):
        names: dict[str, Any] = {"print": mock.Mock()}
        exec(program.replace('text = "..."', f"text = {text!r}"), names)
        names["print"].assert_called_once_with(translator.translate(text))


@pytest.mark.usefixtures("wrong")
def test_two_swapped_heads_are_found(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a proof that any model passes, and against an error without the sentence."""
    write_lines(tmp_path / "probe", [src for src, _ in sentences(20, 8)])
    command = ["export", str(model), "--to", "ctranslate2", "--output", str(tmp_path / "out")]
    command += ["--probe", str(tmp_path / "probe")]
    assert main(command) == 2
    error = capsys.readouterr().err
    found = re.search(r"; (\d+) differ; nothing was written. The first is\nline (\d+), (\w+): the models differ", error)
    assert found is not None
    line = (tmp_path / "probe").read_text(encoding="utf-8").split("\n")[int(found[2]) - 1]
    assert f"  source: {line}\n  ours:   " in error
    assert [path.name for path in tmp_path.iterdir()] == ["probe"]
    few = str(int(found[1]) - 1)
    assert main([*command, "--allow-differences", few]) == 2
    assert main([*command, "--allow-differences", found[1]]) == 0
    report = _report(tmp_path / "out")
    assert len(report["differences"]) == int(found[1])
    assert report["differences"][0]["source"] == line
    assert f"line {found[2]}, {found[3]}: the models differ" in (tmp_path / "out/parity.txt").read_text("utf-8")


@pytest.mark.usefixtures("wrong")
def test_a_failed_export_leaves_the_earlier_one(model: Path, tmp_path: Path) -> None:
    """Guards against a good export that is lost for one that is refused."""
    with mock.patch.object(ctranslate2, "write_model", ctranslate2_model.write_model):
        _export(model, "ctranslate2", tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(UserError, match="does not translate as this one"):
        _export(model, "ctranslate2", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_interrupted_export_leaves_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against half a folder that looks like an export."""
    monkeypatch.setattr("seq2seq.export.run.card_for", mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        _export(model, "ctranslate2", tmp_path / "out")
    assert [*tmp_path.iterdir()] == []


def test_only_an_export_is_replaced(model: Path, tmp_path: Path) -> None:
    """Guards against a user's folder, or the model itself, that a wrong --output deletes."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/text").write_text("mine")
    for output in (tmp_path / "mine", tmp_path / "mine/text", model / "best"):
        with pytest.raises(UserError, match=r"^--output: .* exists and is no earlier export; name a new folder$"):
            _export(model, "ctranslate2", output)
    (tmp_path / "empty").mkdir()
    _export(model, "ctranslate2", tmp_path / "empty")
    _export(model / "best", "ctranslate2", tmp_path / "empty")
    assert (tmp_path / "mine/text").read_text() == "mine"


def test_the_probe_of_the_user(tagged: Path, tmp_path: Path) -> None:
    """Guards against blank and long lines that the proof stumbles over, against a tag that is left out, and against
    references that belong to other lines."""
    write_lines(tmp_path / "probe", ["kato miren", "", "  ", "sol " * 60, "vu"])
    write_lines(tmp_path / "references", ["dorfe", "blank", "blank", "ji", "bra"])
    said = _export(tagged, "ctranslate2", tmp_path / "out", tmp_path / "probe", tmp_path / "references")
    report = _report(tmp_path / "out")
    assert (report["num_lines"], report["num_same"], report["probe"]) == (3, 3, "probe")
    assert re.search(r"BLEU [\d.]+ instead of [\d.]+ \(nrefs:1", said[1])
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert 'pieces = ["<one>"] + src.encode(text, out_type=str)' in card
    assert "tokenizer.tgt.model" in card
    write_lines(tmp_path / "references", ["dorfe"])
    with pytest.raises(UserError, match=r"--ref: .* has 1 lines, fewer than the probe"):
        _export(tagged, "ctranslate2", tmp_path / "other", tmp_path / "probe", tmp_path / "references")
    write_lines(tmp_path / "probe", ["", " "])
    with pytest.raises(UserError, match=r"--probe: .* has no line with text"):
        _export(tagged, "ctranslate2", tmp_path / "other", tmp_path / "probe")
    assert not (tmp_path / "other").exists()


def test_a_model_without_text_is_proved_with_random_tokens(model: Path, tmp_path: Path) -> None:
    """Guards against an old model folder that cannot be exported, or that is exported without proof."""
    (tmp_path / "model").mkdir()
    for path in (model / "best").iterdir():
        if path.name not in ("probe.txt", "README.md"):
            (tmp_path / "model" / path.name).write_bytes(path.read_bytes())
    _export(tmp_path / "model", "ctranslate2", tmp_path / "out", None, None, 100)
    report = _report(tmp_path / "out")
    assert report["num_lines"] == 100
    assert report["probe"].startswith("random tokens")
    assert report["num_same"] >= 95
    assert all(one["kind"] != "score" for one in report["differences"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ablate": ["norm"]}, "CTranslate2 has only whole Transformers"),
        ({"positions": "sinusoidal", "attention_window": 2}, "CTranslate2 has no attention window beside sinusoidal"),
    ],
)
@pytest.mark.parametrize("target", ["ctranslate2", "argos"])
def test_what_cannot_be_exported_is_refused_in_one_line(
    tiny_config: Callable[..., Config],
    tiny_tokenizers: TokenizerPair,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
    message: str,
    target: str,
) -> None:
    """Guards against a traceback, or a conversion that leaves out what the other program does not have."""
    config = tiny_config(**options)
    weights = dict(build_model(config, tiny_tokenizers).named_parameters())
    save_model_folder(tmp_path / "model", weights, config, tiny_tokenizers, {})
    assert main(["export", str(tmp_path / "model"), "--to", target, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_mistakes_on_the_command_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against options that are silently ignored, and against a message without the extra to install."""
    command = ["export", str(model), "--to", "ctranslate2", "--output", str(tmp_path / "out")]
    assert main([*command, "--allow-differences", "-1"]) == 2
    assert main([*command, "--ref", "file"]) == 2
    assert main([*command, "--probe", str(tmp_path / "none")]) == 2
    with mock.patch.dict("sys.modules", ctranslate2=None):
        assert main(command) == 2
    errors = capsys.readouterr().err.splitlines()
    for error, message in zip(errors, ("at least 0", "--ref: give --probe", "none", "the extra: pip"), strict=True):
        assert message in error


def test_a_package_for_argos(edited: Callable[..., Path], tmp_path: Path) -> None:
    """Guards against an archive that Argos does not read, that has another tokenizer, or that differs every time."""
    with_languages = edited(src_lang="de_DE", tgt_lang="en_GB")
    said = _export(with_languages, "argos", tmp_path / "out")
    assert said[0].startswith("6 of 6 lines")
    name = "translate-de_en-1_0"
    path = tmp_path / "out" / f"{name}.argosmodel"
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        metadata = json.loads(archive.read(f"{name}/metadata.json"))
        model = archive.read(f"{name}/sentencepiece.model")
    inner = {"config.json", "model.bin", "shared_vocabulary.json"}
    files = {"metadata.json", "README.md", "sentencepiece.model", *(f"model/{file}" for file in inner)}
    assert names == {f"{name}/{file}" for file in files}
    assert (metadata["from_code"], metadata["from_name"], metadata["to_code"]) == ("de", "German", "en")
    assert model == (with_languages / "tokenizer.model").read_bytes()
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert f"argospm install {name}.argosmodel\nargos-translate --from de --to en" in card
    _export(with_languages, "argos", tmp_path / "again")
    assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_what_argos_cannot_use(tagged: Path, tmp_path: Path) -> None:
    """Guards against a package that Argos translates wrongly: with two tokenizers."""
    with pytest.raises(UserError, match=r"Argos has one tokenizer for both sides; train with tokenizer.joint: true"):
        _export(tagged, "argos", tmp_path / "out")
