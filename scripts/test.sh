#!/usr/bin/env bash
# Installs seq2seq with what its tests need, then checks style and types and runs the tests. Arguments go to pytest.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
install_seq2seq test

ruff check .
ruff format --check .
mypy
python -m pytest -n auto --maxprocesses 4 "$@"
