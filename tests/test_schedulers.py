"""The templates for Slurm and Kubernetes, without a cluster: pretended programs in their place."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from seq2seq.cli.main import make_parser
from seq2seq.decode.shards import parse_shard
from tests.toy import ROOT, environment, toy_model, write_config, write_lines, write_text_files

SCRIPTS = ROOT / "scripts"
PRETENDED = {
    # A step is the command itself, as srun forwards signals to it.
    "srun": 'exec "$@"',
    "scontrol": 'case $1 in show) echo here; echo there;; *) echo "$@" >> requeued;; esac',
    # The options of torchrun end with -m.
    "torchrun": 'echo "$@" >> started; while [ "$1" != -m ]; do shift; done; exec "$PYTHON" "$@"',
    "seq2seq": 'exec "$PYTHON" -m seq2seq "$@"',
}


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a job whose programs are pretended, in ``tmp_path``."""
    (tmp_path / "bin").mkdir()
    for name, body in PRETENDED.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/bash\n{body}\n")
        program.chmod(0o755)
    job = {"SLURM_JOB_ID": "54321", "SLURM_JOB_NODELIST": "h[1-2]", "SLURM_JOB_NUM_NODES": "2"}
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    return {**environment(), **job, "PATH": path, "PYTHON": sys.executable}


def start(name: str, place: Path, env: dict[str, str], *arguments: str | Path) -> subprocess.Popen[bytes]:
    words = ["bash", str(SCRIPTS / name), *map(str, arguments)]
    return subprocess.Popen(words, cwd=place, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_for(path: Path) -> None:
    end = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < end, f"{path} does not appear"
        time.sleep(0.05)


def test_a_training_is_stopped_saved_and_queued_again(tmp_path: Path, slurm: dict[str, str]) -> None:
    """Guards against a time limit that costs what was trained since the last checkpoint, and a job that nobody starts
    again; one that ends by itself is not queued again."""
    config = write_config(write_text_files(tmp_path / "text"), tmp_path / "run")
    for options, ended in ((["train.max_steps=100000", "train.save_every=20"], 75), (["nonsense"], 2)):
        job = start(
            "train.sbatch", tmp_path, slurm, config, "train.validate_every=50000", "train.metric=loss", *options
        )
        if ended == 75:
            wait_for(tmp_path / "run/checkpoints/step-000000020.safetensors")
            job.send_signal(signal.SIGUSR1)
        output, _ = job.communicate(timeout=300)
        assert job.returncode == ended, output.decode()
    assert (tmp_path / "requeued").read_text() == "requeue 54321\n"
    started = (tmp_path / "started").read_text().splitlines()[0]
    assert "--nnodes 2 --nproc-per-node 1" in started
    assert "--rdzv-endpoint here:24321" in started


def test_an_array_translates_and_merges(model_folder: Path, tmp_path: Path, slurm: dict[str, str]) -> None:
    """Guards against a template whose parts do not make the whole."""
    write_lines(tmp_path / "in", ["kato", "miren", "solvu"])
    for number in ("1", "2"):
        array = {"SLURM_ARRAY_TASK_ID": number, "SLURM_ARRAY_JOB_ID": "7"}
        job = start("translate.sbatch", tmp_path, slurm | array, "2", model_folder, "in", "out", "--device", "cpu")
        output, _ = job.communicate(timeout=300)
        assert job.returncode == 0, output.decode()
    merge = [sys.executable, "-m", "seq2seq", "merge", "out"]
    assert subprocess.run(merge, cwd=tmp_path, env=slurm).returncode == 0
    assert (tmp_path / "out").read_bytes().count(b"\n") == 3
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize("name", ["train.sbatch", "translate.sbatch"])
def test_a_template_is_a_script(name: str) -> None:
    """Guards against a slip that shows on the cluster alone, and options of sbatch after the first command."""
    assert subprocess.run(["bash", "-n", str(SCRIPTS / name)]).returncode == 0
    text = (SCRIPTS / name).read_text()
    assert text.startswith("#!/bin/bash\n")
    assert text.index("set -u") > text.rindex("#SBATCH")


@pytest.mark.parametrize("name", ["kubernetes-train.yaml", "kubernetes-translate.yaml"])
def test_a_job_is_in_step_with_its_command(name: str) -> None:
    """Guards against numbers that must agree and do not, codes of our own that are not ours, and unknown options."""
    *_, job = yaml.safe_load_all((SCRIPTS / name).read_text())
    spec = job["spec"]
    assert (job["kind"], spec["completionMode"]) == ("Job", "Indexed")
    (container,) = spec["template"]["spec"]["containers"]
    words = container["command"]
    if words[0] == "torchrun":
        assert f"--nnodes={spec['completions']}" in words
        gpus = container["resources"]["limits"]["nvidia.com/gpu"]
        assert f"--nproc-per-node={gpus}" in words
        words = words[words.index("-m") + 1 :]
    args = make_parser().parse_args(words[1:])
    if args.command == "translate":
        last = {"JOB_COMPLETION_INDEX": str(spec["completions"] - 1)}
        assert parse_shard(args.shard, last) == (spec["completions"], spec["completions"])
    codes = [rule["onExitCodes"]["values"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert codes in ([[2], [75]], [[2]])
    mounted = {volume["name"] for volume in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["template"]["spec"]["volumes"]}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model."""
    return toy_model(tmp_path_factory.mktemp("schedulers")) / "best"
