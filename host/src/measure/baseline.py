"""Times PyTorch's scaled_dot_product_attention with each backend pinned, and FlashAttention-3 where installed.

Reads one JSON request from the first argument; writes one JSON object per line. Hot times are CUDA-graph replays,
cold times single calls after L2 was overwritten, queued behind a spinning kernel: the method of the program that runs this.
"""

import json
import math
import sys

REPLAY_MS = 2.0
MAX_LAUNCHES = 200
FLUSH_BYTES = 256 << 20
SPIN_CYCLES = 2_000_000


def say(**fields):
    print(json.dumps(fields), flush=True)


try:
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.attention.bias import causal_lower_right
except Exception as error:
    say(unavailable=f"PyTorch cannot be imported: {error}")
    sys.exit(0)
if not torch.cuda.is_available():
    say(unavailable=f"PyTorch {torch.__version__} finds no CUDA GPU")
    sys.exit(0)

PINNED = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


def tensor(shape, strides, dtype):
    """Standard normal values as a [batch, heads, seqlen, head_dim] view with these strides."""
    b, s, h, d = shape
    order = (strides["batch"], strides["head"], strides["seq"], 1)
    size = 1 + sum((n - 1) * step for n, step in zip((b, h, s, d), order))
    return torch.randn(size, device="cuda", dtype=dtype).as_strided((b, h, s, d), order)


def sdpa_call(backend, q, k, v, ask):
    gqa = ask["heads_q"] != ask["heads_kv"]
    square = ask["seqlen_q"] == ask["seqlen_kv"]
    causal = ask["mask"] == "causal-tl" or (ask["mask"] == "causal" and square)
    mask = None
    if ask["mask"] == "causal" and not square:
        mask = causal_lower_right(ask["seqlen_q"], ask["seqlen_kv"])

    def call():
        with sdpa_kernel([PINNED[backend]]):
            return F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=causal, scale=ask["scale"], enable_gqa=gqa
            )

    return call


def fa3_call(q, k, v, ask):
    import fa3_fwd_interface as fa3

    if ask["mask"] == "causal-tl" and ask["seqlen_q"] != ask["seqlen_kv"]:
        raise RuntimeError("its causal mask is aligned at the bottom right")
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))

    def call():
        out = fa3.flash_attn_func(q, k, v, softmax_scale=ask["scale"], causal=ask["mask"] != "full")
        return (out[0] if isinstance(out, tuple) else out).transpose(1, 2)

    return call


def max_error(out, q, k, v, ask):
    """Largest error against fp64 on three rows of the first batch entry."""
    group = ask["heads_q"] // ask["heads_kv"]
    keys, values = (x[0].double().repeat_interleave(group, 0) for x in (k, v))
    shift = 0 if ask["mask"] == "causal-tl" else ask["seqlen_kv"] - ask["seqlen_q"]
    worst = 0.0
    for row in {0, ask["seqlen_q"] // 3, ask["seqlen_q"] - 1}:
        seen = ask["seqlen_kv"] if ask["mask"] == "full" else max(0, min(ask["seqlen_kv"], row + shift + 1))
        if seen == 0:
            continue
        scores = torch.einsum("hd,hkd->hk", q[0, :, row].double(), keys[:, :seen]) * ask["scale"]
        expected = torch.einsum("hk,hkd->hd", torch.softmax(scores, -1), values[:, :seen])
        error = (out[0, :, row].double() - expected).abs().max().item()
        if not math.isfinite(error):
            raise RuntimeError(f"row {row} of its output is not finite")
        worst = max(worst, error)
    return worst


class Timed:
    """A call recorded in a graph."""

    def __init__(self, call):
        self.call = call
        self.stream = torch.cuda.Stream()
        self.start, self.end = torch.cuda.Event(True), torch.cuda.Event(True)
        with torch.cuda.stream(self.stream):
            for _ in range(3):
                call()
            torch.cuda.synchronize()
            self.start.record()
            call()
            self.end.record()
            torch.cuda.synchronize()
            once = max(self.start.elapsed_time(self.end), 1e-3)
            self.launches = max(1, min(MAX_LAUNCHES, int(REPLAY_MS / once)))
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=self.stream):
                for _ in range(self.launches):
                    call()

    def hot_us(self):
        with torch.cuda.stream(self.stream):
            self.graph.replay()
            self.start.record()
            self.graph.replay()
            self.end.record()
            torch.cuda.synchronize()
        return self.start.elapsed_time(self.end) / self.launches * 1e3

    def cold_us(self, flush):
        with torch.cuda.stream(self.stream):
            torch.cuda.synchronize()
            flush.zero_()
            torch.cuda._sleep(SPIN_CYCLES)
            self.start.record()
            self.call()
            self.end.record()
            torch.cuda.synchronize()
        return self.start.elapsed_time(self.end) * 1e3


def first_line(error):
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def main():
    ask = json.loads(sys.argv[1])
    gpu = torch.cuda.get_device_properties(0)
    say(gpu=gpu.name, torch=torch.__version__, cudnn=torch.backends.cudnn.version())

    torch.manual_seed(ask["seed"] % 2**63)
    dtype = {"f16": torch.float16, "bf16": torch.bfloat16}[ask["dtype"]]
    rows = {"q": ("seqlen_q", "heads_q", "head_dim_qk"), "k": ("seqlen_kv", "heads_kv", "head_dim_qk"),
            "v": ("seqlen_kv", "heads_kv", "head_dim_v")}
    q, k, v = (
        tensor((ask["batch"], *(ask[field] for field in fields)), ask["strides"][name], dtype)
        for name, fields in rows.items()
    )

    timed, errors = {}, {}
    for backend in ask["backends"]:
        try:
            call = fa3_call(q, k, v, ask) if backend == "fa3" else sdpa_call(backend, q, k, v, ask)
            errors[backend] = max_error(call(), q, k, v, ask)
            timed[backend] = Timed(call)
        except Exception as error:
            torch.cuda.synchronize()
            say(backend=backend, refused=first_line(error))

    flush = torch.empty(max(FLUSH_BYTES, 4 * gpu.L2_cache_size), dtype=torch.int8, device="cuda")
    hot, cold = ({backend: [] for backend in timed} for _ in range(2))
    order = list(timed)
    for _ in range(ask["rounds"]):
        for backend in order:
            hot[backend].append(timed[backend].hot_us())
            if ask["cold"]:
                cold[backend].append(timed[backend].cold_us(flush))
        order.reverse()
    for backend in timed:
        say(backend=backend, hot_us=hot[backend], cold_us=cold[backend], max_error=errors[backend])


main()
