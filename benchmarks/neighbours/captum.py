"""Captum: Layer Conductance of one token, which passes through the model per step."""

from collections.abc import Iterator

import torch
from captum.attr import LayerConductance
from torch import Tensor

from .task import Found, Task, answer, measured, rounds

NAME = "Captum LayerConductance"
N_STEPS = 50
"""Its default."""

PER_RUN = 5
"""Steps that run at once."""


def measure(task: Task) -> Iterator[Found]:
    """One token of a text, one layer timed and counted for all."""
    model, n_tokens = task.loaded, task.sizes[0]
    inputs, target = task.inputs(n_tokens), int(task.targets(n_tokens)[-1])
    embedded = model.get_input_embeddings()(inputs).detach()
    layers = model.model.layers

    def probability(states: Tensor) -> Tensor:
        logits = model(inputs_embeds=states, use_cache=False).logits
        return logits[:, -1].softmax(-1)[:, target]

    conductance = LayerConductance(probability, layers[len(layers) // 2])
    ways = {
        NAME: lambda: conductance.attribute(
            embedded,
            torch.zeros_like(embedded),
            n_steps=N_STEPS,
            internal_batch_size=PER_RUN,
        ),
        "product": task.product(task.states(n_tokens)),
    }
    turns = rounds(ways, min(3, task.pairs))
    note = (
        f"one token of {n_tokens}; one of {len(layers)} layers timed, counted for all"
    )
    yield measured(
        "one token", turns, NAME, task, n_tokens, counted=len(layers), note=note
    )


answer(NAME, ("captum", "transformers", "torch"), measure)
