"""Optimizers, learning-rate schedules, and the moving average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seq2seq.config import OptimConfig
from seq2seq.model.attention import CrossAttention, FusedLinear, SelfAttention
from seq2seq.model.interface import Seq2SeqModel
from seq2seq.model.kernels.cuda_graphs import Graphs


def learning_rate(step: int, config: OptimConfig, max_steps: int | None) -> float:
    """The learning rate of optimizer step ``step``, counted from 1: warm-up, then the schedule.

    Linear warm-up to ``config.lr``; then lr * sqrt(warmup / step) (Vaswani et al. 2017, equation 3, up to a factor),
    half a cosine (Loshchilov & Hutter 2017) or a line down to ``lr * min_lr_ratio`` at ``max_steps``, or constant.
    """
    warmup = config.warmup_steps
    if step < warmup:
        return config.lr * step / warmup
    if config.schedule == "inverse_sqrt":
        return config.lr * math.sqrt(max(warmup, 1) / max(step, 1))
    if config.schedule == "constant":
        return config.lr
    assert max_steps is not None  # the config checks it
    done = min(1.0, (step - warmup) / max(1, max_steps - warmup))
    share = 0.5 * (1 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1 - done
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * share)


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024): the update of a matrix is its momentum, made orthogonal.

    Matrices of one shape are computed together. At the same learning rate the updates are as large as AdamW's usually
    are (Liu et al. 2025, equation 4). As the authors do, the iteration that makes them orthogonal is computed in bf16,
    but only where that is faster.
    """

    _MOMENTUM = 0.95
    _A, _B, _C = 3.4445, -4.7750, 2.0315  # five times a x + b x^3 + c x^5 takes x from (0, 1] to about 1
    _ITERATIONS = 5

    def __init__(self, matrices: list[nn.Parameter], lr: float, weight_decay: float, *, in_bf16: bool) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})
        self._in_bf16 = in_bf16
        self.found_inf: Tensor | None = None  # fp32 [] on the device, 1: skip the step; as in AdamW

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update the matrices from their gradients."""
        assert self.found_inf is not None
        kept = 1 - self.found_inf
        for group in self.param_groups:
            of_shape: dict[torch.Size, list[Tensor]] = {}
            for matrix in group["params"]:
                of_shape.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in of_shape.items():
                buffers = [self.state[m].setdefault("momentum_buffer", torch.zeros_like(m)) for m in matrices]
                grads = torch.stack([matrix.grad for matrix in matrices if matrix.grad is not None])
                grads = torch.where(kept > 0, grads, 0.0)  # those of a skipped step may not be finite
                momentum = torch.stack(buffers).lerp(grads, (1 - self._MOMENTUM) * kept)
                torch._foreach_copy_(buffers, list(momentum))
                update = self._orthogonal(grads.lerp(momentum, self._MOMENTUM))  # Nesterov's momentum
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"] * kept)
                torch._foreach_sub_(matrices, list(update * (group["lr"] * 0.2 * math.sqrt(max(shape)) * kept)))

    def _orthogonal(self, matrices: Tensor) -> Tensor:
        """[matrices, rows, columns] -> the same with singular values near 1, by a Newton-Schulz iteration."""
        x = matrices if matrices.size(1) <= matrices.size(2) else matrices.mT
        x = x.bfloat16() if self._in_bf16 else x
        x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
        for _ in range(self._ITERATIONS):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=self._B, alpha=self._C), x, beta=self._A)
        found: Tensor = x.float() if matrices.size(1) <= matrices.size(2) else x.float().mT
        return found


class Optimizer:
    """AdamW (Loshchilov & Hutter 2019) for all parameters, or Muon (Jordan et al. 2024) for the layers' matrices and
    AdamW for embeddings, norms and biases. Weight decay acts on matrices alone. Embeddings can have a learning rate of
    their own, in proportion to the others'; their decay is that of the others. Frozen parameters have no part in it.

    Muon makes the update of a matrix orthogonal, so it gets each matrix by itself: those of a fused layer, and of every
    head (W_i^Q, W_i^K and W_i^V in section 3.2.2 of Vaswani et al. 2017). Heads make it cheaper and better.

    On CUDA a step is a CUDA graph: Muon has many small kernels, and launching them takes longer than running them.
    """

    def __init__(self, model: nn.Module, config: OptimConfig, *, in_bf16: bool = False) -> None:
        """``in_bf16``: whether Muon computes in bf16. All processes must do the same, or their weights drift apart."""
        self.named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        matrices = {name: p for name, p in self.named.items() if p.ndim == 2 and id(p) not in embeddings}
        vectors = [p for p in self.named.values() if p.ndim != 2]
        tables = [p for p in self.named.values() if id(p) in embeddings]
        # Of each parameter, what is updated: the parameter, or for Muon the matrices in it, which share its memory.
        self._updated = {name: [parameter] for name, parameter in self.named.items()}
        self._parts: list[torch.optim.Optimizer] = []
        layers = list(matrices.values())
        if config.name == "muon":
            rows: dict[int, Sequence[int]] = {}  # by id of a weight, those of the matrices in it
            for module in model.modules():
                if isinstance(module, FusedLinear):
                    rows.setdefault(id(module.weight), module.rows)
                elif isinstance(module, nn.RNNBase):  # the matrix of each gate
                    for gates in module.parameters():
                        rows[id(gates)] = [module.hidden_size] * (len(gates) // module.hidden_size)
                elif isinstance(module, (SelfAttention, CrossAttention)):
                    for weight in module.head_weights():
                        rows[id(weight)] = [module.head_width] * (len(weight) // module.head_width)
            for name, parameter in matrices.items():
                views = parameter.detach().split(rows.get(id(parameter), len(parameter)))
                self._updated[name] = [nn.Parameter(view) for view in views]
            alone = [matrix for name in matrices for matrix in self._updated[name]]
            if alone:
                self._parts.append(Muon(alone, config.lr, config.weight_decay, in_bf16=in_bf16))
            layers = []
        ratio = config.embedding_lr_ratio
        groups = [
            {"params": tables, "weight_decay": config.weight_decay / ratio, "ratio": ratio},
            {"params": layers, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        device = next(iter(self.named.values())).device
        on_cuda = device.type == "cuda"
        self._parts.append(
            torch.optim.AdamW(groups, config.lr, config.betas, config.eps, fused=True, capturable=on_cuda)
        )
        self._graphs = Graphs(device)
        self._skipped = torch.zeros((), device=device)
        for part in self._parts:
            part.found_inf = self._skipped  # type: ignore[attr-defined]  # what torch.amp.GradScaler sets
            for group in part.param_groups if on_cuda else ():
                group["lr"] = torch.zeros((), device=device)  # where a graph reads it

    def step(self, lr: float, skipped: Tensor) -> None:
        """Update the parameters from their gradients, unless the step is skipped, and drop the gradients.

        Args:
            skipped: fp32 [] on the parameters' device, 1 for yes. It is read there; nothing waits for it.
        """
        self._skipped.copy_(skipped)
        for part in self._parts:
            for group in part.param_groups:
                own = lr * group.get("ratio", 1.0)
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(own)
                else:
                    group["lr"] = own
        grads = [parameter.grad for parameter in self.named.values()]
        self._graphs.run(tuple(0 if grad is None else grad.data_ptr() for grad in grads), self._update)
        for parameter in self.named.values():
            parameter.grad = None

    def _update(self) -> None:
        """What the graph of a step holds."""
        for name, parameter in self.named.items():
            if parameter.grad is not None and self._updated[name][0] is not parameter:
                matrices = self._updated[name]
                for matrix, grad in zip(matrices, parameter.grad.split([len(m) for m in matrices]), strict=True):
                    matrix.grad = grad
        for part in self._parts:
            part.step()
        for name, parameter in self.named.items():
            for matrix in self._updated[name]:
                if matrix is not parameter:
                    matrix.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """All state, as ``parameter:key`` to tensor, in the parameter's own shape; empty before the first step."""
        state = {}
        for name, updated in self._updated.items():
            for part in self._parts:
                for key in part.state.get(updated[0], {}):
                    values = [part.state[one][key] for one in updated]
                    state[f"{name}:{key}"] = torch.cat(values) if len(values) > 1 else values[0]
        return state

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over what :meth:`tensors` gave."""
        owner = {id(p): part for part in self._parts for group in part.param_groups for p in group["params"]}
        for name, value in tensors.items():
            parameter_name, key = name.rsplit(":", 1)
            updated = self._updated[parameter_name]
            value = value.to(self.named[parameter_name].device)
            values = value.split([len(one) for one in updated]) if len(updated) > 1 else [value]
            for one, own in zip(updated, values, strict=True):
                state = owner[id(one)].state[one]
                if key in state:
                    state[key].copy_(own)  # a graph knows this place
                else:
                    state[key] = own


class MovingAverage:
    """Exponential moving average of a model's weights (Polyak & Juditsky 1992), which follows quickly at the start."""

    def __init__(self, model: Seq2SeqModel, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._decay = decay
        # Kept, as finding the parameters of a model takes time. Frozen ones do not change.
        pairs = zip(self.model.parameters(), model.parameters(), strict=True)
        self._averaged, self._weights = zip(*(pair for pair in pairs if pair[1].requires_grad), strict=True)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Include the weights after step ``step``, counted from 1."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averaged, self._weights, 1 - decay)
