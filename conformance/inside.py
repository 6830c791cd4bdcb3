"""Do the states between the parts of a block decide its output?

Judged by intervention, which knows nothing of how the parts were found: a block is
given another input, the state in the middle is put back, and its output must be the one
it was. What a parallel block's modules give must add up to what the block adds.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from iglens import Decoder
from iglens.model.boundaries import boundaries
from iglens.model.discover import arbitrary_tokens
from iglens.model.inside.between import site_hooks
from iglens.model.inside.sublayers import BlockPlan, Site
from iglens.model.structure import get, tensors

TOKENS = 15


def described(decoder: Decoder) -> str:
    """Kinds of blocks with their parts, each once."""
    found = []
    for plan in decoder.sublayers.blocks:
        names = ", ".join(part.name for part in plan.parts)
        found.append(f"{plan.kind} ({names})" if names else plan.kind)
    return "; ".join(dict.fromkeys(found))


@torch.no_grad()
def missed_inside(decoder: Decoder) -> float:
    """Largest deviation of a block's output, relative to its largest number.

    For each state between two parts: of the output when only that state is right. For
    a parallel block: of input and vectors from the output. 0 where nothing is split,
    or where the plan itself tells of a module that runs past its states.
    """
    every = decoder.sublayers.blocks
    plans = [plan for plan in every if plan.is_split and plan.note is None]
    ids = arbitrary_tokens(decoder.model, (1, TOKENS)).flip(1)
    states, held = _recorded(decoder, ids, plans)
    missed = [0.0]
    for plan in plans:
        before, after = states[plan.layer - 1 : plan.layer + 1]
        found = [
            _output_with(decoder, ids, plan.layer, site, held[plan.layer, site])
            for site in plan.sites
            if plan.kind == "sequential"
        ]
        if plan.kind == "parallel":
            found = [before + _given(decoder, ids, plan)]
        size = float(after.abs().max())
        missed += [float((one - after).abs().max()) / size for one in found]
    return max(missed)


def _recorded(
    decoder: Decoder, ids: Tensor, plans: list[BlockPlan]
) -> tuple[list[Tensor], dict[tuple[int, Site], Tensor]]:
    """States of a plain run, and what the sites of its blocks hold."""
    states: list[Tensor] = []
    held: dict[tuple[int, Site], Tensor] = {}

    def take(layer: int, site: Site, tensor: Tensor) -> None:
        held[layer, site] = tensor.clone()

    stream = decoder.verified.stream
    with (
        boundaries(stream, lambda state: states.append(state.clone())),
        site_hooks(decoder.model, stream, plans, take),
    ):
        decoder._runner(ids)
    return states, held


def _output_with(
    decoder: Decoder, ids: Tensor, layer: int, site: Site, held: Tensor
) -> Tensor:
    """Output of a block whose input was changed, and one state put back in place."""
    stream = decoder.verified.stream
    states: list[Tensor] = []
    calls = 0

    def passed(state: Tensor) -> None:
        nonlocal calls
        calls = 0
        states.append(state.clone())
        if len(states) == layer:
            state.copy_(1.5 * state.flip(stream.time_axis) + 0.1)

    def put_back(side: str, structure: Any, call: int) -> None:
        if (side, call, len(states)) == (site.side, site.call, layer):
            found = get(structure, site.place)
            found.copy_(held.reshape(found.shape))

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        nonlocal calls
        put_back("input", (args, kwargs), calls)
        calls += 1

    def after(module: nn.Module, args: Any, output: Any) -> None:
        put_back("output", output, calls - 1)

    with boundaries(stream, passed), _hooked(decoder, site.module, before, after):
        decoder._runner(ids)
    return states[layer]


def _given(decoder: Decoder, ids: Tensor, plan: BlockPlan) -> Tensor:
    """Sum of what the modules of a parallel block give, by hooks on them alone."""
    total: list[Tensor] = []

    def after(module: nn.Module, args: Any, output: Any) -> None:
        total.append(next(t for _, t in tensors(output)).clone())

    for part in plan.parts:
        with _hooked(decoder, str(part.module), lambda *_: None, after):
            decoder._runner(ids)
    scaled = zip(total, plan.parts, strict=True)
    return torch.stack([tensor * part.site_scale for tensor, part in scaled]).sum(0)


@contextmanager
def _hooked(
    decoder: Decoder,
    name: str,
    before: Callable[..., None],
    after: Callable[..., None],
) -> Iterator[None]:
    """While open, hooks of a module."""
    module = decoder.model.get_submodule(name)
    handles: list[Any] = [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
