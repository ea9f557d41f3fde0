#!/bin/sh
# Makes a virtual environment with everything in it: tools/venv.sh [DIR] (default .venv).
#
# Rules
# - It finds a Python >= 3.11 by itself; PYTHON=... names one.
# - Where that Python cannot make a complete venv (Debian without python3-venv), virtualenv, uv, or a pip that can install
#   into another environment does; where nothing can, one sentence says what to install.
# - A DIR that has a working Python already is kept; only what is missing is installed.
set -eu
dir=${1:-.venv}
extras=${EXTRAS:-all,dev}

works() { command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3.14 python3 python}; do
        if works "$candidate"; then echo "$candidate"; return; fi
    done
    echo "unimq needs Python 3.11 or newer and found none${PYTHON:+ in PYTHON=$PYTHON}; install one or name it: make PYTHON=/path/to/python3.11" >&2
    return 1
}

make_venv() {
    python=$1
    if "$python" -c 'import ensurepip, venv' 2>/dev/null && "$python" -m venv "$dir"; then return; fi
    rm -rf "$dir"
    if "$python" -m virtualenv --version >/dev/null 2>&1; then "$python" -m virtualenv -q "$dir"; return; fi
    if command -v virtualenv >/dev/null 2>&1; then virtualenv -q -p "$python" "$dir"; return; fi
    if command -v uv >/dev/null 2>&1; then uv venv -q --seed -p "$python" "$dir"; return; fi
    if "$python" -m venv --without-pip "$dir" 2>/dev/null && "$python" -m pip --python "$dir/bin/python" install -q pip; then return; fi
    rm -rf "$dir"
    echo "$python cannot make a virtual environment; install its venv package (Debian and Ubuntu: apt install python3-venv) or virtualenv" >&2
    return 1
}

if ! works "$dir/bin/python"; then
    python=$(find_python)
    echo "making $dir with $("$python" --version)"
    make_venv "$python"
fi
"$dir/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
