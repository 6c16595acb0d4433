#!/usr/bin/env python3
"""Rewrites the `tiled` kernel: its output is rescaled only in steps that found a new maximum.

    cargo run --release -p host -- evolve --device simt --problem b1-h2-s64-d64-f16 --trials 4 \
        --proposer "python3 examples/proposers/rewrite.py"

With `--forget` it first sends one that rescales nothing, which is wrong wherever there is more than one step: the run
refuses it.
The protocol is described in docs/proposer.md.
"""

import json
import sys

RESCALED = "output[i][c] = output[i][c].map(|x| x * step.correction);"
REWRITTEN = f"if step.correction != 1.0 {{ {RESCALED} }}"
FORGOTTEN = "let _ = step.correction;"
VARIANT = (
    "tiled:tile_q=32,tile_kv=16,warps=2,row_lanes=16,load_bytes=16,shared_pad=1,exp_poly=0,"
    "blocks_per_sm=1,block_order=0"
)

edits = [FORGOTTEN, REWRITTEN] if "--forget" in sys.argv else [REWRITTEN]
for line in sys.stdin:
    request = json.loads(line)
    candidates = []
    tiled = next(family for family in request["space"]["families"] if family["family"] == "tiled")
    if edits and tiled["source"]:
        with open(tiled["source"], encoding="utf-8") as file:
            source = file.read()
        assert RESCALED in source, "the kernel is not the one that this example was written for"
        candidates.append({"variant": VARIANT, "source": source.replace(RESCALED, edits.pop(0))})
    print(json.dumps({"candidates": candidates}), flush=True)
