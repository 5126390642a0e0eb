#!/usr/bin/env bash
# Runs check_numpy_only.py in a virtual environment without torch: on this processor and, where qemu-user is
# found, on emulated older ones. Usage: tests/isolated/run.sh [python]
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-python3}
home=build/isolated
rm -rf $home && mkdir -p $home
"$python" -m pip wheel --quiet --no-deps --wheel-dir $home -C cmake.define.NEUROKERN_CUDA=OFF .
"$python" -m venv $home/venv
$home/venv/bin/pip install --quiet $home/neurokern-*.whl
check=tests/isolated/check_numpy_only.py
$home/venv/bin/python $check
if [ "$(uname -m)" != x86_64 ]; then exit 0; fi
if ! command -v qemu-x86_64 > /dev/null; then
  if [ "${CI:-}" = true ]; then apt-get -qq update && apt-get -qq install -y --no-install-recommends qemu-user > /dev/null; else
    echo "skipped: emulated processors (needs Debian's package qemu-user)"; exit 0; fi
fi
# A virtual environment's python is a link; qemu needs the program itself, and the environment by its site-packages.
program=$(realpath $home/venv/bin/python)
PYTHONPATH=$($home/venv/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")
export PYTHONPATH
unset OPENBLAS_CORETYPE  # numpy's OpenBLAS, too, must look at the emulated processor
qemu-x86_64 -cpu Nehalem "$program" $check v2
qemu-x86_64 -cpu Haswell "$program" $check v3
