"""Which kinds of models are explained, and which are refused by name."""

from typing import Any

from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

from ..errors import UnsupportedModelError

_SEQUENCE = "SequenceClassification"
_ADAPTED = {
    "SEQ_CLS": _SEQUENCE,
    "TOKEN_CLS": "TokenClassification",
    "QUESTION_ANS": "QuestionAnswering",
}
"""Kinds of models by the tasks that adapters are trained for."""

_OTHERS = ("Classification", "QuestionAnswering", "MultipleChoice")
"""Parts of the names of classes whose logits are no answer to the whole text."""


def refuse_other_kinds(model: nn.Module) -> None:
    """Refuse models that read a second text, or judge every token apart.

    Raises:
        UnsupportedModelError: If it is one.
    """
    name = type(model).__name__
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"{name} is an encoder-decoder; only decoder-only language models have one "
            "residual stream from text to next token."
        )
    if _judges_apart(name):
        raise UnsupportedModelError(f"{name} {_NOTHING}.")


def loader_of(name: str, config: Any, task: str | None = None) -> type:
    """The auto class that loads a checkpoint: of classifiers or of language models.

    Args:
        name: What the checkpoint is called in messages.
        config: Its configuration.
        task: What an adapter on top of it was trained for, in PEFT's words.

    Raises:
        UnsupportedModelError: If it is neither.
    """
    kind = type(config).__name__
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"{name!r} is an encoder-decoder ({kind}); only decoder-only language "
            "models have one residual stream to explain."
        )
    classes = list(getattr(config, "architectures", None) or [])
    if task is not None and task in _ADAPTED:
        classes = [_ADAPTED[task]]
    if any(map(_judges_apart, classes)):
        raise UnsupportedModelError(f"{name!r} is a {classes[0]}: it {_NOTHING}.")
    classifies = any(_SEQUENCE in item for item in classes)
    loader: type = AutoModelForCausalLM
    known: Any = MODEL_FOR_CAUSAL_LM_MAPPING
    if classifies:
        loader = AutoModelForSequenceClassification
        known = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    remote = getattr(config, "auto_map", None) or {}
    if type(config) not in known and loader.__name__ not in remote:
        what = "classifier of texts" if classifies else "causal language model"
        raise UnsupportedModelError(
            f"{name!r} ({kind}) is no {what} that the installed Transformers knows."
        )
    return loader


_NOTHING = "has no next-token distribution to explain, nor one answer to a whole text"


def _judges_apart(name: str) -> bool:
    """Whether a class of this name judges tokens, or pairs of texts, one by one."""
    return _SEQUENCE not in name and any(part in name for part in _OTHERS)
