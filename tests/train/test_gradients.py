"""The gradient of a step does not depend on how it was computed: in which threads, order, or number of parts."""

import copy
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from seq2seq.config import Config, ModelConfig
from seq2seq.data.packed import Capacity, PackedBatch, pack_pairs
from seq2seq.model.loss import CHUNK_LOGITS, LossOf
from seq2seq.model.transformer import Transformer
from seq2seq.train.distributed import Processes
from seq2seq.train.gradients import SequentialGradients, ThreadedGradients, gradients_for, multiplies_in_bf16
from seq2seq.train.loss_scale import LossScale

ALONE = Processes(0, 1, torch.device("cpu"))


def toy_loss(dropout: float, dtype: torch.dtype = torch.float32, **shape: object) -> LossOf:
    torch.manual_seed(0)
    toy = {"encoder_layers": 2, "decoder_layers": 2, "d_model": 16, "num_heads": 2, "d_ff": 32, "dropout": dropout}
    config = ModelConfig.model_validate({**toy, **shape})
    return LossOf(Transformer(config, 30, 30, max_length=12).train(), 0.1, dtype)


def toy_batches(number: int) -> list[PackedBatch]:
    rng = np.random.default_rng(0)
    batches = []
    for count in rng.integers(1, 9, size=number):
        src_lengths, tgt_lengths = rng.integers(1, 9, size=(2, count))
        src, tgt = (rng.integers(4, 30, size=lengths.sum()) for lengths in (src_lengths, tgt_lengths))
        batches.append(pack_pairs(src, src_lengths, tgt, tgt_lengths))
    return batches


def fixed_batch(seed: int, capacity: Capacity) -> PackedBatch:
    rng = np.random.default_rng(seed)
    lengths, ids = rng.integers(1, 9, size=(2, 5)), rng.integers(4, 30, size=(2, 45))
    src, tgt = (row[: lengths[side].sum()] for side, row in enumerate(ids))
    return pack_pairs(src, lengths[0], tgt, lengths[1], capacity)


def taken(gradients: SequentialGradients | ThreadedGradients, loss: LossOf, batches: list[PackedBatch]) -> list[Tensor]:
    """The two sums and all gradients of a step, which are dropped from the model."""
    sums = gradients(batches, num_labels=sum(batch.num_labels for batch in batches), seed=2**64 - 3)
    grads = []
    for parameter in loss.parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None
            continue
        assert parameter.grad is not None
        grads.append(parameter.grad.clone())
        parameter.grad = None
    return [sums, *grads]


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("tied", ["all", "none"])
@pytest.mark.parametrize("num_threads", [1, 3, 4])
def test_threads_and_one_after_another_give_the_same_gradient(num_threads: int, tied: str) -> None:
    loss, batches = toy_loss(dropout=0, tie_embeddings=tied), toy_batches(7)
    wanted = taken(SequentialGradients(loss, ALONE), loss, batches)
    gradients = ThreadedGradients(loss, ALONE, num_threads)
    for _ in range(2):  # nothing is left over from a step
        torch.testing.assert_close(taken(gradients, loss, batches), wanted, atol=1e-6, rtol=1e-5)
    gradients.close()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("part", ["encoder_layers", "decoder_layers.1", "tgt_embedding"])
def test_frozen_parameters_get_no_gradient_and_the_others_their_own(part: str, dtype: torch.dtype) -> None:
    """Guards against gradients that are given to other parameters than theirs, and frozen weights that are zeros in
    half precision."""
    whole, loss, batches = toy_loss(dropout=0, dtype=dtype), toy_loss(dropout=0, dtype=dtype), toy_batches(5)
    sums, *grads = taken(SequentialGradients(whole, ALONE), whole, batches)
    for name, parameter in loss.model.named_parameters():
        parameter.requires_grad_(not name.startswith(part))
    learning = [not name.startswith(part) for name, _ in loss.model.named_parameters()]
    wanted = [sums, *(grad for grad, learns in zip(grads, learning, strict=True) if learns)]
    assert len(wanted) <= len(grads)
    threads = ThreadedGradients(loss, ALONE, 3)
    for gradients in (SequentialGradients(loss, ALONE), threads):
        for _ in range(2):
            torch.testing.assert_close(taken(gradients, loss, batches), wanted, atol=1e-6, rtol=1e-5)
    threads.close()


def test_weights_cast_once_give_the_gradient_of_autocast() -> None:
    """Guards against sums in half precision, weights of an earlier step, and gradients that are added to old ones."""
    loss, batches = toy_loss(dropout=0, dtype=torch.bfloat16), toy_batches(3)
    gradients, threads = SequentialGradients(loss, ALONE), ThreadedGradients(loss, ALONE, 1)
    for _ in range(2):
        found, wanted = taken(gradients, loss, batches), taken(threads, loss, batches)
        assert {grad.dtype for grad in found} == {torch.float32}
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
        with torch.no_grad():
            for parameter in loss.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    threads.close()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_loss_scale_is_not_in_the_gradient(dtype: torch.dtype) -> None:
    """Guards against a scale that stays in the gradient or the reported loss, and in fp16 against gradients lost below
    its smallest number."""
    loss, batches = toy_loss(dropout=0, dtype=dtype), toy_batches(3)
    exact = toy_loss(dropout=0)
    wanted = taken(SequentialGradients(exact, ALONE), exact, batches)
    found = taken(SequentialGradients(loss, ALONE, LossScale(ALONE.device)), loss, batches)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)


def test_a_gradient_too_large_for_fp16_is_not_finite() -> None:
    """Guards against an overflow that would pass for a gradient."""
    loss, scale = toy_loss(dropout=0, dtype=torch.float16), LossScale(ALONE.device)
    scale.value.fill_(2.0**30)
    sums, *grads = taken(SequentialGradients(loss, ALONE, scale), loss, toy_batches(3))
    assert torch.isfinite(sums).all()
    assert not all(torch.isfinite(grad).all() for grad in grads)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_graph_gives_the_gradient_of_the_cpu(dtype: torch.dtype) -> None:
    """Guards against a graph that reads an old batch, old weights, an old scale, or adds to old gradients."""
    device = torch.device("cuda", 0)
    capacity = Capacity(60, 60, 12, 12)
    batches = [fixed_batch(seed, capacity) for seed in range(4)]
    loss = toy_loss(dropout=0)
    on_cuda = LossOf(copy.deepcopy(loss.model).to(device), 0.1, dtype)
    gradients = SequentialGradients(on_cuda, Processes(0, 1, device))
    threads = ThreadedGradients(loss, ALONE, 1)
    for part in (batches[:2], batches[2:], batches[:1], batches[1:4]):
        found = taken(gradients, on_cuda, [batch.to(device) for batch in part])
        wanted = taken(threads, loss, part)
        if dtype == torch.bfloat16:  # its rounding is up to 0.11 of a small gradient, but 0.04 of all of them together
            found, wanted = ([sums, torch.cat([grad.flatten() for grad in grads])] for sums, *grads in (found, wanted))
        tolerance = 1e-4 if dtype == torch.float32 else 0.1  # another batch or weight would be far beyond it
        least = (
            max(float(other.norm()) for other in wanted[1:]) / 10
        )  # biases of keys have a gradient of 0, but for noise
        for one, other in zip(found, wanted, strict=True):
            assert float((one.cpu() - other).norm()) < tolerance * max(least, float(other.norm()))
        with torch.no_grad():
            for parameter, other in zip(loss.parameters(), on_cuda.parameters(), strict=True):
                parameter += 0.1 * torch.randn_like(parameter)
                other.copy_(parameter)
    gradients.close()
    threads.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_every_step_of_a_graph_has_masks_of_its_own() -> None:
    """Guards against random numbers that the capture froze, and steps that do not depend on their seed alone."""
    device = torch.device("cuda", 0)
    loss = toy_loss(dropout=0.3).to(device)
    batch = fixed_batch(0, Capacity(60, 60, 12, 12)).to(device)
    gradients = SequentialGradients(loss, Processes(0, 1, device))
    losses = [float(gradients([batch], 10, seed)[0]) for seed in (1, 2, 1, 2, 3)]
    assert losses[:2] == losses[2:4]
    assert len(set(losses)) == 3
    one, two = (float(gradients([batch] * number, 10, 1)[0]) for number in (1, 2))
    assert two != pytest.approx(2 * one)
    gradients.close()


def test_the_order_in_which_threads_are_ready_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is repeated ends with the same weights, although sums of floats depend on their order and dropout on
    the random numbers drawn before."""
    loss, batches = toy_loss(dropout=0.3), toy_batches(6)
    alone = ThreadedGradients(loss, ALONE, 1)
    wanted = taken(alone, loss, batches)
    alone.close()
    forward = LossOf.forward
    for late in range(3):

        def late_forward(self: LossOf, batch: PackedBatch, late: int = late) -> tuple[Tensor, Tensor]:
            number = next(i for i, other in enumerate(batches) if other is batch)
            time.sleep(0.02 if number % 3 == late else 0)
            return forward(self, batch)

        monkeypatch.setattr(LossOf, "forward", late_forward)
        gradients = ThreadedGradients(loss, ALONE, 3)
        found = taken(gradients, loss, batches)
        gradients.close()
        assert all(torch.equal(one, other) for one, other in zip(found[1:], wanted[1:], strict=True))
        torch.testing.assert_close(found[0], wanted[0])


def test_every_micro_batch_and_seed_has_masks_of_its_own() -> None:
    loss, (batch, *_) = toy_loss(dropout=0.3), toy_batches(1)
    gradients = ThreadedGradients(loss, ALONE, 2)
    one, two = (float(gradients([batch], batch.num_labels, seed)[0]) for seed in (8, 16))
    both = float(gradients([batch, batch], batch.num_labels, 8)[0])
    again = float(gradients([batch], batch.num_labels, 8)[0])
    gradients.close()
    assert one == again != two
    assert both != pytest.approx(2 * one)


def test_an_error_in_one_thread_reaches_the_caller_and_stops_the_others() -> None:
    """And not: the others wait for the turn of one that has died."""
    loss, batches = toy_loss(dropout=0), toy_batches(4)
    broken = pack_pairs(np.array([29]), np.array([1]), np.array([4]), np.array([1]))
    broken.src.ids.fill_(30)  # no such token
    gradients = ThreadedGradients(loss, ALONE, 2)
    with pytest.raises(IndexError):
        gradients([broken, *batches], 10, 0)
    loss.zero_grad()
    taken(gradients, loss, batches)  # and it goes on
    gradients.close()


def test_threads_are_used_and_given_back() -> None:
    """The optimizer, after the gradient, has all threads again; a lone micro-batch has them, too."""
    loss, batches = toy_loss(dropout=0), toy_batches(4)
    seen: list[tuple[str, int]] = []
    loss.register_forward_pre_hook(lambda *_: seen.append((threading.current_thread().name, torch.get_num_threads())))
    with torch_threads(4):
        for num_threads in (4, 2, 1):
            seen.clear()
            gradients = ThreadedGradients(loss, ALONE, num_threads)
            taken(gradients, loss, batches)
            gradients.close()
            assert len({name for name, _ in seen}) <= num_threads
            assert {number for _, number in seen} == {4 // num_threads}
            assert torch.get_num_threads() == 4


@pytest.mark.parametrize(
    ("precision", "width", "fast", "wanted"),
    [
        ("auto", 256, True, True),
        ("auto", 252, True, False),
        ("auto", 512, False, False),
        ("fp32", 512, True, False),
        ("bf16", 16, False, True),
    ],
)
def test_bf16_where_it_is_asked_for_or_faster(precision: str, width: int, fast: bool, wanted: bool) -> None:
    """Products of small models are not worth rounding; and a GPU's kernels are not those of the CPU."""
    config = Config.model_validate(
        {
            "run_dir": "run",
            "data": {"train": {"src": "a", "tgt": "b"}, "valid": {"src": "c", "tgt": "d"}},
            "model": {"d_model": width},
            "train": {"precision": precision},
        }
    )
    with mock.patch.object(Processes, "all_multiply_bf16_fast", return_value=fast):
        assert multiplies_in_bf16(config, ALONE) is wanted
        assert not multiplies_in_bf16(config, Processes(0, 1, torch.device("cuda", 0)))
        with mock.patch.object(LossOf, "round_products") as rounds:
            gradients_for(config, toy_loss(dropout=0), ALONE, 1, None).close()
    assert rounds.called is wanted


class Products(TorchDispatchMode):
    """Records the sizes of all products in bf16."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            matrices = [arg for arg in args if isinstance(arg, Tensor) and arg.dim() == 2]
            if matrices[0].dtype == torch.bfloat16:
                self.sizes.update(size for matrix in matrices for size in matrix.shape)
        return func(*args, **(kwargs or {}))


def test_products_in_bf16_have_few_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against gigabytes of compiled kernels: tokens of all numbers, or chunks of the loss that end anywhere."""
    monkeypatch.setitem(CHUNK_LOGITS, "cpu", 100 * 30)  # 100 tokens of 30 logits
    loss = toy_loss(dropout=0, d_model=128, d_ff=256)
    loss.round_products()
    with Products() as products:
        for batch in toy_batches(7):
            loss(batch)[0].backward()
        whole = pack_pairs(*(np.full(150, 5), np.full(50, 3)) * 2)
        loss(whole)[0].backward()
    assert products.sizes == {30, 128, 256, 384, 64, 192}  # classes, widths, three widths at once; tokens


def test_gradients_in_bf16_are_near_those_in_fp32() -> None:
    """Guards against rounding of more than the products' matrices, or of nothing."""
    loss, batches = toy_loss(dropout=0, d_model=128, d_ff=256), toy_batches(7)
    exact, rounded = ThreadedGradients(loss, ALONE, 2), ThreadedGradients(loss, ALONE, 2, in_bf16=True)
    wanted, found = taken(exact, loss, batches), taken(rounded, loss, batches)
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-3, atol=0)  # no filling counts as a word
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float32
        assert float((one - other).norm()) <= 0.1 * float(other.norm()) + 1e-6
    assert not any(map(torch.equal, found, wanted))
    assert torch.equal(taken(exact, loss, batches)[1], wanted[1])  # the model itself is as it was
    exact.close()
    rounded.close()
