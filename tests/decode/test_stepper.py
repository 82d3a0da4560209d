"""Promise: a search in fixed shapes gives what the eager one gives, whoever else is or was in its memory.

On the CPU the function that CUDA captures runs as it is, or is recorded and done again as a graph would.
"""

import copy
import math
from contextlib import nullcontext
from itertools import chain

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seq2seq.config import DecodeConfig, ModelConfig
from seq2seq.data.packed import pack_sentences
from seq2seq.data.symbols import BOS_ID, EOS_ID
from seq2seq.decode import stepper as stepper_module
from seq2seq.decode.search import search
from seq2seq.decode.stepper import EagerStepper, GraphStepper, begin, without_free_rows
from seq2seq.model import state as state_module
from seq2seq.model.kernels.cuda_graphs import Graphs
from seq2seq.model.quantize import update_weights, with_weights_in
from seq2seq.model.transformer import Transformer

VARIANTS = {
    "paper": {},
    "learned": {"positions": "learned", "tie_embeddings": "none"},
    "rotary-window": {"positions": "rotary", "attention_window": 3, "norm_position": "pre"},
    "groups": {"num_kv_heads": 2, "positions": "rotary", "activation": "swiglu", "norm": "rmsnorm"},
    "one-kv-head-window": {"num_kv_heads": 1, "attention_window": 1},
    "recurrent": {"architecture": "recurrent", "cell": "gru", "attention": "additive"},
    "convolutional": {"architecture": "convolutional", "kernel_width": 5},
    "recurrent-fed": {"architecture": "recurrent", "cell": "lstm", "attention": "dot", "input_feeding": True},
}
gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]
devices = pytest.mark.parametrize("device", ["recorded", pytest.param("cuda", marks=gpu)])


@pytest.fixture
def small_shapes(monkeypatch):
    """Shapes so small that a short search goes through several."""
    monkeypatch.setattr(stepper_module, "_SENTENCES", 1)
    monkeypatch.setattr(state_module, "_STEPS", 2)


class Recording(TorchDispatchMode):
    """What a CUDA graph is, on the CPU: the operations of a function in one run, to be done again on the very same
    tensors and numbers, whatever Python would make of them by then."""

    def __init__(self, function):
        super().__init__()
        self.calls = []
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
        if key in self._graphs:
            self._graphs[key].replay()
            return
        before = [(place, place.clone()) for places in self._places.values() for place in places]
        function()
        for place, numbers in before:  # a capture changes nothing, but a recording does it once more
            place.copy_(numbers)
        self._graphs[key] = Recording(function)

    def forget(self):
        self._graphs = {}


def graphs_of(model, device):
    """Graphs on CUDA, recordings on the CPU (device "recorded"), or plain calls; with the model that they are for."""
    graphs = RecordedGraphs(torch.device("cpu")) if device == "recorded" else Graphs(torch.device(device))
    graphs.model = copy.deepcopy(model).to(graphs.device)
    return graphs


def beam(size):
    return DecodeConfig(beam_size=size)


def both(graphs, model, sources, max_lengths, decode, uniforms=None):
    """A search in fixed shapes and the eager one."""
    src = pack_sentences(sources, grid_length=10)
    there = begin(graphs.model, src.to(graphs.device), max_lengths, decode, uniforms)
    here = begin(model, src, max_lengths, decode, uniforms)
    return GraphStepper(graphs, graphs.model, there, decode), EagerStepper(model, here, decode)


def compare(graphs, model, max_lengths, decode, seed=0):
    """Drive both searches side by side to the end; sentences leave at random, too, and change places.

    Returns the shapes after the first step, in order.
    """
    rng = np.random.default_rng(seed)
    sources = [[*rng.integers(4, 23, n - 1).tolist(), EOS_ID] for n in rng.integers(1, 10, len(max_lengths))]
    uniforms = rng.random((len(max_lengths), decode.num_hypotheses, max(max_lengths))) if decode.sample else None
    found, expected = both(graphs, model, sources, max_lengths, decode, uniforms)
    longest, shapes = np.array(max_lengths), []
    for length in range(1, max(max_lengths) + 1):
        ours, theirs = found.advance(), expected.advance()
        if length > 1:
            shapes.append(found.shape)
        going = np.flatnonzero(longest > length)
        assert np.array_equal(ours[:2, going], theirs[:2, going])
        np.testing.assert_allclose(ours[2], theirs[2], atol=1e-4)
        ended = theirs[2] > -math.inf
        assert np.array_equal(ours[3][ended], theirs[3][ended])
        if not len(going):
            break
        kept = rng.permutation(going)[: max(1, len(going) - (len(going) // 4 if length % 3 == 0 else 0))]
        for state in (found, expected):
            state.keep(kept)
        longest = longest[kept]
    return shapes


@devices
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("beam_size", [1, 3, 5])
@torch.inference_mode()
def test_fixed_shapes_give_what_the_growing_cache_gives(make_model, small_shapes, variant, beam_size, device):
    """Guards against a token written to a wrong slot, a mask, sum or length of another hypothesis or sentence, a wrong
    position, and against anything that a search leaves for the next: batches follow each other in one memory."""
    model = make_model(**variant).eval()
    graphs = graphs_of(model, device)
    batches = [[11, 4, 9, 1, 7], [3], [5, 2, 20, 3, 3, 9, 8, 17, 18], [9, 1], [1, 1]]
    seen = [compare(graphs, model, lengths, beam(beam_size), seed) for seed, lengths in enumerate(batches)]
    assert {num_sentences for num_sentences, _ in seen[2]} >= {16, 8, 4, 2}
    window = variant.get("attention_window")  # steps that have left it are overwritten
    most = 32 if window is None else window + 1  # 32 is more than there are learned positions
    assert {steps for _, steps in seen[2]} == {min(steps, most) for steps in (2, 4, 8, 16, 32)}
    assert len(graphs) > 4


@devices
@torch.inference_mode()
def test_samples_are_the_same(make_model, small_shapes, device):
    """Guards against random numbers of another step, sentence or sample, and against a graph that is taken for other
    options than it was captured with."""
    model = make_model(positions="rotary").eval()
    graphs = graphs_of(model, device)
    for seed, lengths in enumerate([[9, 4, 7, 1], [5, 2, 8, 3, 3]]):
        for options in ({}, {"temperature": 3.0}, {"top_k": 3}, {"top_p": 0.6}):
            compare(graphs, model, lengths, DecodeConfig(sample=True, n_best=3, **options), seed)
        compare(graphs, model, lengths, beam(3), seed)


@devices
@pytest.mark.parametrize("beam_size", [2, 9])
@torch.inference_mode()
def test_fewer_continuations_than_beams(small_shapes, beam_size, device):
    """Guards against hypotheses that are none and come back to life: a vocabulary of 4 has fewer than the beam."""
    torch.manual_seed(0)
    shape = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16, "num_heads": 2, "d_ff": 16}
    model = Transformer(ModelConfig(**shape, tie_embeddings="target"), 23, 4, 24).eval()
    sources, max_lengths = [[5, 9, EOS_ID], [7, EOS_ID], [8, EOS_ID], [9, 9, 9, EOS_ID]], [3, 5, 1, 2]
    states = both(graphs_of(model, device), model, sources, max_lengths, beam(beam_size))
    found, expected = (search(state, max_lengths, beam_size, 1.0) for state in states)
    for ours, theirs in zip(found, expected, strict=True):
        assert [h.ids for h in ours] == [h.ids for h in theirs]
        assert [h.score for h in ours] == pytest.approx([h.score for h in theirs], abs=1e-4)


@torch.inference_mode()
def test_a_search_starts_clean(make_model, small_shapes):
    """Guards against what is masked but not finite: memory holds anything at first, and a broken batch leaves NaN."""
    model = make_model().eval()
    graphs = graphs_of(model, "cpu")
    for _ in range(2):
        compare(graphs, model, [4, 9, 2], beam(2))
        compare(graphs, model, [4, 9, 2], DecodeConfig(sample=True, n_best=2))
        for memory in chain.from_iterable(graphs._places.values()):
            memory.fill_(math.nan if memory.is_floating_point() else 5)


@torch.inference_mode()
def test_dead_rows_disturb_nobody(make_model):
    """Guards against a sum over rows, and against rows that become NaN: anything may follow in a row that is dead, even
    one where nothing was ever seen."""
    model = make_model(norm_position="pre").eval()
    graphs = graphs_of(model, "cpu")
    run = graphs.run

    def disturbed(key, function):
        stepper = function.__self__
        assert stepper.shape[0] == 8
        state, dead = stepper.state, torch.ones(8, dtype=torch.bool)
        dead[: len(max_lengths)] = False  # none of the sentences leaves before its end
        held = state.of_sentences
        held["tokens"][dead] = torch.randint(4, 23, held["tokens"][dead].shape)
        for name in ("src_keys0", "src_keys1", "src_values0", "src_values1"):
            held[name][dead] += 7.0
        held["log_probs"][dead] = torch.tensor([0.0, -math.inf])
        run(key, function)
        kept = {**held, **state.of_hypotheses, **state.shared}
        assert len(kept) == 14
        assert all(x.isfinite().all() for name, x in kept.items() if name != "log_probs")
        assert not stepper._read.isnan().any()

    graphs.run = disturbed
    max_lengths = [6, 9, 2]
    compare(graphs, model, max_lengths, beam(2))


@devices
@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
@torch.inference_mode()
def test_positions_outlive_their_table(make_model, small_shapes, positions, device):
    """Guards against a graph that reads a table of positions which has since been replaced by a longer one."""
    model = make_model(positions=positions).eval()
    graphs = graphs_of(model, device)
    compare(graphs, model, [6, 5], beam(2))
    table = graphs.model.tgt_positions
    table.rows.fill_(7.0)
    table.rows = table.compute(2048).to(graphs.device)
    compare(graphs, model, [6, 5], beam(2))


@devices
@torch.inference_mode()
def test_half_precision(make_model, small_shapes, device):
    """Guards against a dtype that does not fit: bf16 keys, values and masks, fp32 sums. What is found has about the
    probability that the model gives it in fp32."""
    model = make_model(d_model=64, num_heads=2).eval()
    graphs = graphs_of(with_weights_in(torch.bfloat16, model), device)
    sources, max_lengths = [[5, 9, 8, EOS_ID], [7, EOS_ID], [8, 14, 4, 4, 6, EOS_ID]], [6, 9, 4]
    with torch.autocast(graphs.device.type, dtype=torch.bfloat16, cache_enabled=False):
        fixed, _ = both(graphs, model, sources, max_lengths, beam(3))
        found = search(fixed, max_lengths, 3, 1.0)
    for source, hypotheses in zip(sources, found, strict=True):
        assert len(hypotheses) == 3
        for h in hypotheses:
            src, tgt = pack_sentences([source]), pack_sentences([[BOS_ID, *h.ids]])
            log_p = (model.decode(tgt, model.encode(src), src) @ model.output_weight.t()).log_softmax(-1)
            expected = log_p.gather(1, torch.tensor([*h.ids, EOS_ID])[:, None]).sum()
            assert h.log_prob == pytest.approx(expected.item(), abs=0.03 * (len(h.ids) + 1))


@devices
@torch.inference_mode()
def test_no_graph_is_captured_twice(make_model, small_shapes, device):
    """Guards against graphs that are thrown away when a larger batch comes, as the later ones of a file are: they have
    shorter sentences, but more of them. The first search is the smallest here."""
    model = make_model().eval()
    graphs, keys, run = graphs_of(model, device), [], Graphs.run if device == "cuda" else RecordedGraphs.run
    captured = []

    def counted(key, function):
        keys.append(key)
        if key not in graphs._graphs:
            captured.append(key)
        run(graphs, key, function)

    graphs.run = counted
    for seed, lengths in enumerate([[3], [9, 4], [11, 4, 9, 1, 7], [3], [9] * 9, [9, 4], [11, 4, 9, 1, 7]]):
        compare(graphs, model, lengths, beam(2), seed)
    assert len(captured) == len(set(keys)) == len(graphs) > 4


@torch.inference_mode()
def test_graphs_follow_the_weights(make_model, small_shapes):
    """Guards against a validation with the weights of an earlier one: the graphs of a run read the same tensors in all
    its validations."""
    model = make_model(d_model=64, num_heads=2).eval()
    graphs = graphs_of(model, "recorded")
    graphs.model = with_weights_in(torch.bfloat16, model)
    sources, max_lengths = [[5, 9, 8, EOS_ID], [7, EOS_ID], [8, 14, 4, 4, 6, EOS_ID]], [6, 9, 4]
    found = []
    with torch.autocast(graphs.device.type, dtype=torch.bfloat16, cache_enabled=False):
        for seed in range(3):
            torch.manual_seed(seed)
            for trained in model.parameters():
                trained.add_(torch.randn(trained.shape) * 0.1)
            update_weights(graphs.model, model)
            fixed, expected = both(graphs, with_weights_in(torch.bfloat16, model), sources, max_lengths, beam(3))
            ours, theirs = (search(state, max_lengths, 3, 1.0) for state in (fixed, expected))
            assert [[h.ids for h in some] for some in ours] == [[h.ids for h in some] for some in theirs]
            found.append(ours)
    assert found[0] != found[1] != found[2]


def test_batches_fill_the_shapes_of_graphs():
    """Guards against rows that are computed for no sentence, up to half of a batch."""
    sizes = [1, 7, 8, 9, 15, 16, 17, 100, 819]
    assert [without_free_rows(size) for size in sizes] == [1, 7, 8, 8, 8, 16, 16, 64, 512]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_memory_does_not_grow(make_model, small_shapes, dtype):
    """Guards against graphs or pools that pile up: after all shapes were seen, further batches need no more memory."""
    model = make_model(d_model=64, num_heads=2).eval()
    graphs = graphs_of(with_weights_in(dtype, model), "cuda")

    def many():
        for seed in range(20):
            lengths = [[4, 9, 2, 7], [3], [5, 2, 1, 3, 3, 2, 8, 4]][seed % 3]
            sources = [[5] * n + [EOS_ID] for n in lengths]
            fixed, _ = both(graphs, model, sources, lengths, beam(2))
            search(fixed, lengths, 2, 1.0)
        torch.cuda.synchronize()
        return len(graphs), torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

    with torch.autocast("cuda", dtype=dtype, cache_enabled=False) if dtype != torch.float32 else nullcontext():
        many()
        before = many()
        assert many() == before
    graphs.forget()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < before[2]
