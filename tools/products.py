"""How fast torch's two libraries multiply here: `python tools/products.py`.

States with rows of an unembedding in float32, by MKL and by oneDNN, one thread; what
bfloat16 would give, and how far its logits are off; and whether the setting that
promises bfloat16 products with float32 results gives them. GFLOP/s, the best of some.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from iglens.readout.product import onednn, uses_onednn

SIZES = (
    (1, 576, 2048), (32, 576, 2048), (352, 576, 640), (1550, 576, 640),
    (4096, 576, 640), (1550, 640, 4096), (1550, 2048, 2048),
)  # fmt: skip
"""States, numbers in each, and columns of a block."""


def rate(work: Callable[[], Tensor], operations: float) -> float:
    """GFLOP/s of the fastest of some rounds."""
    times = []
    for _ in range(12):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return operations / min(times) / 1e9


def line(points: int, width: int, columns: int) -> str:
    """One size."""
    states, weight = torch.randn(points, width), torch.randn(columns, width)
    weight = weight.bfloat16().float()
    half = states.bfloat16(), weight.bfloat16()
    exact = states.double() @ weight.double().T
    ways: dict[str, Callable[[], Tensor]] = {
        "mm": lambda: states @ weight.T,
        "oneDNN": lambda: onednn(states, weight),
        "bfloat16": lambda: half[0] @ half[1].T,
    }
    told = [
        f"{name} {rate(way, 2 * points * width * columns):.0f} "
        f"(off by {float((way() - exact).abs().max()):.1g})"
        for name, way in ways.items()
    ]
    return f"{points} x {width} x {columns}: {', '.join(told)}"


def promised() -> str:
    """What `fp32_precision = "bf16"` does to a product."""
    states, weight = torch.randn(512, 576), torch.randn(4096, 576)
    exact = states.double() @ weight.double().T
    matmul = torch.backends.mkldnn.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    try:
        off = float((states @ weight.T - exact).abs().max())
    finally:
        matmul.fp32_precision = before
    rounded = states.bfloat16().double() @ weight.bfloat16().double().T
    true = float((rounded - exact).abs().max())
    return (
        f'fp32_precision = "bf16": off by {off:.1g}; of bfloat16 it would be {true:.1g}'
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"the readout uses {'oneDNN' if uses_onednn() else 'mm'} here")
    for size in SIZES:
        print(line(*size), flush=True)
    print(promised())
