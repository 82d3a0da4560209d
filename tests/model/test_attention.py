"""Promise: attention is equation 1 inside each sentence, in training and in a step of search.

Shapes: ``T`` tokens, ``H`` heads, ``G`` key/value heads, ``E`` width of a head.
"""

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from seq2seq.data.packed import Packed, pack, pack_sentences
from seq2seq.model.attention import (
    Attention,
    attend_step,
    attention_weights,
    scaled_dot_product_attention,
)

Q_LENGTHS, K_LENGTHS = [4, 1, 7, 3], [2, 6, 1, 9]


def side_of(lengths: list[int]) -> Packed:
    return pack_sentences([[5] * length for length in lengths])


def in_loops(q, k, v, q_side, k_side, *, causal, window=None):
    """Every query by itself, over the keys that it may see."""
    group = q.size(1) // k.size(1)
    out = torch.empty_like(q)
    weights = q.new_zeros(q_side.num_sentences, q.size(1), q_side.max_length, k_side.max_length)
    for b in range(q_side.num_sentences):
        q_first, k_first = int(q_side.offsets[b]), int(k_side.offsets[b])
        for i in range(int(q_side.lengths[b])):
            seen = [
                k_first + j
                for j in range(int(k_side.lengths[b]))
                if not (causal and j > i) and (window is None or abs(i - j) <= window)
            ]
            for h in range(q.size(1)):
                keys, values = k[seen, h // group], v[seen, h // group]
                p = (keys @ q[q_first + i, h] / math.sqrt(q.size(2))).softmax(dim=0)
                out[q_first + i, h] = p @ values
                weights[b, h, i, torch.tensor(seen) - k_first] = p
    return out, weights


def test_equation_1_by_hand():
    """Guards against a reference that is wrong itself: two keys, scores 0 and ln 3, so weights 1/4 and 3/4."""
    q, k = torch.tensor([[2.0, 0.0, 0.0, 0.0]]), torch.tensor([[0.0, 1, 0, 0], [math.log(3), 0, 0, 0], [9, 0, 0, 0]])
    v, visible = torch.tensor([[4.0], [8.0], [100.0]]), torch.tensor([True, True, False])
    torch.testing.assert_close(attention_weights(q, k, visible), torch.tensor([[0.25, 0.75, 0.0]]))
    torch.testing.assert_close(scaled_dot_product_attention(q, k, v, visible), torch.tensor([[7.0]]))


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
@pytest.mark.parametrize(
    ("same_side", "causal", "window"),
    [(True, False, None), (True, True, None), (True, False, 2), (True, True, 2), (False, False, None)],
)
def test_equation_1_in_packed_sentences(same_side, causal, window, num_kv_heads):
    """Guards against a wrong mask, heads grouped wrongly and padding that gets probability, in the reference of all
    kernels and in the weights that are shown."""
    torch.manual_seed(1)
    q_side = side_of(Q_LENGTHS)
    k_side = q_side if same_side else side_of(K_LENGTHS)
    keys = (sum(k_side.lengths), num_kv_heads, 6)
    q, k, v = torch.randn(sum(Q_LENGTHS), 4, 6), torch.randn(keys), torch.randn(keys)
    attend = Attention("cross", 4, causal=causal, window=window, plain=True)
    expected, weights = in_loops(q, k, v, q_side, k_side, causal=causal, window=window)
    torch.testing.assert_close(attend((q, k, v), q_side, k_side), expected)
    shown = attend.weights((q, k, v), q_side, k_side)
    for b, length in enumerate(Q_LENGTHS):
        torch.testing.assert_close(shown[b, :, :length], weights[b, :, :length])


@pytest.mark.parametrize("causal", [False, True])
def test_empty_sentences_and_spare_cells(causal):
    """Guards against NaN where a sentence of a batch of fixed shapes is empty."""
    torch.manual_seed(1)
    q, k, v = (torch.randn(15, 4, 6, requires_grad=True) for _ in range(3))
    lengths = np.array([*Q_LENGTHS, 0, 0])
    attend = Attention("decoder", 4, causal=causal, plain=True)
    grad = torch.randn(15, 4, 6)
    for side in (side_of(Q_LENGTHS), pack(np.full(15, 5), lengths, grid_length=20)):
        out = attend((q, k, v), side, side)
        found = out, *torch.autograd.grad(out, (q, k, v), grad)
        if side.num_sentences == len(Q_LENGTHS):
            expected = found
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


class Shapes(TorchDispatchMode):
    """The shapes of batched products."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.bmm.default:
            self.found.append([list(x.shape) for x in args])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("num_keys", [1, 2])
def test_a_step_over_one_key_has_no_outer_product(num_keys):
    """Guards against a search on CUDA that needs a C compiler: PyTorch 2.13 and later compile a kernel for it."""
    torch.manual_seed(0)
    q, keys, values = torch.randn(6, 4, 8), torch.randn(2, 2, 8, num_keys), torch.randn(2, num_keys, 2, 8)
    mask = torch.zeros(2, 1, 1, num_keys)
    with Shapes() as shapes:
        out = attend_step(q, keys, values.transpose(1, 2), mask)
    assert shapes.found
    assert not any(a[2] == b[1] == 1 for a, b in shapes.found)
    keys, values = (x.repeat_interleave(3, dim=0).repeat_interleave(2, dim=1) for x in (keys, values.transpose(1, 2)))
    scores = torch.einsum("nhe,nhek->nhk", q, keys) / math.sqrt(8)
    expected = torch.einsum("nhk,nhke->nhe", scores.softmax(dim=-1), values).flatten(1)
    torch.testing.assert_close(out, expected)
