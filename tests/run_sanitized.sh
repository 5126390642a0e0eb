#!/usr/bin/env bash
# Runs the op tests and the fuzzer of decode_nifti against a build of the native code under AddressSanitizer and UndefinedBehaviorSanitizer.
# Usage: tests/run_sanitized.sh [python], with the package and its build requirements installed there.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath --no-symlinks "${1:-python3}")
build=build/sanitized
PATH=$(dirname "$python"):$PATH
mkdir -p build
"$python" -m pip install --quiet cmake ninja pybind11
cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DNEUROKERN_CUDA=OFF \
  -DNEUROKERN_SANITIZE=address,undefined -DNEUROKERN_FUZZ=ON -DNEUROKERN_WERROR=ON \
  -DPython_EXECUTABLE="$python" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" > $build.log || { cat $build.log; exit 1; }
cmake --build $build
# A copy of the package with the instrumented module, so that the source tree stays clean.
rm -rf $build/package && mkdir -p $build/package && cp -r python/neurokern $build/package/
rm -f $build/package/neurokern/_c*.so
cmake --install $build --prefix $build/package > /dev/null
libraries=$(for library in libasan.so libubsan.so libstdc++.so; do realpath "$(g++ -print-file-name=$library)"; done | tr '\n' ' ')
LD_PRELOAD=${libraries% } ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
  PYTHONMALLOC=malloc PYTHONPATH=$build/package NEUROKERN_SANITIZED=1 \
  "$python" -m pytest -q -x -p no:cacheprovider -n auto --dist loadfile tests/ops -m "not slow" -k "not emulated and not interpreted"

# Mutated files straight into the readers, a hundred times quicker than through Python.
"$python" tests/native/nifti_seeds.py $build/seeds
UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 $build/decode_nifti_fuzz $build/seeds 200000
