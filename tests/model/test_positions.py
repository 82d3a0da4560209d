"""Promise: positions are the papers' formulas, exact at any length."""

import math

import pytest
import torch

from seq2seq.model.kernels.rotation import RotatedHeads
from seq2seq.model.positions import LearnedPositions, RotaryPositions, SinusoidalPositions, rotate


@pytest.mark.parametrize("longest", [8, 512, 513, 3000])
def test_sinusoidal_is_the_formula(longest):
    """Guards against swapped sines and cosines, wrong wavelengths, and a table that is wrong after growth."""
    positions = torch.tensor([0, 1, 5, longest - 1])
    rows = SinusoidalPositions(10)(positions, longest)
    assert rows.dtype == torch.float32
    for row, position in zip(rows.tolist(), positions.tolist(), strict=True):
        for i in range(5):
            angle = position / 10000 ** (2 * i / 10)
            assert row[2 * i] == pytest.approx(math.sin(angle), abs=1e-6)
            assert row[2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-6)


def test_tables_are_not_saved():
    """Guards against weights that cannot be loaded because the table had grown when they were saved."""
    positions = SinusoidalPositions(10)
    positions(torch.tensor([2000]), 2001)
    assert not positions.state_dict()


@pytest.mark.parametrize("kind", ["sinusoidal", "rotary"])
def test_training_changes_no_table(make_model, make_pairs, batch_of, kind):
    """Guards against a table that grows with the first long sentence: on CUDA all would be compiled once more."""
    model = make_model(max_length=600, positions=kind)
    table = model.src_positions
    before = table.rows
    model(batch_of(make_pairs([(600, 600)])))
    assert table.rows is before


def test_rotation_is_a_complex_product():
    """Guards against a rotation that mixes the wrong pairs or turns the wrong way: pair i is a complex number that is
    multiplied by exp(i * position * frequency)."""
    torch.manual_seed(0)
    positions = torch.tensor([0, 3, 700])
    x = torch.randn(3, 2, 8)
    turned = rotate(x, RotaryPositions(8)(positions, 701))
    frequencies = torch.tensor([10000 ** (-2 * i / 8) for i in range(4)], dtype=torch.float64)
    phase = torch.polar(torch.ones(3, 4, dtype=torch.float64), positions[:, None] * frequencies)
    expected = torch.complex(x[..., :4].double(), x[..., 4:].double()) * phase[:, None]
    torch.testing.assert_close(turned, torch.cat([expected.real, expected.imag], dim=-1).float())
    assert torch.equal(turned[0], x[0])


def test_all_heads_at_once_are_the_same():
    """Guards against values that are rotated, other pairs, and gradients that are rotated on instead of back."""
    torch.manual_seed(0)
    rotation = RotaryPositions(8)(torch.tensor([0, 3, 700]), 701)
    heads = torch.randn(3, 5, 8, requires_grad=True)
    together = RotatedHeads.apply(heads, rotation, 4)
    alone = torch.cat([rotate(heads[:, :4], rotation), heads[:, 4:]], dim=1)
    torch.testing.assert_close(together, alone)
    weights = torch.randn(3, 5, 8)
    gradients = [torch.autograd.grad((turned * weights).sum(), heads)[0] for turned in (together, alone)]
    torch.testing.assert_close(*gradients)


def test_rotated_products_depend_on_the_distance_alone():
    """Guards against what makes rotary positions absolute (Su et al. 2021, equation 16)."""
    torch.manual_seed(0)
    rotary, q, k = RotaryPositions(8), torch.randn(1, 1, 8), torch.randn(1, 1, 8)

    def product(q_position: int, k_position: int) -> float:
        turned = [rotate(x, rotary(torch.tensor([p]), 400)) for x, p in ((q, q_position), (k, k_position))]
        return float((turned[0] * turned[1]).sum())

    assert product(7, 4) == pytest.approx(product(310, 307), abs=1e-4)
    assert product(7, 4) != pytest.approx(product(4, 7), abs=1e-2)


def test_learned_positions_end_where_the_table_ends():
    """Guards against an index error on the device, or a vector read from elsewhere, for a sentence that is too long."""
    positions = LearnedPositions(5, 4)
    assert torch.equal(positions(torch.tensor([4, 0]), 5), positions.table.weight[[4, 0]])
    with pytest.raises(AssertionError):
        positions(torch.tensor([0]), 6)
