"""All that the proof of a model depends on, as far as that can be told.

Only a model that is nothing but Transformers' own code and the weights of known files
has conditions; any other is proved whenever it is loaded.
"""

import hashlib
import inspect
import platform
import sys
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .source import Source, versions

_OWN = ("transformers.", "torch.nn.")
"""Where the code of a plain model comes from; remote code has a package of its own."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")

_ROOMS = ("model", "readout")
"""Rooms of this package that take part in a proof."""


def conditions(model: nn.Module, source: Source) -> dict[str, Any] | None:
    """What a proof of this model depends on, as JSON has it; None if that is not known.

    None of adapters, quantised or remote code, of weights whose file is unknown, that
    are spread over devices or offloaded, and of modules that carry a hook or another
    forward.

    Args:
        model: The model, as it was just loaded.
        source: Where from.
    """
    config: Any = getattr(model, "config", None)
    devices = {tensor.device for tensor in _tensors(model)}
    if source.weights_sha256 is None or len(devices) != 1 or not _is_plain(model):
        return None
    if config is None or getattr(config, "quantization_config", None) is not None:
        return None
    if (attention := _attention(config)) is None:
        return None
    (device,) = devices
    return {
        "weights": source.weights_sha256,
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "config": _hash(config.to_json_string(use_diff=False)),
        "attention": attention,
        "tensors": _hash("\n".join(_listing(model))),
        "device": _named(device),
        "numerics": _numerics(),
        "versions": {**versions(), "python": platform.python_version()},
        "code": _hash("\n".join(_code(model))),
    }


def _is_plain(model: nn.Module) -> bool:
    """Whether nothing but Transformers and PyTorch takes part in a forward pass."""
    return all(
        type(module).__module__.startswith(_OWN)
        and str(getattr(type(module).forward, "__module__", "")).startswith(_OWN)
        and "forward" not in module.__dict__
        and not any(module.__dict__[hooks] for hooks in _HOOKS)
        for module in model.modules()
    ) and all(
        type(tensor) in (Tensor, nn.Parameter) and tensor.device.type != "meta"
        for tensor in _tensors(model)
    )


def _attention(config: Any) -> str | None:
    """Name and place of the attention; None if it is a user's own."""
    name = str(getattr(config, "_attn_implementation", None))
    function: Any = ALL_ATTENTION_FUNCTIONS.get(name)
    if function is None:
        return name  # written out in the model's own file
    place = str(getattr(function, "__module__", ""))
    return f"{name} {place}" if place.startswith(_OWN) else None


def _tensors(model: nn.Module) -> Iterable[Tensor]:
    """Every weight and buffer."""
    return chain(model.parameters(), model.buffers())


def _listing(model: nn.Module) -> Iterable[str]:
    """Name, shape and dtype of every tensor."""
    named = chain(model.named_parameters(), model.named_buffers())
    return (f"{name} {tuple(each.shape)} {each.dtype}" for name, each in named)


def _named(device: torch.device) -> str:
    """A device, and what it is."""
    if device.type != "cuda":
        return f"{device} {platform.machine()}"
    return f"{device} {torch.cuda.get_device_name(device)}"


def _numerics() -> list[Any]:
    """Settings of PyTorch that change how sums are rounded."""
    return [
        torch.get_num_threads(),
        torch.backends.cpu.get_cpu_capability(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.mkldnn.enabled,
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
    ]


def _code(model: nn.Module) -> Iterable[str]:
    """Size and time of the files that take part, and of the folder of packages.

    What is installed beside Transformers brings kernels of its own: installing
    anything changes the folder's time.
    """
    package = Path(__file__).parent.parent
    files = [file for room in _ROOMS for file in package.joinpath(room).rglob("*.py")]
    for name in {type(module).__module__ for module in model.modules()}:
        if found := inspect.getsourcefile(sys.modules[name]):
            files.append(Path(found))
    installed = Path(inspect.getfile(nn)).parents[2]
    for file in (*sorted(files), installed):
        stat = file.stat()
        yield f"{file} {stat.st_size} {stat.st_mtime_ns}"


def _hash(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
