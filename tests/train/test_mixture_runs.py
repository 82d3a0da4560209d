"""Promise: runs on datasets with weights, tags and epochs of their own train what they say, continue exactly, and the
number of processes changes nothing."""

import json
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import pytest

from seq2seq.cli.main import main
from seq2seq.data.prepare import prepare_data
from seq2seq.data.tokenizer import Tokenizer
from seq2seq.decode.translator import Translator
from seq2seq.errors import UserError
from tests.toy import metrics, sentences, toy_config, train, weights, write_lines, write_text_files


@pytest.fixture
def text(tmp_path: Path) -> Path:
    folder = write_text_files(tmp_path / "text")
    for name, seed in (("more", 5), ("back", 6)):
        pairs = sentences(20, seed)
        write_lines(folder / f"{name}.xx", [src for src, _ in pairs])
        write_lines(folder / f"{name}.yy", [tgt for _, tgt in pairs])
    return folder


def mixed(text: Path, *more: str, valid: str | None = None) -> list[str]:
    """Overrides: three datasets, of which one has a tag."""
    train = (
        f"data.train=[{{src: {text}/train.xx, tgt: {text}/train.yy, until_epoch: 3}},"
        f"{{src: {text}/more.xx, tgt: {text}/more.yy, weight: 2.5, name: more}},"
        f"{{src: {text}/back.xx, tgt: {text}/back.yy, tag: bt, weight: 0.5, from_epoch: 2}}]"
    )
    return [train, *([] if valid is None else [f"data.valid={valid}"]), *more]


def test_a_mixture_continues_exactly(text: Path, tmp_path: Path) -> None:
    """Guards against a share that is drawn anew after a restart, or that depends on what was drawn before."""
    overrides = mixed(text, "train.max_steps=12", "train.batch_tokens=500")
    whole = train(toy_config(text, tmp_path / "whole", *overrides))
    for stop in (3, 7):
        train(toy_config(text, tmp_path / "parts", *overrides), stop_after=stop)
    parts = train(toy_config(text, tmp_path / "parts", *overrides))
    assert whole.progress.epoch == parts.progress.epoch >= 3
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")


@pytest.mark.parametrize(
    ("old", "new"), [("weight: 2.5", "weight: 2.0"), ("until_epoch: 3", "until_epoch: 4"), ("tag: bt", "tag: other")]
)
def test_a_run_keeps_its_mixture(text: Path, tmp_path: Path, old: str, new: str) -> None:
    """Guards against a run that goes on with other shares and calls itself continued."""
    train(toy_config(text, tmp_path / "run", *mixed(text)), stop_after=4)
    changed = [override.replace(old, new) for override in mixed(text)]
    with pytest.raises(UserError, match="its text has changed"):
        train(toy_config(text, tmp_path / "run", *changed))


def test_weights_change_no_corpus(text: Path, tmp_path: Path) -> None:
    """Guards against hours of preparation for another weight; a tag is in the text, so it does change the corpus."""
    config = toy_config(text, tmp_path / "run", *mixed(text))
    first = prepare_data(config, show_progress=False)
    other = toy_config(text, tmp_path / "run", *(part.replace("weight: 2.5", "weight: 9") for part in mixed(text)))
    again = prepare_data(other, show_progress=False)
    assert again.train.folder == first.train.folder
    assert again.fingerprint != first.fingerprint
    tagged = toy_config(text, tmp_path / "run", *(part.replace("tag: bt", "tag: xy") for part in mixed(text)))
    assert prepare_data(tagged, show_progress=False).train.folder != first.train.folder


@pytest.mark.parametrize("sampling", [0, 0.5])
def test_a_tag_is_one_piece_before_the_source(text: Path, tmp_path: Path, sampling: float) -> None:
    """Guards against a tag that is spelled in letters, that text can imitate, or that sampling loses."""
    config = toy_config(text, tmp_path / "run", *mixed(text, f"tokenizer.sampling={sampling}"))
    data = prepare_data(config, show_progress=False)
    src, corpus = data.tokenizers.src, data.train
    tagged = [int(corpus.sentence("src", pair)[0]) == src.tags["bt"] for pair in range(corpus.num_pairs)]
    assert tagged == [int(line) >= 80 for line in corpus.lines]
    assert src.tags["bt"] not in src.encode(["<bt> ka to"])[0]
    assert data.tokenizers.tgt.decode_batch([[src.tags["bt"], 5]]) == data.tokenizers.tgt.decode_batch([[5]])
    if sampling:
        from seq2seq.data.subword_epochs import Resampler

        with Resampler(corpus, data.tokenizers, sampling, config.data.max_length) as resampler:
            sampled = resampler.sample(tmp_path / "sampled", seed=1)
        assert tagged == [int(sampled.sentence("src", pair)[0]) == src.tags["bt"] for pair in range(corpus.num_pairs)]
        assert sampled.src_lengths.sum() > corpus.src_lengths.sum()


def test_a_tag_changes_the_translation_and_is_checked(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against a tag that is accepted and then ignored."""
    train(toy_config(text, tmp_path / "run", *mixed(text)))
    translator = Translator.load(tmp_path / "run", "cpu")
    plain, tagged = (
        next(iter(translator.translate_stream(["ka to miren"], tag=tag)))[0].log_prob for tag in (None, "bt")
    )
    assert plain != tagged
    problems: list[str] = []
    list(translator.translate_stream(["ka to " * 40], on_problem=lambda _, message: problems.append(message), tag="bt"))
    assert problems[0].startswith("longer than 22 tokens")  # of 24, with the tag and the end of the sentence
    with pytest.raises(UserError, match="there is no tag fr; the model knows bt"):
        translator.translate("ka", tag="fr")
    (tmp_path / "in").write_text("ka to\n", encoding="utf-8")
    words = ["translate", str(tmp_path / "run"), "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert main([*words, "--tag", "fr"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("there is no tag fr; the model knows bt")
    assert main([*words, "--tag", "bt"]) == 0
    assert (tmp_path / "out").read_text(encoding="utf-8").count("\n") == 1


def test_a_model_whose_text_all_has_tags_wants_one(text: Path, tmp_path: Path) -> None:
    """Guards against translations by a model that has never seen a sentence without a tag."""
    both = (
        f"data.train=[{{src: {text}/train.xx, tgt: {text}/train.yy, tag: yy}},"
        f"{{src: {text}/train.yy, tgt: {text}/train.xx, tag: xx}}]"
    )
    valid = f"data.valid={{src: {text}/valid.xx, tgt: {text}/valid.yy, tag: yy}}"
    train(toy_config(text, tmp_path / "run", both, valid))
    translator = Translator.load(tmp_path / "run", "cpu")
    with pytest.raises(UserError, match="needs a tag before every sentence: yy, xx"):
        translator.translate("ka")
    assert isinstance(translator.translate("ka", tag="xx"), str)
    chosen: list[int] = []
    decode_batch = type(translator.tokenizers.tgt).decode_batch

    def watched(self: Tokenizer, batch: Sequence[Sequence[int]]) -> list[str]:
        chosen.extend(i for ids in batch for i in ids)
        return decode_batch(self, batch)

    with mock.patch.object(Tokenizer, "decode_batch", watched):
        translator.translate(["ka to mi"] * 40, tag="xx", sample=True, temperature=50.0)
    assert len(chosen) > 200
    assert not set(chosen) & set(translator.tokenizers.tgt.tags.values())  # a target has none
    assert translator.explain("ka", tag="yy").attention.source[0] == "<yy>"


def test_held_out_pairs_have_the_tags_of_their_datasets_and_a_loss_each(text: Path, tmp_path: Path) -> None:
    """Guards against validation without the tag that training has, and against one number for several kinds of text."""
    config = toy_config(text, tmp_path / "run", *mixed(text, valid="20"))
    data = prepare_data(config, show_progress=False)
    assert set(data.valid_text.tags) == {None, "bt"}
    tags = data.tokenizers.src.tags
    first = [int(data.valid.sentence("src", pair)[0]) for pair in range(data.valid.num_pairs)]
    assert [one == tags["bt"] for one in first] == [data.valid_text.tags[line] == "bt" for line in data.valid.lines]
    train(config)
    validations = [record for record in metrics(tmp_path / "run") if "valid_loss" in record]
    names = {"train.xx", "more", "back.xx"}
    assert all({f"valid_loss.{name}" for name in names} <= record.keys() for record in validations)
    last = validations[-1]
    weight = dict.fromkeys(names, 0)
    for line, length in zip(data.valid.lines, data.valid.tgt_lengths, strict=True):
        weight[["train.xx", "more", "back.xx"][data.valid_text.parts[line]]] += int(length)
    mean = sum(last[f"valid_loss.{name}"] * number for name, number in weight.items()) / sum(weight.values())
    assert mean == pytest.approx(last["valid_loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.train.1.weight=0", "data.train.1.weight: must be a number > 0 and <= 1000, not 0"),
        ("data.train.2.tag='two words'", "data.train.2.tag: must be a word of letters, digits, _ and -"),
        ("data.train.0.until_epoch=0", "data.train.0.until_epoch: must be a whole number >= 1 or null, not 0"),
        ("data.train.2.until_epoch=1", "data.train.2.until_epoch: must be at least from_epoch (2), not 1"),
        ("data.valid.weight=2", "data.valid.weight: is for training text only"),
        ("data.valid.tag=fr", "data.valid.tag: no dataset of data.train has the tag fr; the tags are bt"),
        ("decode.tag=fr", "decode.tag: no dataset of data.train has the tag fr; the tags are bt"),
        ("data.train.0.name=more", "data.train: 2 datasets have the name more"),
    ],
)
def test_mistakes(text: Path, tmp_path: Path, override: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the place and what to do, before anything is read."""
    config = toy_config(text, tmp_path / "run")
    path = tmp_path / "x.yaml"
    path.write_text(json.dumps(config.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
    assert main(["train", str(path), *mixed(text), override]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()


def test_an_epoch_must_have_a_dataset(text: Path, tmp_path: Path) -> None:
    """Guards against a run that ends in an epoch of nothing."""
    gap = f"data.train={{src: {text}/train.xx, tgt: {text}/train.yy, until_epoch: 3}}"
    with pytest.raises(UserError, match=r"data\.train: no dataset takes part in epoch 4"):
        toy_config(text, tmp_path / "run", gap)
    assert toy_config(text, tmp_path / "run", gap, "train.max_epochs=3").train.max_epochs == 3
    late = f"data.train={{src: {text}/train.xx, tgt: {text}/train.yy, from_epoch: 2}}"
    with pytest.raises(UserError, match="no dataset takes part in epoch 1;"):
        toy_config(text, tmp_path / "run", late)
