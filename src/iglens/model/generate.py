"""Letting the model speak, through its own `generate` with its cache."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import GenerationConfig

from ..errors import ArgumentError, UnsupportedModelError
from ..stages import stage
from .calls import evaluating
from .injected import model_lock


@dataclass(frozen=True)
class Sampling:
    """How to sample; the default of everything else is greedy.

    Attributes:
        temperature: Divides the logits.
        top_p: Smallest share of probability that is kept.
        seed: Of the generator, so that a run can be repeated.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be sampled with."""
        if not self.temperature > 0:
            raise ArgumentError(f"`temperature` is {self.temperature}; it must be > 0.")
        if not 0 < self.top_p <= 1:
            raise ArgumentError(f"`top_p` is {self.top_p}; it must be in (0, 1].")


def continuation(
    model: Any,
    ids: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling | None = None,
) -> list[int]:
    """Token ids the model goes on with.

    The map explains raw logits, so greedy decoding takes their arg-max: penalties and
    other processors of the checkpoint's generation settings are left out. Its ends of
    text are kept.

    Raises:
        UnsupportedModelError: If the model has no `generate` of Transformers.
    """
    prompt = torch.tensor([list(ids)])
    return continuations(model, prompt, max_new_tokens, sampling)[0]


@stage("generate")
def continuations(
    model: Any,
    starts: Int[Tensor, "texts start"],
    max_new_tokens: int,
    sampling: Sampling | None = None,
) -> list[list[int]]:
    """Token ids the model goes on with after each of some starts, in one batch.

    Each ends with its first end of text, if it has one.

    Raises:
        UnsupportedModelError: If the model has no `generate` of Transformers.
    """
    if getattr(model, "generation_config", None) is None:
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot generate. Pass an `answer` or a `target`, "
            'or explain the text itself with `positions="all", max_new_tokens=0`.'
        )
    device = model.get_input_embeddings().weight.device
    if device.type == "meta":
        device = torch.device("cpu")
    prompts = starts.to(device)
    with (
        model_lock(model),
        evaluating(model),
        _without_own_settings(model) as own,
        torch.random.fork_rng(enabled=sampling is not None),
    ):
        if sampling is not None:
            torch.manual_seed(sampling.seed)
        texts = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            generation_config=_settings(own, max_new_tokens, sampling),
        )
    ends = _ends_of_text(own)
    return [_ended(text, ends) for text in texts[:, starts.shape[1] :].tolist()]


def _ends_of_text(own: GenerationConfig) -> frozenset[int]:
    """Tokens that end a text."""
    stop = own.eos_token_id
    return frozenset(stop if isinstance(stop, list) else [] if stop is None else [stop])


def _ended(ids: list[int], ends: frozenset[int]) -> list[int]:
    """The text up to its end: shorter ones of a batch are filled up behind it."""
    found = (at for at, token in enumerate(ids) if token in ends)
    return ids[: next(found, len(ids)) + 1]


def _settings(
    own: GenerationConfig, max_new_tokens: int, sampling: Sampling | None
) -> GenerationConfig:
    """Our settings: of the checkpoint's own only where a text ends."""
    stop, pad = own.eos_token_id, own.pad_token_id
    if pad is None:
        pad = stop[0] if isinstance(stop, list) else stop
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=sampling is not None,
        eos_token_id=stop,
        pad_token_id=pad,
        **_sampling_options(sampling),
    )


@contextmanager
def _without_own_settings(model: Any) -> Iterator[GenerationConfig]:
    """Hide the checkpoint's settings: `generate` fills every gap in ours from them."""
    own = model.generation_config
    saved = [
        (module, module.__dict__["generation_config"])
        for module in model.modules()
        if "generation_config" in module.__dict__
    ]
    try:
        for module, _ in saved:
            module.generation_config = GenerationConfig()
        yield own
    finally:
        for module, config in saved:
            module.generation_config = config


def _sampling_options(sampling: Sampling | None) -> dict[str, Any]:
    """Options of the generation config; none of them apply to greedy decoding."""
    if sampling is None:
        return {}
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": 0,
    }
