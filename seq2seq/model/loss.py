"""Label-smoothed cross-entropy from hidden states, without storing all logits.

Shapes: ``T`` tokens, ``D`` model width, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2seq.data.packed import PackedBatch
from seq2seq.data.symbols import IGNORE_LABEL
from seq2seq.model.interface import Seq2SeqModel
from seq2seq.model.kernels.rounded_products import ROWS, round_hidden, round_linear_layers

# Logits that exist at a time, those of one chunk of tokens. On the CPU they should fit into its caches.
CHUNK_LOGITS = {"cpu": 2**21, "cuda": 2**27}
_MOST_CHUNKS = 16  # on CUDA, where compiled code repeats the operations of a chunk for each of them
# In fp16, of a chunk: the sum over more tokens with the same label could be too large.
_FP16_CHUNK_TOKENS = 2**14
# In fp16, d loss / dz is multiplied by it.
_FP16_RAISED = 2.0**8


class _SmoothedCrossEntropy(torch.autograd.Function):
    """Computes the gradient of each chunk right after its logits, so that no logits are kept.

    With p the softmax of the logits z, s the smoothing and m the mean row of the weight matrix::

        loss        = log sum exp z - (1 - s) z[label] - s h.m       (the mean of the logits is the product with m)
        d loss / dz = p - (1 - s) onehot(label) - s / V              (the last term acts through m and the sum of h)

    So smoothing needs no pass over the logits. A bias adds its mean to h.m; its gradient is d loss / dz, summed over
    the tokens.

    The gradients are computed before the factor of the loss is known, which :class:`LossScale` chooses. So in fp16 the
    factor cannot keep small probabilities from becoming 0: most are below 1e-5, where fp16 has few bits or none. Here a
    constant does: p - onehot(label) is at most 1, so 256 times that is far below fp16's largest number, and so are its
    products with weights. For the gradient of the weights, the hidden states are divided by the same constant.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        smoothing: float,
        needs_grad: bool,
    ) -> tuple[Tensor, Tensor]:
        num_classes = weight.size(0)
        matrix = weight.to(hidden.dtype)  # products use the hidden states' dtype, sums use fp32
        mean_row = weight.float().mean(dim=0)
        counts = labels != IGNORE_LABEL
        counted = hidden * counts[:, None]
        raised = _FP16_RAISED if hidden.dtype == torch.float16 else 1.0
        lowered = counted if raised == 1 else counted / raised
        label = labels.where(counts, 0)[:, None]
        log_norm, label_logit = (torch.empty(labels.shape, device=hidden.device) for _ in range(2))
        if needs_grad:
            grad_hidden = torch.empty_like(hidden)
            grad_weight = torch.zeros_like(weight, dtype=torch.float32)
            grad_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
            ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        chunk_tokens = max(1, CHUNK_LOGITS[hidden.device.type] // num_classes)
        if hidden.is_cuda:
            chunk_tokens = max(chunk_tokens, -(-hidden.size(0) // _MOST_CHUNKS))
        elif hidden.dtype == torch.bfloat16:
            chunk_tokens = max(1, chunk_tokens // ROWS) * ROWS  # few sizes (rounded_products.py)
        if hidden.dtype == torch.float16:
            chunk_tokens = min(chunk_tokens, _FP16_CHUNK_TOKENS)
        for begin in range(0, hidden.size(0), chunk_tokens):
            rows = slice(begin, begin + chunk_tokens)
            logits = (hidden[rows] @ matrix.t()).float()
            if bias is not None:
                logits = logits.add_(bias)
            label_logit[rows] = logits.gather(1, label[rows]).squeeze(1)
            if not needs_grad:
                log_norm[rows] = logits.logsumexp(dim=-1)
                continue
            # The largest probability is exp(largest logit - log_norm).
            largest = logits.amax(dim=-1)
            grad = logits.softmax(dim=-1)
            log_norm[rows] = largest - grad.amax(dim=-1).log()
            if grad.is_cuda:  # the compiler fuses it with the softmax, which is then not written to memory in fp32
                grad = grad - (1 - smoothing) * (torch.arange(num_classes, device=grad.device) == label[rows])
            else:
                grad.scatter_add_(1, label[rows], grad.new_full((1, 1), smoothing - 1.0).expand(grad.size(0), 1))
            if grad_bias is not None:
                grad_bias += (grad * counts[rows, None]).sum(dim=0)
            if raised != 1:
                grad = grad * raised
            grad = grad.to(hidden.dtype)
            grad_hidden[rows] = grad @ matrix
            if grad.dtype == torch.float32:
                grad_weight.addmm_(grad.t(), counted[rows])
            else:
                grad_weight += grad.t() @ lowered[rows]
        nll = ((log_norm - label_logit) * counts).sum()
        uniform_nll = log_norm - hidden.float() @ mean_row
        if bias is not None:
            uniform_nll = uniform_nll - bias.mean()
        loss = (1 - smoothing) * nll + smoothing * (uniform_nll * counts).sum()
        if needs_grad:
            grad_hidden.sub_((raised * smoothing * mean_row).to(grad_hidden.dtype)).mul_(counts[:, None])
            grad_weight.sub_(counted.sum(dim=0, dtype=torch.float32), alpha=smoothing / num_classes)
            if grad_bias is not None:
                grad_bias -= counts.sum() * (smoothing / num_classes)
        ctx.weight_dtype, ctx.raised = weight.dtype, raised
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        grad_loss = grads[0]
        # In fp32, because the factor (1 / labels, times the loss scale) may have no place in half precision.
        grad_hidden = (grad_hidden.float() * (grad_loss / ctx.raised)).to(grad_hidden.dtype)
        grad_bias = None if grad_bias is None else grad_bias * grad_loss
        return grad_hidden, (grad_weight * grad_loss).to(ctx.weight_dtype), grad_bias, None, None, None


def smoothed_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, smoothing: float, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy against labels smoothed by a uniform distribution (Szegedy et al. 2016, section 7), summed.

    Args:
        hidden: [T, D] fp32 or half precision.
        weight: [V, D], the output embedding; the logits are ``hidden @ weight.T``.
        labels: [T] int64; tokens with the label IGNORE_LABEL do not count.
        smoothing: weight of the uniform distribution over all V classes.
        bias: [V] fp32, added to the logits.

    Returns:
        The smoothed loss, to differentiate, and the plain negative log-likelihood, to report: sums over the tokens that
        count, in nats, fp32 scalars.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):  # the last norm gives fp32 even under autocast
        hidden = hidden.to(torch.get_autocast_dtype(device))
    needs_grad = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (hidden, weight, bias))
    loss, nll = _SmoothedCrossEntropy.apply(hidden, weight, bias, labels, smoothing, needs_grad)
    return loss, nll


@torch.no_grad()
def token_losses(logits: Callable[[Tensor], Tensor], hidden: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each label, fp32 [T]; 0 where the label is IGNORE_LABEL.

    Args:
        logits: of a model, for [tokens, D]; called for one chunk of tokens after the other.
        hidden: [T, D], at least one token.
        labels: [T] int64.
    """
    losses = torch.empty(labels.shape, device=hidden.device)
    num_classes = logits(hidden[:1]).size(-1)  # an ensemble has no output embedding that would say it
    chunk_tokens = max(1, CHUNK_LOGITS[hidden.device.type] // num_classes)
    for begin in range(0, hidden.size(0), chunk_tokens):
        rows = slice(begin, begin + chunk_tokens)
        losses[rows] = F.cross_entropy(
            logits(hidden[rows]).float(), labels[rows], ignore_index=IGNORE_LABEL, reduction="none"
        )
    return losses


class LossOf(nn.Module):
    """A model and its loss in one module, for compilation and for data-parallel training."""

    def __init__(self, model: Seq2SeqModel, smoothing: float, dtype: torch.dtype) -> None:
        """``dtype``: for autocast."""
        super().__init__()
        self.model, self.smoothing, self.dtype = model, smoothing, dtype
        self._rounds = False

    def round_products(self) -> None:
        """From now on, round the matrices and results of products to bf16, and compute all else in fp32: for training
        on the CPU."""
        round_linear_layers(self.model)
        self._rounds = True

    def forward(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Smoothed loss and negative log-likelihood, summed over the batch: see :func:`smoothed_cross_entropy`."""
        device, lower = batch.labels.device.type, self.dtype != torch.float32
        with torch.autocast(device, dtype=self.dtype, enabled=lower):
            model = self.model
            hidden, labels = model(batch), batch.labels
            if self._rounds:
                hidden = round_hidden(hidden)
                labels = F.pad(labels, (0, len(hidden) - len(labels)), value=IGNORE_LABEL)
            return smoothed_cross_entropy(hidden, model.output_weight, labels, self.smoothing, model.output_bias)
