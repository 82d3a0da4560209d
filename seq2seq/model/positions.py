"""Position encodings: sinusoidal, learned and rotary.

Shapes: ``T`` tokens, ``D`` model width, ``E`` width of one attention head, ``L`` positions in a table.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def angles(num_positions: int, width: int) -> Tensor:
    """[L, width / 2]: position times the wavelengths 1 / 10000^(2i / width) of Vaswani et al. 2017, section 3.5."""
    # On the CPU even if a model is built on the device "meta", because PyTorch loads many modules to compute it there.
    frequencies = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64, device="cpu") / width)
    return torch.arange(num_positions, dtype=torch.float64, device="cpu")[:, None] * frequencies


class Positions(nn.Module):
    """A table with a vector for each position."""

    def vectors(self, max_length: int) -> Tensor:
        """The vectors of at least ``max_length`` positions: [L, D], or [L, E] for rotary positions."""
        raise NotImplementedError

    def forward(self, positions: Tensor, max_length: int) -> Tensor:
        """The vectors of ``positions`` [T], which are below ``max_length``: [T, D] or [T, E]."""
        return functional.embedding(positions, self.vectors(max_length))


class _Table(Positions):
    """A table of vectors computed from positions; it grows when a longer sentence comes, and is not saved."""

    rows: Tensor

    def __init__(self, width: int, num_positions: int = 512) -> None:
        """``num_positions``: initial rows. When the table grows, compiled code that uses it is compiled again."""
        super().__init__()
        assert width % 2 == 0
        self.width = width
        self.register_buffer("rows", self.compute(num_positions), persistent=False)

    def compute(self, num_positions: int) -> Tensor:
        raise NotImplementedError

    def vectors(self, max_length: int) -> Tensor:
        """See :meth:`Positions.vectors`."""
        rows = self.rows  # read once: another thread may replace them
        if max_length > rows.size(0):
            self.rows = rows = self.compute(2 * max_length).to(rows.device)
        return rows


class SinusoidalPositions(_Table):
    """Sinusoidal positions (Vaswani et al. 2017, section 3.5): sines in even columns, cosines in odd ones."""

    def compute(self, num_positions: int) -> Tensor:
        """[L, D] float32."""
        phases = angles(num_positions, self.width)
        return torch.stack([phases.sin(), phases.cos()], dim=-1).flatten(1).float()


class LearnedPositions(Positions):
    """A trained vector for each position (Gehring et al. 2017); sentences cannot be longer than the table."""

    def __init__(self, max_positions: int, d_model: int) -> None:
        super().__init__()
        self.table = nn.Embedding(max_positions, d_model)

    def vectors(self, max_length: int) -> Tensor:
        """See :meth:`Positions.vectors`."""
        assert max_length <= self.table.num_embeddings
        return self.table.weight


class RotaryPositions(_Table):
    """Rotary positions (Su et al. 2021): angles, growing with the position, that rotate queries and keys."""

    def compute(self, num_positions: int) -> Tensor:
        """[L, E] float32: E / 2 cosines, then E / 2 sines."""
        phases = angles(num_positions, self.width)
        return torch.cat([phases.cos(), phases.sin()], dim=-1).float()


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate each head's pairs (x_i, x_{i + E/2}) by the token's angles.

    x: [T, heads, E]; rotation: [T, E] from :class:`RotaryPositions`. Returns [T, heads, E] in the dtype of x; the
    products are computed in fp32, because half precision cannot tell large angles apart.
    """
    cos, sin = rotation[:, None].chunk(2, dim=-1)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)
