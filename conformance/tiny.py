"""Tiny random models of every class, built from their configuration classes."""

import re
from typing import Any

import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers.models.auto import modeling_auto

from iglens.model.declaration import Declaration

from .declarations import DECLARATIONS
from .sizes import KNOBS, LAYERS, OVERRIDES, SIZES, VOCAB

CAUSAL, IMAGE_TEXT = "causal", "image-text"
CLASSIFIER, REWARD = "classifier", "reward"
KINDS = (CAUSAL, IMAGE_TEXT, CLASSIFIER)
LABELS = {CLASSIFIER: 2, REWARD: 1}

_GENERATING = {
    CAUSAL: modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    IMAGE_TEXT: modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
}
_DECODERS = {model_type for names in _GENERATING.values() for model_type in names}
_CLASSIFYING = {
    model_type: name
    for model_type, name in (
        modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.items()
    )
    if model_type in _DECODERS
}
_NAMES = _GENERATING | dict.fromkeys(LABELS, _CLASSIFYING)


def model_types(kind: str) -> dict[str, str]:
    """Model types of a mapping, and the class of each; every class once.

    Of several types of one class the one that the class is called after is taken.
    """
    of_class: dict[str, list[str]] = {}
    for model_type, name in _NAMES[kind].items():
        of_class.setdefault(name, []).append(model_type)
    return {
        max(types, key=lambda t: _squashed(t) in _squashed(name)): name
        for name, types in of_class.items()
    }


def _squashed(name: str) -> str:
    """Letters and digits alone."""
    return re.sub(r"[\W_]", "", name.lower())


def build(kind: str, model_type: str, dtype: torch.dtype, seed: int = 0) -> nn.Module:
    """The tiny model of a type, in evaluation mode, with random weights."""
    torch.manual_seed(seed)
    of_class = getattr(transformers, _NAMES[kind][model_type])
    kind_of_config = of_class.config_class or CONFIG_MAPPING[model_type]
    given = OVERRIDES.get(model_type, {})
    if kind in LABELS:
        given = given | {"num_labels": LABELS[kind]}
    model = of_class(tiny_config(kind_of_config, given))
    randomise(model, seed)
    if dtype == torch.float64 and hasattr(model.config, "_experts_implementation"):
        model.set_experts_implementation("eager")  # the fused kernel has no float64
    return model.to(dtype).eval()


def tiny_config(
    kind: type[PreTrainedConfig], given: dict[str, Any]
) -> PreTrainedConfig:
    """A configuration of that class with every size made small."""
    default = kind().to_dict()
    own = {key: value for key, value in given.items() if "." not in key}
    changes = {
        key: new
        for key, value in default.items()
        if (new := _shrunk(key, value, default)) is not None
    }
    inner = _sub_configs(kind, default, given)
    config = kind(**changes | own | {k: v for k, (v, fits) in inner.items() if fits})
    for name, (stand_in, fits) in inner.items():
        if not fits:  # of another class than the strict configuration lets in
            vars(config)[name] = stand_in
    return config


def _sub_configs(
    kind: type[PreTrainedConfig], default: dict[str, Any], given: dict[str, Any]
) -> dict[str, tuple[PreTrainedConfig, bool]]:
    """Small sub-configurations, and whether each is of the class it should be."""
    found = {}
    for name, sub in kind.sub_configs.items():
        own = {
            key.removeprefix(f"{name}."): value
            for key, value in given.items()
            if key.startswith(f"{name}.")
        }
        if not isinstance(default.get(name), dict):
            continue
        model_type = own.pop("model_type", None)
        chosen = model_type or default[name].get("model_type")
        if model_type or sub is AutoConfig:
            sub = CONFIG_MAPPING[chosen]
        found[name] = tiny_config(sub, own), model_type is None
    return found


def declaration(model_type: str) -> Declaration | None:
    """What a user of this model type has to say about it, if anything."""
    return DECLARATIONS.get(model_type)


def _shrunk(key: str, value: Any, default: dict[str, Any]) -> Any:
    """The small value of a field, or None to leave it."""
    for pattern, knob in KNOBS:
        if re.fullmatch(pattern, key) and not isinstance(value, bool):
            return knob
    if key == "is_decoder":
        return True
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    if re.fullmatch(r".*_token_(id|index)|.*_token", key):
        return _token(key, default)
    for pattern, size in SIZES:
        if re.fullmatch(pattern, key):
            if size == LAYERS:
                size = _layers(default)
            if "key_value" in key and value == default.get("num_attention_heads"):
                return min(4, value)
            return min(size, value) if value > 0 else None
    return None


def _layers(default: dict[str, Any]) -> int:
    """As many layers as it takes for one of every kind, at least three."""
    kinds = default.get("layer_types") or default.get("layers_block_type") or []
    needed = max((kinds.index(kind) + 1 for kind in set(kinds)), default=0)
    return min(max(LAYERS, needed), 8)


def _token(key: str, default: dict[str, Any]) -> int:
    """A small id for a special token; no two alike."""
    first = ("pad_token_id", "bos_token_id", "eos_token_id")
    names = [*first, *sorted(k for k in default if "_token_" in k and k not in first)]
    return names.index(key) % VOCAB if key in names else 0


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Random matrices; vectors (gains, biases) keep their size and get noise."""
    generator = torch.Generator().manual_seed(seed)
    for _, weight in sorted(model.named_parameters()):
        noise = torch.randn(weight.shape, generator=generator)
        if weight.dim() > 1:
            value = noise / max(1, weight.shape[-1]) ** 0.5
        else:
            value = weight.data.float() + 0.3 * noise
        weight.data = value.to(weight.dtype)
