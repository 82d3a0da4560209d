"""What the processes of a run exchange."""

from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from seq2seq.train import distributed
from seq2seq.train.distributed import Processes


@pytest.mark.parametrize("bucket", [1, 5, 1000])
def test_every_tensor_is_summed_once_whatever_bucket_it_travels_in(
    bucket: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process has the same numbers here, so a sum is twice as much."""
    sent: list[int] = []

    def all_reduce(tensor: Tensor, async_op: bool) -> mock.Mock:
        assert async_op
        sent.append(tensor.numel())
        return mock.Mock(wait=lambda: tensor.mul_(2))

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr(distributed, "_BUCKET_NUMBERS", bucket)
    tensors = [torch.arange(6.0).view(2, 3), torch.tensor(7.0), torch.arange(4.0), torch.ones(1, 2)]
    wanted = [2 * tensor for tensor in tensors]
    Processes(0, 2, torch.device("cpu")).sum_tensors(tensors)
    assert all(torch.equal(one, other) for one, other in zip(tensors, wanted, strict=True))
    assert sent == {1: [6, 1, 4, 2], 5: [6, 5, 2], 1000: [13]}[bucket]
