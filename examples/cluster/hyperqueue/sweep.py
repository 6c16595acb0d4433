#!/usr/bin/env python3
"""A sweep whose shares HyperQueue (pip install hyperqueue) hands out.

    python3 examples/cluster/hyperqueue/sweep.py --split 8 --out shares -- --sample 400

starts a server and a worker on this machine, which runs one share at a time, since it has one GPU. Where a HyperQueue server
runs already, on a cluster say, its workers take the shares, each on a GPU of its own:

    python3 examples/cluster/hyperqueue/sweep.py --server ~/.hq-server --split 64 --out shares -- --exhaustive

The joined record is sweep.jsonl.zst in the folder of the shares. What follows `--` goes to `host sweep`.
"""

import argparse
import contextlib
import subprocess
from pathlib import Path

from hyperqueue import Client, Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
from hyperqueue.ffi.protocol import ResourceRequest

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--host", type=Path, default=Path("target/release/host"), help="the program")
parser.add_argument("--out", type=Path, required=True, help="folder of the shares and the joined record")
parser.add_argument("--split", type=int, default=8, help="number of shares")
parser.add_argument("--device", default="auto", help="where trials run: auto, cuda:N, replay or simt")
parser.add_argument("--at-once", type=int, default=1, help="shares at the same time on this machine")
parser.add_argument("--server", type=Path, help="folder of a HyperQueue server that runs already")
parser.add_argument("sweep", nargs="*", help="arguments of `host sweep`")
arguments = parser.parse_args()

host, out, device = arguments.host.resolve(), arguments.out.resolve(), ["--device", arguments.device]
split = ["--split", str(arguments.split), "--out", str(out)]
subprocess.run([host, "sweep", *device, *split, *arguments.sweep], check=True)

with contextlib.ExitStack() as stack:
    if arguments.server:
        client = Client(arguments.server)
        resources = ResourceRequest(resources={"gpus/nvidia": 1})
    else:
        cluster = stack.enter_context(LocalCluster(worker_config=WorkerConfig(cores=arguments.at_once)))
        client = cluster.client()
        resources = ResourceRequest(cpus=1)
    # One share that fails takes no other with it.
    job = Job(default_workdir=Path.cwd(), max_fails=None)
    results = []
    for trials in sorted(out.glob("trials-*.json")):
        result = out / trials.name.replace("trials", "results").replace(".json", ".jsonl.zst")
        results.append(result)
        work = [str(host), "work", "--in", str(trials), "--out", str(result), *device]
        logs = {name: out / f"{trials.stem}.{name}" for name in ("stdout", "stderr")}
        job.program(work, resources=resources, **logs)
    client.wait_for_jobs([client.submit(job)])

subprocess.run([host, "record", "join", out / "sweep.jsonl.zst", *results], check=True)
