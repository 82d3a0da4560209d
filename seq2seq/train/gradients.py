"""The gradient of a step, from its micro-batches.

Both classes put the gradient of the step's mean loss per label into the parameters, the same in all processes. They
are called with ``(batches, num_labels, seed)``: this process's part of the step, the number of labels of the whole step
in all processes, and the seed of the dropout masks, which differs between processes. They return smoothed loss and
negative log-likelihood, summed over the labels of all processes: fp32 [2], on the model's device.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial

import torch
from torch import Tensor, nn

from seq2seq.config import Config
from seq2seq.data.packed import PackedBatch
from seq2seq.device import why_not_compiled
from seq2seq.model.kernels.cuda_graphs import Graphs
from seq2seq.model.kernels.dropout import Dropout
from seq2seq.model.loss import LossOf
from seq2seq.train.distributed import Processes
from seq2seq.train.loss_scale import LossScale
from seq2seq.train.microbatches import at_once

_LEAST_BF16_WIDTH = 256  # d_model; products of smaller models take less time than rounding their matrices


def _replica(loss: LossOf, numbers: Callable[[Tensor], Tensor]) -> LossOf:
    """A copy with its own gradients; ``numbers`` gives each parameter's numbers, which may share its memory."""
    return copy.deepcopy(loss, {id(p): nn.Parameter(numbers(p), p.requires_grad) for p in loss.parameters()})


def _learning(loss: LossOf) -> list[nn.Parameter]:
    """The parameters that get a gradient; frozen ones do not."""
    return [parameter for parameter in loss.parameters() if parameter.requires_grad]


class SequentialGradients:
    """On CUDA: computes one micro-batch after another.

    All micro-batches of a run have the same shapes. So model and loss are compiled, where that is possible, and all
    kernels of a micro-batch are captured in a CUDA graph: the CPU needs more time to launch the kernels of a small
    model than the GPU to run them. A model that waits for the device can be neither compiled nor captured.

    For a lower precision, the linear layers' weights are cast once per step, all together; autocast would cast each of
    them separately, in each micro-batch. The results are the same.
    """

    def __init__(self, loss: LossOf, processes: Processes, loss_scale: LossScale | None = None) -> None:
        """``loss_scale``: for fp16. The gradients do not contain it, but some of them can be infinite or NaN."""
        self._processes, device = processes, processes.device
        self._loss_scale = loss_scale
        self._parameters: list[Tensor] = [*_learning(loss)]
        lowered = {id(p) for m in loss.modules() if isinstance(m, nn.Linear) for p in m.parameters()}
        if loss.dtype == torch.float32:
            lowered = set()
        self._loss = _replica(loss, lambda p: p.detach().to(loss.dtype if id(p) in lowered else p.dtype))
        self._leaves: list[Tensor] = [*_learning(self._loss)]  # of the computation
        self._captured = device.type == "cuda" and not loss.model.waits
        self._compiled = self._captured and why_not_compiled(device) is None
        if self._compiled:
            self._loss.compile(dynamic=False, fullgraph=True)
        self._graphs = Graphs(device)
        # Graphs read and write these places.
        self._batch: PackedBatch | None = None
        self._scale, self._sums = torch.zeros((), device=device), torch.zeros(2, device=device)
        self._grads = [torch.zeros_like(p) for p in self._parameters]
        # Positions of the leaves by dtype: one operation for many tensors is fast if all have the same dtype.
        kinds = [[i for i, p in enumerate(self._parameters) if (id(p) in lowered) == low] for low in (True, False)]
        self._lowered, self._exact = kinds

    def warm_up(self, batch: PackedBatch, say: Callable[[str], None]) -> bool:
        """Compile and capture what the steps will run, before the first of them. Returns whether there was anything."""
        if len(self._graphs) or not self._captured:
            return False
        if self._compiled:
            say("compiling the model for this GPU, which takes about a minute; later starts take less")
        self([batch], 1, 0)
        return True

    @torch.no_grad()
    def __call__(self, batches: Sequence[PackedBatch], num_labels: int, seed: int) -> Tensor:
        """See the top of this file."""
        # torch.manual_seed would set up all other kinds of devices, too, which takes longer than many kernels.
        seed_device = torch.cuda.manual_seed if self._processes.device.type == "cuda" else torch.manual_seed
        seed_device(seed)
        self._scale.fill_(1 / num_labels)
        if self._loss_scale is not None:
            self._scale *= self._loss_scale.value
        self._sums.zero_()
        if self._lowered:
            lowered, exact = ([them[i] for i in self._lowered] for them in (self._leaves, self._parameters))
            torch._foreach_copy_(lowered, exact)
        for number, batch in enumerate(batches):
            self._receive(batch)
            compute = partial(self._compute, add=number > 0)
            if self._captured:
                self._graphs.run(number > 0, compute)
            else:
                compute()
        sums = self._sums.clone()
        self._processes.all_reduce([*self._grads, sums])
        if self._loss_scale is not None:
            torch._foreach_mul_(self._grads, 1 / self._loss_scale.value)
        for parameter, grad in zip(self._parameters, self._grads, strict=True):
            parameter.grad = grad
        return sums

    def close(self) -> None:
        """Free the graphs and the compiled code: PyTorch compiles the same code for a few models only."""
        self._graphs.forget()
        if self._compiled:
            torch.compiler.reset()

    def _receive(self, batch: PackedBatch) -> None:
        """Copy a batch to the place from which the graphs read."""
        if self._batch is None or not self._captured:
            self._batch = batch.map(torch.clone)
        else:
            torch._foreach_copy_(self._batch.tensors(), batch.tensors())

    def _compute(self, add: bool) -> None:
        """The gradient of the batch; ``add`` it to that of the step's earlier batches, or begin with it."""
        with torch.enable_grad():
            loss, nll = self._loss(self._batch)
            (loss * self._scale).backward()
        self._sums += torch.stack([loss.detach(), nll])
        for kind in filter(None, (self._lowered, self._exact)):
            totals = [self._grads[i] for i in kind]
            grads = [grad for i in kind if (grad := self._leaves[i].grad) is not None]
            if add:
                torch._foreach_add_(totals, grads)
            else:
                torch._foreach_copy_(totals, grads)
        for leaf in self._leaves:
            leaf.grad = None


class ThreadedGradients:
    """On the CPU: computes several micro-batches at a time, each in a thread with a replica that shares the weights.

    Most operations of a step are too small for several threads, and while one thread waits for memory another one can
    compute. Each parameter's gradient adds up the micro-batches in their order, and every micro-batch has its own
    random numbers, so the result does not depend on how threads are scheduled.
    """

    def __init__(self, loss: LossOf, processes: Processes, num_threads: int, *, in_bf16: bool = False) -> None:
        """``in_bf16``: whether to multiply matrices in bf16."""
        self._processes, self._in_bf16 = processes, in_bf16
        self._parameters = _learning(loss)
        self._replicas = [self._replica(loss) for _ in range(num_threads)]
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="gradients")
        self._running = threading.local()  # .number: the micro-batch that a thread is at
        self._changed = threading.Condition()  # guards the next two
        self._turns = [0] * len(self._parameters)  # which micro-batch is added next to the gradient of each parameter
        self._error: BaseException | None = None

    def warm_up(self, batch: PackedBatch, say: Callable[[str], None]) -> bool:
        """Nothing to do, as nothing is compiled."""
        return False

    def __call__(self, batches: Sequence[PackedBatch], num_labels: int, seed: int) -> Tensor:
        """See the top of this file."""
        self._turns, self._error = [0] * len(self._parameters), None
        num_threads, num_replicas = torch.get_num_threads(), len(self._replicas)
        threads_each = max(1, num_threads // num_replicas)
        torch.set_num_threads(threads_each)  # the matrix library has one number for the whole process
        try:
            work = (batches, num_labels, seed, threads_each)
            parts = [self._pool.submit(self._run, replica, *work) for replica in range(num_replicas)]
            wait(parts)  # no thread may still be working when the error of another one is raised
            sums = torch.stack([sums for part in parts for sums in part.result()]).sum(dim=0)
        finally:
            torch.set_num_threads(num_threads)
        self._processes.all_reduce([*(p.grad for p in self._parameters if p.grad is not None), sums])
        return sums

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _replica(self, loss: LossOf) -> tuple[LossOf, torch.Generator]:
        """A model with the same parameters but its own gradients, and the generator of its dropout."""
        replica, generator = _replica(loss, Tensor.detach), torch.Generator()
        if self._in_bf16:
            replica.round_products()
        for module in replica.modules():
            if isinstance(module, Dropout):
                module.generator = generator
        for index, alias in enumerate(_learning(replica)):
            alias.register_post_accumulate_grad_hook(partial(self._add, index))
        return replica, generator

    def _run(
        self, replica: int, batches: Sequence[PackedBatch], num_labels: int, seed: int, num_threads: int
    ) -> list[Tensor]:
        """In a thread: compute the micro-batches of a replica, one after another; returns the two sums of each."""
        torch.set_num_threads(num_threads)
        loss_of, generator = self._replicas[replica]
        sums = []
        try:
            for number in range(replica, len(batches), len(self._replicas)):
                self._running.number = number
                generator.manual_seed(seed ^ number)
                loss, nll = loss_of(batches[number])
                (loss / num_labels).backward()
                sums.append(torch.stack([loss.detach(), nll]))
        except BaseException as error:
            with self._changed:  # others may be waiting for this thread's turn
                self._error = error
                self._changed.notify_all()
            raise
        return sums

    def _add(self, index: int, ready: Tensor) -> None:
        """Add a replica's gradient of a parameter to the parameter's own when it is this micro-batch's turn."""
        number, parameter = self._running.number, self._parameters[index]
        with self._changed:
            self._changed.wait_for(lambda: self._turns[index] == number or self._error is not None)
            if self._error is not None:
                raise self._error
        assert ready.grad is not None
        if parameter.grad is None:
            parameter.grad = ready.grad
        else:
            parameter.grad += ready.grad
        ready.grad = None
        with self._changed:
            self._turns[index] = number + 1
            self._changed.notify_all()


def multiplies_in_bf16(config: Config, processes: Processes) -> bool:
    """Whether a run on the CPU multiplies matrices in bf16; the same in all processes."""
    if processes.device.type == "cuda" or config.train.precision == "fp32":
        return False
    if config.train.precision == "bf16":
        return True
    return config.model.d_model >= _LEAST_BF16_WIDTH and processes.all_multiply_bf16_fast()


def gradients_for(
    config: Config, loss: LossOf, processes: Processes, accumulate: int, loss_scale: LossScale | None
) -> SequentialGradients | ThreadedGradients:
    """The gradients for the device of ``processes``; ``accumulate`` micro-batches of a step are this process's part."""
    if processes.device.type == "cpu":
        num_threads = at_once(torch.get_num_threads(), accumulate)
        return ThreadedGradients(loss, processes, num_threads, in_bf16=multiplies_in_bf16(config, processes))
    return SequentialGradients(loss, processes, loss_scale)
