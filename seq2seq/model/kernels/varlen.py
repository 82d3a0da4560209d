"""PyTorch's variable-length attention; its signature differs between releases."""

from __future__ import annotations

import inspect

from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from seq2seq.data.packed import Packed

# PyTorch 2.11 accepts fewer key heads than query heads; later releases need a flag for that.
_GROUPED = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


def varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, q_side: Packed, k_side: Packed, *, causal: bool, window: int | None
) -> Tensor:
    """:func:`seq2seq.model.attention.attention` if :func:`seq2seq.model.attention.has_packed_kernel` is true."""
    reach = -1 if window is None else window
    out = varlen_attn(
        q,
        k,
        v,
        q_side.offsets,
        k_side.offsets,
        q_side.max_length,
        k_side.max_length,
        window_size=(reach, 0 if causal else reach),
        **(_GROUPED if k.size(1) != q.size(1) else {}),  # type: ignore[arg-type]
    )
    assert isinstance(out, Tensor)
    return out
