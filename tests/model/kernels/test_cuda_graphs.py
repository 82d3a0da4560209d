"""Promise: every call does its function once, the first by calling it, later ones by its graph; the CPU just calls."""

from unittest import mock

import pytest
import torch

from seq2seq.model.kernels import cuda_graphs as graphs_module
from seq2seq.model.kernels.cuda_graphs import Graphs


def counter(device):
    """A tensor, a function that doubles it into another one, and how often Python ran that function."""
    x, y, calls = torch.ones(3, device=device), torch.zeros(3, device=device), []

    def double():
        calls.append(1)
        y.copy_(x * 2)

    return x, y, double, calls


def test_the_cpu_calls_the_function():
    """Guards against anything of CUDA on a machine without."""
    x, y, double, calls = counter("cpu")
    graphs = Graphs(x.device)
    for value in (1.0, 2.0, 3.0):
        graphs.run("double", double)
        assert torch.equal(y, x * 2)
        x.fill_(value)
    assert len(calls) == 3
    graphs.forget()


def test_what_is_captured_and_when(monkeypatch):
    """Guards against a capture without warm-up or on another stream, a graph that is captured again or replayed on top
    of the warm-up, and against a pool that is joined when none of its graphs is left: which PyTorch does not survive.
    CUDA is a stand-in here."""
    cuda, side = mock.MagicMock(), mock.MagicMock()
    made, pool = [mock.MagicMock(name=f"graph {i}") for i in range(4)], mock.MagicMock(name="pool")
    for graph in made:
        graph.pool.return_value = pool
    cuda.CUDAGraph.side_effect = made
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(graphs_module, "_side_stream", lambda device: side)
    calls, graphs = [], Graphs(torch.device("cuda", 0))
    for key in ("a", "a", "b", "a", "c"):
        graphs.run(key, lambda key=key: calls.append(key))
    assert calls == ["a", "a", "b", "b", "c", "c"]
    assert [graph.replay.call_count for graph in made[:3]] == [2, 0, 0]
    assert [call.kwargs["pool"] for call in cuda.graph.call_args_list] == [None, pool, pool]
    assert all(call.kwargs["stream"] is side for call in cuda.graph.call_args_list)
    assert [call.args for call in cuda.stream.call_args_list] == [(side,)] * 3
    graphs.forget()
    assert cuda.synchronize.call_count == 1
    assert len(graphs) == 0
    graphs.run("a", lambda: None)
    assert cuda.graph.call_args.kwargs["pool"] is None


def test_graphs_are_kept_within_a_bound(monkeypatch):
    """Guards against a server that needs more memory with every temperature that it is asked for. The graph that was
    not used for the longest time goes, and not while it may be running. CUDA is a stand-in here."""
    cuda, order = mock.MagicMock(), []
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(graphs_module, "_side_stream", lambda device: mock.MagicMock())
    cuda.synchronize.side_effect = lambda device: order.append(len(graphs))
    graphs = Graphs(torch.device("cuda", 0))
    for temperature in range(64):
        graphs.run(temperature, lambda: None)
    assert (len(graphs), order) == (64, [])
    graphs.run(0, lambda: None)
    for temperature in range(64, 100):
        graphs.run(temperature, lambda: None)
    assert (len(graphs), order) == (64, [64] * 36)
    captured = cuda.graph.call_count
    for kept in (0, *range(37, 100)):
        graphs.run(kept, lambda: None)
    assert cuda.graph.call_count == captured == 100
    graphs.run(36, lambda: None)
    assert cuda.graph.call_count == 101


def test_a_shape_stays_at_its_place():
    """Guards against numbers that an earlier search left, against graphs that write where nothing is any more, and
    against places that pile up: all of a name need at most twice the memory of the largest."""
    graphs, sizes = Graphs(torch.device("cpu")), [6, 4, 7, 13, 12, 40, 1, 41, 90, 6]
    addresses = {}
    for size in sizes * 2:
        place = graphs.place("x", (size,), torch.float32)
        assert addresses.setdefault(size, place.data_ptr()) == place.data_ptr()
        assert place.eq(0).all()
        place.fill_(5.0)
    assert addresses[6] == addresses[4] == addresses[1]
    assert addresses[6] != addresses[7]
    held = [place.numel() for place in graphs._places["x"]]
    assert held == [6, 12, 24, 48, 96]
    assert sum(held) <= 2 * held[-1]
    assert graphs.place("x", (3, 2), torch.float32).shape == (3, 2)
    assert graphs.place("y", (7,), torch.int64).dtype == torch.int64


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_graph_is_replayed():
    """Guards against a graph that computes once and never again or twice, and against graphs that spoil each other."""
    x, y, double, calls = counter("cuda")
    total = torch.zeros(3, device="cuda")
    graphs, expected = Graphs(x.device), 0.0
    for round_ in range(2):
        for value in (1.0, 2.0, 3.0):
            x.fill_(value)
            expected += value
            graphs.run("double", double)
            graphs.run("add", lambda: total.add_(x))
            assert y.tolist() == [2 * value] * 3
            assert total.tolist() == [expected] * 3
        assert len(calls) == 2 * (round_ + 1)
        graphs.forget()
