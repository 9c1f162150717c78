#!/usr/bin/env bash
# Make a virtual environment with everything the package needs: setup_env.sh PYTHON VENV lite|full
set -euo pipefail
python=$1 venv=$2 mmcv=$3

case "$mmcv" in lite | full) ;; *) echo "MMCV=$mmcv: use lite or full" >&2; exit 2 ;; esac
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }

# Byte code is compiled on first import instead of for every file of torch now.
echo "setup: installing the packages of requirements.txt into $venv"
pip install --no-compile "$(grep '^setuptools' requirements.txt)" "$(grep '^wheel' requirements.txt)"
if [ "$mmcv" = full ]; then
    pip --quiet uninstall --yes mmcv-lite
    pip install --no-compile -r <(grep -v '^mmcv-lite' requirements.txt)
    # A wheel if there is one for this torch, else from source against the torch just installed.
    pip install --no-compile --only-binary mmcv mmcv==2.1.0 ||
        CFLAGS=-g0 MMCV_WITH_OPS=1 pip install --no-build-isolation --no-binary mmcv mmcv==2.1.0
else
    pip --quiet uninstall --yes mmcv
    pip install --no-compile -r requirements.txt
fi
pip install --no-compile --no-deps --no-build-isolation --editable .
"$venv/bin/python" -m pip --disable-pip-version-check check
# yapf, which mmengine imports, writes a cache at its first import; tests are several processes that would read it half-written.
"$venv/bin/python" -c "import yapf"
