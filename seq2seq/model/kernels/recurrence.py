"""A recurrent layer with a gradient of its own, for training on the CPU.

PyTorch's layers let autograd record every small operation of every step, and the gradient of the state's matrix is then
a sum of one product per step. But only the gradient of the states has to go back step by step. What it is multiplied
with is known before, for all tokens at once, and the gradient of the matrix is one product after it.

The tokens are in the order of time: the first tokens of all sentences, the longest sentence first, then the second ones
of all sentences that have one, and so on. The two directions of a layer are computed together, each in its own order.

Shapes: ``T`` tokens, ``G`` directions (1 or 2), ``I`` width of the input, ``R`` width of a state, ``M`` parts of a cell
(1, 3 or 4: what PyTorch calls gates), ``n`` sentences that have a token at this step, ``B`` sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

States = tuple[Tensor, ...]  # (h,), or for an LSTM (h, c)
_sigmoid_gradient = torch.ops.aten.sigmoid_backward.default  # of a and s = sigmoid(z): a * ds/dz
_tanh_gradient = torch.ops.aten.tanh_backward.default  # of a and t = tanh(z): a * dt/dz


class Rnn:
    """A plain recurrent network: h' = tanh(x + p), with ``x`` from the token and ``p`` from the state before it."""

    one_bias = True  # x and p are only used as their sum
    gradients = 1  # what back() writes for a token, in R

    @staticmethod
    def step(x: Tensor, matrix: Tensor, bias: Tensor, before: States) -> tuple[States, States]:
        """Read the next token of n sentences.

        Args:
            x: What the tokens give, [G, n, M * R]. It is overwritten with the parts of the cell.
            matrix: Of p, [G, R, M * R].
            bias: Of p, [G, 1, M * R]; not used if x has it already (``one_bias``).
            before: The states before the step, [G, n, R] each.

        Returns:
            The states after it, and what else the gradient needs, [G, n, R] each.
        """
        return (x.baddbmm_(before[0], matrix).tanh_().clone(),), ()

    @staticmethod
    def factors(parts: Tensor, before: States, after: States, kept: States) -> States:
        """What :meth:`back` multiplies with. Arguments as in :meth:`step`, and results, are of all T tokens."""
        return (_tanh_gradient(torch.ones_like(parts), parts),)

    @staticmethod
    def back(grads: States, factors: States, out: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the states after a step -> of the states before it, without what comes through p.

        Writes the gradients of x and p to ``out`` [G, n, gradients * R], where :meth:`of_x` and :meth:`of_p` find them.
        """
        torch.mul(grads[0], factors[0], out=out)
        return (None,)

    @staticmethod
    def of_x(gradients: Tensor) -> Tensor:
        """The gradient of x, [G, any, M * R]."""
        return gradients

    @staticmethod
    def of_p(gradients: Tensor) -> Tensor:
        """The gradient of p, [G, any, M * R]."""
        return gradients


class Gru(Rnn):
    """r, z = sigmoid(x + p), m = tanh(x + r * p), h' = (1 - z) * m + z * h (Cho et al. 2014, as PyTorch has it)."""

    one_bias = False
    gradients = 4  # m (of x), r and z (of x and p), m (of p)

    @staticmethod
    def step(x: Tensor, matrix: Tensor, bias: Tensor, before: States) -> tuple[States, States]:
        """See :meth:`Rnn.step`."""
        gates = slice(2 * before[0].size(2))
        p = torch.baddbmm(bias, before[0], matrix)
        x[:, :, gates].add_(p[:, :, gates]).sigmoid_()
        r, z, m = x.chunk(3, dim=2)
        of_m = p[:, :, gates.stop :]
        m.addcmul_(r, of_m).tanh_()
        return (torch.lerp(m, before[0], z),), (of_m,)

    @staticmethod
    def factors(parts: Tensor, before: States, after: States, kept: States) -> States:
        """See :meth:`Rnn.factors`."""
        r, z, m = parts.chunk(3, dim=2)
        of_m = _tanh_gradient(1 - z, m)
        of_r, of_z = _sigmoid_gradient(of_m * kept[0], r), _sigmoid_gradient(before[0] - m, z)
        return torch.stack([of_m, of_r, of_z, of_m * r], dim=2), z

    @staticmethod
    def back(grads: States, factors: States, out: Tensor) -> tuple[Tensor | None, ...]:
        """See :meth:`Rnn.back`."""
        torch.mul(grads[0][:, :, None], factors[0], out=out.view_as(factors[0]))
        return (grads[0] * factors[1],)

    @staticmethod
    def of_x(gradients: Tensor) -> Tensor:
        """See :meth:`Rnn.of_x`."""
        m, r, z, _ = gradients.chunk(4, dim=2)
        return torch.cat([r, z, m], dim=2)

    @staticmethod
    def of_p(gradients: Tensor) -> Tensor:
        """See :meth:`Rnn.of_p`."""
        return gradients[:, :, gradients.size(2) // 4 :]


class Lstm(Rnn):
    """i, f, o = sigmoid(x + p), g = tanh(x + p), c' = f * c + i * g, h' = o * tanh(c') (Hochreiter & Schmidhuber 1997,
    with the forget gate of Gers et al. 2000)."""

    gradients = 4

    @staticmethod
    def step(x: Tensor, matrix: Tensor, bias: Tensor, before: States) -> tuple[States, States]:
        """See :meth:`Rnn.step`."""
        i, f, g, o = x.baddbmm_(before[0], matrix).chunk(4, dim=2)
        x[:, :, : 2 * i.size(2)].sigmoid_()
        g.tanh_()
        o.sigmoid_()
        c = (f * before[1]).addcmul_(i, g)
        return (o * c.tanh(), c), ()

    @staticmethod
    def factors(parts: Tensor, before: States, after: States, kept: States) -> States:
        """See :meth:`Rnn.factors`."""
        (i, f, g, o), t = parts.chunk(4, dim=2), after[1].tanh()
        of_c = (_sigmoid_gradient(g, i), _sigmoid_gradient(before[1], f), _tanh_gradient(i, g))
        return torch.stack(of_c, dim=2), _sigmoid_gradient(t, o), _tanh_gradient(o, t), f

    @staticmethod
    def back(grads: States, factors: States, out: Tensor) -> tuple[Tensor | None, ...]:
        """See :meth:`Rnn.back`."""
        (grad_h, grad_c), (of_c, of_o, c_of_h, f) = grads, factors
        grad_c = torch.addcmul(grad_c, grad_h, c_of_h)
        parts = out.unflatten(2, (4, -1))
        torch.mul(grad_c[:, :, None], of_c, out=parts[:, :, :3])
        torch.mul(grad_h, of_o, out=parts[:, :, 3])
        return None, grad_c * f


CELLS: dict[type[nn.RNNBase], type[Rnn]] = {nn.RNN: Rnn, nn.GRU: Gru, nn.LSTM: Lstm}


class Recurrence(torch.autograd.Function):
    """The states after every token, [G, T, R] each; for an LSTM two, else one."""

    @staticmethod
    def forward(
        ctx: Any, cell: type[Rnn], sizes: Sequence[int], tokens: Tensor, *parameters_and_first: Tensor
    ) -> States:
        """Read the tokens [G, T, I].

        Args:
            sizes: n of every step.
            tokens: [G, T, I].
            parameters_and_first: Matrices of x [G, M * R, I] and of p [G, M * R, R], their biases [G, M * R], and the
                states before the first token, [G, B, R] each.
        """
        weight_x, weight_p, bias_x, bias_p, *first = parameters_and_first
        bias_x, bias_p = (bias[:, None] for bias in (bias_x + bias_p if cell.one_bias else bias_x, bias_p))
        x = torch.baddbmm(bias_x, tokens, weight_x.transpose(1, 2))
        states, steps = tuple(first), []
        for of_step in x.split(sizes, dim=1):
            before = tuple(state[:, : of_step.size(1)] for state in states)
            states, kept = cell.step(of_step, weight_p.transpose(1, 2), bias_p, before)
            steps.append((*before, *states, *kept))
        of_all = [torch.cat(parts, dim=1) for parts in zip(*steps, strict=True)]
        ctx.cell, ctx.sizes = cell, sizes
        ctx.save_for_backward(tokens, weight_x, weight_p, x, *of_all)
        return tuple(of_all[len(first) : 2 * len(first)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the states after every token -> of tokens, parameters and first states."""
        cell, sizes, number = ctx.cell, ctx.sizes, len(grads)
        tokens, weight_x, weight_p, x, *of_all = ctx.saved_tensors
        before, after, kept = of_all[:number], of_all[number : 2 * number], of_all[2 * number :]
        factors = [factor.split(sizes, dim=1) for factor in cell.factors(x, before, after, kept)]
        gradients = tokens.new_empty(*tokens.shape[:2], cell.gradients * weight_p.size(2))
        out = gradients.split(sizes, dim=1)
        now = [grad.clone().split(sizes, dim=1) for grad in grads]
        later: list[Tensor] = [grad[:, :0] for grad in grads]  # from the step after, for sentences that have one
        for step in reversed(range(len(sizes))):
            for of_states, from_later in zip(now, later, strict=True):
                of_states[step][:, : from_later.size(1)] += from_later
            direct, *others = cell.back(
                tuple(grad[step] for grad in now), tuple(factor[step] for factor in factors), out[step]
            )
            through = torch.bmm(cell.of_p(out[step]), weight_p)
            later = [through if direct is None else through.add_(direct), *others]
        of_x, of_p = cell.of_x(gradients), cell.of_p(gradients)
        of_parameters = (
            of_x.transpose(1, 2) @ tokens,
            of_p.transpose(1, 2) @ before[0],
            of_x.sum(dim=1),
            of_p.sum(dim=1),
        )
        return None, None, of_x @ weight_x, *of_parameters, *later
