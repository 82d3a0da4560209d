"""Jobs of the GPU check (gpu_check.py): what the machine is, attention, a training step, a search."""

from __future__ import annotations

import importlib.util
import math
import os
import platform
import random
import shutil
import subprocess
import sysconfig
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from bench.process import forget_peak_memory, peak_memory_bytes, synchronise
from bench.profile import measure_host
from bench.workload import changed
from seq2seq.config import load_config
from seq2seq.data.loader import Step, load_steps
from seq2seq.data.packed import Packed, pack
from seq2seq.decode.translator import Translator
from seq2seq.device import choose_device, compute_dtype, matmul_peak, why_not_compiled
from seq2seq.model.flops import training_flops
from seq2seq.model.kernels import packed_attention
from seq2seq.model.kernels.cuda_graphs import Graphs
from seq2seq.train import setup, trainer
from seq2seq.train.distributed import Processes

CUDA = torch.device("cuda", 0)
KERNELS = {"FlashAttention": 0.0, "memory-efficient": math.inf}  # the FLASH_LENGTH that selects each
_MEANS = (8, 16, 32, 64, 128, 256)  # tokens of a sentence
_HEADS, _WIDTH, _TOKENS = 8, 64, 25_000
_WARMUP, _HOST_STEPS = 5, 10


def run(spec: Namespace, job: str, *arguments: str) -> dict[str, Any]:
    """One of the functions below, by its name."""
    function: Callable[..., dict[str, Any]] = globals()[job]
    return function(spec, *arguments)


def environment(spec: Namespace) -> dict[str, Any]:
    """What a report says about the machine, and what steps need of it; ``peak``: FLOP/s of a large matrix product."""
    device = choose_device("cuda")
    seen = torch.cuda.get_device_properties(device)
    dtype = compute_dtype("auto", device)
    peak = matmul_peak(device, dtype)
    cudnn = torch.backends.cudnn.version()
    words = {
        "card": f"{seen.name}, {seen.total_memory / 1e9:.1f} GB",
        "compute capability": f"{seen.major}.{seen.minor}",
        "driver": _driver(),
        "PyTorch": torch.__version__,
        "CUDA": torch.version.cuda or "none",
        "cuDNN": str(cudnn),
        "Triton": importlib.import_module("triton").__version__ if importlib.util.find_spec("triton") else "none",
        "C compiler": os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or "none",
        "Python.h": "found" if Path(sysconfig.get_paths()["include"], "Python.h").exists() else "none",
        "Python, system": f"{platform.python_version()}, {platform.platform()}",
        "matrix products": f"{peak / 1e12:.1f} TFLOP/s in {str(dtype).removeprefix('torch.')}",
    }
    has_bfloat16 = dtype == torch.bfloat16
    return {"words": words, "peak": peak, "has_bfloat16": has_bfloat16, "why_not_compiled": why_not_compiled(device)}


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with suppress(OSError, IndexError):
        return subprocess.run(query, capture_output=True, text=True).stdout.splitlines()[0]
    return "unknown"


def news_lengths(mean: float, tokens: int) -> list[int]:
    """Lengths of sentences as news has them, many short and few long, of about ``tokens`` in all."""
    rng = random.Random(1)
    lengths: list[int] = []
    while sum(lengths) < tokens:
        lengths.append(min(8 * round(mean), max(1, round(rng.lognormvariate(math.log(mean) - 0.15, 0.55)))))
    return lengths


def _side(lengths: list[int], device: torch.device) -> Packed:
    return pack(np.full(sum(lengths), 5), np.array(lengths)).to(device)


def _dtypes() -> list[torch.dtype]:
    """The dtypes that the device computes in."""
    has_bfloat16 = torch.cuda.get_device_capability(CUDA) >= (8, 0)
    return [*([torch.bfloat16] if has_bfloat16 else []), torch.float16, torch.float32]


def _kernels(dtype: torch.dtype) -> dict[str, float]:
    """The kernels that attention takes in this dtype, and the FLASH_LENGTH that selects each."""
    return {name: length for name, length in KERNELS.items() if dtype == torch.bfloat16 or name != "FlashAttention"}


def attention_errors(spec: Namespace) -> dict[str, Any]:
    """The largest relative error of outputs and gradients, by dtype and kernel, against fp32 on the CPU."""
    q_lengths, k_lengths = [5, 130, 64, 1, 33, 200, 0, 0, 0], [7, 90, 64, 2, 40, 180, 0, 0, 0]
    errors: dict[str, float] = {}
    for dtype in _dtypes():
        for causal, other_lengths in ((False, q_lengths), (True, q_lengths), (False, k_lengths)):
            lengths = (q_lengths, other_lengths)
            torch.manual_seed(0)
            heads, grad = _heads(lengths, dtype)
            wanted = _with_gradients([x.float() for x in heads], grad.float(), lengths, torch.device("cpu"), causal)
            for kernel, flash_length in _kernels(dtype).items():
                with mock.patch.object(packed_attention, "FLASH_LENGTH", flash_length):
                    found = _with_gradients([x.to(CUDA) for x in heads], grad.to(CUDA), lengths, CUDA, causal)
                name = f"{str(dtype).removeprefix('torch.')}, {kernel}"
                for one, other in zip(found, wanted, strict=True):
                    error = ((one.float().cpu() - other).norm() / other.norm()).item()
                    errors[name] = max(errors.get(name, 0.0), error if math.isfinite(error) else math.inf)
    return {"errors": errors}


def _heads(lengths: tuple[list[int], list[int]], dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    """Random heads in as few tensors as in the model, because the way to a kernel depends on it; and a gradient."""
    q_tokens, k_tokens = map(sum, lengths)
    shapes = [(q_tokens, 3)] if lengths[0] is lengths[1] else [(q_tokens, 1), (k_tokens, 2)]
    heads = [torch.randn(tokens, parts * _HEADS, _WIDTH, dtype=dtype) for tokens, parts in shapes]
    return heads, torch.randn(q_tokens, _HEADS, _WIDTH, dtype=dtype)


def _with_gradients(
    heads: list[Tensor], grad: Tensor, lengths: tuple[list[int], list[int]], device: torch.device, causal: bool
) -> list[Tensor]:
    """The output, and the gradients of queries, keys and values, each by itself: those of values are the largest."""
    heads = [x.requires_grad_() for x in heads]
    sides = [_side(part, device) for part in lengths]
    out = packed_attention.packed_attention(heads, _HEADS, sides[0], sides[1], causal=causal)
    return [out, *(part for x in torch.autograd.grad(out, heads, grad) for part in x.split(_HEADS, dim=1))]


def attention_times(spec: Namespace) -> dict[str, Any]:
    """Milliseconds of self-attention, forward and backward, by mean length and kernel."""
    times: dict[str, dict[str, float]] = {}
    dtype = _dtypes()[0]
    for mean in _MEANS:
        side = _side(news_lengths(mean, _TOKENS), CUDA)
        shape = (side.ids.numel(), 3 * _HEADS, _WIDTH)
        qkv = torch.randn(shape, device=CUDA, dtype=dtype, requires_grad=True)
        grad = torch.randn(shape[0], _HEADS, _WIDTH, device=CUDA, dtype=dtype)

        def both(side: Packed = side, qkv: Tensor = qkv, grad: Tensor = grad) -> None:
            torch.autograd.grad(packed_attention.packed_attention([qkv], _HEADS, side, side, causal=False), qkv, grad)

        times[str(mean)] = {}
        for kernel, flash_length in _kernels(dtype).items():
            with mock.patch.object(packed_attention, "FLASH_LENGTH", flash_length):
                times[str(mean)][kernel] = _milliseconds(both)
    return {"times": times, "flash_length": packed_attention.FLASH_LENGTH}


def _milliseconds(function: Callable[[], None], repeats: int = 20) -> float:
    """Of one call, as a CUDA graph: otherwise the host's time would be measured."""
    graphs = Graphs(CUDA)
    for _ in range(3):
        graphs.run("timed", function)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repeats):
        graphs.run("timed", function)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / repeats


def step(spec: Namespace, size: str, tokens: str) -> dict[str, Any]:
    """A training step of a preset: with its CUDA graph, and ``direct``, where the host launches each kernel."""
    result: dict[str, Any] = {}
    work: list[tuple[int, int]] = []  # source and target tokens of each step
    phases = _phases(spec, result, work)

    def probe(*args: Any, **options: Any) -> Iterator[Step]:
        for one in load_steps(*args, **options):
            if not work:
                next(phases)
            work.append((one.num_src, one.num_labels))
            yield one
            next(phases, None)

    # stop_after ends it; neither a validation nor a checkpoint lies between the steps.
    never = ("max_steps", "max_bad_steps", "validate_every", "save_every")
    endless = tuple(f"train.{key}=1000000" for key in never)
    sizes = (f"model.preset={size}", f"train.batch_tokens={tokens}", *endless)
    folder = Path(spec.folder) / f"step-{size}-{tokens}"
    shutil.rmtree(folder, ignore_errors=True)  # an earlier check's run would be continued
    config = load_config(Path(spec.config), [f"run_dir={folder}", *sizes]).all_stated()
    with mock.patch.object(trainer, "load_steps", probe):
        done = setup.set_up(config, Processes(0, 1, choose_device("cuda")))
        # The last step does not come back to the probe.
        trainer.train(done, stop_after=2 + 2 * (_WARMUP + spec.steps + _HOST_STEPS))
    flops = training_flops(config.model, done.model.output_weight.size(0))
    for kind in ("graph", "direct"):
        src, tgt = (sum(side) / spec.steps for side in zip(*result[kind].pop("work"), strict=True))
        seconds = result[kind]["seconds"]
        result[kind] |= {"tgt_tokens_per_second": tgt / seconds, "share": flops.total(src, tgt) / seconds / spec.peak}
    return {**result, "pieces": done.model.output_weight.size(0)}


def _phases(spec: Namespace, result: dict[str, Any], work: list[tuple[int, int]]) -> Iterator[None]:
    """Continues from one yield to the next, which stand for a step each."""
    started = time.perf_counter()
    yield
    synchronise("cuda")
    result["first_seconds"] = time.perf_counter() - started
    replay = torch.cuda.CUDAGraph.replay

    def count(graph: torch.cuda.CUDAGraph) -> None:
        result["launches"] = result.get("launches", 0) + 1
        replay(graph)

    with mock.patch.object(torch.cuda.CUDAGraph, "replay", count):
        yield from _measure(spec, result, "graph", work)
    result["launches"] = result.get("launches", 0) / (_WARMUP + spec.steps + _HOST_STEPS)
    with mock.patch.object(Graphs, "run", _directly):
        yield from _measure(spec, result, "direct", work)


def _directly(graphs: Graphs, key: Hashable, function: Callable[[], None]) -> None:
    """Launch each kernel of ``function``; the memory of graphs is freed, or a step would seem to need both."""
    if len(graphs):
        graphs.forget()
        torch.cuda.empty_cache()
    function()


def _measure(spec: Namespace, result: dict[str, Any], kind: str, work: list[tuple[int, int]]) -> Iterator[None]:
    for _ in range(_WARMUP):
        yield
    synchronise("cuda")
    forget_peak_memory("cuda")
    first, started = len(work), time.perf_counter()
    for _ in range(spec.steps):
        yield
    synchronise("cuda")
    result[kind] = {"seconds": (time.perf_counter() - started) / spec.steps, "peak_bytes": peak_memory_bytes("cuda")}
    result[kind]["work"] = work[first : first + spec.steps]
    yield from measure_host(changed(spec, steps=_HOST_STEPS), result[kind])


def search(spec: Namespace) -> dict[str, Any]:
    """Translate the test text in batches of several sizes; the second use of each has its graphs already."""
    translator = Translator.load(spec.model, "cuda")
    lines = Path(spec.test).read_text(encoding="utf-8").splitlines()[: spec.lines]
    counts = Counter[str]()
    run_graph = Graphs.run

    def counted(graphs: Graphs, key: Hashable, function: Callable[[], None]) -> None:
        before = len(graphs)
        run_graph(graphs, key, function)
        counts.update(steps=1, captures=int(len(graphs) > before))

    rows = []
    with mock.patch.object(Graphs, "run", counted):
        for beam_size in (5, 1):
            first: list[str] = []
            for batch_tokens in (8_192, 32_768, 131_072):
                options = {"beam_size": beam_size, "n_best": 1, "batch_tokens": batch_tokens}
                decode = translator.config.decode.model_copy(update=options)
                row: dict[str, float] = {"beam": beam_size, "batch_tokens": batch_tokens}
                for use in ("first_", ""):
                    counts.clear()
                    started = time.perf_counter()
                    texts = translator.translate(lines, decode)
                    row |= {f"{use}seconds": time.perf_counter() - started, f"{use}captures": counts["captures"]}
                first = first or texts
                tokens = sum(len(ids) + 1 for ids in translator.tokenizers.tgt.encode(texts))
                row |= {"steps": counts["steps"], "tokens": tokens, "lines": len(lines)}
                rows.append({**row, "other_texts": sum(a != b for a, b in zip(texts, first, strict=True))})
    return {"rows": rows, "peak_bytes": peak_memory_bytes("cuda")}
