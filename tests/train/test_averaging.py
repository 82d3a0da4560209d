"""Averaging weights: the plain mean, of models that can be averaged."""

import shutil
from pathlib import Path

import pytest
import torch

from seq2seq.cli.main import main
from seq2seq.decode.translator import Translator
from seq2seq.errors import ModelError, UserError
from seq2seq.tensors import load_tensors
from seq2seq.train.averaging import average_models
from seq2seq.train.checkpoint import list_checkpoints, load_checkpoint
from tests.toy import toy_config, train, write_lines, write_text_files


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_text_files(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def run(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of steps 3, 6, 9, 12."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(toy_config(text, folder))
    return folder


def mean_of(tensors: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([weights[name].double() for weights in tensors]).mean(0) for name in tensors[0]}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_tensors(folder / "model.safetensors")[0]


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name].double(), theirs[name].double(), rtol=1e-6, atol=1e-8)


def test_the_mean_of_two_models(run: Path, tmp_path: Path) -> None:
    """The output is the arithmetic mean of best and last, in fp32, complete and able to translate."""
    assert average_models([run / "best", run / "last"], tmp_path / "mean") == 2
    assert_same(weights_of(tmp_path / "mean"), mean_of([weights_of(run / "best"), weights_of(run / "last")]))
    assert all(tensor.dtype == torch.float32 for tensor in weights_of(tmp_path / "mean").values())
    shutil.move(tmp_path / "mean", tmp_path / "elsewhere")
    assert len(Translator.load(tmp_path / "elsewhere", device="cpu").translate(["kato"])) == 1


def test_a_run_folder_stands_for_its_checkpoints(run: Path, tmp_path: Path) -> None:
    """All checkpoints of a run, each once; checkpoint files by name give the same as the folder."""
    paths = list_checkpoints(run)
    assert average_models([run], tmp_path / "all") == 4
    assert_same(weights_of(tmp_path / "all"), mean_of([load_checkpoint(path).weights for path in paths]))
    assert average_models(paths, tmp_path / "named") == 4
    assert_same(weights_of(tmp_path / "named"), weights_of(tmp_path / "all"))
    assert average_models(paths[1:3], tmp_path / "two") == 2
    assert_same(weights_of(tmp_path / "two"), mean_of([load_checkpoint(path).weights for path in paths[1:3]]))


@pytest.mark.parametrize("scale", [1, 10])
def test_models_count_by_their_weights(run: Path, text: Path, tmp_path: Path, scale: float) -> None:
    """Guards against weights that are given to the wrong models, or are not shares; and against a refusal of a run
    that was trained in another way. The metadata say what the model is."""
    train(toy_config(text, tmp_path / "other", "model.dropout=0", "seed=2"))
    ours, theirs = (weights_of(folder / "last") for folder in (run, tmp_path / "other"))
    models = [run / "last", tmp_path / "other/last"]
    assert average_models(models, tmp_path / "mixed", [0.3 * scale, 0.7 * scale]) == 2
    mixed, metadata = load_tensors(tmp_path / "mixed/model.safetensors")
    assert_same(mixed, {name: 0.3 * ours[name].double() + 0.7 * theirs[name].double() for name in ours})
    assert metadata["average_weights"] == "0.3, 0.7"
    assert metadata["average_of"].endswith("run/last/model.safetensors, other/last/model.safetensors")
    average_models(models, tmp_path / "new", [0, scale])
    for name, tensor in weights_of(tmp_path / "new").items():
        assert torch.equal(tensor, theirs[name])


def test_checkpoints_share_the_weight_of_their_run(run: Path, tmp_path: Path) -> None:
    """Guards against a run of many checkpoints that counts more than its weight."""
    assert average_models([run, run / "best"], tmp_path / "mixed", [1, 3]) == 5
    checkpoints = mean_of([load_checkpoint(path).weights for path in list_checkpoints(run)])
    best = weights_of(run / "best")
    mixed, metadata = load_tensors(tmp_path / "mixed/model.safetensors")
    assert_same(mixed, {name: 0.25 * checkpoints[name] + 0.75 * best[name].double() for name in best})
    assert metadata["average_weights"] == "0.0625, 0.0625, 0.0625, 0.0625, 0.75"
    average_models([run, run / "best"], tmp_path / "plain")
    assert "average_weights" not in load_tensors(tmp_path / "plain/model.safetensors")[1]


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ([1.0], "1 numbers for 2 models; give one for each model"),
        ([0.5, 0.3, 0.2], "3 numbers for 2 models"),
        ([-0.5, 1.5], "must be numbers of 0 or more, not -0.5"),
        ([0.5, float("nan")], "must be numbers of 0 or more, not nan"),
        ([float("inf"), 1.0], "must be numbers of 0 or more, not inf"),
        ([0.0, 0.0], "their sum must be above 0 and finite"),
        ([1e308, 1e308], "their sum must be above 0 and finite"),
    ],
)
def test_weights_that_give_no_average_are_refused(
    weights: list[float], told: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against a model of NaN, or of other shares than were meant; nothing is written."""
    words = ["average", str(run / "best"), str(run / "last"), "--weights", *map(str, weights)]
    assert main([*words, "--output", str(tmp_path / "mixed")]) == 2
    assert f"seq2seq average: error: --weights: {told}" in capsys.readouterr().err
    assert not (tmp_path / "mixed").exists()


def test_one_model_averages_to_itself(run: Path, tmp_path: Path) -> None:
    """A mean of one changes no bit."""
    average_models([run / "last"], tmp_path / "same")
    for name, tensor in weights_of(run / "last").items():
        assert torch.equal(tensor, weights_of(tmp_path / "same")[name])


def test_checkpoints_with_a_moving_average_give_that(text: Path, tmp_path: Path) -> None:
    """What translates is what is averaged: with train.ema_decay that is the moving average, not the raw weights."""
    train(toy_config(text, tmp_path / "run", "train.ema_decay=0.9"))
    average_models([list_checkpoints(tmp_path / "run")[-1]], tmp_path / "mean")
    assert_same(weights_of(tmp_path / "mean"), weights_of(tmp_path / "run/last"))


def test_another_architecture_is_refused(run: Path, text: Path, tmp_path: Path) -> None:
    """Even where all shapes agree, as with another norm position or number of heads; the difference is named."""
    train(toy_config(text, tmp_path / "other", "model.num_heads=4"))
    with pytest.raises(UserError, match=r"other.*its architecture differs.*model\.num_heads: 2 -> 4"):
        average_models([run / "last", tmp_path / "other/last"], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_another_tokenizer_is_refused(run: Path, text: Path, tmp_path: Path) -> None:
    """Embeddings of other pieces cannot be averaged, also where there are equally many."""
    shutil.copytree(text, tmp_path / "text", ignore=shutil.ignore_patterns("cache"))
    for side in ("xx", "yy"):
        file = tmp_path / f"text/train.{side}"
        write_lines(file, [line[::-1] for line in file.read_text(encoding="utf-8").splitlines()])
    train(toy_config(tmp_path / "text", tmp_path / "other"))
    with pytest.raises(UserError, match="its tokenizer differs"):
        average_models([run / "last", tmp_path / "other/last"], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_no_other_model_is_replaced(run: Path, tmp_path: Path) -> None:
    """Guards against `average RUN --output RUN/best`, which would replace the best model of the run; an average may be
    made again."""
    before = (run / "best/model.safetensors").read_bytes()
    with pytest.raises(UserError, match="a model that is no average"):
        average_models([run], run / "best")
    assert (run / "best/model.safetensors").read_bytes() == before
    for _ in range(2):
        assert average_models([run / "best"], tmp_path / "again") == 1


def test_what_is_no_model_is_refused(run: Path, tmp_path: Path) -> None:
    """Missing and damaged inputs are named, and no output is begun."""
    with pytest.raises(ModelError, match="nowhere"):
        average_models([run / "last", tmp_path / "nowhere"], tmp_path / "mean")
    shutil.copytree(run / "last", tmp_path / "damaged")
    data = bytearray((tmp_path / "damaged/model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "damaged/model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        average_models([run / "last", tmp_path / "damaged"], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
