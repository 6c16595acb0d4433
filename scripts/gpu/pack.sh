#!/usr/bin/env bash
# Collects what a machine with a GPU and no Rust needs to check and time kernels: stripped release binaries and a store of
# PTX, in .carry/ at the top of the checkout. There, scripts/gpu/run.sh uses it. What else is in .carry/ stays: scripts that
# time peers in .carry/peers/, variants to tune over in .carry/variants.txt.
#
# usage: scripts/gpu/pack.sh [--sm SM] [--sample N | --only GENES] [PROBLEM...]
#   PROBLEM      whose search space the store holds. None: the kernels of the catalog, which travels with the checkout, will do
#   --sm SM      target of the PTX: sm_80, sm_89, sm_90a (default sm_90a)
#   --sample N   kernels per family, drawn evenly from each space; all of them if not given
#   --only GENES the part of each space with these values of genes, as scripts/gpu/sweeps.txt declares it
set -euo pipefail
cd "$(dirname "$0")/../.."

sm=sm_90a
part=()
problems=()
while (($#)); do
    case $1 in
        --sm) sm=${2:?--sm needs a target}; shift 2 ;;
        --sample) part=(--sample "${2:?--sample needs a number}"); shift 2 ;;
        --only) part=(--only "${2:?--only needs genes}"); shift 2 ;;
        -*) echo "pack.sh: unknown flag $1; known are --sm, --sample and --only" >&2; exit 2 ;;
        *) problems+=("$1"); shift ;;
    esac
done
carry=.carry
max_mb=60
mkdir -p "$carry"
rm -rf "$carry/bin"
mkdir -p "$carry/bin"

# Prints kind, name and path of every executable a cargo command builds.
executables() {
    cargo "$@" --message-format=json-render-diagnostics | python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("reason") == "compiler-artifact" and message.get("executable"):
        print(message["target"]["kind"][0], message["target"]["name"], message["executable"])'
}

# Keeps those of one kind.
collect() {
    local wanted=$1 prefix=$2 kind name path
    shift 2
    executables "$@" | while read -r kind name path; do
        [ "$kind" != "$wanted" ] || strip -o "$carry/bin/$prefix$name" "$path"
    done
}

collect bin "" build --release -p host
collect test test- test --release --no-run -p host --test probes --test gpu --test append --test attention --test hostile
collect bench bench- bench --no-run -p benches --bench attention

xz -T0 "$carry"/bin/*

for problem in "${problems[@]}"; do
    cargo xtask build-ptx --sm "$sm" --space "$problem" "${part[@]}" --store "$carry/store"
done

# PTX is text: compressed, little of it travels.
if [ -d "$carry/store" ]; then
    tar cf - -C "$carry" store | xz -T0 >"$carry/store.tar.xz"
    rm -rf "$carry/store"
fi

size=$(du -sm "$carry" | cut -f1)
echo "$carry holds $size MB"
if ((size > max_mb)); then
    echo "pack.sh: that is more than $max_mb MB; ask for fewer problems or a smaller --sample" >&2
    exit 1
fi
