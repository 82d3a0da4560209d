"""Promises of what runs on CUDA, kept without a device: a step of training reads nothing back, a step of search once;
nothing lies on the wrong device; all products are in half precision.

Tensors of PyTorch's device "meta", and its fake tensors of a CUDA device, have shapes and types but no numbers: what
wants to know a number, as a hidden wait for the device does, fails at once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.amp import autocast_mode
from torch.nn.attention import varlen
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seq2seq.config import DecodeConfig
from seq2seq.data.loader import load_steps
from seq2seq.data.packed import Capacity, pack_pairs, pack_sentences
from seq2seq.data.symbols import EOS_ID
from seq2seq.decode.search import search
from seq2seq.decode.stepper import GraphStepper, begin
from seq2seq.device import compute_dtype
from seq2seq.errors import UserError
from seq2seq.model import loss as loss_module
from seq2seq.model.kernels.cuda_graphs import Graphs
from seq2seq.model.loss import LossOf
from seq2seq.model.quantize import with_weights_in
from seq2seq.model.transformer import Transformer
from seq2seq.train import setup
from seq2seq.train.distributed import Processes
from seq2seq.train.trainer import epoch_data, train_step
from tests.toy import toy_config, write_text_files

CUDA = torch.device("cuda", 0)
COPIES = ("_to_copy", "copy_", "detach")


class Watch(TorchDispatchMode):
    """Keeps the names of all operators and the types of what they take; refuses to mix devices."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[torch.dtype]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        # A number by itself may lie anywhere.
        assert name in COPIES or len({x.device for x in tensors if x.ndim}) < 2, f"{func} of two devices"
        self.seen.append((name, [x.dtype for x in tensors]))
        return func(*args, **(kwargs or {}))

    def types_of(self, *names: str) -> list[list[torch.dtype]]:
        return [types for name, types in self.seen if name in names]


def changed(module: ModuleType, **attributes: object) -> SimpleNamespace:
    """A module for one of its users: what others see of PyTorch, its compiler keeps for good."""
    return SimpleNamespace(**{**vars(module), **attributes})


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A device without numbers, on which all of a training step works, the backward pass too."""
    monkeypatch.setattr(setup, "matmul_peak", lambda *_: 1.0)
    monkeypatch.setitem(loss_module.CHUNK_LOGITS, "meta", 2**10)
    without_autocast = changed(torch, autocast=lambda *_, **__: nullcontext(), is_autocast_enabled=lambda _: False)
    monkeypatch.setattr(loss_module, "torch", without_autocast)  # there is none for it
    monkeypatch.setattr(
        import_module("torch.optim.optimizer"), "_get_fused_kernels_supported_devices", lambda: ["meta"]
    )
    return torch.device("meta")


@pytest.mark.parametrize(("optimizer", "fp16"), [("adamw", False), ("adamw", True), ("muon", False)])
def test_a_training_step_reads_nothing_back(
    optimizer: str, fp16: bool, meta: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a wait for the device in the gradient, the clipping, the guard, the optimizer, the average or the
    loss scale."""
    settings = ("train.ema_decay=0.9", "train.accumulate=2", "train.precision=fp32", f"optim.name={optimizer}")
    config = toy_config(write_text_files(tmp_path / "text"), tmp_path / "run", *settings)
    if fp16:
        monkeypatch.setattr(setup, "training_dtype", lambda *_: torch.float16)
    run = setup.set_up(config, Processes(0, 1, meta))
    run.progress.loss_limit = 9.0  # as later in a run
    corpus, plan = epoch_data(run)
    for step in islice(load_steps(corpus, plan, run.microbatches, meta), 2):
        assert len(step.batches) == 2
        with Watch() as watch:
            train_step(run, step)
    groups = 3 if optimizer == "adamw" else 2  # embeddings, other matrices, and the rest
    assert [len(watch.types_of(name)) for name in ("_fused_adamw_", "_foreach_lerp_")] == [groups, 1]
    assert len(watch.types_of("_amp_update_scale_")) == fp16
    assert all(record.numbers.is_meta for record in run.report._unread)
    run.close()


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    common = changed(torch.cuda.amp.common, amp_definitely_not_available=lambda: False)
    cuda = changed(torch.cuda, amp=changed(torch.cuda.amp, common=common), is_bf16_supported=lambda: True)
    monkeypatch.setattr(autocast_mode, "torch", changed(torch, cuda=cuda))
    # PyTorch 2.15 asks the device for these in every call of varlen_attn, and keeps the answers.
    monkeypatch.setattr(varlen, "_should_use_cudnn", lambda _: False, raising=False)
    monkeypatch.setattr(varlen, "_cudnn_version_and_major_capability", lambda _: (None, 8), raising=False)
    with FakeTensorMode(allow_non_fake_inputs=True), Watch() as watch, torch.no_grad():  # no gradients without a driver
        yield watch


def on_cuda(model: Transformer) -> Transformer:
    """``model.cuda()``, which fake tensors cannot be asked for."""
    moved: dict[int, Tensor] = {}
    for module in model.modules():
        for kept in (module._parameters, module._buffers):
            for name, tensor in kept.items():
                if tensor is not None:
                    there = tensor.detach().to(CUDA)
                    there = nn.Parameter(there, requires_grad=False) if isinstance(tensor, nn.Parameter) else there
                    kept[name] = moved.setdefault(id(tensor), there)
    return model


@pytest.mark.skipif(torch.version.cuda is None, reason="needs a build of PyTorch for CUDA, though no device")
@pytest.mark.parametrize(
    "options",
    [
        {"norm_position": "post", "dropout": 0.1},
        {"norm": "rmsnorm", "activation": "swiglu", "positions": "rotary", "num_kv_heads": 1, "attention_window": 3},
        {"num_heads": 8, "positions": "learned"},  # heads that CUDA's kernel is not made for
    ],
    ids=["classic", "modern", "narrow heads"],
)
def test_all_products_are_in_half_precision(
    options: dict[str, object], make_model: Callable[..., Transformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against matrices in fp32, whose products are ten times slower, against sums in half precision, against a
    tensor of the CPU, and against attention that is called as this release of PyTorch does not have it."""
    lengths, ids = np.array([5, 7, 9]), np.arange(21) % 19 + 4
    narrow = options.get("num_heads") == 8
    batch = pack_pairs(ids, lengths, ids, lengths, Capacity(40, 40, 12, 24, with_grid=narrow))
    with fake_cuda(monkeypatch) as watch:
        model = on_cuda(make_model(**{"d_model": 32, **options})).train()
        forward = loss_module._SmoothedCrossEntropy.forward
        with_gradient = lambda *arguments: forward(mock.MagicMock(), *arguments[:-1], True)  # noqa: E731
        monkeypatch.setattr(loss_module._SmoothedCrossEntropy, "apply", with_gradient)
        sums = LossOf(model, 0.1, torch.bfloat16)(batch.to(CUDA))
    products = watch.types_of("mm", "addmm", "linear_relu", "_varlen_attn", "_efficient_attention_forward")
    assert len(products) > 20
    for types in products:
        assert {t for t in types if t.is_floating_point} == {torch.bfloat16}
    flash, efficient = (len(watch.types_of(name)) for name in ("_varlen_attn", "_efficient_attention_forward"))
    kind = 0 if narrow else 1 if "attention_window" in options else 2  # windows: FlashAttention only
    assert (flash, efficient) == [(0, 0), (6, 0), (0, 6)][kind]
    assert [(x.dtype, x.is_cuda) for x in sums] == [(torch.float32, True)] * 2


@pytest.mark.skipif(torch.version.cuda is None, reason="needs a build of PyTorch for CUDA, though no device")
@pytest.mark.parametrize("norm_position", ["post", "pre"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_scores_are_not_rounded(
    norm_position: str, dtype: torch.dtype, make_model: Callable[..., Transformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against logits in half precision, in which hypotheses of nearly equal probability are equal."""
    src = pack_sentences([[5, 9, EOS_ID], [7, EOS_ID]], 16)
    with fake_cuda(monkeypatch) as watch:
        model = on_cuda(with_weights_in(dtype, make_model(d_model=32, norm_position=norm_position)))
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32, cache_enabled=False):
            state = begin(model, src.to(CUDA), [4, 4], DecodeConfig(beam_size=2))
            logits = model.step(state.of_sentences["tokens"], state)
    assert (logits.dtype, logits.is_cuda) == (torch.float32, True)
    products = watch.types_of("mm", "addmm", "bmm", "linear_relu")
    assert all({t for t in types if t.is_floating_point} == {dtype} for types in products)


@pytest.mark.parametrize(("positions", "sampling"), [("sinusoidal", False), ("rotary", True)])
def test_a_step_of_search_reads_once(
    positions: str,
    sampling: bool,
    meta: torch.device,
    make_model: Callable[..., Transformer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Guards against a hidden wait for the device or a tensor of the CPU in the search or the model's step. The one
    read-back is answered as if sentences ended at the first steps, until few are left."""
    numbers, reads = np.random.default_rng(0), []

    def read(result: Tensor) -> Tensor:
        _, num_rows, num_hypotheses = result.shape
        tokens = numbers.integers(EOS_ID + 1, 20, (num_rows, num_hypotheses))
        ended = np.full(tokens.shape, -np.inf)
        if len(reads) < 6:  # two sentences each
            ended[2 * len(reads) :][:2] = -1.0
        parents = np.zeros(tokens.shape)
        reads.append(num_rows)
        return torch.from_numpy(np.stack([tokens, parents, ended, parents]))

    monkeypatch.setattr(Tensor, "cpu", read)
    sentences = [[5, 6, EOS_ID] * (1 + i % 3) for i in range(20)]
    decode = DecodeConfig(sample=True, n_best=2, top_k=5, top_p=0.9) if sampling else DecodeConfig(beam_size=2)
    model = make_model(decoder_layers=1, positions=positions).eval().to(meta)
    src = pack_sentences(sentences, 16).to(meta)
    uniforms = numbers.random((20, 2, 33)) if sampling else None
    with Watch(), torch.inference_mode():
        state = begin(model, src, [33] * 20, decode, uniforms)
        search(GraphStepper(Graphs(meta), model, state, decode), [33] * 20, 2, 0.6)
    assert len(reads) == 33
    assert (reads[:2], reads[-1]) == ([20, 32], 8)


def test_an_old_gpu_computes_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a kernel's message: neither attention nor what is compiled has bf16 on GPUs before 2020. Those
    since 2017 are several times faster in fp16 than in fp32."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    assert compute_dtype("auto", CUDA) == compute_dtype("fp16", CUDA) == torch.float16
    assert compute_dtype("fp32", CUDA) == torch.float32
    with pytest.raises(UserError, match=r"bf16: this GPU \(Tesla T4\) does not support it; use fp16, fp32 or auto"):
        compute_dtype("bf16", CUDA)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1))
    assert compute_dtype("auto", CUDA) == torch.float32
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    assert compute_dtype("auto", CUDA) == compute_dtype("bf16", CUDA) == torch.bfloat16
    assert compute_dtype("fp32", CUDA) == torch.float32
