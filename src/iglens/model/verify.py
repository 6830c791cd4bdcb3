"""Proving, when a model is loaded, that its readout is its own.

In order: the model gives finite logits, the same ones twice, and no token sees a later
one; how much of its output is rounding; reading the last state, an earlier one and a
random vector equals a *full* forward in which only the last block's output is
replaced; and a wrong state misses clearly, or else the check says that it cannot tell.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UnsupportedModelError
from ..readout import AbstractReadout, CalledReadout
from ..readout.abstract import at_least_float32
from ..readout.fidelity import NoiseFloor, Tolerance
from ..readout.measure import gap, in_words
from .capture import capture_batch
from .checks import check_causality, check_determinism, check_finite, check_inputs
from .declaration import Declaration
from .discover import arbitrary_tokens, find_streams
from .explicit import explicit_readout
from .injected import Injected
from .noise import TOKENS, measure_noise, measure_tolerance, resolution
from .replaced import last_output_replaced, misses_as_first, what_else_is_read
from .runner import Runner, in_one_line
from .stream import Stream
from .tail import Tail, trace_tail

ROUNDED_STEPS = 4.0
"""Steps of its dtype by which a logit of a low-precision model may be rounded."""

_FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, LookupError)
"""What the pieces of a tail raise when they are called one by one."""


@dataclass(frozen=True, eq=False)
class Verified:
    """A stream, its readout, and how well they were proved.

    Attributes:
        stream: Where the residual stream runs.
        readout: The fast readout where it was proved equal, else the injected one.
        injected: The reference.
        noise: How much of the model's output is rounding.
        tolerance: How far reading one state twice may be apart.
        power: Tolerances by which the state before the last one misses.
        notes: Sentences a user should know.
        tail: What lies between the last block and the logits, if it is a chain of
            modules and elementwise operations.
        doubt: Why that chain is not used to read; None if it is.
        remembered: Whether this was proved before, of the same files, and only its
            last step was tried again now; see `proof`.
    """

    stream: Stream
    readout: AbstractReadout
    injected: CalledReadout
    noise: NoiseFloor
    tolerance: Tolerance
    power: float
    notes: tuple[str, ...]
    tail: Tail | None = None
    doubt: str | None = None
    remembered: bool = False


def verify(runner: Runner, declaration: Declaration | None = None) -> Verified:
    """Find the stream of a model and prove a readout for it.

    Args:
        runner: The model.
        declaration: What is known of it; all of it is proved.

    Raises:
        NonFiniteError: If the model's logits are not finite.
        UnsupportedModelError: If the model is not deterministic or not causal, or no
            stream has a readout that gives the model's own distribution.
    """
    declaration = declaration or Declaration()
    ids = arbitrary_tokens(runner.model, (TOKENS if runner.pooled else 1, TOKENS))
    logits = runner(ids).flatten(0, 1)
    check_finite(runner, logits)
    check_determinism(runner, ids, logits)
    if declaration.inputs is not None:
        check_inputs(runner, ids, logits)
    if declaration.causal and not runner.pooled:  # only whole texts are explained
        check_causality(runner, ids, logits)
    noise = measure_noise(runner, ids, logits, declaration.causal)
    tried: dict[str, str] = {}
    for stream in find_streams(runner, declaration.blocks, declaration.first):
        try:
            case = _Case(runner, stream, ids, logits, noise)
        except UnsupportedModelError as error:
            tried[stream.container] = str(error)
            continue
        if (reason := case.failure()) is None:
            return case.verified()
        tried[stream.container] = reason
    raise UnsupportedModelError(
        f"{runner.name}: no stack of layers has a per-position readout that gives the "
        "model's own probabilities. "
        + "; ".join(f"{name}: {reason}" for name, reason in tried.items())
        + ".",
        tried,
    )


class _Case:
    """One candidate stream, and the proof of its readout."""

    def __init__(
        self,
        runner: Runner,
        stream: Stream,
        ids: Tensor,
        logits: Float[Tensor, "rows vocab"],
        noise: NoiseFloor,
    ) -> None:
        """Capture the states that these logits are of, and draw as many vectors."""
        self._runner, self._stream, self._noise = runner, stream, noise
        places = torch.arange(TOKENS)[-(len(logits) // len(ids)) :]
        every = tuple(range(stream.n_layers + 1))
        taken = capture_batch(runner, stream, [*ids], [places] * len(ids), every)
        self._states = torch.cat([captured.states for captured in taken], 1)
        self._logits, self._ids = logits.to(self._states.device), ids
        self._vectors = self._random_vectors()
        self._random = self._vectors[:, places].flatten(0, 1)
        template = stream.template
        self._injected = CalledReadout(
            tail=Injected(runner, stream),
            d_model=stream.width,
            vocab_size=logits.shape[-1],
            dtype=template.dtype,
            precision=at_least_float32(template.dtype),
        )

    def _random_vectors(self) -> Float[Tensor, "texts text d_model"]:
        """Vectors of the last states' spread, in directions of their own."""
        last = self._states[-1]
        shape, seeded = (*self._ids.shape, last.shape[1]), torch.Generator()
        noise = torch.randn(shape, generator=seeded.manual_seed(1))
        spread = last.double().std().to(last.dtype)
        return noise.to(last) * spread

    def failure(self) -> str | None:
        """Why the injected readout is not the model's, or None if it is."""
        try:
            read = self._injected.logits(self._states[-1])
            self._tolerance = measure_tolerance(self._injected, self._states[-1], read)
            random = self._injected.logits(self._random)
            truth = self._forward_with_random()
        except (UnsupportedModelError, RuntimeError) as error:
            return f"it does not run with its blocks short-circuited ({error})"
        missed, measure = self._gap(read, self._logits), self._runner.measure
        if not missed <= self._allowed:
            return (
                f"reading the last state misses the model by "
                f"{in_words(missed, measure)} (tolerance {self._allowed:.1g})"
                + self._what_else()
            )
        missed = self._gap(random, truth)
        if not missed <= self._allowed:
            return (
                "something after the blocks reads more than one vector (a random one "
                f"misses by {in_words(missed, measure)})" + self._what_else()
            )
        return self._first_failure()

    def _gap(self, ours: Tensor, own: Tensor) -> float:
        """How far apart two readings are, at most."""
        return float(gap(ours, own, self._runner.measure).max())

    @property
    def _allowed(self) -> float:
        """How far they may be."""
        return self._tolerance.of(self._runner.measure)

    def _what_else(self) -> str:
        """What the logits also depend on, as the end of a sentence."""
        try:
            found = what_else_is_read(
                self._runner,
                self._stream,
                self._ids[:1],
                self._vectors[0],
                self._allowed,
            )
        except (UnsupportedModelError, RuntimeError):
            return ""  # the model does not run like that: no more can be said
        return f"; the logits also depend on {' and '.join(found)}" if found else ""

    def _first_failure(self) -> str | None:
        """Why a declared first module does not take `h_0`, or None if it does."""
        first = self._stream.first
        if first is None:
            return None
        try:
            missed = misses_as_first(self._runner, self._stream, self._ids[:1], first)
        except (UnsupportedModelError, RuntimeError) as error:
            return f"the input of the declared `first` cannot be replaced ({error})"
        if missed <= self._allowed:
            return None
        return (
            "the declared `first` does not take h_0: with another text's states there "
            "the model does not give that text's output (it misses by "
            f"{in_words(missed, self._runner.measure)})"
        )

    def _forward_with_random(self) -> Float[Tensor, "rows vocab"]:
        """Logits of a full forward with only the last block's output replaced."""
        with last_output_replaced(self._stream, self._vectors):
            logits = self._runner(self._ids)
        return logits.flatten(0, 1).to(self._vectors.device)

    def verified(self) -> Verified:
        """The case with the fastest readout that is proved."""
        tail = trace_tail(self._runner, self._stream)
        readout, doubt = self._fastest(tail)
        notes = (() if doubt is None else (doubt,)) + self._facts()
        wrong = readout.logits(self._states[-2])
        return Verified(
            self._stream,
            readout,
            self._injected,
            self._noise,
            self._tolerance,
            self._gap(wrong, self._logits) / self._allowed,
            notes,
            tail,
            doubt,
        )

    def _facts(self) -> tuple[str, ...]:
        """What a user should know of an odd stream or output."""
        name, facts = self._runner.name, []
        if not self._stream.chained and self._stream.first is None:
            facts.append(
                f"{name} changes the stream between layers; h_k is taken at the input "
                "of the next layer."
            )
        if (heads := self._runner.distributions(self._ids)) > 1:
            facts.append(
                f"{name} gives {heads} distributions for each token; the first is read."
            )
        return tuple(facts)

    def _fastest(self, tail: Tail | None) -> tuple[AbstractReadout, str | None]:
        """The explicit readout if it equals the injected one, else why it does not."""
        if tail is None:
            return self._injected, (
                "No chain of modules and elementwise operations leads to the logits: "
                "the model's own forward is used to read (slower)."
            )
        explicit = explicit_readout(tail, self._stream, self._logits.shape[-1])
        points = torch.cat([*self._states[[0, -2, -1]], self._random])
        try:
            called, streamed = self._distances(explicit, points)
        except _FAILURES as error:
            reason = in_one_line(error)
        else:
            if called <= self._allowed and streamed <= self._room():
                return explicit, None
            missed = called if called > self._allowed else streamed
            reason = f"it misses by {in_words(missed, self._runner.measure)}"
        return self._injected, (
            "The traced tail is not equal to the model's own forward, which is used "
            f"to read instead (slower): {reason}."
        )

    def _room(self) -> float:
        """How far the streamed readout may be from the model's own.

        It computes in float32. In lower precision the model's own logits are rounded,
        each by up to some steps of its dtype.
        """
        dtype = self._stream.template.dtype
        if dtype in (torch.float32, torch.float64):
            return self._allowed
        return ROUNDED_STEPS * resolution(self._logits.to(dtype))

    def _distances(
        self, explicit: AbstractReadout, points: Float[Tensor, "points d_model"]
    ) -> tuple[float, float]:
        """Largest miss of the explicit readout, called and streamed."""
        reference = self._injected.logits(points)
        called = self._gap(explicit.logits(points), reference)
        blocks = explicit.project(points).blocks(explicit.vocab_size)
        rows = torch.cat([block.logits.clone() for block in blocks], 1)
        return called, self._gap(rows, reference)
