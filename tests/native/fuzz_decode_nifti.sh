#!/usr/bin/env bash
# Fuzzes the readers of NIfTI and gzip with libFuzzer under AddressSanitizer and UndefinedBehaviorSanitizer.
# Usage: tests/native/fuzz_decode_nifti.sh [seconds] [python], with Clang and its runtime (Debian: clang), and the
# package's build requirements in that Python. The corpus stays in build/fuzz/corpus; a finding ends the run and
# lies in build/fuzz.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-600}
python=$(realpath --no-symlinks "${2:-python3}")
build=build/fuzz
PATH=$(dirname "$python"):$PATH
mkdir -p build
cmake -S . -B $build -G Ninja -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  -DCMAKE_C_FLAGS=-fsanitize=fuzzer-no-link,address -DCMAKE_CXX_FLAGS="-fsanitize=fuzzer-no-link -Wno-unknown-warning-option" \
  -DNEUROKERN_SANITIZE=address,undefined -DNEUROKERN_CUDA=OFF -DNEUROKERN_FUZZ=ON -DPython_EXECUTABLE="$python" \
  -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" ${NEUROKERN_FUZZ_OPTIONS:-} > $build.log || { cat $build.log; exit 1; }
cmake --build $build --target decode_nifti_fuzz
mkdir -p $build/corpus
"$python" tests/native/nifti_seeds.py $build/seeds
UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 $build/decode_nifti_fuzz $build/corpus $build/seeds \
  -max_total_time="$seconds" -max_len=16384 -timeout=25 -rss_limit_mb=1024 -artifact_prefix=$build/ -print_final_stats=1
