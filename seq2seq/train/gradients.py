"""The gradient of a step, from its micro-batches.

Both classes put the gradient of the step's mean loss per label into the parameters, the same in all processes. They
are called with ``(batches, num_labels, seed)``: this process's part of the step, the number of labels of the whole step
in all processes, and the seed of the dropout masks, which differs between processes. They return smoothed loss and
negative log-likelihood, summed over the labels of all processes: fp32 [2], on the model's device.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from seq2seq.data.packed import PackedBatch
from seq2seq.model.kernels.dropout import Dropout
from seq2seq.model.loss import LossOf
from seq2seq.train.distributed import Processes


class SequentialGradients:
    """Computes one micro-batch after another. On CUDA model and loss are compiled, as shapes never change."""

    def __init__(self, loss: LossOf, processes: Processes) -> None:
        self._processes = processes
        if processes.device.type == "cuda":
            loss.compile(dynamic=False, fullgraph=True)
        self._loss: nn.Module = loss
        if processes.world_size > 1:
            self._loss = DistributedDataParallel(loss, gradient_as_bucket_view=True, broadcast_buffers=False)

    def __call__(self, batches: Sequence[PackedBatch], num_labels: int, seed: int) -> Tensor:
        """See the top of this file."""
        # torch.manual_seed would set up all other kinds of devices, too, which takes longer than many kernels.
        seed_device = torch.cuda.manual_seed if self._processes.device.type == "cuda" else torch.manual_seed
        seed_device(seed)
        scale = self._processes.world_size / num_labels  # DistributedDataParallel takes the mean over the processes
        sums = torch.zeros(2, device=self._processes.device)
        for number, batch in enumerate(batches):
            # The processes exchange gradients once, with the last micro-batch.
            local = isinstance(self._loss, DistributedDataParallel) and number < len(batches) - 1
            with self._loss.no_sync() if local else nullcontext():  # type: ignore[operator]
                loss, nll = self._loss(batch)
                (loss * scale).backward()
            sums += torch.stack([loss.detach(), nll])
        self._processes.all_reduce([sums])
        return sums

    def close(self) -> None:
        """Nothing to do: no threads are running."""


class ThreadedGradients:
    """On the CPU: computes several micro-batches at a time, each in a thread with a replica that shares the weights.

    Most operations of a step are too small for several threads, and while one thread waits for memory another one can
    compute. Each parameter's gradient adds up the micro-batches in their order, and every micro-batch has its own
    random numbers, so the result does not depend on how threads are scheduled.
    """

    def __init__(self, loss: LossOf, processes: Processes, num_threads: int) -> None:
        self._processes = processes
        self._parameters = list(loss.parameters())
        self._replicas = [self._replica(loss) for _ in range(num_threads)]
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="gradients")
        self._running = threading.local()  # .number: the micro-batch that a thread is at
        self._changed = threading.Condition()  # guards the next two
        self._turns = [0] * len(self._parameters)  # which micro-batch is added next to the gradient of each parameter
        self._error: BaseException | None = None

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
        aliases = [nn.Parameter(p.detach()) for p in self._parameters]
        replica = copy.deepcopy(loss, {id(p): alias for p, alias in zip(self._parameters, aliases, strict=True)})
        generator = torch.Generator()
        for module in replica.modules():
            if isinstance(module, Dropout):
                module.generator = generator
        for index, alias in enumerate(aliases):
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
