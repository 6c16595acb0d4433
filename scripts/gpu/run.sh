#!/usr/bin/env bash
# Checks and times kernels on a machine with a GPU and no Rust, from what scripts/gpu/pack.sh collected.
#
# usage: scripts/gpu/run.sh OUT
#   OUT   folder for the results: one log per program, criterion's estimates, and summary.txt with each exit status.
# Exits with 1 if any program failed.
set -uo pipefail
out=$(realpath -m "${1:?usage: scripts/gpu/run.sh OUT}")
cd "$(dirname "$0")/../.." || exit 1

bin=$PWD/.carry/bin
if [ ! -d "$bin" ]; then
    echo "run.sh: $bin is missing; run scripts/gpu/pack.sh where Rust is, and bring .carry/ along" >&2
    exit 1
fi
mkdir -p "$out"
nvidia-smi >"$out/nvidia-smi.txt" 2>&1

# Programs look for PTX in the checkout's own store.
if [ -d .carry/store ]; then
    mkdir -p target/evoattn/store
    cp -rn .carry/store/. target/evoattn/store/
fi

failed=0
run() {
    local name=$1 began=$SECONDS status
    shift
    "$@" >"$out/$name.log" 2>&1
    status=$?
    ((status == 0)) || failed=1
    printf '%-40s exit %3d  %4d s  %s\n' "$name" "$status" $((SECONDS - began)) "$(grep . "$out/$name.log" | tail -n1)" |
        tee -a "$out/summary.txt"
}

: >"$out/summary.txt"
for program in "$bin"/test-*; do
    run "$(basename "$program")" "$program"
done
export CRITERION_HOME=$out/criterion
for program in "$bin"/bench-*; do
    run "$(basename "$program")" "$program" --bench
done
exit "$failed"
