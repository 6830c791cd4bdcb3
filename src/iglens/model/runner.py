"""Running the model on token ids and taking its logits, whatever its class."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import ArgumentError, ArgumentTypeError, UnsupportedModelError
from ..readout.measure import Measure
from .calls import evaluating
from .padding import filling_of, padded, padding_token

Inputs = Callable[[Tensor], Mapping[str, Any]]
"""Forward arguments for token ids of shape (texts, tokens)."""

FAILURES = (
    TypeError,
    ValueError,
    RuntimeError,
    AttributeError,
    LookupError,
    AssertionError,
    ImportError,
)
"""What models raise when they are given too little or too much, or lack a kernel."""


@dataclass(frozen=True, eq=False)
class Runner:
    """A model as a function from token ids to logits.

    Attributes:
        model: The Hugging Face model.
        inputs: Forward arguments for some token ids, if ids alone do not do.
        pooled: Whether it gives one row of logits for a whole text, as classifiers do,
            and not one after every token.
        measure: What two readings of it are compared by.
        tried: What was found out about the model while it ran, by name.
    """

    model: nn.Module
    inputs: Inputs | None = None
    pooled: bool = False
    measure: Measure = "total_variation"
    tried: dict[str, bool] = field(default_factory=dict)

    @cached_property
    def accepted(self) -> frozenset[str]:
        """Names of the forward's parameters."""
        return frozenset(inspect.signature(self.model.forward).parameters)

    @cached_property
    def _ids_name(self) -> str:
        """What the forward calls token ids: `input_ids`, else its first parameter."""
        named = [*inspect.signature(self.model.forward).parameters.values()]
        if not named or any(
            p.name == "input_ids" or p.kind == p.VAR_KEYWORD for p in named
        ):
            return "input_ids"
        return named[0].name

    @property
    def can_keep(self) -> bool:
        """Whether the model can be asked for the logits of some tokens alone."""
        return self.inputs is None and "logits_to_keep" in self.accepted

    @property
    def name(self) -> str:
        """Class of the model."""
        return type(self.model).__name__

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        embedding = getattr(self.model, "get_input_embeddings", lambda: None)()
        weights = (embedding or self.model).parameters()
        for weight in weights:
            if weight.device.type != "meta":
                return weight.device
        return torch.device("cpu")

    def __call__(
        self,
        ids: Int[Tensor, "texts text"],
        *,
        keep: int | Int[Tensor, " kept"] | None = None,
        lengths: Sequence[int] | None = None,
        gradients: bool = False,
        more: Mapping[str, Any] | None = None,
    ) -> Float[Tensor, "texts kept vocab"]:
        """Logits of one forward pass, without a cache.

        A pooled model gives one row for each text, that after its last token.

        Args:
            ids: Token ids, all of them real (no padding).
            keep: Compute only the last so many positions' logits where the model
                can; others are cut off afterwards. Or the positions, counted from the
                end (-1 the last), of a model that can pick them: see `picked`.
            lengths: Tokens of every text, where shorter ones are filled up on the
                right with anything: a pooled model must be told.
            gradients: Keep what it takes to differentiate with respect to what hooks
                bring in.
            more: Further arguments of the forward, such as a cache.

        Raises:
            UnsupportedModelError: If the model does not run on these inputs.
        """
        if self.pooled:
            return self._pooled(ids, lengths, gradients)[:, None]
        kept = ids.shape[1] if keep is None else keep  # virtual tokens come in front
        kept = len(kept) if isinstance(kept, Tensor) else kept
        logits = self._forward(ids, keep, gradients, more)
        if logits.shape[1] < kept:
            raise UnsupportedModelError(
                f"{self.name} gives logits for {logits.shape[1]} of {kept} tokens; its "
                "readout cannot be verified."
            )
        return logits.unflatten(0, (len(ids), -1))[:, 0, -kept:]

    def distributions(self, ids: Int[Tensor, "texts text"]) -> int:
        """How many distributions each token has; the first of them is read."""
        return 1 if self.pooled else len(self._forward(ids, None)) // len(ids)

    def dummies(self, n_texts: int) -> Int[Tensor, "texts one"]:
        """Texts of one token, for passes in which it does not matter which."""
        padding = padding_token(self.model) if self.pooled else None
        return torch.full((n_texts, 1), int(padding == 0))

    def pools(self, ids: Int[Tensor, "one text"]) -> int:
        """Labels of a model that gives one row of logits for a text; 0 for others."""
        logits = self._output(self._arguments(ids, None))
        shape = logits.shape if isinstance(logits, Tensor) else ()
        return shape[1] if len(shape) == 2 and shape[0] == 1 else 0

    def _pooled(
        self,
        ids: Int[Tensor, "texts text"],
        lengths: Sequence[int] | None,
        gradients: bool,
    ) -> Float[Tensor, "texts labels"]:
        """The one row of logits of every text."""
        filling = filling_of(ids, lengths)
        with padded(self.model, ids, filling) as texts:
            arguments = self._arguments(texts, None)
            if "attention_mask" in arguments and self.inputs is None:
                arguments["attention_mask"] = (~filling).long().to(self.device)
            logits = self._output(arguments, gradients)
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            raise UnsupportedModelError(
                f"{self.name} gave one row of logits for a text, and now does not."
            )
        return logits

    def _forward(
        self,
        ids: Int[Tensor, "texts text"],
        keep: int | Tensor | None,
        gradients: bool = False,
        more: Mapping[str, Any] | None = None,
    ) -> Float[Tensor, "rows tokens vocab"]:
        """Logits as the model gives them, at least one row for each text."""
        arguments = {**self._arguments(ids, keep), **(more or {})}
        logits = self._output(arguments, gradients)
        if not isinstance(logits, Tensor) or logits.dim() != 3:
            raise UnsupportedModelError(
                f"{self.name} gives no logits of shape (texts, tokens, vocab): it is "
                "not a causal language model."
            )
        if len(logits) % len(ids):
            raise UnsupportedModelError(
                f"{self.name} gives {len(logits)} rows of logits for {len(ids)} texts."
            )
        return logits

    def _output(self, arguments: dict[str, Any], gradients: bool = False) -> Any:
        """What a forward pass gives as logits."""
        output = self._run(arguments, gradients)
        logits = output.get("logits") if isinstance(output, Mapping) else output
        if isinstance(logits, tuple):
            logits = logits[0]
        return logits

    def cache(self, ids: Int[Tensor, "one text"]) -> Any:
        """What the model keeps of a text to go on from there, as it gives it.

        Raises:
            UnsupportedModelError: If the model does not run.
        """
        output = self._run({**self._arguments(ids, 1), "use_cache": True})
        return getattr(output, "past_key_values", None)

    def _run(self, arguments: dict[str, Any], gradients: bool = False) -> Any:
        """What a forward pass gives."""
        with evaluating(self.model, gradients=gradients):
            try:
                return self.model(**arguments)
            except FAILURES as error:
                raise self._refusal(error, arguments) from error

    def _refusal(
        self, error: Exception, arguments: dict[str, Any]
    ) -> UnsupportedModelError:
        """Why the model did not run, as far as that can be told."""
        reason = in_one_line(error)
        if self.inputs is not None:
            return UnsupportedModelError(
                f"{self.name} does not run on what `Declaration(inputs=...)` gives it "
                f"({', '.join(arguments)}): {reason}. Its forward takes "
                f"{', '.join(sorted(self.accepted))}."
            )
        return UnsupportedModelError(
            f"{self.name} does not run on these token ids alone ({reason}). If it "
            "needs more, say so with `Declaration(inputs=...)`."
        )

    def _arguments(self, ids: Tensor, keep: int | Tensor | None) -> dict[str, Any]:
        """What to call the forward with."""
        ids = ids.to(self.device)
        if self.inputs is not None:
            return self._declared(self.inputs, ids)
        arguments: dict[str, Any] = {self._ids_name: ids}
        if "attention_mask" in self.accepted:
            arguments["attention_mask"] = torch.ones_like(ids)
        if "use_cache" in self.accepted:
            arguments["use_cache"] = False
        if keep is not None and "logits_to_keep" in self.accepted:
            here = keep.to(self.device) if isinstance(keep, Tensor) else keep
            arguments["logits_to_keep"] = here
        return arguments

    @staticmethod
    def _declared(inputs: Inputs, ids: Tensor) -> dict[str, Any]:
        """What a declaration makes of token ids."""
        try:
            given = inputs(ids)
        except Exception as error:  # a user's own function may raise anything
            raise ArgumentError(
                "`Declaration(inputs=...)` fails on token ids of shape "
                f"{tuple(ids.shape)} (texts, tokens): {in_one_line(error)}."
            ) from error
        if not isinstance(given, Mapping):
            raise ArgumentTypeError(
                f"`Declaration(inputs=...)` gives a {type(given).__name__}; it must "
                "give the forward's arguments by name, such as "
                '{"input_ids": ids}.'
            )
        return dict(given)


def text_config(model: nn.Module) -> Any:
    """The Transformers configuration of a model's text part, or None."""
    config = getattr(model, "config", None)
    chosen = getattr(config, "get_text_config", None)
    return None if chosen is None else chosen(decoder=True)


def in_one_line(error: Exception) -> str:
    """Kind and first line of an error, shortened."""
    line = str(error).strip().split("\n", 1)[0]
    line = line if len(line) <= 200 else line[:199] + "…"
    return f"{type(error).__name__}: {line}".removesuffix(": ")
