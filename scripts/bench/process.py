"""Starting measured programs: each in a process of its own, with its own memory, threads and start-up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.load import Watch

SCRIPTS = Path(__file__).resolve().parents[1]
_SAMPLE_SECONDS = 0.2


def run_job(
    module: str, spec: Mapping[str, Any], folder: Path, threads: int, *, watch_children: bool = False
) -> dict[str, Any]:
    """Run ``bench.worker`` on one job and return its result, which holds ``error`` where the job failed.

    With ``watch_children`` the result gets ``peak_tree_bytes``, the most memory that the process and its children held
    together (pages that they share counted once), seen by looking at it now and then; looking takes time from what is
    measured. What the job says goes to a log in ``folder``. With the result comes what :class:`Watch` saw meanwhile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("*.json")))
    name = f"{number:03d}-{module.removeprefix('bench.')}"
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**spec, "started": time.time()}), encoding="utf-8")
    watch = Watch()
    with (folder / f"{name}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", module, str(path)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            env=_environment(threads, spec.get("device") == "cuda"),
        )
        peak = _PeakMemory(process.pid) if watch_children else None
        out, _ = process.communicate()
        if peak is not None:
            peak.stop()
        log.write(out)
    seen = watch.end()
    lines = out.splitlines()
    try:
        result: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        return {"error": f"ended with status {process.returncode} and no result; see {folder / name}.log"}
    result |= seen
    return result if peak is None else {**result, "peak_tree_bytes": peak.bytes}


def _environment(threads: int, cuda: bool) -> dict[str, str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent)])}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = str(threads)
    if not cuda:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    # Peers must not talk to a server, and their tokenizers are not used.
    return {**environment, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


class _PeakMemory:
    """Looks at the memory of a process and its children in a thread; Linux alone, 0 elsewhere."""

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            self.bytes = max(self.bytes, sum(map(_proportional_bytes, _with_children(self._pid))))


def _with_children(pid: int) -> list[int]:
    found = [pid]
    for process in found:  # grows while it is read
        try:
            tasks = Path(f"/proc/{process}/task").iterdir()
            found += [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def _proportional_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
