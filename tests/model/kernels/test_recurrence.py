"""Promise: a recurrent layer that is trained on the CPU is PyTorch's own, in its states and in every gradient."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from seq2seq.model.kernels.recurrence import CELLS, Recurrence

SIZES = [5, 5, 3, 1]  # sentences that have a token, step by step


def make_arguments(kind: type[nn.RNNBase], directions: int, inputs: int = 3, width: int = 2) -> list[Tensor]:
    """Tokens, parameters and first states in fp64, in the order of :class:`Recurrence`."""
    parts, num_states = {nn.RNN: (1, 1), nn.GRU: (3, 1), nn.LSTM: (4, 2)}[kind]
    shapes = [(sum(SIZES), inputs), (parts * width, inputs), (parts * width, width), (parts * width,), (parts * width,)]
    shapes += [(SIZES[0], width)] * num_states
    return [torch.randn(directions, *shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("kind", CELLS)
def test_every_gradient_is_that_of_small_differences(kind: type[nn.RNNBase], directions: int) -> None:
    """Guards against a gradient with a wrong factor, also of the cells of an LSTM, biases and first states."""
    torch.manual_seed(0)
    arguments = make_arguments(kind, directions)
    assert torch.autograd.gradcheck(lambda *tensors: Recurrence.apply(CELLS[kind], SIZES, *tensors), arguments)


@pytest.mark.parametrize("kind", CELLS)
def test_states_are_those_of_the_module(kind: type[nn.RNNBase]) -> None:
    """Guards against gates in another order than the module's, whose parameters these are."""
    torch.manual_seed(0)
    tokens, *parameters = make_arguments(kind, 1)
    states = parameters[4:]
    module = kind(3, 2, dtype=torch.float64)
    with torch.no_grad():
        for own, given in zip(module.parameters(), parameters[:4], strict=True):
            own.copy_(given[0])
    packed, last = module(
        PackedSequence(tokens[0], torch.tensor(SIZES)), tuple(states) if kind is nn.LSTM else states[0]
    )
    found = Recurrence.apply(CELLS[kind], SIZES, tokens, *parameters)
    torch.testing.assert_close(found[0][0], packed.data)
    if kind is nn.LSTM:
        ends = [13, 11, 12, 8, 9]  # the last token of each sentence: of 4, 3, 3, 2 and 2 tokens
        torch.testing.assert_close(found[1][0, ends], last[1][0])
