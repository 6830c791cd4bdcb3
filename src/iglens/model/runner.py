"""Running the model on token ids and taking its logits, whatever its class."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import UnsupportedModelError
from .calls import evaluating

Inputs = Callable[[Tensor], Mapping[str, Any]]
"""Forward arguments for token ids of shape (texts, tokens)."""

_FAILURES = (TypeError, ValueError, RuntimeError, AttributeError, LookupError)
"""What models raise when they are given too little, or too much."""


@dataclass(frozen=True, eq=False)
class Runner:
    """A causal language model as a function from token ids to logits.

    Attributes:
        model: The Hugging Face model.
        inputs: Forward arguments for some token ids, if ids alone do not do.
    """

    model: nn.Module
    inputs: Inputs | None = None

    @cached_property
    def _accepted(self) -> frozenset[str]:
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
        self, ids: Int[Tensor, "texts text"], *, keep: int | None = None
    ) -> Float[Tensor, "texts kept vocab"]:
        """Logits of one forward pass, without a cache.

        Args:
            ids: Token ids, all of them real (no padding).
            keep: Compute only the last so many positions' logits where the model
                can; others are cut off afterwards.

        Raises:
            UnsupportedModelError: If the model does not run on these inputs.
        """
        kept = ids.shape[1] if keep is None else keep  # virtual tokens come in front
        logits = self._forward(ids, keep)
        if logits.shape[1] < kept:
            raise UnsupportedModelError(
                f"{self.name} gives logits for {logits.shape[1]} of {kept} tokens; its "
                "readout cannot be verified."
            )
        return logits.unflatten(0, (len(ids), -1))[:, 0, -kept:]

    def distributions(self, ids: Int[Tensor, "texts text"]) -> int:
        """How many distributions each token has; the first of them is read."""
        return len(self._forward(ids, None)) // len(ids)

    def _forward(
        self, ids: Int[Tensor, "texts text"], keep: int | None
    ) -> Float[Tensor, "rows tokens vocab"]:
        """Logits as the model gives them, at least one row for each text."""
        arguments = self._arguments(ids, keep)
        with evaluating(self.model):
            try:
                output = self.model(**arguments)
            except _FAILURES as error:
                raise UnsupportedModelError(
                    f"{self.name} does not run on these token ids alone "
                    f"({type(error).__name__}: {_first_line(error)}). If it needs "
                    "more, say so with `Declaration(inputs=...)`."
                ) from error
        logits = output.get("logits") if isinstance(output, Mapping) else output
        if isinstance(logits, tuple):
            logits = logits[0]
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

    def _arguments(self, ids: Tensor, keep: int | None) -> dict[str, Any]:
        """What to call the forward with."""
        ids = ids.to(self.device)
        if self.inputs is not None:
            return dict(self.inputs(ids))
        arguments: dict[str, Any] = {self._ids_name: ids}
        if "attention_mask" in self._accepted:
            arguments["attention_mask"] = torch.ones_like(ids)
        if "use_cache" in self._accepted:
            arguments["use_cache"] = False
        if keep is not None and "logits_to_keep" in self._accepted:
            arguments["logits_to_keep"] = keep
        return arguments


def text_config(model: nn.Module) -> Any:
    """The Transformers configuration of a model's text part, or None."""
    config = getattr(model, "config", None)
    chosen = getattr(config, "get_text_config", None)
    return None if chosen is None else chosen(decoder=True)


def _first_line(error: Exception) -> str:
    """The error's first line, shortened."""
    line = str(error).strip().split("\n", 1)[0]
    return line if len(line) <= 200 else line[:199] + "…"
