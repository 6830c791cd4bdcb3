"""tuned-lens: the trajectory of its logit lens, which runs the model itself."""

from collections.abc import Iterator

import torch
from tuned_lens.nn.lenses import LogitLens
from tuned_lens.plotting import PredictionTrajectory

from ..oracle import largest_error, probabilities
from .task import Found, Task, answer, error_of, lacking, without_forward

NAME = "tuned-lens"
HELD = 2.5
"""Times that it holds the logits of all layers at once, about."""


@torch.no_grad()
def measure(task: Task) -> Iterator[Found]:
    """The trajectory, and what is left of it without the model's forward pass."""
    lens = LogitLens.from_model(task.loaded)
    for n_tokens in task.sizes:
        n_points = task.loaded.config.num_hidden_layers + 1
        if reason := task.hindrance(n_tokens, HELD * n_points):
            yield lacking("map", NAME, task, n_tokens, reason)
        else:
            yield from _at(lens, task, n_tokens)


def _at(lens: LogitLens, task: Task, n_tokens: int) -> Iterator[Found]:
    """For a text so long."""
    inputs, targets = task.inputs(n_tokens), task.targets(n_tokens)
    states = task.states(n_tokens)

    def trajectory() -> PredictionTrajectory:
        return PredictionTrajectory.from_lens_and_model(
            lens, task.loaded, inputs[0].tolist(), targets=targets.tolist()
        )

    if n_tokens == task.sizes[0]:
        found = torch.from_numpy(trajectory().probs)
        at = targets[None, :, None].expand(len(found), -1, 1)
        read = found.gather(2, at)[..., 0]
        exact = probabilities(task.loaded, states, targets)
        yield error_of(NAME, task, n_tokens, largest_error(read, exact))
        del found

    def forward() -> None:
        task.loaded(inputs, output_hidden_states=True)

    yield from without_forward(NAME, task, n_tokens, trajectory, forward, states)


answer(NAME, ("tuned-lens", "transformers", "torch"), measure)
