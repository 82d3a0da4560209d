"""Promise: packed attention is equation 1 inside each sentence, whichever kernel computes it.

Shapes: ``T`` tokens, ``H`` heads, ``G`` key/value heads, ``E`` width of a head.
"""

import math

import numpy as np
import pytest
import torch

from seq2seq.data.packed import Packed, pack, pack_sentences
from seq2seq.model.attention import Attention
from seq2seq.model.kernels import packed_attention as kernels
from seq2seq.model.kernels.packed_attention import has_packed_kernel, packed_attention

Q_LENGTHS, K_LENGTHS = [4, 1, 7, 3], [2, 6, 1, 9]


def side_of(lengths: list[int]) -> Packed:
    return pack_sentences([[5] * length for length in lengths])


def reference(q, k, v, q_side, k_side, *, causal, window=None):
    """Equation 1, as it is written in attention.py."""
    attend = Attention("cross", q.size(1), causal=causal, window=window, plain=True)
    return attend((q, k, v), q_side, k_side)


KINDS = [
    pytest.param(True, False, None, id="encoder"),
    pytest.param(True, True, None, id="decoder"),
    pytest.param(True, False, 2, id="encoder-window"),
    pytest.param(True, True, 2, id="decoder-window"),
    pytest.param(True, False, 1, id="encoder-window-1"),
    pytest.param(True, True, 100, id="window-beyond-the-end"),
    pytest.param(False, False, None, id="cross"),
]


# Plain products for short sentences, PyTorch's kernel for all others.
both_ways = pytest.mark.parametrize("short", [0, 1000])


def case(same_side, num_kv_heads, device="cpu", dtype=torch.float32, width=6):
    """Random q, k, v with gradients, the sides, and a random gradient of the output."""
    torch.manual_seed(1)
    q_side = side_of(Q_LENGTHS).to(torch.device(device))
    k_side = q_side if same_side else side_of(K_LENGTHS).to(torch.device(device))
    shapes = [(sum(Q_LENGTHS), 4)] + [(int(k_side.offsets[-1]), num_kv_heads)] * 2
    q, k, v = (torch.randn(*s, width).to(device, dtype).requires_grad_() for s in shapes)
    return q, k, v, q_side, k_side, torch.randn_like(q)


@both_ways
@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
@pytest.mark.parametrize(("same_side", "causal", "window"), KINDS)
def test_padded_kernels_against_equation_1(monkeypatch, short, same_side, causal, window, num_kv_heads):
    """Guards against a wrong mask, heads grouped wrongly, padding that gets probability, and NaN from rows of the grid
    that see nothing: outputs and all gradients."""
    monkeypatch.setattr(kernels, "SHORT", short)
    *inputs, grad = case(same_side, num_kv_heads)
    found = packed_attention(inputs[:3], 4, *inputs[3:], causal=causal, window=window)
    expected = reference(*inputs, causal=causal, window=window)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for one, other in zip(
        torch.autograd.grad(found, inputs[:3], grad), torch.autograd.grad(expected, inputs[:3], grad), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@both_ways
@pytest.mark.parametrize(("same_side", "causal", "window"), KINDS)
def test_what_a_sentence_does_not_see_changes_nothing(monkeypatch, short, same_side, causal, window):
    """Guards against a leak between sentences: other values in one leave the rest's outputs and gradients bit-equal."""
    monkeypatch.setattr(kernels, "SHORT", short)
    q, k, v, q_side, k_side, grad = case(same_side, 4)
    clean = packed_attention((q, k, v), 4, q_side, k_side, causal=causal, window=window)
    grads = torch.autograd.grad(clean, (q, k, v), grad)
    b = 2  # the sentence to spoil; not the first, which padding repeats
    q_rows, k_rows = (slice(int(side.offsets[b]), int(side.offsets[b + 1])) for side in (q_side, k_side))
    spoilt = [x.detach().clone() for x in (q, k, v)]
    for x, rows in zip(spoilt, (q_rows, k_rows, k_rows), strict=True):
        x[rows] = 50 * torch.randn_like(x[rows])
        x.requires_grad_()
    dirty = packed_attention(spoilt, 4, q_side, k_side, causal=causal, window=window)
    dirty_grads = torch.autograd.grad(dirty, spoilt, grad)
    rows_of = (q_rows, q_rows, k_rows, k_rows)
    for one, other, rows in zip((clean, *grads), (dirty, *dirty_grads), rows_of, strict=True):
        others = torch.ones(len(one), dtype=torch.bool)
        others[rows] = False
        assert torch.equal(one[others], other[others])
    assert not torch.equal(clean[q_rows], dirty[q_rows])


@both_ways
@pytest.mark.parametrize("num_kv_heads", [4, 2])
def test_heads_together_are_heads_apart(monkeypatch, short, num_kv_heads):
    """Guards against heads that a fused tensor is cut at wrongly, in value or in gradient."""
    monkeypatch.setattr(kernels, "SHORT", short)

    def run(heads, q_side, k_side, grad):
        mixed = packed_attention(heads, 4, q_side, k_side, causal=False)
        return mixed, *torch.autograd.grad(mixed, (q, k, v), grad)

    q, k, v, *rest = case(True, num_kv_heads)
    for found, expected in zip(run([torch.cat([q, k, v], dim=1)], *rest), run([q, k, v], *rest), strict=True):
        torch.testing.assert_close(found, expected)
    q, k, v, *rest = case(False, num_kv_heads)
    for found, expected in zip(run([q, torch.cat([k, v], dim=1)], *rest), run([q, k, v], *rest), strict=True):
        torch.testing.assert_close(found, expected)


@both_ways
@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("causal", [False, True])
def test_empty_sentences_and_spare_cells(monkeypatch, short, causal, window):
    """Guards against NaN where all keys of a sentence are masked, as in batches of fixed shapes."""
    monkeypatch.setattr(kernels, "SHORT", short)
    q, k, v, side, _, grad = case(True, 2)
    lengths = np.array([*Q_LENGTHS, 0, 0])
    filled = pack(np.full(lengths.sum(), 5), lengths, grid_length=20)
    expected = packed_attention((q, k, v), 4, side, side, causal=causal, window=window)
    found = packed_attention((q, k, v), 4, filled, filled, causal=causal, window=window)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, (q, k, v), grad), torch.autograd.grad(expected, (q, k, v), grad), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("short", [False, True])
def test_memory_of_long_sentences_is_linear(short):
    """Guards against scores of long sentences that are all held at once: one tensor's size says which way was taken."""
    length = kernels.SHORT + (0 if short else 1)
    q, k, v = (torch.randn(length, 1, 2, requires_grad=True) for _ in range(3))
    side = side_of([length])
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (sizes.append(x.numel()), x)[1], lambda x: x):
        packed_attention((q, k, v), 1, side, side, causal=True)
    assert (max(sizes) >= length**2) == short


def test_key_bias():
    """Guards against a mask one token too long or short."""
    assert side_of([2, 3]).key_bias.tolist() == [[[[0.0, 0.0, -math.inf]]], [[[0.0, 0.0, 0.0]]]]


@pytest.mark.parametrize(
    ("dtype", "width", "window", "packed"),
    [
        (torch.bfloat16, 64, None, True),
        (torch.float32, 64, None, True),
        (torch.float16, 64, None, True),
        (torch.bfloat16, 64, 4, True),
        (torch.float32, 64, 4, False),  # windows: FlashAttention only
        (torch.float16, 64, 4, False),
        (torch.bfloat16, 512, 4, False),
        (torch.bfloat16, 512, None, True),
        (torch.float32, 6, None, False),
    ],
)
def test_where_no_grid_is_needed(dtype, width, window, packed):
    """Guards against batches without the grid that their kernel needs, or with one that costs most of their bytes."""
    assert has_packed_kernel(torch.device("cuda"), dtype, width, window) == packed
    assert not has_packed_kernel(torch.device("cpu"), dtype, width, window)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("flash_length", [0, 1000])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("num_kv_heads", [4, 2])
@pytest.mark.parametrize(("same_side", "causal", "window"), KINDS)
@pytest.mark.parametrize("together", [False, True])
def test_all_kernels_agree(monkeypatch, same_side, causal, window, num_kv_heads, dtype, flash_length, together):
    """Guards against a kernel of CUDA that is called with other offsets, mask, window or groups than the CPU's, and
    against gradients of heads in one tensor that are not where they are looked for. The last sentences are empty."""
    monkeypatch.setattr(kernels, "FLASH_LENGTH", flash_length)
    *heads, _, _, grad = case(same_side, num_kv_heads, "cuda", dtype, width=64)
    q_side, k_side = (
        pack(np.full(sum(lengths), 5), np.array([*lengths, 0, 0]))
        for lengths in (Q_LENGTHS, Q_LENGTHS if same_side else K_LENGTHS)
    )
    exact = [x.detach().float().cpu().requires_grad_() for x in heads]
    expected = packed_attention(exact, 4, q_side, k_side, causal=causal, window=window)
    wanted = torch.autograd.grad(expected, exact, grad.float().cpu())
    parts = heads if not together else [torch.cat(heads, dim=1)] if same_side else [heads[0], torch.cat(heads[1:], 1)]
    q_side, k_side = (side.to(torch.device("cuda")) for side in (q_side, k_side))
    found = packed_attention(parts, 4, q_side, k_side, causal=causal, window=window)
    assert found.dtype == dtype
    tolerance = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}[dtype]
    for one, other in zip((found, *torch.autograd.grad(found, heads, grad)), (expected, *wanted), strict=True):
        torch.testing.assert_close(one.float().cpu(), other, atol=tolerance, rtol=tolerance)
