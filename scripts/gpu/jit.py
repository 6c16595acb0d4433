#!/usr/bin/env python3
"""Let the driver compile every PTX file of a folder, on all cores, so that its cache has them.

usage: jit.py FOLDER
Prints how many files there are and how many the driver refused.
"""
import ctypes
import multiprocessing
import os
import pathlib
import sys


def load(files):
    """How many of the files the driver refuses."""
    driver = ctypes.CDLL("libcuda.so.1")
    device, context, module = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
    for status in (
        driver.cuInit(0),
        driver.cuDeviceGet(ctypes.byref(device), 0),
        driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device),
        driver.cuCtxSetCurrent(context),
    ):
        if status:
            sys.exit(f"jit.py: the driver answers {status}")
    refused = 0
    for file in files:
        if driver.cuModuleLoadDataEx(ctypes.byref(module), file.read_bytes() + b"\0", 0, None, None):
            refused += 1
        else:
            driver.cuModuleUnload(module)
    return refused


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    files = sorted(pathlib.Path(sys.argv[1]).glob("*.ptx"))
    shares = [files[i :: 4 * os.cpu_count()] for i in range(4 * os.cpu_count())]
    with multiprocessing.Pool() as pool:
        print(f"{len(files)} files, {sum(pool.map(load, shares, chunksize=1))} refused")
