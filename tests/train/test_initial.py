"""Promise: a run can start from a model, with more vocabulary and frozen parts, and says in one line why it cannot."""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from seq2seq.config import Config, load_config
from seq2seq.data.extended_vocabulary import Parts, added_pieces
from seq2seq.decode.translator import Translator
from seq2seq.errors import ConfigError, DataError, ModelError
from seq2seq.model_folder import LoadedModel, load_model_folder
from seq2seq.tensors import load_tensors
from seq2seq.train import setup, trainer
from seq2seq.train.checkpoint import list_checkpoints, load_checkpoint
from seq2seq.train.initial import frozen_names
from tests.toy import metrics, set_up, toy_config, train, weights, write_config, write_text_files

SHAPE = "d_model: 16, encoder_layers: 2, decoder_layers: 2"
MODELS = {  # how the old model is trained; what the new run says of it: nothing
    "transformer": ("model.encoder_layers=2", "model.positions=learned"),
    "separate": ("tokenizer.joint=false", "model.tie_embeddings=none", "model.norm_position=pre"),
    "recurrent": (f"model={{architecture: recurrent, {SHAPE}}}", "tokenizer.kind=bpe"),
    "convolutional": (f"model={{architecture: convolutional, {SHAPE}}}", "tokenizer.joint=false"),
}
CHARACTERS = {"ka": "ñé漢", "gu": "Ωλ"}  # that the old models do not have


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text of the old models, and in the folder ``new`` that of another domain."""
    folder = write_text_files(tmp_path_factory.mktemp("text"))
    write_text_files(folder / "new")
    for path in (folder / "new").iterdir():
        content = path.read_text(encoding="utf-8")
        for old, new in CHARACTERS.items():
            content = content.replace(old, new)
        path.write_text(content, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def old(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``old(name)``: the folder of a run with one of ``MODELS``; made once. Copy it to change it."""
    folder = tmp_path_factory.mktemp("old")

    def run(name: str) -> Path:
        if not (folder / name).exists():
            train(toy_config(text, folder / name, *MODELS[name], "train.max_steps=3"))
        return folder / name

    return run


def new_config(text: Path, run: Path, model: Path, *overrides: str) -> Config:
    """A config that starts from a model and states no key of model and tokenizer."""
    path = write_config(text, run)
    lines = path.read_text(encoding="utf-8").split("tokenizer:")
    path.write_text(lines[0] + "optim:" + lines[1].split("optim:")[1], encoding="utf-8")
    return load_config(path, [f"init.from={model}", *overrides])


def named(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    return dict(loaded.model.named_parameters())


@pytest.mark.parametrize("name", MODELS)
def test_a_run_begins_with_the_weights_of_the_model(name: str, text: Path, tmp_path: Path, old: Any) -> None:
    """Guards against random weights, settings of the model that have to be repeated in the config, and another
    tokenizer than the model's."""
    config = new_config(text / "new", tmp_path / "run", old(name))
    run, before = set_up(config), load_model_folder(old(name))
    run.close()
    assert run.config.model.model_dump(exclude={"dropout"}) == before.config.model.model_dump(exclude={"dropout"})
    assert run.config.tokenizer == before.config.tokenizer
    assert run.data.tokenizers.fingerprint == before.tokenizers.fingerprint
    mine = dict(run.model.named_parameters())
    assert mine.keys() == named(before).keys()
    assert all(torch.equal(mine[key], value) for key, value in named(before).items())


@pytest.mark.parametrize("name", MODELS)
def test_new_vectors_are_the_mean_of_their_parts(
    name: str, text: Path, tmp_path: Path, old: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Old rows stay as they are, on both sides, tied or not; a tag, which has no parts, is the mean of all."""
    settings = ("init.extend_vocabulary=true", "tokenizer.vocab_size=350", "data.train.tag=new")
    run, before = set_up(new_config(text / "new", tmp_path / "run", old(name), *settings)), load_model_folder(old(name))
    run.close()
    said = capsys.readouterr().err
    for key, mine in run.model.named_parameters():
        rows = named(before)[key]
        assert torch.equal(mine[: len(rows)], rows), key
        if mine.shape == rows.shape:
            assert not key.startswith(("src_embedding", "tgt_embedding", "output"))
            continue
        side = "src" if key.startswith("src") else "tgt"
        tokenizer, final = getattr(before.tokenizers, side), getattr(run.data.tokenizers, side)
        added = added_pieces(tokenizer, final)
        assert len(mine) == len(rows) + len(added)
        assert {"ñ", "漢", "Ω"} & set(added)
        for place, piece in enumerate(added, start=len(rows)):
            parts = Parts(tokenizer)(piece) if piece != "<new>" else range(4, len(rows))
            torch.testing.assert_close(mine[place], rows[list(parts)].mean(dim=0))
    assert said.count("vocabulary: new pieces: ") == (1 if before.tokenizers.joint else 2)


def test_characters_that_a_vocabulary_lacks_are_reported(
    text: Path, tmp_path: Path, old: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against a model that learns a new script from bytes, unknown to all."""
    for where, count in ((text / "new", 2), (text, 0)):
        set_up(new_config(where, tmp_path / where.name, old("transformer"))).close()
        assert capsys.readouterr().err.count("init.extend_vocabulary=true adds pieces for them") == count


PARTS = {
    "transformer": ["encoder.layers.1", "decoder", "positions"],
    "separate": ["encoder", "embeddings"],
    "recurrent": ["encoder.layers.0-1", "embeddings"],
    "convolutional": ["decoder.layers.1", "positions"],
}


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [("transformer", "muon"), ("separate", "adamw"), ("recurrent", "muon"), ("convolutional", "adamw")],
)
def test_frozen_parts_stay_and_the_others_learn(
    name: str, optimizer: str, text: Path, tmp_path: Path, old: Any
) -> None:
    """Guards against frozen weights that decay, drift in the moving average or take memory in the optimizer, and
    against parts that cannot be frozen alone."""
    before = named(load_model_folder(old(name)))
    settings = ("train.max_steps=2", "train.ema_decay=0.5", "optim.weight_decay=0.1", f"optim.name={optimizer}")
    for part in PARTS[name]:
        run = tmp_path / part
        train(new_config(text, run, old(name), *settings, f"init.freeze=[{part}]"))
        frozen = frozen_names(before, [part])
        checkpoint = load_checkpoint(list_checkpoints(run)[-1])
        assert checkpoint.weights.keys() == before.keys()
        for after in (checkpoint.weights, checkpoint.average, load_tensors(run / "last/model.safetensors")[0]):
            assert {key for key in before if torch.equal(before[key], after[key])} == frozen, part
        assert {key.rsplit(":", 1)[0] for key in checkpoint.optimizer} == before.keys() - frozen


@pytest.mark.parametrize("name", MODELS)
def test_the_parts_are_the_whole_model(name: str, old: Any) -> None:
    """Guards against a parameter that belongs to no part, or to two."""
    names = set(named(load_model_folder(old(name))))
    parts = ["encoder", "decoder", "embeddings", *(["positions"] if "positions" in PARTS[name] else [])]
    found = [frozen_names(names, [part]) for part in parts]
    assert set.union(*found) == names
    assert sum(map(len, found)) == len(names)
    assert frozen_names(names, ["encoder.layers.0"]) < frozen_names(names, ["encoder"])


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        ("encoder.layers.2", "there is no encoder.layers.2; the encoder has the layers 0 to 1"),
        ("encoder.layers.0-7", "there is no encoder.layers.0-7; the encoder has the layers 0 to 1"),
        ("encoder.layers.1-0", "there is no encoder.layers.1-0"),
        ("encoder, decoder, positions, embeddings", "this freezes the whole model"),
    ],
)
def test_what_cannot_be_frozen_is_an_error(freeze: str, message: str, text: Path, tmp_path: Path, old: Any) -> None:
    """Guards against a range that is half there, and a run that learns nothing."""
    with pytest.raises(ConfigError, match=message):
        set_up(new_config(text, tmp_path / "run", old("transformer"), f"init.freeze=[{freeze}]"))
    assert not list((tmp_path / "run").glob("*"))


def test_a_part_that_the_model_lacks_is_an_error(text: Path, tmp_path: Path, old: Any) -> None:
    """Guards against a name that is accepted and freezes nothing."""
    with pytest.raises(ConfigError, match="the model has no positions; the parts are encoder, decoder, embeddings"):
        set_up(new_config(text, tmp_path / "run", old("separate"), "init.freeze=[positions]"))
    with pytest.raises(ConfigError, match="no part of a model is called 'attention'; the parts are"):
        new_config(text, tmp_path / "run", old("separate"), "init.freeze=[attention]")


def test_frozen_vectors_of_new_tags_are_an_error(text: Path, tmp_path: Path, old: Any) -> None:
    """Guards against a tag that stays without a meaning."""
    settings = ("init.freeze=[embeddings]", "data.train.tag=new", "data.valid.tag=new")
    with pytest.raises(ConfigError, match="embeddings cannot be frozen, because the model does not know <new>"):
        set_up(new_config(text, tmp_path / "run", old("separate"), *settings))


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("transformer", "model.d_ff=64", "model.d_ff is 64, but the model has 32"),
        ("transformer", "model.norm=rmsnorm", 'model.norm is "rmsnorm", but the model has "layernorm"'),
        ("transformer", "tokenizer.vocab_size=400", "tokenizer.vocab_size is 400, but the model has 330"),
        ("transformer", "data.max_length=25", "data.max_length is 25, but the model has 24"),
        ("recurrent", "model.num_heads=2", "model.num_heads is 2, but the model is recurrent and has no such key"),
        ("recurrent", "model.architecture=transformer", 'architecture is "transformer", but the model has "recurrent"'),
        ("separate", "tokenizer.joint=true", "tokenizer.joint is true, but the model has false"),
    ],
)
def test_a_stated_key_that_differs_is_an_error(
    name: str, override: str, message: str, text: Path, tmp_path: Path, old: Any
) -> None:
    """Guards against a config that says one thing and a model that is another."""
    with pytest.raises(ConfigError, match=message) as refused:
        set_up(new_config(text, tmp_path / "run", old(name), override))
    for line in str(refused.value).splitlines():
        assert line.endswith(f"(init.from: {old(name) / 'best'}); remove the key: it is taken from the model")


def test_training_settings_may_differ(text: Path, tmp_path: Path, old: Any) -> None:
    """Dropout, sampling and the length of sentences, where no position is learned, belong to the run; equal settings
    may be stated, and a preset that does not contradict the model."""
    settings = ("model.dropout=0.3", "tokenizer.sampling=0.2", "data.max_length=20", "model.d_ff=32")
    with closing(set_up(new_config(text, tmp_path / "run", old("separate"), *settings))) as run:
        assert (run.config.model.dropout, run.config.tokenizer.sampling, run.config.data.max_length) == (0.3, 0.2, 20)


def break_weights(folder: Path) -> None:
    path = folder / "best/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shutil.rmtree, "no such folder; give a run folder or a model folder"),
        (lambda folder: [shutil.rmtree(folder / name) for name in ("best", "last")], "not a model folder"),
        (break_weights, "damaged: its content does not match its checksum"),
        (lambda folder: (folder / "best/tokenizer.model").unlink(), "no tokenizer.model"),
        (lambda folder: (folder / "best/config.yaml").unlink(), "cannot be read"),
    ],
)
def test_a_wrong_folder_is_refused_in_one_line(
    change: Callable[[Path], None], message: str, text: Path, tmp_path: Path, old: Any
) -> None:
    """Nothing is written, and the line begins with the key."""
    shutil.copytree(old("transformer"), tmp_path / "old")
    change(tmp_path / "old")
    with pytest.raises(ModelError, match=message) as refused:
        set_up(new_config(text, tmp_path / "run", tmp_path / "old"))
    assert str(refused.value).startswith(f"init.from: {tmp_path / 'old'}")
    assert "\n" not in str(refused.value)
    assert not list((tmp_path / "run").glob("*"))


EXTENDED = ("init.extend_vocabulary=true", "tokenizer.vocab_size=350", "init.freeze=[encoder]", "train.ema_decay=0.9")


@pytest.fixture(scope="module")
def extended(text: Path, old: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("extended") / "run"
    train(new_config(text / "new", run, old("transformer"), *EXTENDED))
    return run


class Stopped(BaseException):
    """Stands for kill -9."""


def test_a_run_continues_without_the_model(text: Path, tmp_path: Path, old: Any) -> None:
    """Guards against a run that begins anew, or differs, where the model that it started from was trained further,
    moved or deleted, or where the cache of the data is lost."""
    shutil.copytree(old("transformer"), tmp_path / "old")

    def config(run: str) -> Any:
        cache = f"data.cache_dir={tmp_path}/{run}-cache"
        return new_config(text / "new", tmp_path / run, tmp_path / "old", *EXTENDED, cache)

    train(config("straight"))
    train(config("stopped"), stop_after=4)
    shutil.rmtree(tmp_path / "old")
    shutil.rmtree(tmp_path / "stopped-cache")
    assert train(config("stopped")).progress.step == 12
    for name in ("best", "last"):
        assert weights(tmp_path / "stopped", name) == weights(tmp_path / "straight", name)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "straight")
    (tmp_path / "stopped/initial/tokenizer.model").write_bytes(b"broken")
    with pytest.raises(ModelError, match=r"initial/tokenizer\.model: not a SentencePiece .*copy it from there"):
        train(config("stopped"))


@pytest.mark.parametrize(
    "override", ["init.from=null", "init.freeze=[]", "init.extend_vocabulary=false", "init.from=x"]
)
def test_what_a_run_started_from_does_not_change(override: str, text: Path, tmp_path: Path, old: Any) -> None:
    """Guards against a run whose second half is trained in another way than its config says."""
    train(new_config(text / "new", tmp_path / "run", old("transformer"), *EXTENDED), stop_after=4)
    changed = (
        [override] if override != "init.from=null" else [override, "init.freeze=[]", "init.extend_vocabulary=false"]
    )
    with pytest.raises(ConfigError, match=rf"holds a run with other settings \({override.split('=')[0]}: "):
        train(new_config(text / "new", tmp_path / "run", old("transformer"), *EXTENDED, *changed))


def test_a_model_of_another_start_is_not_replaced(text: Path, tmp_path: Path, old: Any) -> None:
    """Guards against a run that was killed after its first validation, before its first checkpoint, and that begins
    again in another way: the best model of the first start would be lost."""
    often = ("train.validate_every=1", "train.save_every=100", "train.first_validation=null")
    model = old("transformer")
    with mock.patch.object(trainer, "save_run", side_effect=Stopped), pytest.raises(Stopped):
        train(new_config(text / "new", tmp_path / "run", model, *often))
    best = (tmp_path / "run/best/model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=r"holds a run with other settings \(init.freeze: \[\] -> "):
        train(new_config(text / "new", tmp_path / "run", model, *often, "init.freeze=[encoder]"))
    assert (tmp_path / "run/best/model.safetensors").read_bytes() == best


@pytest.mark.parametrize("name", ["start_from", "freeze", "describe", "record_beginning", "write_text"])
def test_a_start_that_is_killed_leaves_nothing_half_written(
    name: str, text: Path, tmp_path: Path, old: Any, extended: Path
) -> None:
    """The same command begins again and ends as if nothing had happened; the model that it starts from is untouched."""
    before = {path: path.read_bytes() for path in old("transformer").rglob("*") if path.is_file()}
    config = new_config(text / "new", tmp_path / "run", old("transformer"), *EXTENDED)
    with mock.patch.object(setup, name, side_effect=Stopped), pytest.raises(Stopped):
        train(config)
    assert not list((tmp_path / "run").rglob("*.tmp"))
    train(config)
    assert weights(tmp_path / "run") == weights(extended)
    assert metrics(tmp_path / "run") == metrics(extended)
    assert before == {path: path.read_bytes() for path in before}


def test_the_model_of_the_run_is_complete(text: Path, tmp_path: Path, old: Any) -> None:
    """It names no folder of this machine, translates without the old model, knows both old and new tags, and can be
    started from in turn."""
    tagged = ("data.train.tag=new", "data.valid.tag=new")
    train(new_config(text / "new", tmp_path / "run", old("separate"), *EXTENDED, *tagged))
    shutil.copytree(tmp_path / "run/best", tmp_path / "copy")
    for path in (tmp_path / "copy").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()
        assert str(old("separate")).encode() not in path.read_bytes()
    translator = Translator.load(tmp_path / "copy")
    assert len(translator.translate(["mipa ñé漢"], tag="new")) == 1
    again = new_config(
        text / "new", tmp_path / "again", tmp_path / "copy", "data.train.tag=more", "data.valid.tag=more"
    )
    train(again)
    assert set(load_model_folder(tmp_path / "again").tokenizers.src.tags) == {"new", "more"}


@pytest.mark.parametrize(
    ("override", "error"),
    [("optim.lr=0.02", ConfigError), ("optim.schedule=constant", ConfigError), ("data.train.weight=2", DataError)],
)
def test_a_refusal_says_how_to_train_further(
    override: str, error: type[Exception], text: Path, tmp_path: Path, old: Any
) -> None:
    """Guards against a dead end: more text, or another learning rate, start from the best model in a new folder; the
    line that says so works."""
    shutil.copytree(old("transformer"), tmp_path / "old")
    if error is DataError:
        shutil.copytree(text, tmp_path / "text")
        (tmp_path / "text/train.xx").write_bytes((text / "train.xx").read_bytes().replace(b"ka", b"ke"))
        config = toy_config(tmp_path / "text", tmp_path / "old", *MODELS["transformer"])
    else:
        config = toy_config(text, tmp_path / "old", *MODELS["transformer"], override)
    line = f"in a new run: init.from={tmp_path / 'old'} run_dir={tmp_path / 'old'}-2"
    with pytest.raises(error, match=line) as refused:
        train(config)
    words = str(refused.value).split("in a new run: ")[1].split(" ")
    assert train(toy_config(text, tmp_path / "x", *MODELS["transformer"], *words)).progress.step == 12
    assert (tmp_path / "old-2/best/model.safetensors").exists()
    with pytest.raises(ConfigError) as refused:
        train(toy_config(text, tmp_path / "old", *MODELS["transformer"], "model.d_ff=64"))
    assert "init.from" not in str(refused.value)


def test_a_run_that_starts_from_a_model_is_not_measured_by_those_that_did_not(
    text: Path, tmp_path: Path, old: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against "too little text" for a few hundred pairs, which can be enough to adapt a model."""
    model = old("separate")
    capsys.readouterr()  # training it may be the first use, and says what this test looks for
    set_up(new_config(text, tmp_path / "run", model)).close()
    assert "starting from the weights of" in (said := capsys.readouterr().err)
    assert "too little text" not in said
