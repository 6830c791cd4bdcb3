"""The same architecture before it learned anything: what a null model is made of."""

import copy

import torch
from torch import nn
from transformers import PreTrainedModel

from ..errors import UnsupportedModelError
from .decoder import Decoder
from .runner import in_one_line
from .source import Source


def reinitialised(decoder: Decoder, seed: int) -> Decoder:
    """A decoder of the same class and configuration, its weights drawn anew.

    Weights are drawn as the class draws them before training. They take the dtype and
    the device of the model's, and as much memory again.

    Args:
        decoder: The model.
        seed: What weights are drawn from; the global generator is left as it was.

    Raises:
        UnsupportedModelError: If the model's class cannot be made of its configuration
            alone, or what comes out has no verified readout.
    """
    model = decoder.model
    if not isinstance(model, PreTrainedModel):
        raise UnsupportedModelError(
            f"A {type(model).__name__} cannot be made anew from a configuration, so "
            "there is no null from random weights. Choose other `nulls`."
        )
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # weights are drawn as floating point
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            made: nn.Module = type(model)(config)
        except Exception as error:  # whatever a class does without its checkpoint
            raise UnsupportedModelError(
                f"A {type(model).__name__} cannot be made anew from its configuration "
                f"({in_one_line(error)}), so there is no null from random weights. "
                "Choose other `nulls`."
            ) from error
    made = made.to(device=decoder._runner.device, dtype=model.dtype).eval()
    name = f"{decoder.info.id}, random weights"
    return Decoder(
        made,
        decoder.tokenizer,
        declaration=decoder.declaration,
        source=Source(id=name),
    )
