#!/usr/bin/env bash
# Does everything work on this machine's GPU, and how fast? 20 minutes at most; gpu_check.py says what it does.
# An active virtual environment is used as it is; otherwise .venv is made as for the tests.
here="$PWD"
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then install_seq2seq test; fi
root="$PWD"
cd "$here"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec python "$root/scripts/gpu_check.py" "$@"
