"""nnterp: its logit lens at every layer, inside one trace of the model."""

from collections.abc import Iterator

import torch
from nnterp import StandardizedTransformer

from ..oracle import largest_error, probabilities
from .task import Found, Task, answer, error_of, lacking, without_forward

NAME = "nnterp"
HELD = 4
"""Times that the logits of one layer are held at once, about."""


@torch.no_grad()
def measure(task: Task) -> Iterator[Found]:
    """The trace, and what is left of it without the model's forward pass.

    Its function `logit_lens` is of last tokens alone; this is what that does, for every
    position, and only the targets' probabilities are kept.
    """
    model = StandardizedTransformer(task.folder, dtype=torch.float32, device_map="cpu")
    for n_tokens in task.sizes:
        if reason := task.hindrance(n_tokens, HELD):
            yield lacking("map", NAME, task, n_tokens, reason)
        else:
            yield from _at(model, task, n_tokens)


def _at(model: StandardizedTransformer, task: Task, n_tokens: int) -> Iterator[Found]:
    """For a text so long."""
    inputs, targets = task.inputs(n_tokens), task.targets(n_tokens)
    states, at = task.states(n_tokens), torch.arange(n_tokens)

    def lens() -> torch.Tensor:
        with model.trace(inputs):
            read = []
            for layer in range(model.num_layers + 1):
                here = (
                    model.layers_output[layer - 1] if layer else model.layers_input[0]
                )
                chances = model.project_on_vocab(here).softmax(-1)
                read.append(chances[0, at, targets])
            found = torch.stack(read).save()
        return found

    if n_tokens == task.sizes[0]:
        exact = probabilities(task.loaded, states, targets)
        yield error_of(NAME, task, n_tokens, largest_error(lens(), exact))

    def forward() -> None:
        task.loaded(inputs)

    yield from without_forward(NAME, task, n_tokens, lens, forward, states)


answer(NAME, ("nnterp", "nnsight", "transformers", "torch"), measure)
