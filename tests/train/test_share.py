"""What a process computes of a step: no thread idle on a CPU, one shape for every batch on CUDA."""

from pathlib import Path

import numpy as np
import pytest
import torch

from seq2seq.data.batching import plan_epoch, step_budgets
from seq2seq.data.loader import load_steps
from seq2seq.data.prepare import prepare_data
from seq2seq.train.distributed import Processes
from seq2seq.train.share import at_once, micro_batches_on_cpu, share_of
from tests.toy import toy_config, write_text_files


@pytest.mark.parametrize(
    ("tokens", "threads", "number", "parallel"),
    [
        (4096, 1, 4, 1),
        (4096, 3, 3, 3),
        (4096, 4, 4, 4),
        (4096, 8, 4, 4),  # two threads for each
        (25000, 4, 24, 4),
        (2048, 4, 2, 2),
        (2048, 3, 2, 1),  # one after the other, three threads for each
        (120, 4, 1, 1),
    ],
)
def test_a_step_is_cut_so_that_no_thread_is_idle(tokens: int, threads: int, number: int, parallel: int) -> None:
    """Parts too small for a thread are slower than a shared one, and a part too many keeps one thread at work alone."""
    assert micro_batches_on_cpu(tokens, threads) == number
    assert at_once(threads, number) == parallel


@pytest.mark.parametrize(
    "settings",
    [(), ("train.accumulate=2",), ("tokenizer.sampling=0.3",), ("train.precision=fp32",), ("model.num_heads=4",)],
)
def test_on_cuda_all_batches_have_one_shape(
    tmp_path: Path, settings: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shape that changes would be compiled anew; here on the CPU, as far as the batches go."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    text = write_text_files(tmp_path / "text")
    config = toy_config(text, tmp_path / "run", "train.batch_tokens=300", *settings)
    corpus = prepare_data(config, show_progress=False).train
    lengths = corpus.src_lengths, corpus.tgt_lengths
    plan = plan_epoch(*lengths, step_budgets(*lengths, 300), 1, 0)
    shapes, labels = set(), 0
    for rank in range(2):
        share = share_of(config, corpus, Processes(rank, 2, torch.device("cuda")))
        assert share.capacity is not None
        assert share.capacity.max_length == (config.data.max_length if config.tokenizer.sampling else np.max(lengths))
        for step in load_steps(corpus, plan, share, torch.device("cpu")):
            shapes |= {(batch.src.ids.shape, batch.tgt.offsets.shape, batch.src.grid.shape) for batch in step.batches}
            labels += sum(batch.num_labels for batch in step.batches)
    ((*_, grid),) = shapes
    padded = config.train.precision == "fp32" or config.model.num_heads == 4  # no kernel for heads of width 4
    assert (grid.numel() > 0) == padded
    assert labels == corpus.tgt_lengths.sum()
