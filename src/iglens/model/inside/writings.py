"""How the updates of parts are written, from what one forward pass left."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...errors import ArgumentError
from ...inside import Attended, FrozenNorm, Mixture, Writing
from ..injected import model_lock
from ..runner import Runner
from ..stream import Stream
from .attended import attended
from .post_norm import frozen_norm
from .sublayers import BlockPlan, Part, Sublayers
from .transposed import linear_map
from .watching import Seen, Watched, watching


@dataclass(eq=False)
class Writings:
    """What writes the updates of some blocks, as one forward pass left it.

    Attributes:
        model: The model.
        stream: Where its residual stream runs.
        plans: The wanted blocks, by layer number.
        watched: What the pass left.
        sources: Whether what heads read was asked for.
    """

    model: nn.Module
    stream: Stream
    plans: Mapping[int, BlockPlan]
    watched: Watched
    sources: bool

    def of(
        self,
        text: int,
        layer: int,
        before: Float[Tensor, "rows d_model"],
        after: Float[Tensor, "rows d_model"],
        between: Float[Tensor, "sites rows d_model"] | None = None,
    ) -> tuple[Writing | Mixture | str, ...]:
        """How the updates of one block's parts are written, or why that is not known.

        Args:
            text: Which of the texts.
            layer: Number of the block.
            before: `h_{layer-1}` at the wanted places.
            after: `h_layer`.
            between: What its sites hold, as `CapturedParts.between` does.

        Returns:
            One for each part, in order; a sentence fragment where there is none.

        Raises:
            ArgumentError: If the block was not wanted, or states are not its.
        """
        plan = self.plans.get(layer)
        if plan is None:
            raise ArgumentError(
                f"`layer` is {layer}; taken were {', '.join(map(str, self.plans))}."
            )
        if plan.kind == "none":
            return ()
        inner = [] if between is None else [*between]
        if len(inner) != len(plan.sites):
            raise ArgumentError(
                f"`between` holds {len(inner)} tensors; block {layer} has "
                f"{len(plan.sites)} sites."
            )
        starts, updates = _updates(plan, before, inner, after)
        with model_lock(self.model), torch.no_grad():
            return tuple(
                self._writing(text, layer, part, start, update)
                for part, start, update in zip(plan.parts, starts, updates, strict=True)
            )

    def _writing(
        self, text: int, layer: int, part: Part, start: Tensor, update: Tensor
    ) -> Writing | Mixture | str:
        """How one part is written, or why that is not known."""
        if (reason := _without(part)) is not None:
            return reason
        if part.mixture is not None:
            return self._mixture(text, layer, part, update)
        name = part.writer or ""
        seen = self.watched.seen[layer, name]
        writer = seen.at(text, name)
        if isinstance(writer, str):
            return writer
        taken, given = (tensor.to(update.device) for tensor in writer)
        if given.shape != update.shape:
            return f"its writer gives {given.shape[1]} numbers per token"
        found = linear_map(self.model.get_submodule(name), *writer)
        if isinstance(found, str):
            return found
        norm = self._norm(text, layer, part, given)
        if isinstance(norm, str):
            return norm
        transposed, bias = found
        writing = Writing(
            update=update,
            taken=taken,
            transposed=transposed,
            bias=bias.to(update.device),
            norm=norm,
            scale=(1.0 if part.scale is None else part.scale) * part.site_scale,
            n_heads=part.heads,
            heads_reason=part.heads_reason,
            has_neurons=part.neurons is not None,
            neurons_reason=part.neurons_reason,
            attended=self._attended(text, part, seen),
        )
        return _completed(writing, given, start, part.carry)

    def _norm(
        self, text: int, layer: int, part: Part, given: Tensor
    ) -> FrozenNorm | str | None:
        """The post-norm of what the writer gave."""
        if part.norm is None:
            return None
        seen = self.watched.seen[layer, part.norm].at(text, part.norm)
        if isinstance(seen, str):
            return seen
        alone = part.mixture is None and part.carry is not None
        if alone and not torch.equal(seen[0], given.to(seen[0].device)):
            return "something stands between its writer and its post-norm"
        module = self.model.get_submodule(part.norm)
        return frozen_norm(module, seen[0], given.device)

    def _mixture(
        self, text: int, layer: int, part: Part, update: Tensor
    ) -> Mixture | str:
        """What the chosen experts of one part give, or why that is not known."""
        name = part.mixture or ""
        seen = self.watched.seen[layer, name]
        if seen.calls != 1 or seen.reason is not None:
            return seen.reason or f"{name} was called {seen.calls} times"
        if isinstance(call := seen.mixture, str):
            return call
        call.output = seen.given
        if not call.adds_up(text):
            return "its experts, run one by one, do not add up to what they give"
        norm = self._norm(text, layer, part, update)
        if isinstance(norm, str):
            return norm
        ids, weights = (tensor.to(update.device) for tensor in call.slots(text))
        scale = 1.0 if part.mixture_scale is None else part.mixture_scale
        return Mixture(
            update=update,
            ids=ids,
            weights=weights,
            outputs=partial(call.run, text),
            norm=norm,
            scale=scale * part.site_scale,
        )

    def _attended(self, text: int, part: Part, seen: Seen) -> Attended | str:
        """What the heads read, or why that is not known."""
        if not self.sources:
            return "it was not asked for"
        if (reason := _unread(part, self.stream)) is not None:
            return reason
        if len(seen.attention) != 1:
            return f"it attends {len(seen.attention)} times"
        (call,) = seen.attention
        if isinstance(call, str):
            return call
        return attended(call, text, seen.taken[text], gated=part.gated)


def _without(part: Part) -> str | None:
    """Why nothing is known of what writes a part, if so."""
    scale = part.scale if part.mixture is None else part.mixture_scale
    if part.writer is None and part.mixture is None:
        return part.writer_reason or "nothing linear writes it"
    if scale is None:
        return "its update is scaled by more than a number"
    if part.placement in ("post", "sandwich") and part.norm is None:
        return "what norms its update is no single module"
    return None


def _updates(
    plan: BlockPlan, before: Tensor, inner: Sequence[Tensor], after: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """The state before each part that its carry is of, and its update, in float64."""
    start, end = before.double(), after.double()
    states = [tensor.double() for tensor in inner]
    if plan.kind == "parallel":
        last = end - start - sum(states, torch.zeros_like(end))
        # the carried state is part of the remainder
        return [torch.zeros_like(start) for _ in states] + [start], [*states, last]
    starts = [start, *states]
    ends = [*states, end]
    return starts, [b - a for a, b in zip(starts, ends, strict=True)]


def _completed(
    writing: Writing, given: Tensor, start: Tensor, carry: float | None
) -> Writing | str:
    """The writing with what becomes of the state, proved where that is a multiple.

    Where it is none (a norm of the sum, learned factors), the graph alone tells that
    besides what the writer gives only the state enters.
    """
    norm = writing.norm
    expected = (given.double() if norm is None else norm(given)) * writing.scale
    if carry is None:
        return replace(writing, carried=writing.update - expected)
    if carry != 1.0:
        writing = replace(writing, carried=start * (carry - 1.0))
        expected = expected + start * (carry - 1.0)
    size = sum(
        torch.linalg.vector_norm(some, dim=1)
        for some in (start, writing.update, start + writing.update, expected)
    )
    eps = torch.finfo(given.dtype).eps
    if norm is not None:  # norms compute in single precision, whatever the dtype
        eps = max(eps, torch.finfo(torch.float32).eps)
    steps = 4 if given.dtype.itemsize < 4 else 64
    missed = torch.linalg.vector_norm(writing.update - expected, dim=1)
    if not bool((missed <= steps * eps * size).all()):
        return "what its writer gives is not the whole of its update"
    return writing


@contextmanager
def writing_hooks(
    runner: Runner,
    stream: Stream,
    sublayers: Sublayers,
    places: Sequence[Int[Tensor, " _"]],
    layers: Sequence[int],
    *,
    sources: bool = False,
) -> Iterator[Writings]:
    """While open, one forward pass of some texts leaves what writes the updates.

    Nothing of the pass changes. Open it around `capture_parts` of the same texts.

    Args:
        runner: The model.
        stream: Where its residual stream runs.
        sublayers: The parts of its blocks.
        places: Indices of the tokens that are wanted, per text, ascending.
        layers: Numbers of the blocks that are wanted.
        sources: Whether to keep what heads read, as large as a cache of keys and
            values of the wanted blocks.
    """
    plans = {plan.layer: plan for plan in sublayers.blocks if plan.layer in layers}
    modules = {layer: tuple(_names(plan)) for layer, plan in plans.items()}
    readers = {
        (layer, part.writer): part.module
        for layer, plan in plans.items()
        for part in plan.parts
        if sources and part.writer and part.module and _unread(part, stream) is None
    }
    mixtures = {part.mixture for plan in plans.values() for part in plan.parts}
    known = frozenset(name for name in mixtures if name is not None)
    watched = Watched(places, modules, readers, known)
    with model_lock(runner.model), watching(runner.model, stream, watched):
        yield Writings(runner.model, stream, plans, watched, sources)


def _names(plan: BlockPlan) -> Iterator[str]:
    """The modules that are watched in a block."""
    for part in plan.parts:
        if _without(part) is None:
            names = (part.mixture or part.writer, part.norm)
            yield from (name for name in names if name is not None)


def _unread(part: Part, stream: Stream) -> str | None:
    """Why it cannot be told what a part's heads read, if so."""
    if part.heads is None:
        return part.heads_reason or "it has no heads"
    if part.name.startswith("cross-attention"):
        return "it reads from outside the text's stream"
    if stream.prefix or stream.repeat > 1:
        return "virtual tokens stand among those of the text"
    return _without(part)
