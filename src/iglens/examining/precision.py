"""What computing in the stored dtype costs: the same weights, run in float32."""

import copy
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from ..errors import IGLensError
from ..model.decoder import Decoder
from ..model.injected import model_lock
from ..model.pooling import as_it_answers
from ..model.runner import Runner
from ..records.findings import PrecisionCost
from ..trace import Trace
from .facts import bytes_by_device, quantisation
from .measure import distance, own_logits

SHARE = 0.8
"""Of the free memory, a copy may take this much."""


def precision_cost(decoder: Decoder, traces: Sequence[Trace]) -> PrecisionCost:
    """Distance of a model's own predictions from those of its float32 copy.

    Args:
        decoder: The model.
        traces: Runs of it.
    """
    dtype = str(stored_dtype(decoder.model)).removeprefix("torch.")
    reason = _obstacle(decoder.model)
    if reason is not None:
        return PrecisionCost(dtype, None, reason)
    try:
        with model_lock(decoder.model):
            copied = float32_copy(decoder.model)
        runner = as_it_answers(Runner(copied, decoder.declaration.inputs))
        logits = torch.cat([_rows(runner, trace) for trace in traces])
    except (IGLensError, RuntimeError, TypeError, AttributeError) as error:
        line = " ".join(str(error).split())[:200]
        return PrecisionCost(dtype, None, f"a float32 copy does not run ({line})")
    found = distance(logits, own_logits(traces), traces[0].measure)
    return PrecisionCost(dtype, found, None)


def _rows(runner: Runner, trace: Trace) -> Tensor:
    """Logits of a trace's rows, as another model gives them."""
    logits = runner(trace.token_ids[None].cpu())[0]
    return logits if runner.pooled else logits[(trace.positions - 1).to(logits.device)]


def float32_copy(model: nn.Module) -> nn.Module:
    """A copy of a model with every floating-point number in float32.

    Parameters are converted while they are copied, so that no second copy in the
    stored dtype exists; what was shared is shared again.
    """
    memo: dict[int, object] = {
        id(weight): nn.Parameter(_float32(weight), requires_grad=False)
        for weight in model.parameters()
    }
    memo |= {id(buffer): _float32(buffer) for buffer in model.buffers()}
    return copy.deepcopy(model, memo).requires_grad_(False)


def _float32(tensor: Tensor) -> Tensor:
    """A copy, in float32 if it holds real numbers."""
    if not tensor.is_floating_point():
        return tensor.detach().clone()
    return tensor.detach().to(torch.float32, copy=True)


def stored_dtype(model: nn.Module) -> torch.dtype:
    """The shortest floating-point dtype among a model's weights."""
    found = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return min(found, key=lambda d: d.itemsize, default=torch.float32)


def _obstacle(model: nn.Module) -> str | None:
    """Why a model cannot be copied to float32, or need not be."""
    if (dtype := stored_dtype(model)).itemsize >= torch.float32.itemsize:
        return f"all weights are {str(dtype).removeprefix('torch.')} as they are"
    if (method := quantisation(model)) is not None:
        return f"its weights are quantised ({method}), which is more than rounding"
    present = bytes_by_device(chain(model.parameters(), model.buffers()))
    if "offloaded" in present:
        return "parts of it are offloaded, so a copy would not fit"
    needed: Counter[str] = Counter()
    for weight in model.parameters():
        needed[str(weight.device)] += 4 * weight.numel()
    for device, size in needed.items():
        free = free_bytes(torch.device(device))
        if free is None:
            return f"how much memory is free on {device} cannot be told"
        if size > SHARE * free:
            return (
                f"a float32 copy takes {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB "
                f"are free on {device}"
            )
    return None


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a device, None where it cannot be told.

    On the CPU a container's own limit counts too, if there is one.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    free = int(psutil.virtual_memory().available)
    limit = _below_limit(Path("/sys/fs/cgroup"))
    return free if limit is None else min(free, limit)


def _below_limit(group: Path) -> int | None:
    """Bytes that a Linux control group may still take; file caches give way."""
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        lines = (group / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):  # no such group, or "max"
        return None
    stat = dict(line.split() for line in lines)
    return max(0, limit - used + int(stat.get("inactive_file", 0)))
