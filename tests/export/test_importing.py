"""Promise: a Marian model of Hugging Face becomes a model folder that computes the same, or nothing is written."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from seq2seq.cli.main import main
from seq2seq.decode.translator import Translator
from seq2seq.errors import ModelError, UserError
from seq2seq.export import importing, marian_tokenizer
from seq2seq.export.importing import PROOF, import_folder
from seq2seq.model_folder import load_model_folder
from tests.export.marian import opus_table, pieces_of, sentence_lines, sentencepiece_model, write_folder
from tests.toy import environment

CODES = (">>zho<<", ">>deu<<")
KILLED = """
import os, signal, sys
from pathlib import Path
from seq2seq.export import importing
importing.is_installed = lambda: False
importing.put_folder_in_place = lambda new, folder: os.kill(os.getpid(), signal.SIGKILL)
importing.import_folder(Path(sys.argv[1]), Path(sys.argv[2]), print)
"""


@pytest.fixture(scope="module")
def spms():
    return sentencepiece_model(sentence_lines("en"), 300), sentencepiece_model(sentence_lines("zh"), 500)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, spms):
    """Two SentencePiece models, one table without some pieces of the source, and language tokens."""
    pytest.importorskip("transformers")
    table = opus_table(*spms, CODES, missing=tuple(pieces_of(spms[0])[20:24]))
    return write_folder(tmp_path_factory.mktemp("theirs") / "opus-mt-en-zh", *spms, table)


@pytest.fixture(scope="module")
def imported(folder, tmp_path_factory):
    """The folder that it became, and what was said."""
    lines = []
    output = tmp_path_factory.mktemp("ours") / "model"
    import_folder(folder, output, lines.append)
    return output, "\n".join(lines)


@pytest.fixture
def without_library(monkeypatch):
    monkeypatch.setattr(importing, "is_installed", lambda: False)


def test_the_model_is_proved_and_complete(imported):
    """Guards against what OPUS-MT's models have and ours do not: swish, bias, pad as the start, two SentencePiece
    models with one table, language tokens, pieces without an id; the proof compares with the library itself."""
    output, said = imported
    report = json.loads((output / PROOF).read_text(encoding="utf-8"))
    assert report["texts"] > 20
    assert report["largest_difference"] < 1e-4
    assert "proved with transformers" in said
    assert "4 source pieces stand for <unk>" in said
    assert "--tag zho" in said
    translator = Translator.load(output)
    assert translator.config.data.target_language == "zh"
    assert translator.config.decode.beam_size == 6
    assert len(set(translator.translate(sentence_lines("en", 5), tag="deu"))) > 1
    with pytest.raises(UserError, match="needs a tag"):
        translator.translate("We")
    assert str(output.parent) not in "".join(
        path.read_text(encoding="utf-8", errors="replace") for path in output.iterdir()
    )


@pytest.mark.parametrize("text", ["我", "x 我 y", "我们好", "☃", "ha我", "我,我"])
def test_characters_of_the_other_side(imported, folder, text):
    """Guards against <unk> for a character that the source's SentencePiece does not know, but that the table has."""
    from seq2seq.export.huggingface import Reference

    loaded = load_model_folder(imported[0])
    ids = loaded.tokenizers.src.encode([text])[0]
    table = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    texts = [table.get(piece, table["<unk>"]) for piece in loaded.tokenizers.src.pieces(ids)]
    assert texts == Reference(folder).encode([text])[0][:-1]


def test_a_joint_model_shares_its_embeddings(tmp_path, without_library):
    """Guards against three tables where one is enough, and against a checkpoint of PyTorch that is read otherwise."""
    pytest.importorskip("transformers")
    joint = sentencepiece_model(sentence_lines("en") + sentence_lines("zh"), 700)
    theirs = write_folder(tmp_path / "theirs", joint, joint, opus_table(joint, joint), activation_function="relu")
    import_folder(theirs, tmp_path / "ours", lambda line: None)
    loaded = load_model_folder(tmp_path / "ours")
    assert loaded.tokenizers.joint
    assert loaded.config.model.tie_embeddings == "all"
    from seq2seq.tensors import load_foreign_tensors

    tensors = load_foreign_tensors(theirs / "model.safetensors")
    for number, zipped in enumerate((True, False)):
        torch.save(tensors, theirs / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        (theirs / "model.safetensors").unlink(missing_ok=True)
        import_folder(theirs, tmp_path / f"bin{number}", lambda line: None)
        weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("ours", f"bin{number}")]
        assert weights[0] == weights[1]


def test_a_wrong_import_is_seen(folder, tmp_path, monkeypatch):
    """Guards against a proof that would pass with anything: heads exchanged in one layer, and nothing is written."""
    plain = importing.to_ours

    def wrong(weights, config):
        found = plain(weights, config)
        out = found["decoder_layers.1.cross_attention.out.weight"]
        out[:, :16] = torch.cat([out[:, 8:16], out[:, :8]], dim=1)
        return found

    monkeypatch.setattr(importing, "to_ours", wrong)
    with pytest.raises(ModelError, match=r"the proof failed: log-probabilities of .* differ"):
        import_folder(folder, tmp_path / "ours", lambda line: None)
    assert not list(tmp_path.iterdir())


def test_a_wrong_tokenizer_is_seen(folder, tmp_path, monkeypatch):
    """Guards against a proof without tokenizers."""
    monkeypatch.setattr(marian_tokenizer, "_missing", lambda model, table: [])
    with pytest.raises(ModelError, match="the proof failed: the ids of the source"):
        import_folder(folder, tmp_path / "ours", lambda line: None)


def test_without_the_library(folder, tmp_path, without_library):
    """Guards against silence where nothing was proved."""
    lines = []
    import_folder(folder, tmp_path / "ours", lines.append)
    assert "not proved" in lines[-1]
    assert "huggingface" in lines[-1]
    assert not (tmp_path / "ours" / PROOF).exists()


EDITS = {
    "model_type": ("t5", "model_type"),
    "activation_function": ("gelu_new", "seq2seq has"),
    "scale_embedding": (False, "root of d_model"),
    "normalize_before": (True, "opposite"),
    "add_final_layer_norm": (True, "opposite"),
    "normalize_embedding": (True, "does not normalise"),
    "static_position_embeddings": (False, "sinusoids"),
    "decoder_attention_heads": (2, "same number"),
    "decoder_ffn_dim": (128, "same width"),
    "quantization_config": ({}, "quantised"),
    "tie_word_embeddings": (False, "share"),
    "d_model": ("32", "whole number"),
    "encoder_layers": (3, "lack the tensor model.encoder.layers.2"),
    "decoder_layers": (1, "has the tensor model.decoder.layers.1|have the tensor model.decoder.layers.1"),
    "encoder_attention_heads": (5, "decoder_attention_heads"),
    "vocab_size": (10, "not below vocab_size"),
    "max_position_embeddings": (1, "max_length"),
    "dropout": (2, "dropout"),
    "pad_token_id": (3, "pad_token_id is 3"),
    "eos_token_id": (3, "eos_token_id is 3"),
}


@pytest.mark.parametrize("key", EDITS)
def test_what_cannot_be_represented(folder, tmp_path, key, without_library):
    """Guards against settings that are ignored: one line with the key and the reason, and no folder."""
    value, reason = EDITS[key]
    theirs = shutil.copytree(folder, tmp_path / "theirs")
    config = json.loads((theirs / "config.json").read_text(encoding="utf-8"))
    (theirs / "config.json").write_text(json.dumps({**config, key: value}), encoding="utf-8")
    with pytest.raises(ModelError, match=reason) as error:
        import_folder(theirs, tmp_path / "ours", lambda line: None)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("name", ["config.json", "vocab.json", "source.spm", "target.spm", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "elsewhere"])
def test_damaged_folders(folder, tmp_path, name, damage, without_library, capsys):
    """Guards against tracebacks and half-written folders, and against files outside of the folder."""
    theirs = shutil.copytree(folder, tmp_path / "theirs")
    path = theirs / name
    content = path.read_bytes()
    path.unlink()
    if damage == "elsewhere":
        (tmp_path / "secret").write_bytes(content)
        path.symlink_to(tmp_path / "secret")
    elif damage != "missing":
        path.write_bytes(b"" if damage == "empty" else content[: len(content) // 2])
    assert main(["import", str(theirs), "--output", str(tmp_path / "ours")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("seq2seq import: error: ")
    assert said.count("\n") == 1
    assert str(theirs) in said
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(["theirs", *["secret"] * (damage == "elsewhere")])


class _Code:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_code_in_a_checkpoint_is_not_run(folder, tmp_path, monkeypatch, without_library):
    """Guards against pickles from strangers."""
    monkeypatch.chdir(tmp_path)
    theirs = shutil.copytree(folder, tmp_path / "theirs")
    (theirs / "model.safetensors").unlink()
    for content in ({"a": _Code()}, _Code()):
        torch.save(content, theirs / "pytorch_model.bin")
        with pytest.raises(ModelError, match=r"pytorch_model\.bin: "):
            import_folder(theirs, tmp_path / "ours", lambda line: None)
        (theirs / "pytorch_model.bin").write_bytes(pickle.dumps(content))
        with pytest.raises(ModelError, match=r"pytorch_model\.bin: "):
            import_folder(theirs, tmp_path / "ours", lambda line: None)
    assert not (tmp_path / "executed").exists()


def test_wrong_arguments(folder, tmp_path):
    """Guards against an import over something that exists, and against a folder that is not there."""
    with pytest.raises(UserError, match="exists already"):
        import_folder(folder, tmp_path, print)
    with pytest.raises(ModelError, match="no such folder"):
        import_folder(tmp_path / "nowhere", tmp_path / "ours", print)
    with pytest.raises(ModelError, match=r"no config\.json"):
        import_folder(tmp_path, tmp_path / "ours", print)


def test_killed(folder, tmp_path, without_library):
    """Guards against a half-written folder after kill -9; the next import removes what was left."""
    output = tmp_path / "ours"
    arguments = [sys.executable, "-c", KILLED, str(folder), str(output)]
    done = subprocess.run(arguments, env=environment(), capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL
    assert not output.exists()
    assert any(tmp_path.iterdir())
    import_folder(folder, output, lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]
