"""Label-smoothed cross-entropy from hidden states, without ever holding all logits.

Shapes: ``T`` tokens, ``D`` model width, ``V`` vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seq2seq.data.symbols import IGNORE_LABEL

CHUNK_TOKENS = 512  # the logits of a chunk, [512, V], are all that exists at a time


class _SmoothedCrossEntropy(torch.autograd.Function):
    """The gradient of a chunk is computed right after its logits, so that no chunk's logits need to be kept."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, smoothing: float, needs_grad: bool
    ) -> tuple[Tensor, Tensor]:
        matrix = weight.to(hidden.dtype)  # the products are in the hidden states' precision, all sums in fp32
        if needs_grad:
            grad_hidden = torch.empty_like(hidden)
            grad_weight = torch.zeros_like(weight, dtype=torch.float32)
            ctx.save_for_backward(grad_hidden, grad_weight)
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        nll = torch.zeros((), dtype=torch.float32, device=hidden.device)
        num_classes = weight.size(0)
        for begin in range(0, hidden.size(0), CHUNK_TOKENS):
            rows = slice(begin, begin + CHUNK_TOKENS)
            h = hidden[rows]
            counts = labels[rows] != IGNORE_LABEL
            label = labels[rows].where(counts, 0)[:, None]
            log_p = torch.log_softmax((h @ matrix.t()).float(), dim=-1)
            label_nll = -log_p.gather(1, label).squeeze(1) * counts
            uniform_nll = -log_p.mean(dim=-1) * counts
            nll += label_nll.sum()
            loss += ((1 - smoothing) * label_nll + smoothing * uniform_nll).sum()
            if needs_grad:
                # d loss / d logits = softmax - (1 - smoothing) * one-hot - smoothing / V
                grad = log_p.exp_().sub_(smoothing / num_classes)
                grad.scatter_add_(1, label, grad.new_full(label.shape, smoothing - 1.0))
                grad = grad.mul_(counts[:, None]).to(hidden.dtype)
                torch.mm(grad, matrix, out=grad_hidden[rows])
                if grad.dtype == torch.float32:
                    grad_weight.addmm_(grad.t(), h)
                else:
                    grad_weight += grad.t() @ h
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        grad_loss = grads[0]
        grad_hidden = grad_hidden * grad_loss.to(grad_hidden.dtype)
        return grad_hidden, (grad_weight * grad_loss).to(ctx.weight_dtype), None, None, None, None


def smoothed_cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy against labels smoothed by a uniform distribution (Szegedy et al. 2016, section 7), summed.

    Args:
        hidden: [T, D] fp32 or half precision.
        weight: [V, D], the output embedding; the logits are ``hidden @ weight.T``.
        labels: [T] int64; tokens whose label is IGNORE_LABEL count for nothing.
        smoothing: weight of the uniform distribution over all V classes.

    Returns:
        The smoothed loss, to be differentiated, and the plain negative log-likelihood, to be reported: both sums over
        the tokens that count, in nats, fp32 scalars.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):  # the norm that the hidden states come from gives fp32 even so
        hidden = hidden.to(torch.get_autocast_dtype(device))
    needs_grad = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    loss, nll = _SmoothedCrossEntropy.apply(hidden, weight, labels, smoothing, needs_grad)
    return loss, nll
