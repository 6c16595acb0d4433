#!/usr/bin/env bash
# Checks and times kernels on a machine with a GPU and no Rust, from what scripts/gpu/pack.sh collected.
#
# usage: scripts/gpu/run.sh OUT [STEP...]
#   OUT     folder for the results: a log per program, summary.txt with each exit status and time, and all of it once more in
#           results.tar.gz, which is written anew after every step: a run that is cut off keeps what it had
#   STEP    what to do, in this order; without any: probes gpu table criterion
#             probes     one probe per operation of kernels/src/gpu
#             gpu        driver, timing and memory; what appends to a KV cache
#             table      the table of cases; EVOATTN_RANDOM_PROBLEMS=N adds N random problems for each kernel with features
#             hostile    kernels that must be refused
#             sweeps     the sweeps that scripts/gpu/sweeps.txt declares, of the kernels that were packed; of SWEEPS=NAMES, where it is set
#             live       a search of the seed shape and one of a long shape, journals and reports in OUT/runs
#             two-gpus   the same 200 variants on one GPU and on two, in turns, the driver having compiled them before
#             criterion  criterion's benchmarks
#             tune       the fastest of .carry/variants.txt for the short suites, kept in OUT/dispatch.json
#             bench      every suite by those records, or by defaults, which are then kept there too, in both element types, beside the
#                        peers that .carry/peers/baselines.py times
#             sanitizer  compute-sanitizer's four tools on persistent kernels
# Exits with 1 if any program failed. STEP_LIMIT=SECONDS ends a program that takes longer (default 150).
set -uo pipefail
out=$(realpath -m "${1:?usage: scripts/gpu/run.sh OUT [STEP...]}")
shift
cd "$(dirname "$0")/../.." || exit 1
(($#)) || set -- probes gpu table criterion

carry=$PWD/.carry
bin=$carry/bin
if [ ! -d "$bin" ]; then
    echo "run.sh: $bin is missing; run scripts/gpu/pack.sh where Rust is, and bring .carry/ along" >&2
    exit 1
fi
find "$bin" -name '*.xz' -exec xz -df {} +
chmod +x "$bin"/*
mkdir -p "$out"
nvidia-smi >"$out/nvidia-smi.txt" 2>&1

# Programs look for PTX in the checkout's own store.
if [ -f "$carry/store.tar.xz" ]; then
    mkdir -p target/evoattn/store
    tar xJf "$carry/store.tar.xz" --strip-components=1 -C target/evoattn/store
fi

failed=0
archive=$(mktemp)
trap 'rm -f "$archive"' EXIT
# Runs a command with its output in a log named by the first argument.
run() {
    local name=$1 began=$SECONDS status
    shift
    timeout "${STEP_LIMIT:-150}" "$@" >"$out/$name.log" 2>&1
    status=$?
    ((status == 0)) || failed=1
    printf '%-24s exit %3d  %4d s  %s\n' "$name" "$status" $((SECONDS - began)) "$(grep . "$out/$name.log" | tail -n1)" |
        tee -a "$out/summary.txt"
    # Written elsewhere first: tar fails where a folder changes that it reads.
    tar czf "$archive" -C "$out" --exclude=results.tar.gz . && cp "$archive" "$out/results.tar.gz"
}

# The driver compiles PTX in one thread and keeps the result: here all cores do it first.
jit() {
    run jit python3 scripts/gpu/jit.py target/evoattn/store/ptx
}

# What is recorded for this GPU already, if anything is.
records() {
    local gpu recorded
    gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n1)
    recorded=$(grep -lF "\"gpu\": \"$gpu\"" records/dispatch/*.json)
    [ -f "$out/dispatch.json" ] || [ -z "$recorded" ] || cp "$recorded" "$out/dispatch.json"
}

bench() {
    local dtype=$1 suites=seed,short,prefill,gqa,decode chosen=
    records
    [ ! -f "$out/dispatch.json" ] || chosen="--dispatch '$out/dispatch.json'"
    run "ours-$dtype" sh -c "'$bin/host' bench --suite $suites --dtype $dtype $chosen --record '$out/dispatch.json' >'$out/ours-$dtype.jsonl'"
    [ -f "$carry/peers/baselines.py" ] || return 0
    run "peers-$dtype" sh -c "PYTHONPATH=$carry/peers/site python3 '$carry/peers/baselines.py' --suite $suites --dtype $dtype \
        --backends flash,cudnn,fa3 >'$out/peers-$dtype.jsonl'"
    run "compare-$dtype" python3 "$carry/peers/compare.py" "$out/ours-$dtype.jsonl" "$out/peers-$dtype.jsonl"
}

: >"$out/summary.txt"
for step in "$@"; do
    case $step in
        probes) run probes "$bin/test-probes" ;;
        gpu) run gpu "$bin/test-gpu"; run append "$bin/test-append" cuda/ ;;
        table) run table "$bin/test-attention" cuda/ ;;
        hostile) run hostile "$bin/test-hostile" cuda/ ;;
        sweeps)
            jit
            while read -r name problem limit only; do
                [[ " ${SWEEPS:-$name} " == *" $name "* ]] || continue
                STEP_LIMIT=$((limit + 90)) run "sweep-$name" "$bin/host" sweep --exhaustive --rounds 10 --problem "$problem" --only "$only" --time-limit "$limit" \
                    --out "$out/$name.jsonl.zst"
            done < <(grep -v '^#' scripts/gpu/sweeps.txt)
            ;;
        live)
            STEP_LIMIT=240 run live-seed "$bin/host" evolve --seed 1 --out "$out/runs/seed"
            STEP_LIMIT=300 run live-long "$bin/host" evolve --seed 1 --problem b1-h8-s4096-d64-f16 --out "$out/runs/long"
            ;;
        two-gpus)
            jit
            # The first round is for the driver to compile what jit.py did not.
            for round in first second; do
                for devices in 0 0,1; do
                    run "devices-$devices-$round" "$bin/host" sweep --sample 200 --family wgmma --rounds 10 --devices "$devices" --out "$out/devices-$devices-$round.jsonl.zst"
                done
            done
            ;;
        criterion) CRITERION_HOME=$out/criterion run criterion "$bin/bench-attention" --bench ;;
        tune)
            records
            run tune "$bin/host" bench --suite seed,short --dtype both --variants "$carry/variants.txt" --rounds 8 \
                --record "$out/dispatch.json"
            ;;
        bench) bench f16; bench bf16 ;;
        sanitizer)
            for tool in memcheck initcheck synccheck racecheck; do
                run "$tool" compute-sanitizer --target-processes all --error-exitcode 9 --tool "$tool" "$bin/host" bench --rounds 1 \
                    --problem b8-h32-s300-d64-bf16-causal --problem b4-h32-s300-d128-bf16-causal
            done
            ;;
        *) echo "run.sh: unknown step $step" >&2; exit 2 ;;
    esac
done
exit "$failed"
