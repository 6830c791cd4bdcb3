"""The matrix product that a readout waits for, by the faster of torch's two libraries.

torch multiplies float32 matrices with MKL, which on processors of another maker than
Intel leaves half of their AVX-512 units idle. oneDNN, which is in the same torch, uses
them: the same float32 arithmetic, summed in another order, in half the time
(`docs/log.md`). Which of the two is a matter of the processor alone, never of a
stopwatch, so that a run that is taken up again gives the same bits.
`IGLENS_KERNEL=plain` keeps to MKL.
"""

import logging
import os
import platform
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

_CPUINFO = Path("/proc/cpuinfo")

_log = logging.getLogger(__name__)


def product(
    states: Float[Tensor, "points d_head"],
    weight: Float[Tensor, "block d_head"],
    out: Float[Tensor, "points block"] | None = None,
) -> Float[Tensor, "points block"]:
    """`states @ weight.T`, in `out` or in memory of its own.

    Args:
        states: Normed states.
        weight: Rows of the unembedding, of the same dtype.
        out: Where the product may be written; its values are not kept.

    Example:
        >>> product(torch.ones(1, 2), torch.eye(2))
        tensor([[1., 1.]])
    """
    if states.device.type == "cpu" and states.dtype == torch.float32 and uses_onednn():
        return onednn(states, weight)
    return torch.mm(states, weight.T, out=out)


def onednn(
    states: Float[Tensor, "points d_head"], weight: Float[Tensor, "block d_head"]
) -> Float[Tensor, "points block"]:
    """The product by oneDNN, through the operator that torch's compiler calls."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(
        states, weight, None, "none", [], ""
    )
    return found


@cache
def uses_onednn() -> bool:
    """Whether MKL would leave units of this processor idle, and oneDNN is right."""
    return (
        os.environ.get("IGLENS_KERNEL") != "plain"
        and torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and _maker() != "GenuineIntel"
        and _right()
    )


def _maker() -> str:
    """Who made the processor, as it says itself; empty where it does not."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor().rpartition(" ")[2]
    named = (line.partition(":") for line in lines if line.startswith("vendor_id"))
    return next((name.strip() for _, _, name in named), "")


def _right() -> bool:
    """Whether the operator is there and gives the product of two small matrices."""
    numbers = torch.arange(-600, 600, dtype=torch.float32).sin()
    states, weight = numbers[:490].view(10, 49), numbers[-1029:].view(21, 49)
    try:
        found = onednn(states, weight)
    except (AttributeError, RuntimeError, TypeError) as error:
        _log.info("oneDNN's product is not used: %s", error)
        return False
    wanted = states.double() @ weight.double().T
    return torch.allclose(found.double(), wanted, rtol=0, atol=1e-4)
