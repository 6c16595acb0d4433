#!/usr/bin/env python3
"""Names the neighbours of the elites: variants that differ from one of them in one step of one gene.

    cargo run --release -p host -- evolve --proposer "python3 examples/proposers/neighbours.py"

The protocol is described in docs/proposer.md.
"""

import json
import sys


def neighbours(variant, families):
    family, genes = variant.split("@")[0].split(":")
    genes = dict(gene.split("=") for gene in genes.split(","))
    for gene in next(f for f in families if f["family"] == family)["genes"]:
        values = gene["values"]
        here = values.index(int(genes[gene["gene"]]))
        for there in (here - 1, here + 1):
            if 0 <= there < len(values):
                changed = genes | {gene["gene"]: values[there]}
                yield f"{family}:" + ",".join(f"{name}={value}" for name, value in changed.items())


named = set()
for line in sys.stdin:
    request = json.loads(line)
    candidates = []
    for elite in request["elites"]:
        for variant in neighbours(elite["variant"], request["space"]["families"]):
            if variant not in named and len(candidates) < request["count"]:
                named.add(variant)
                candidates.append({"variant": variant, "parents": [elite["number"]]})
    print(json.dumps({"candidates": candidates}), flush=True)
