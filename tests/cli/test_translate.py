"""The translate command, and what it shares with evaluate: models, pipes, options."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from seq2seq.cli.main import main
from seq2seq.config import Config
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.model_folder import build_model, save_model_folder
from tests.toy import command, environment, run_command

TRANSLATE = "translate model --input text/test.xx --output out --device cpu"


def test_edited_decoding_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model folder's way to translate may be edited, or damaged: either way the translations are others."""
    config = place / "model/best/config.yaml"
    config.write_text(config.read_text().replace("beam_size: 2", "beam_size: 3"))
    assert main(TRANSLATE.split()) == 0
    assert "model: its config.yaml was edited after training: decode.beam_size: 2 -> 3" in capsys.readouterr().err


def test_a_model_that_was_never_validated_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against translations and scores of the last model taken for those of the best."""
    shutil.copytree(place / "model/last", place / "run/last")
    arguments = "--input text/test.xx --output out --device cpu"
    evaluate = "evaluate run --src text/test.xx --ref text/test.yy --device cpu"
    for command_line in (f"translate run {arguments}", evaluate):
        assert main(command_line.split()) == 0
        assert "run: no best model yet; using last (step 200), which was not validated" in capsys.readouterr().err
    for name in ("run/last", "model"):
        assert main(f"translate {name} {arguments}".split()) == 0
        assert "best" not in capsys.readouterr().err


def test_several_models_translate_together(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    tiny_config: Callable[..., Config],
    tiny_tokenizers: TokenizerPair,
) -> None:
    """Guards against an ensemble of the first model alone, and against models that spell their text differently."""
    models = ["model", "wide"]
    for given in (models, *([one] for one in models)):
        name = "out-" + "-".join(given)
        assert main(f"translate {' '.join(given)} --input text/test.xx --output {name} --n-best 2".split()) == 0
    assert len({(place / name).read_text() for name in ("out-model-wide", "out-model", "out-wide")}) == 3
    evaluate = ["evaluate", "model", "wide", "--src", "text/test.xx", "--ref", "text/test.yy", "--save", "scores"]
    assert main(evaluate) == 0
    assert json.loads((place / "scores").read_text(encoding="utf-8"))["model"] == "model + wide"
    assert "A: model model/best + wide/best, beam 2" in capsys.readouterr().out
    weights = dict(build_model(tiny_config(), tiny_tokenizers).named_parameters())
    save_model_folder(place / "other", weights, tiny_config(), tiny_tokenizers, {})
    assert main(["translate", "model", "other", "--input", "text/test.xx", "--output", "none"]) == 2
    assert "other: its tokenizer is not that of model, but" in capsys.readouterr().err
    assert not (place / "none").exists()


def test_a_choice_among_candidates(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against options that are read but have no effect, and scores that do not say how the lines were chosen."""
    shutil.copytree(place / "model", place / "reverse")
    config = place / "reverse/best/config.yaml"
    text = config.read_text().replace("src_lang: xx", "src_lang: yy").replace("tgt_lang: yy", "tgt_lang: xx")
    config.write_text(text)
    rerank = "--rerank reverse --rerank-weight 3"
    outputs = set()
    for name, options in (("plain", ""), ("mbr", "--choose mbr"), ("reranked", rerank)):
        arguments = f"--input text/train.xx --output {name} --beam-size 5 {options}"
        assert main(["translate", "model", *arguments.split()]) == 0
        outputs.add((place / name).read_text())
    assert len(outputs) == 3
    evaluate = (
        "evaluate model --src text/train.xx --ref text/train.yy --quick --save-hyp hyp --save scores --beam-size 5"
    )
    capsys.readouterr()
    assert main([*evaluate.split(), *rerank.split()]) == 0
    captured = capsys.readouterr()
    assert (place / "hyp").read_text() == (place / "reranked").read_text()
    assert "reranked by reverse (weight 3.0)" in captured.out
    assert json.loads((place / "scores").read_text())["rerank"]["reverse.weight"] == "3.0"
    assert main(f"{TRANSLATE} --rerank-weight 1".split()) == 2
    assert main(f"{TRANSLATE} --rerank nowhere".split()) == 2
    assert main(f"{TRANSLATE} --rerank model".split()) == 2
    assert "give one from yy to xx" in capsys.readouterr().err


def test_pipes_are_read(place: Path) -> None:
    """Guards against a pipe taken for a missing file, opened twice, or a gzip stream that loses its beginning."""
    expected = run_command("translate", place / "model", "--input", place / "text/test.xx").stdout
    assert expected.count(b"\n") == 5
    program, scores = " ".join(command()), "--ref <(cat text/test.yy) --tokenize 13a --json"
    lines = [
        f"{program} translate model --input <(gzip -c text/test.xx)",
        f"{program} evaluate --hyp <(gzip -c text/test.yy) {scores}",
        f"gzip -c text/test.yy | {program} evaluate --hyp - {scores}",
    ]
    for line in lines:
        done = subprocess.run(["bash", "-c", line], capture_output=True, env=environment(), timeout=300)
        assert done.returncode == 0, done.stderr.decode()
        if "translate" in line:
            assert done.stdout == expected
        else:
            assert b'"num_lines": 5' in done.stdout
            assert b'"bleu": 100.0' in done.stdout
    source = (place / "text/test.xx").read_bytes()
    assert run_command("translate", "model", "--input", "/dev/stdin", stdin=source).stdout == expected
    rest = ("--ref", "text/test.yy", "--json")
    assert b'"num_lines": 5' in run_command("evaluate", "model", "--src", "-", *rest, stdin=source).stdout


def test_spellings_of_a_source_line_read_alike(place: Path) -> None:
    """Guards against spaces of other kinds, soft hyphens and zero-width characters that change a translation, and
    against a line of nothing else that is translated."""
    odd = "kato\u00a0miren\nkato\u2009miren\nkato\tmiren\nka\u00adto miren\u200b\n\u200b\u3000\ufeff\nkato miren\n"
    done = run_command("translate", "model", stdin=odd.encode())
    lines = done.stdout.decode().split("\n")
    assert lines == [lines[5]] * 4 + ["", lines[5], ""]
    assert lines[5]


def test_int8_that_would_be_slow_is_reported_in_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Guards against --quantize int8 that takes ten times as long as fp32, and against a record that says int8."""
    monkeypatch.setattr("seq2seq.decode.engine.int8_layer", lambda shapes: None)
    Path("in").write_text("ka to\n", encoding="utf-8")
    assert main(["evaluate", "model", "--src", "in", "--ref", "in", "--quantize", "int8", "--json"]) == 0
    out, err = capfd.readouterr()
    assert err.startswith("seq2seq evaluate: int8 is not faster than fp32")
    assert err.count("int8 is not faster") == 1
    assert json.loads(out)["decode"]["quantize"] is None


def test_the_markup_of_a_document_is_not_translated_silently(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a memory or a table whose tags and keys become words of the translation, without a note."""
    for name in ("a.tmx", "b.TSV.gz"):
        (place / name).write_text("<tmx/>\n")
        assert main(["translate", "model", "--input", name, "--output", "out", "--device", "cpu"]) == 0
        assert f"note: --input {name} is read as lines of plain text" in capsys.readouterr().err
    assert main(TRANSLATE.split()) == 0
    assert "plain text" not in capsys.readouterr().err
