"""Promise: the chunked loss is label-smoothed cross-entropy, in value and in gradient, and counts what should count.

Shapes: ``T`` tokens, ``D`` width, ``V`` vocabulary.
"""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from seq2seq.config import ModelConfig
from seq2seq.data.packed import Capacity, pack_pairs
from seq2seq.data.symbols import IGNORE_LABEL
from seq2seq.model import loss as loss_module
from seq2seq.model.kernels import packed_attention
from seq2seq.model.loss import LossOf, smoothed_cross_entropy, token_losses
from seq2seq.model.transformer import Transformer


def case(num_tokens=23, width=8, vocabulary=11, dtype=torch.float32):
    torch.manual_seed(4)
    hidden = (2 * torch.randn(num_tokens, width)).to(dtype).requires_grad_()
    weight = torch.randn(vocabulary, width).requires_grad_()
    labels = torch.randint(vocabulary, (num_tokens,))
    labels[::5] = IGNORE_LABEL
    return hidden, weight, labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("chunk", [1, 4, 23, 512])
@pytest.mark.parametrize("biased", [False, True])
def test_value_and_gradients(monkeypatch, smoothing, chunk, biased):
    """Guards against a wrong smoothing term, ignored labels that count, and tokens lost between chunks."""
    hidden, weight, labels = case()
    bias = torch.randn(weight.size(0)).requires_grad_() if biased else None
    inputs = (hidden, weight, bias) if biased else (hidden, weight)
    monkeypatch.setattr(loss_module, "CHUNK_LOGITS", {"cpu": chunk * weight.size(0)})
    logits = F.linear(hidden, weight, bias)
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
    found, nll = smoothed_cross_entropy(hidden, weight, labels, smoothing, bias)
    with torch.no_grad():
        plain = F.cross_entropy(logits, labels, reduction="none")
        torch.testing.assert_close(token_losses(lambda x: F.linear(x, weight, bias), hidden, labels), plain)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(nll, F.cross_entropy(logits, labels, reduction="sum"))
    # Scaled, as the trainer does to divide by the step's tokens.
    for one, other in zip(
        torch.autograd.grad(found * 0.37, inputs),
        torch.autograd.grad(expected * 0.37, inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_a_batch_that_counts_for_nothing():
    """Guards against NaN (a division by no labels) where a micro-batch is empty: loss and gradients are exactly 0."""
    hidden, weight, labels = case()
    loss, nll = smoothed_cross_entropy(hidden, weight, torch.full_like(labels, IGNORE_LABEL), 0.1)
    loss.backward()
    assert loss.item() == nll.item() == 0
    assert not hidden.grad.any()
    assert not weight.grad.any()


def test_tied_weight_has_gradients_of_both_uses():
    """Guards against an output gradient that replaces the embedding's instead of being added to it."""
    _, table, labels = case()
    ids = torch.randint(11, (23,))

    def grad(loss_of):
        mixed = torch.tanh(table[ids].cumsum(0))
        (found,) = torch.autograd.grad(loss_of(mixed), table)
        return found

    found = grad(lambda hidden: smoothed_cross_entropy(hidden, table, labels, 0.1)[0])
    expected = grad(lambda hidden: F.cross_entropy(hidden @ table.t(), labels, label_smoothing=0.1, reduction="sum"))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_gradient_for_one_of_the_two():
    """Guards against an error, or a missing gradient, where hidden states or weight are frozen."""
    hidden, weight, labels = case()
    both = torch.autograd.grad(smoothed_cross_entropy(hidden, weight, labels, 0.1)[0], (hidden, weight))
    (of_hidden,) = torch.autograd.grad(smoothed_cross_entropy(hidden, weight.detach(), labels, 0.1)[0], hidden)
    (of_weight,) = torch.autograd.grad(smoothed_cross_entropy(hidden.detach(), weight, labels, 0.1)[0], weight)
    assert torch.equal(of_hidden, both[0])
    assert torch.equal(of_weight, both[1])


def test_the_reported_likelihood_has_no_gradient():
    """Guards against training on the plain likelihood by mistake, without an error."""
    loss, nll = smoothed_cross_entropy(*case(), 0.1)
    assert loss.requires_grad
    assert not nll.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_value_without_gradients(mode):
    """Guards against validation that needs a graph."""
    hidden, weight, labels = case()
    expected = smoothed_cross_entropy(hidden, weight, labels, 0.1)
    with mode():
        found = smoothed_cross_entropy(hidden, weight, labels, 0.1)
    assert not found[0].requires_grad
    assert [x.item() for x in found] == [x.item() for x in expected]


def test_no_work_for_gradients_that_nobody_asked_for():
    """Guards against validation that computes gradients: under no_grad there is one product, not three."""
    hidden, weight, labels = case()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        smoothed_cross_entropy(hidden, weight, labels, 0.1)
    assert counter.get_total_flops() == 2 * hidden.numel() * weight.size(0)


def test_all_logits_never_exist(monkeypatch):
    """Guards against memory that grows with tokens times vocabulary: nothing of more than a chunk's logits is made."""
    monkeypatch.setattr(loss_module, "CHUNK_LOGITS", {"cpu": 16 * 64})
    hidden, weight, labels = case(num_tokens=160, width=8, vocabulary=64)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    with Watch():
        loss, _ = smoothed_cross_entropy(hidden, weight, labels, 0.1)
        loss.backward()
    assert largest == hidden.numel()  # 1280; a chunk's logits are 1024 and all of them would be 10240


def test_half_precision():
    """Guards against sums of many tokens in bf16: the loss is fp32, each gradient has its tensor's dtype."""
    hidden, weight, labels = case(num_tokens=1500, dtype=torch.bfloat16)
    loss, nll = smoothed_cross_entropy(hidden, weight, labels, 0.1)
    assert loss.dtype == nll.dtype == torch.float32
    exact = hidden.detach().float().requires_grad_()
    expected = F.cross_entropy(exact @ weight.t(), labels, label_smoothing=0.1, reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=2e-3, atol=0)
    grads = torch.autograd.grad(loss, (hidden, weight))
    wanted = torch.autograd.grad(expected, (exact, weight))
    assert [grad.dtype for grad in grads] == [torch.bfloat16, torch.float32]
    for one, other in zip(grads, wanted, strict=True):
        assert (one.float() - other).norm() < 1e-2 * other.norm()


def test_fp16_keeps_small_probabilities():
    """Guards against gradients of rare words that become 0 in fp16: a probability of 1e-7 has one bit there."""
    torch.manual_seed(0)
    hidden, weight = torch.ones(2000, 8).half().requires_grad_(), torch.zeros(3, 8)
    weight[:, 0] = torch.tensor([16.0, 0.0, 0.0])
    weight.requires_grad_()
    labels = torch.zeros(2000, dtype=torch.int64)
    loss, _ = smoothed_cross_entropy(hidden, weight, labels, 0.0)
    (found,) = torch.autograd.grad(loss * 1000, weight)
    exact, _ = smoothed_cross_entropy(hidden.float(), weight, labels, 0.0)
    (wanted,) = torch.autograd.grad(exact * 1000, weight)
    torch.testing.assert_close(found[1:], wanted[1:], rtol=0.02, atol=0)


def toy_pairs(rng, count):
    src_lengths, tgt_lengths = rng.integers(1, 9, size=(2, count))
    src, tgt = (rng.integers(4, 30, size=lengths.sum()) for lengths in (src_lengths, tgt_lengths))
    return src, src_lengths, tgt, tgt_lengths


@pytest.mark.parametrize("short", [0, 64])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary"])
def test_batches_of_fixed_shapes_are_one_graph_and_the_same(monkeypatch, positions, short):
    """What runs on CUDA, as far as a CPU can run it: filled batches have the loss and gradients of plain ones, and one
    graph without a break serves them all."""
    torch.manual_seed(0)
    monkeypatch.setattr(packed_attention, "SHORT", short)
    config = ModelConfig(
        encoder_layers=1, decoder_layers=1, d_model=16, num_heads=2, d_ff=32, dropout=0, positions=positions
    )
    loss = LossOf(Transformer(config, 30, 30, max_length=12), 0.1, torch.float32)
    capacity = Capacity(src_tokens=96, tgt_tokens=104, sentences=24, max_length=12)
    graphs = 0

    def backend(graph, _inputs):
        nonlocal graphs
        graphs += 1
        return graph

    torch._dynamo.reset()
    compiled = torch.compile(loss, dynamic=False, fullgraph=True, backend=backend)
    rng = np.random.default_rng(0)
    for count in (10, 3, 0):
        pairs = toy_pairs(rng, count)
        results = []
        for program, batch in ((loss, pack_pairs(*pairs)), (compiled, pack_pairs(*pairs, capacity))):
            total, nll = program(batch)
            total.backward()
            results.append([total.detach(), nll, *(p.grad.clone() for p in loss.parameters())])
            loss.zero_grad()
        torch.testing.assert_close(*results, atol=1e-5, rtol=1e-4)
    assert graphs == 1
