"""Taking the states between the parts of blocks, in the same pass as all others."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...errors import UnsupportedModelError
from ..boundaries import boundaries
from ..capture import Captured, capture_batch
from ..injected import model_lock
from ..runner import Runner
from ..stream import Stream
from ..structure import get
from .sublayers import BlockPlan, Site, Sublayers


@dataclass(frozen=True, eq=False)
class CapturedParts:
    """What one forward pass left of a text, with what lies inside the blocks.

    Attributes:
        captured: States of the wanted layers, means, and logits, as `capture_batch`
            gives them.
        between: What the sites of each wanted block hold at the wanted places, by its
            layer number. Sequential blocks: the states between the parts, in order.
            Parallel blocks: the vectors of all parts but the last, scaled; the last is
            the remainder `h_k - h_{k-1}` less these. No entry for blocks that are not
            split.
    """

    captured: Captured
    between: dict[int, Float[Tensor, "sites rows d_model"]]


def capture_parts(
    runner: Runner,
    stream: Stream,
    sublayers: Sublayers,
    texts: Sequence[Int[Tensor, " _"]],
    places: Sequence[Int[Tensor, " _"]],
    layers: Sequence[int],
) -> list[CapturedParts]:
    """States, and what lies between parts, in one forward pass; see `capture_batch`.

    Args:
        runner: The model.
        stream: Where its residual stream runs.
        sublayers: The parts of its blocks.
        texts: Token ids of every text.
        places: Indices of the tokens whose states are wanted, per text, ascending.
        layers: Layers whose states are wanted, 0 and the last among them; inside a
            block is looked where both its ends are wanted.

    Raises:
        UnsupportedModelError: If the model no longer runs the modules it had.
    """
    wanted = {
        plan.layer: plan
        for plan in sublayers.blocks
        if plan.is_split and {plan.layer - 1, plan.layer} <= set(layers)
    }
    taken: dict[tuple[int, Site], list[Tensor]] = {}

    def take(layer: int, site: Site, tensor: Tensor) -> None:
        rows = stream.to_rows(tensor)
        taken[layer, site] = [
            rows[index, chosen.to(rows.device)].clone()
            for index, chosen in enumerate(places)
        ]

    plans = wanted.values()
    with model_lock(runner.model), site_hooks(runner.model, stream, plans, take):
        captured = capture_batch(runner, stream, texts, places, layers)
    lost = [
        site.module
        for plan in plans
        for site in plan.sites
        if (plan.layer, site) not in taken
    ]
    if lost:
        raise UnsupportedModelError(
            f"{runner.name} ran without calling {lost[0]} as it did when its parts "
            "were found. Make a new `Decoder` of it."
        )
    return [
        CapturedParts(found, _between(wanted, taken, index, found.states.device))
        for index, found in enumerate(captured)
    ]


def _between(
    plans: Mapping[int, BlockPlan],
    taken: Mapping[tuple[int, Site], list[Tensor]],
    index: int,
    device: torch.device,
) -> dict[int, Tensor]:
    """What was taken of one text, block by block; a parallel part's vector scaled."""
    found = {}
    for layer, plan in plans.items():
        tensors = [taken[layer, site][index].to(device) for site in plan.sites]
        if plan.kind == "parallel":
            scales = [part.site_scale for part in plan.parts if part.site is not None]
            pairs = zip(tensors, scales, strict=True)
            tensors = [t if scale == 1.0 else t * scale for t, scale in pairs]
        found[layer] = torch.stack(tensors)
    return found


@dataclass(eq=False)
class _Counts:
    """Which block runs, with a stream of which shape, and what it has called."""

    passed: int = 0
    shape: torch.Size = field(default_factory=torch.Size)
    calls: dict[nn.Module, int] = field(default_factory=lambda: defaultdict(int))

    def boundary(self, state: Tensor) -> None:
        """The next block begins."""
        self.passed += 1
        self.shape = state.shape
        self.calls.clear()


@contextmanager
def site_hooks(
    model: nn.Module,
    stream: Stream,
    plans: Iterable[BlockPlan],
    take: Callable[[int, Site, Tensor], None],
) -> Iterator[None]:
    """While open, what the sites of these plans hold is handed over.

    Tensors in which texts and tokens share an axis are given the stream's shape.
    """
    counts = _Counts()
    sites: dict[nn.Module, dict[tuple[int, int, str], list[Site]]] = {}
    for plan in plans:
        for site in plan.sites:
            of_module = sites.setdefault(model.get_submodule(site.module), {})
            of_module.setdefault((plan.layer, site.call, site.side), []).append(site)

    def look(module: nn.Module, call: int, side: str, structure: Any) -> None:
        for site in sites[module].get((counts.passed, call, side), ()):
            found: Tensor = get(structure, site.place)
            take(counts.passed, site, found.reshape(counts.shape))

    def on_input(module: nn.Module, args: Any, kwargs: Any) -> None:
        look(module, counts.calls[module], "input", (args, kwargs))
        counts.calls[module] += 1

    def on_output(module: nn.Module, args: Any, output: Any) -> None:
        look(module, counts.calls[module] - 1, "output", output)

    handles: list[Any] = []
    try:
        with boundaries(stream, counts.boundary):
            for module in sites:
                before = module.register_forward_pre_hook(on_input, with_kwargs=True)
                handles += [before, module.register_forward_hook(on_output)]
            yield
    finally:
        for handle in handles:
            handle.remove()
