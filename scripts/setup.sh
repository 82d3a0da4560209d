# Sourced by quickstart.sh and test.sh: makes the virtual environment .venv and installs seq2seq into it, once.
# PYTHON says which interpreter to make it with (default: python3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

install_seq2seq() { # $1: the extra to install with, such as "plots"
    local python="${PYTHON:-python3}" wanted
    # What has been installed is remembered, so that the second time costs nothing.
    wanted="$1 $(cat pyproject.toml constraints.txt | cksum)"
    if [ ! -x .venv/bin/python ]; then
        if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
            echo "seq2seq needs Python 3.10 or newer; say where one is with PYTHON=/path/to/python3" >&2
            exit 1
        fi
        echo "making a virtual environment in .venv"
        "$python" -m venv .venv
    fi
    if ! grep -qxF "$wanted" .venv/installed 2>/dev/null; then
        echo "installing this checkout with its extra [$1]; the first time PyTorch has to be downloaded"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check \
            --constraint constraints.txt --editable ".[$1]"
        echo "$wanted" >>.venv/installed
    fi
    export PATH="$PWD/.venv/bin:$PATH"
}
