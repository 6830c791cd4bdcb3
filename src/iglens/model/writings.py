"""Taking what the writers of parts take and give, in the same pass as the states."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import ArgumentError
from ..inside import FrozenNorm, Writing
from ..readout.scaled_norm import scaled_norm
from .boundaries import boundaries
from .calls import evaluating
from .explicit import call_in
from .injected import model_lock
from .runner import Runner
from .stream import Stream
from .structure import tensors
from .sublayers import BlockPlan, Part, Sublayers
from .transposed import linear_map


@dataclass(eq=False)
class Seen:
    """What one module took and gave in one block, at the wanted places of each text.

    Attributes:
        taken: What it took.
        given: What it gave.
        calls: How often it was called.
        reason: Why its tensors are not one vector for each token.
    """

    taken: list[Tensor] = field(default_factory=list)
    given: list[Tensor] = field(default_factory=list)
    calls: int = 0
    reason: str | None = None


@dataclass(eq=False)
class Writings:
    """What writes the updates of some blocks, as one forward pass left it.

    Attributes:
        model: The model.
        plans: The wanted blocks, by layer number.
        places: Wanted places of every text.
        seen: What writers and norms took and gave, by layer number and name.
    """

    model: nn.Module
    plans: Mapping[int, BlockPlan]
    places: Sequence[Int[Tensor, " _"]]
    seen: dict[tuple[int, str], Seen] = field(default_factory=lambda: defaultdict(Seen))

    def of(
        self,
        text: int,
        layer: int,
        before: Float[Tensor, "rows d_model"],
        after: Float[Tensor, "rows d_model"],
        between: Float[Tensor, "sites rows d_model"] | None = None,
    ) -> tuple[Writing | str, ...]:
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
    ) -> Writing | str:
        """How one part is written, or why that is not known."""
        if (reason := _without(part)) is not None:
            return reason
        writer = self._seen(text, layer, part.writer or "")
        if isinstance(writer, str):
            return writer
        taken, given = (tensor.to(update.device) for tensor in writer)
        if given.shape != update.shape:
            return f"its writer gives {given.shape[1]} numbers per token"
        found = linear_map(self.model.get_submodule(part.writer or ""), *writer)
        if isinstance(found, str):
            return found
        norm = self._norm(text, layer, part, given)
        if isinstance(norm, str):
            return norm
        transposed, bias = found
        carry = 1.0 if part.carry is None else part.carry
        writing = Writing(
            update=update,
            taken=taken,
            transposed=transposed,
            bias=bias.to(update.device),
            norm=norm,
            scale=(1.0 if part.scale is None else part.scale) * part.site_scale,
            carried=None if carry == 1.0 else start * (carry - 1.0),
            n_heads=part.heads,
            heads_reason=part.heads_reason,
            has_neurons=part.neurons is not None,
            neurons_reason=part.neurons_reason,
        )
        return _proved(writing, given, start)

    def _norm(
        self, text: int, layer: int, part: Part, given: Tensor
    ) -> FrozenNorm | str | None:
        """The post-norm, frozen at what it took there."""
        if part.norm is None:
            return None
        seen = self._seen(text, layer, part.norm)
        if isinstance(seen, str):
            return seen
        taken, normed = seen
        if not torch.equal(taken, given.to(taken.device)):
            return "something stands between its writer and its post-norm"
        module = self.model.get_submodule(part.norm)

        def called(vectors: Tensor) -> Tensor:
            made: Tensor = call_in(module, vectors, torch.float64)
            return made.double()

        with evaluating(module):
            form = scaled_norm(called, taken.double())
        if form is None or form.offset.shape != normed.shape[1:]:
            return "its post-norm is no linear map over a scale"
        gain, offset = form.gain.to(given.device), form.offset.to(given.device)
        return FrozenNorm.at(replace(form, gain=gain, offset=offset), given)

    def _seen(self, text: int, layer: int, name: str) -> tuple[Tensor, Tensor] | str:
        """What a module took and gave, or why that is not known."""
        seen = self.seen.get((layer, name), Seen())
        if seen.calls != 1:
            return f"{name} was called {seen.calls} times"
        if seen.reason is not None:
            return seen.reason
        return seen.taken[text], seen.given[text]


def _without(part: Part) -> str | None:
    """Why nothing is known of what writes a part, if so."""
    if part.writer is None:
        return part.writer_reason or "nothing linear writes it"
    if part.carry is None:
        return "what its writer gives is normed together with the state before it"
    if part.scale is None:
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


def _proved(writing: Writing, given: Tensor, start: Tensor) -> Writing | str:
    """The writing, if what it says is the update up to rounding."""
    norm = writing.norm
    expected = given.double()
    if norm is not None:
        form = norm.form
        expected = form.offset + form.linear(expected) / norm.scales[:, None]
    expected = expected * writing.scale
    if writing.carried is not None:
        expected = expected + writing.carried
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
) -> Iterator[Writings]:
    """While open, one forward pass of some texts leaves what writes the updates.

    Nothing of the pass changes. Open it around `capture_parts` of the same texts.

    Args:
        runner: The model.
        stream: Where its residual stream runs.
        sublayers: The parts of its blocks.
        places: Indices of the tokens that are wanted, per text, ascending.
        layers: Numbers of the blocks that are wanted.
    """
    plans = {plan.layer: plan for plan in sublayers.blocks if plan.layer in layers}
    writings = Writings(runner.model, plans, places)
    with ExitStack() as stack:
        stack.enter_context(model_lock(runner.model))
        stack.enter_context(_watching(writings, stream))
        yield writings


def _names(plan: BlockPlan) -> Iterator[str]:
    """The modules that are watched in a block."""
    for part in plan.parts:
        if _without(part) is None:
            yield from (name for name in (part.writer, part.norm) if name is not None)


@contextmanager
def _watching(writings: Writings, stream: Stream) -> Iterator[None]:
    """While open, the writers and norms of the wanted blocks are watched."""
    passed, shape = 0, torch.Size()

    def boundary(state: Tensor) -> None:
        nonlocal passed, shape
        passed += 1
        shape = state.shape

    def rows(structure: Any) -> list[Tensor] | str:
        return _rows(structure, stream, shape, writings.places)

    def hooks(name: str) -> tuple[Callable[..., None], Callable[..., None]]:
        layers = {
            plan.layer for plan in writings.plans.values() if name in _names(plan)
        }

        def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
            if passed in layers:
                seen = writings.seen[passed, name]
                seen.calls += 1
                _keep(seen, "taken", rows((args, kwargs)))

        def end(module: nn.Module, args: Any, output: Any) -> None:
            if passed in layers:
                _keep(writings.seen[passed, name], "given", rows(output))

        return begin, end

    names = [name for plan in writings.plans.values() for name in _names(plan)]
    handles: list[Any] = []
    try:
        with boundaries(stream, boundary):
            for name in dict.fromkeys(names):
                module = writings.model.get_submodule(name)
                begin, end = hooks(name)
                handles.append(
                    module.register_forward_pre_hook(begin, with_kwargs=True)
                )
                handles.append(module.register_forward_hook(end))
            yield
    finally:
        for handle in handles:
            handle.remove()


def _keep(seen: Seen, side: str, found: list[Tensor] | str) -> None:
    """Keep what was found, or why nothing was."""
    if isinstance(found, str):
        seen.reason = found
    else:
        setattr(seen, side, found)


def _rows(
    structure: Any,
    stream: Stream,
    shape: torch.Size,
    places: Iterable[Int[Tensor, " _"]],
) -> list[Tensor] | str:
    """The wanted places of the one tensor that a module takes or gives, per text."""
    floats = [t for _, t in tensors(structure) if t.is_floating_point()]
    if len(floats) != 1:
        return f"its writer takes or gives {len(floats)} tensors"
    (tensor,) = floats
    if tensor.numel() * shape[-1] != shape.numel() * tensor.shape[-1]:
        return "its writer takes or gives other than one vector for each token"
    found = stream.to_rows(tensor.reshape(*shape[:-1], tensor.shape[-1]))
    return [
        found[text, wanted.to(found.device)].clone()
        for text, wanted in enumerate(places)
    ]
