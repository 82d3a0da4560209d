"""Promise: a model folder is complete and consistent, or a ModelError says what is wrong and where."""

import json
import os
import re
import shutil
import sys

import pytest
import torch

from seq2seq.config import TokenizerConfig, portable
from seq2seq.data.tokenizer import TokenizerPair, train_tokenizer
from seq2seq.errors import ModelError
from seq2seq.model_folder import (
    CONFIG,
    WEIGHTS,
    build_model,
    find_model_folder,
    load_model_folder,
    save_model_folder,
)
from seq2seq.tensors import load_tensors, save_tensors


@pytest.fixture(scope="module")
def other_tokenizer():
    model, _ = train_tokenizer(["la lo lu li le", "lolu lali"], TokenizerConfig(kind="unigram", vocab_size=290))
    return model


def write_folder(folder, config, tokenizers):
    torch.manual_seed(1)
    model = build_model(config, tokenizers)
    save_model_folder(folder, dict(model.named_parameters()), config, tokenizers, {"step": "3"})
    return model


@pytest.fixture
def folder(tmp_path, tiny_config, tiny_tokenizers):
    write_folder(tmp_path / "model", tiny_config(), tiny_tokenizers)
    return tmp_path / "model"


def refuses(path, reason, names=None):
    """Loading ``path`` is a ModelError that names it (or ``names``) and the reason."""
    with pytest.raises(ModelError, match=reason) as caught:
        load_model_folder(path)
    assert str(names or path) in str(caught.value)


@pytest.mark.parametrize("tie", ["all", "target", "none"])
@pytest.mark.parametrize("options", [{}, {"norm_position": "pre", "norm": "rmsnorm", "positions": "learned"}])
def test_round_trip(tmp_path, tiny_config, tiny_tokenizers, other_tokenizer, tie, options):
    """Guards against weights lost, doubled or untied on the way; the folder is copied elsewhere first (contract 8)."""
    tokenizers = tiny_tokenizers if tie == "all" else TokenizerPair(tiny_tokenizers.src, other_tokenizer)
    tokenizers = tokenizers.normalising()
    config = tiny_config(tie_embeddings=tie, **options)
    config = config.model_copy(update={"tokenizer": config.tokenizer.model_copy(update={"joint": tie == "all"})})
    model = write_folder(tmp_path / "model", config, tokenizers)
    shutil.move(tmp_path / "model", tmp_path / "elsewhere")
    loaded = load_model_folder(tmp_path / "elsewhere")
    assert not loaded.model.training
    assert portable(loaded.config) == portable(config)
    assert loaded.tokenizers.fingerprint == tokenizers.fingerprint
    assert loaded.metadata["step"] == "3"
    assert loaded.metadata["tokenizer"] == tokenizers.fingerprint
    ours, theirs = model.state_dict(), loaded.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (loaded.model.output_weight is loaded.model.tgt_embedding.weight) == (tie != "none")
    assert len(load_tensors(tmp_path / "elsewhere" / WEIGHTS)[0]) == len(list(model.parameters()))


def test_a_folder_of_before_normalisation_reads_text_as_it_is(folder, tiny_tokenizers):
    """Guards against an older model that suddenly translates other text than it was trained on."""
    config = (folder / "config.yaml").read_text(encoding="utf-8")
    (folder / "config.yaml").write_text(config.replace("  normalise_source: true\n", ""), encoding="utf-8")
    loaded = load_model_folder(folder)
    assert not loaded.config.tokenizer.normalise_source
    assert loaded.tokenizers.src.encode(["ka\u00a0to"]) == tiny_tokenizers.src.encode(["ka\u00a0to"])


def test_the_rule_of_the_source_is_part_of_the_model(tmp_path, tiny_config, tiny_tokenizers):
    """Guards against a copy without tokenizer.src.json, or with another config, that translates otherwise unseen."""
    folder = tmp_path / "model"
    write_folder(folder, tiny_config(), tiny_tokenizers.normalising())
    config = (folder / "config.yaml").read_text(encoding="utf-8")
    (folder / "config.yaml").write_text(config.replace("normalise_source: true", "normalise_source: false"))
    refuses(folder, r"tokenizer\.normalise_source: true -> false")
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    (folder / "tokenizer.src.json").unlink()
    refuses(folder, "the tokenizer is not the one")


def test_nothing_names_a_folder_of_this_machine(folder, tmp_path, tiny_config):
    """Guards against the user's name and folders in a model that is given away; the languages, from the names of
    the training files, stay."""
    for file in folder.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file
    data = load_model_folder(folder).config.data
    assert (data.src_lang, data.tgt_lang) == ("en", "de")
    assert load_model_folder(folder).edited == ()
    text = (folder / CONFIG).read_text()
    for old in ("src_lang: en", "tgt_lang: de"):  # as in folders of old, with absolute paths
        text = text.replace(old, old.split()[0] + " null").replace("- train.", f"- {tmp_path}/train.")
    (folder / CONFIG).write_text(text)
    tensors, metadata = load_tensors(folder / WEIGHTS)
    settings = json.loads(metadata["config"])
    settings["data"] |= {"src_lang": None, "tgt_lang": None}
    save_tensors(folder / WEIGHTS, tensors, {**metadata, "config": json.dumps(settings)})
    loaded = load_model_folder(folder)
    assert (loaded.edited, loaded.config.data.target_language) == ((), "de")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("lr: 0.001", "lr: 0.001\n  momentum: 3"),
        lambda text: text.replace("metric: bleu", "metric: ter"),
        lambda text: text.replace("max_steps: 2000", "max_steps: 200"),  # below warmup_steps, refused today
        lambda text: text.replace("  clip_norm: 1.0\n", ""),
        lambda text: text[: text.index("optim:")] + text[text.index("decode:") :],
    ],
)
def test_how_a_model_of_another_version_was_trained_does_not_matter(folder, change):
    """Guards against a model folder that does not load, for a training setting that this version lacks or refuses."""
    text = (folder / CONFIG).read_text()
    assert change(text) != text
    (folder / CONFIG).write_text(change(text))
    assert load_model_folder(folder).edited == ()


def test_settings_of_another_version_are_named(folder):
    """Guards against a traceback, or a model of another kind than was trained, for keys that this version lacks; a key
    that is newer than the folder takes its default."""
    tensors, metadata = load_tensors(folder / WEIGHTS)
    settings = json.loads(metadata["config"])
    del settings["decode"]["seed"]
    save_tensors(folder / WEIGHTS, tensors, {**metadata, "config": json.dumps(settings)})
    assert load_model_folder(folder).edited == ()
    for wrong, reason in (
        ({**settings, "model": {**settings["model"], "experts": 8}}, "lacks .model.experts: 8"),
        ([], "settings"),
    ):
        save_tensors(folder / WEIGHTS, tensors, {**metadata, "config": json.dumps(wrong)})
        refuses(folder, reason, folder / WEIGHTS)
    edit(folder, "  d_ff: 16", "  d_ff: 16\n  experts: 8")
    refuses(folder, r"model\.experts: unknown key")


def test_replacing_weights_keeps_a_usable_folder(folder, tiny_config, tiny_tokenizers):
    """Guards against a second save that leaves something of the first, or a temporary file."""
    names = sorted(path.name for path in folder.iterdir())
    model = build_model(tiny_config(), tiny_tokenizers)
    save_model_folder(folder, dict(model.named_parameters()), tiny_config(), tiny_tokenizers, {"step": "4"})
    loaded = load_model_folder(folder)
    assert loaded.metadata["step"] == "4"
    assert torch.equal(loaded.model.output_weight, model.output_weight)
    assert sorted(path.name for path in folder.iterdir()) == names


def test_loading_draws_nothing(folder):
    """Guards against the second that drawing a base model's weights takes, only to be replaced by those of the file."""
    before = torch.get_rng_state()
    load_model_folder(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_run_folders(folder, tmp_path):
    """Guards against loading the last model where there is a best one."""
    run = tmp_path / "run"
    run.mkdir()
    refuses(run, "not a model folder")
    shutil.copytree(folder, run / "last")
    assert find_model_folder(run) == run / "last"
    shutil.copytree(folder, run / "best")
    assert find_model_folder(run) == run / "best"
    load_model_folder(run)


def test_paths_that_are_no_model_folder(folder, tmp_path):
    """Guards against a traceback for a path mistyped, of a file, or of an empty folder."""
    refuses(tmp_path / "missing", "no such folder")
    refuses(folder / WEIGHTS, "not a model folder")
    (tmp_path / "empty").mkdir()
    refuses(tmp_path / "empty", "not a model folder")


@pytest.mark.parametrize(
    ("name", "reason"), [(WEIGHTS, "not a model folder"), (CONFIG, "cannot be read"), ("tokenizer.model", "tokenizer")]
)
def test_a_missing_file(folder, name, reason):
    """Guards against a folder copied in part."""
    (folder / name).unlink()
    refuses(folder, reason)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, "tokenizer.model"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0 no", b"a: [", b"{}"])
def test_a_damaged_file(folder, name, content):
    """Guards against a library's traceback for a file of nonsense."""
    (folder / name).write_bytes(content)
    refuses(folder, ".")


def test_another_tokenizer(folder, other_tokenizer):
    """Guards against translations of nonsense where a tokenizer was mixed up; its size alone would not tell."""
    TokenizerPair(other_tokenizer, other_tokenizer).save(folder)
    refuses(folder, "the tokenizer is not the one")


def test_separate_tokenizers_under_tied_embeddings(tmp_path, tiny_config, tiny_tokenizers, other_tokenizer):
    """Guards against an assertion where the config ties what the tokenizers keep apart."""
    write_folder(tmp_path / "model", tiny_config(), tiny_tokenizers)
    pair = TokenizerPair(tiny_tokenizers.src, other_tokenizer)
    save_tensors(tmp_path / "model" / WEIGHTS, {"a": torch.zeros(1)}, {"tokenizer": pair.fingerprint})
    pair.save(tmp_path / "model")
    refuses(tmp_path / "model", "source and target tokenizers differ")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("encoder_layers: 1000000000", "1000000001 layers in 37 tensors"),
        ("d_model: 1000000", r"no tensor is d_model \(1000000\) wide"),
        ("d_ff: 1000000000000", "instead of .1000000000000, 16."),
        ("d_ff: 1000000000000000000000", "an impossibly large model"),
        ("d_ff: 24", r"feed_forward\.inner\.weight has shape \(16, 16\) instead of \(24, 16\)"),
        ("decoder_layers: 2", "it has no tensor decoder_layers.1."),
        ("positions: learned", r"it has no tensor (src|tgt)_positions\.table\.weight"),
        ("tie_embeddings: target", "it has no tensor src_embedding.weight"),
        ("norm: rmsnorm", "it has the unknown tensor .*bias"),
    ],
)
def test_a_config_of_another_model(folder, line, reason):
    """Guards against weights loaded in part, or broadcast, into a model of another shape."""
    key = line.split(":")[0]
    text = (folder / CONFIG).read_text()
    changed = re.sub(rf"^(\s+){key}: .*$", rf"\g<1>{line}", text, flags=re.MULTILINE)
    assert changed != text
    (folder / CONFIG).write_text(changed)
    refuses(folder, rf"not the config that {WEIGHTS} was trained with \(model\.{key}: .* restore it")
    tensors, metadata = load_tensors(folder / WEIGHTS)
    del metadata["config"]  # as in folders of old
    save_tensors(folder / WEIGHTS, tensors, metadata)
    refuses(folder, f"does not fit its config: {reason}|does not fit its config: .*{reason}")


def edit(folder, old, new):
    text = (folder / CONFIG).read_text()
    assert old in text
    (folder / CONFIG).write_text(text.replace(old, new))


def test_a_config_that_fits_and_is_wrong(folder):
    """Guards against translations of nonsense after one flipped bit: four heads fit the weights of two."""
    edit(folder, "num_heads: 2", "num_heads: 4")
    refuses(folder, r"not the config .*model\.num_heads: 2 -> 4", folder / CONFIG)


def test_what_may_be_edited_is_told(folder):
    """Guards against other translations than before for a reason that nobody sees; how to search may be edited."""
    assert load_model_folder(folder).edited == ()
    edit(folder, "beam_size: 5", "beam_size: 6")
    edit(folder, "lr: ", "lr: 0")  # how it was trained is history: it decides no translation
    loaded = load_model_folder(folder)
    assert loaded.edited == ("decode.beam_size: 5 -> 6",)
    assert loaded.config.decode.beam_size == 6
    assert "config" not in loaded.metadata


def test_a_best_without_weights_is_not_passed_over(folder, tmp_path):
    """Guards against the last model's translations given for those of the best."""
    for name in ("best", "last"):
        shutil.copytree(folder, tmp_path / "run" / name)
    (tmp_path / "run/best" / WEIGHTS).unlink()
    refuses(tmp_path / "run", f"best: incomplete: no {WEIGHTS}")
    load_model_folder(tmp_path / "run/last")


def test_weights_that_are_no_numbers(folder):
    """Guards against PyTorch's own error for a file of integers."""
    tensors, metadata = load_tensors(folder / WEIGHTS)
    tensors = {name: tensor.int() for name, tensor in tensors.items()}
    save_tensors(folder / WEIGHTS, tensors, metadata)
    refuses(folder, "has dtype torch.int32, not a floating-point dtype")


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, "tokenizer.model"])
def test_links_out_of_the_folder_are_refused(folder, tmp_path, name):
    """Guards against a stranger's archive whose links make any file of the user be read. Links inside are fine, and so
    is a link to the whole folder, which the user named."""
    (folder / name).rename(folder / "real")
    (folder / name).symlink_to("real")
    load_model_folder(folder)
    (tmp_path / "link").symlink_to(folder)
    load_model_folder(tmp_path / "link")
    (folder / "real").rename(tmp_path / "outside")
    (folder / name).unlink()
    (folder / name).symlink_to(tmp_path / "outside")
    refuses(folder, "is a link to .*outside, outside the folder")
    refuses(tmp_path / "link", "is a link to", folder.parent / "link")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best").symlink_to(folder)
    refuses(tmp_path / "run", "is a link to")


@pytest.mark.parametrize("name", [CONFIG, "tokenizer.model"])
def test_only_regular_files_are_read(folder, name):
    """Guards against waiting forever for a pipe that was packed in place of a file."""
    (folder / name).unlink()
    os.mkfifo(folder / name)
    refuses(folder, "is not a regular file")


def test_a_strangers_folder_runs_no_code_and_opens_no_other_file(folder):
    """Guards against a config that reaches beyond its folder while it is loaded: its data need not exist, and Python
    itself tells of every file that is opened, of code that is compiled or run, and of pickles."""
    seen = []
    watching = True
    kinds = ("open", "exec", "compile", "import", "os.system", "subprocess.Popen", "pickle.find_class", "os.listdir")

    def watch(event, args):
        if watching and event in kinds:
            seen.append((event, str(args[0])))

    load_model_folder(folder)  # what is imported late is imported now
    sys.addaudithook(watch)
    try:
        load_model_folder(folder)
    finally:
        watching = False
    assert {event for event, _ in seen} == {"open"}
    assert {path for _, path in seen} == {str(folder / CONFIG), str(folder / "tokenizer.model")}
    text = (folder / CONFIG).read_text()
    call = f"seed: !!python/object/apply:os.mkdir [{folder / 'made'}]\n"
    (folder / CONFIG).write_text(text.replace("seed: 1\n", call, 1))
    refuses(folder, "the YAML tag .* is not allowed")
    assert not (folder / "made").exists()
