"""Promise: steps of fixed shapes give what :class:`DecoderState` gives, whoever else is or was in their memory.

On the CPU the function that CUDA captures runs as it is, or is recorded and done again as a graph would.
"""

import math
from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seq2seq.data.batching import pack_sentences
from seq2seq.data.symbols import BOS_ID
from seq2seq.model import captured
from seq2seq.model.captured import StaticDecoderState, StaticSteps, static_step, with_weights_in
from seq2seq.model.graphs import Graphs
from seq2seq.model.transformer import DecoderState

VARIANTS = {
    "paper": {},
    "learned": {"positions": "learned", "tie_embeddings": "none"},
    "rotary-window": {"positions": "rotary", "attention_window": 3, "norm_position": "pre"},
    "groups": {"num_kv_heads": 2, "positions": "rotary", "activation": "swiglu", "norm": "rmsnorm"},
    "one-kv-head-window": {"num_kv_heads": 1, "attention_window": 1},
}
variants = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]
devices = pytest.mark.parametrize("device", ["cpu", "recorded", pytest.param("cuda", marks=gpu)])


@pytest.fixture
def small_shapes(monkeypatch):
    """Shapes so small that a short search goes through several."""
    monkeypatch.setattr(captured, "_SENTENCES", 1)
    monkeypatch.setattr(captured, "_STEPS", 2)
    monkeypatch.setattr(captured, "_SRC_TOKENS", 4)


class Recording(TorchDispatchMode):
    """What a CUDA graph is, on the CPU: the operations of a function in one run, to be done again on the very same
    tensors and numbers, whatever Python would make of them by then."""

    def __init__(self, function):
        super().__init__()
        self.calls = []
        function()  # once more than is recorded, as a capture is warmed up
        with self:
            function()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        assert operation not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), "a wait"
        out = operation(*args, **(kwargs or {}))
        self.calls.append((operation, args, kwargs or {}, out))
        return out

    def replay(self):
        for operation, args, kwargs, out in self.calls:
            again = operation(*args, **kwargs)
            for kept, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(kept, torch.Tensor) and kept.data_ptr() != new.data_ptr():
                    kept.copy_(new)


class RecordedGraphs(Graphs):
    """Recordings in the place of graphs."""

    def run(self, key, function):
        if key not in self._graphs:
            self._graphs[key] = Recording(function)
        self._graphs[key].replay()

    def forget(self):
        self._graphs = {}


def kind(device):
    return "cpu" if device == "recorded" else device


def steps_of(model, device, dtype=torch.float32):
    """Steps by graphs on CUDA, by recordings on the CPU (device "recorded"), or as plain calls."""
    steps = StaticSteps(model, dtype)
    if device == "recorded":
        steps._graphs = RecordedGraphs(steps.device)
    return steps


def compare(found, expected, width, seed, num_steps, tolerance=1e-5):
    """Drive both states through the same random search: hypotheses are exchanged, sentences leave and change places.

    Returns the static state's shapes, in order.
    """
    rng = torch.Generator().manual_seed(seed)
    shapes = []
    ids = torch.full((len(expected.src_mask),), BOS_ID)
    for step in range(num_steps):
        logits = expected.step(ids)
        torch.testing.assert_close(found.step(ids), logits.float(), atol=tolerance, rtol=1e-4)
        shapes.append(found.shape)
        live = len(logits) // (width if step else 1)
        leave = step % 3 == 2 and live > 1
        sentences = torch.randperm(live, generator=rng)[: live - (1 + live // 4 if leave else 0)]
        parents = torch.randint(0, width if step else 1, (len(sentences), width), generator=rng)
        for state in (expected, found):
            state.select(sentences, parents)
        ids = torch.randint(4, 23, (len(sentences) * width,), generator=rng)
    return shapes


def states(model, steps, lengths, width, num_steps, make_pairs, seed=0):
    src = pack_sentences([src for src, _ in make_pairs([(length, 1) for length in lengths], seed=seed)])
    src = src.to(steps.device)
    return StaticDecoderState(steps, src, width, num_steps), DecoderState(model, src, width, num_steps)


@devices
@variants
@pytest.mark.parametrize("width", [1, 3])
@torch.inference_mode()
def test_steps_equal_those_of_the_growing_cache(make_model, make_pairs, small_shapes, options, width, device):
    """Guards against a token written to a wrong slot, a mask of another hypothesis or sentence, a wrong position, and
    against anything that a search leaves for the next: batches follow each other in one memory, on CUDA by graphs."""
    model = make_model(**options).eval().to(kind(device))
    steps = steps_of(model, device)
    seen = []
    for seed, lengths in enumerate([[4, 9, 2, 7, 7], [3], [5, 2, 1, 3, 3, 2, 8, 4, 6], [9, 8], [4, 9, 2, 7, 7]]):
        pair = states(model, steps, lengths, width, 11, make_pairs, seed)
        seen.append(compare(*pair, width, seed, 11))
    assert seen[0] != seen[1]
    assert {shape.sentences for shape in seen[2]} == {16, 8, 4, 2}
    assert {shape.steps for shape in seen[2]} == {2, 4, 8, 16}
    if device != "cpu":
        assert len(steps._graphs) > 5


@torch.inference_mode()
def test_a_state_starts_clean(make_model, make_pairs, small_shapes):
    """Guards against what is masked but not finite: memory holds anything at first, and a broken batch leaves NaN."""
    model = make_model().eval()
    steps = StaticSteps(model, torch.float32)
    pair = states(model, steps, [4, 9, 2], 2, 5, make_pairs)
    compare(*pair, 2, 0, 5)
    for memory in steps._memory.values():
        memory.fill_(math.nan if memory.is_floating_point() else 5)
    compare(*states(model, steps, [4, 2, 3], 2, 5, make_pairs), 2, 0, 5)


@torch.inference_mode()
def test_dead_rows_disturb_nobody(make_model, make_pairs):
    """Guards against a sum over rows, and against rows that become NaN: any tokens may follow in a row that is dead,
    even one where nothing was ever seen."""
    model = make_model(norm_position="pre").eval()
    steps = StaticSteps(model, torch.float32)
    found, expected = states(model, steps, [4, 9, 2], 2, 6, make_pairs)
    assert found.shape.sentences == 8
    run = steps.run

    def disturbed(shape, tensors):
        dead = torch.ones(8, dtype=torch.bool)
        dead[found.rows] = False
        tensors.ids[dead] = torch.randint(4, 23, (int(dead.sum()), 2))
        tensors.src_cache[dead] += 7.0
        run(shape, tensors)
        assert all(x.isfinite().all() for x in tensors)  # masks too: not every kernel survives a row of -inf

    steps.run = disturbed
    compare(found, expected, 2, 0, 6)


@devices
@torch.inference_mode()
def test_a_step_may_be_done_again(make_model, make_pairs, small_shapes, device):
    """Guards against a capture that changes the state: its warm-up does the step once more than asked for."""
    model = make_model(positions="rotary").eval().to(kind(device))
    steps = steps_of(model, device)
    found, expected = states(model, steps, [4, 9, 2], 2, 6, make_pairs)
    run = steps.run

    def twice(shape, tensors):
        run(shape, tensors)
        static_step(model, tensors)

    steps.run = twice
    compare(found, expected, 2, 0, 6)


@devices
@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
@torch.inference_mode()
def test_positions_outlive_their_table(make_model, make_pairs, small_shapes, positions, device):
    """Guards against a graph that reads a table of positions which has since been replaced by a longer one."""
    model = make_model(positions=positions).eval().to(kind(device))
    steps = steps_of(model, device)
    compare(*states(model, steps, [4, 9], 2, 6, make_pairs), 2, 0, 6)
    table = model.rotary or model.tgt_positions
    table.rows.fill_(7.0)
    table.rows = table.compute(2048).to(kind(device))
    compare(*states(model, steps, [4, 9], 2, 6, make_pairs), 2, 0, 6)


@pytest.mark.parametrize("tie", ["all", "target", "none"])
@torch.inference_mode()
def test_cast_weights_give_what_autocast_gives(make_model, make_pairs, batch_of, tie):
    """Guards against a copy that differs from casting at every step, or that changes the model."""
    model = make_model(tie_embeddings=tie, norm_position="pre").eval()
    batch = batch_of(make_pairs([(4, 6), (9, 3)]))
    before = {name: x.clone() for name, x in model.named_parameters()}
    cast = with_weights_in(torch.bfloat16, model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        one, other = (torch.nn.functional.linear(m(batch), m.output_weight) for m in (model, cast))
    assert one.dtype == torch.bfloat16
    assert torch.equal(one, other)
    assert all(torch.equal(x, before[name]) and x.dtype == torch.float32 for name, x in model.named_parameters())
    assert all(m.weight.dtype == torch.bfloat16 for m in cast.modules() if isinstance(m, torch.nn.Linear))
    assert cast.output_weight.dtype == torch.bfloat16
    assert cast.src_embedding.weight is model.src_embedding.weight
    assert cast.tgt_embedding.weight.dtype == torch.float32


@devices
@torch.inference_mode()
def test_half_precision(make_model, make_pairs, small_shapes, device):
    """Guards against a dtype that does not fit: bf16 keys, values and masks, fp32 in between."""
    model = make_model(d_model=64, num_heads=2).eval().to(kind(device))
    steps = steps_of(with_weights_in(torch.bfloat16, model), device, torch.bfloat16)
    with torch.autocast(kind(device), dtype=torch.bfloat16, cache_enabled=False):
        compare(*states(model, steps, [4, 9, 2], 2, 6, make_pairs), 2, 0, 6, tolerance=0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("half", [False, True])
@torch.inference_mode()
def test_memory_does_not_grow(make_model, make_pairs, small_shapes, half):
    """Guards against graphs or pools that pile up: after all shapes were seen, further batches need no more memory."""
    dtype = torch.bfloat16 if half else torch.float32
    model = with_weights_in(dtype, make_model(d_model=64, num_heads=2).eval().cuda())
    steps = StaticSteps(model, dtype)

    def many():
        for seed in range(20):
            lengths = [[4, 9, 2, 7], [3], [5, 2, 1, 3, 3, 2, 8, 4]][seed % 3]
            compare(*states(model, steps, lengths, 2, 11, make_pairs), 2, 0, 11, tolerance=0.1)
        torch.cuda.synchronize()
        return len(steps._graphs), torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

    with torch.autocast("cuda", dtype=dtype, cache_enabled=False) if half else nullcontext():
        many()
        before = many()
        assert many() == before
    steps._graphs.forget()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < before[2]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@torch.inference_mode()
def test_a_step_reads_nothing_back(make_model, make_pairs, small_shapes):
    """Guards against a hidden wait for the device in the step or the selection."""
    model = make_model().eval().cuda()
    steps = StaticSteps(model, torch.float32)
    everyone, parents = torch.arange(3, device="cuda"), torch.tensor([[0, 0]] * 3, device="cuda")
    ids = torch.full((3,), BOS_ID, device="cuda")
    for checked in ("default", "error"):  # first the graphs are captured, for which the device is waited for
        found, _ = states(model, steps, [4, 9, 2], 2, 7, make_pairs)
        torch.cuda.set_sync_debug_mode(checked)
        try:
            for _ in range(7):
                ids = found.step(ids).argmax(dim=1)
                if len(ids) == 3:
                    ids = ids[:, None].expand(-1, 2).flatten()
                found.select(everyone, parents)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        ids = ids[::2]
