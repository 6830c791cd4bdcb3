"""TransformerLens: the logit lens of a cache, probabilities of given targets."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from ..oracle import largest_error, probabilities
from ..pairs import Way, in_turns
from ..product import slices
from .task import Found, Task, answer, error_of, measured, rounds

NAME = "TransformerLens"


@torch.no_grad()
def measure(task: Task) -> Iterator[Found]:
    """The readout of its cache, and with the run that makes it."""
    bridge = TransformerBridge.boot_transformers(
        task.folder, dtype=torch.float32, device="cpu"
    )
    bridge.eval()
    for n_tokens in task.sizes:
        cache = _cache(bridge, task, n_tokens)
        yield _readout(cache, task, n_tokens)
    n_tokens = task.sizes[0]
    targets = task.targets(n_tokens)
    cache = _cache(bridge, task, n_tokens)
    states = _states(cache)
    exact = probabilities(task.loaded, states, targets)
    found = _lens(cache, targets, slice(0, n_tokens)).values[:, 0, :, 0]
    yield error_of(NAME, task, n_tokens, largest_error(found, exact))

    def whole() -> None:
        _lens(_cache(bridge, task, n_tokens), targets, slice(0, n_tokens))

    ways: dict[str, Way] = {NAME: whole, "product": task.product(states)}
    yield measured("whole", rounds(ways, task.pairs), NAME, task, n_tokens)


def _readout(cache: Any, task: Task, n_tokens: int) -> Found:
    """The readout alone, stretch by stretch."""
    states, targets = _states(cache), task.targets(n_tokens)
    parts = slices(n_tokens, task.at_once(len(states)), task.pairs)
    turns = in_turns(
        {
            NAME: partial(_lens, cache, targets, part),
            "product": task.product(states[:, part]),
        }
        for part in parts
    )
    length = parts[0].stop - parts[0].start
    note = "" if length == n_tokens else f"stretches of {length} tokens of the text"
    return measured("map", turns, NAME, task, n_tokens, note=note)


def _cache(bridge: Any, task: Task, n_tokens: int) -> Any:
    """A run, and what the lens needs of it."""
    last = int(bridge.cfg.n_layers) - 1
    wanted = [f"blocks.{layer}.hook_resid_pre" for layer in range(last + 1)]
    wanted.append(f"blocks.{last}.hook_resid_post")
    return bridge.run_with_cache(task.inputs(n_tokens), names_filter=wanted)[1]


def _states(cache: Any) -> torch.Tensor:
    """What the lens reads: points x tokens x d_model."""
    states, _ = cache.accumulated_resid(apply_ln=False, return_labels=True)
    found: torch.Tensor = states[:, 0]
    return found


def _lens(cache: Any, targets: torch.Tensor, part: slice) -> Any:
    """Probability of the token that follows, at every layer."""
    return cache.logit_lens(
        positions=(part.start, part.stop),
        targets=targets[None, part],
        return_type="probs",
    )


answer(NAME, ("transformer-lens", "transformers", "torch"), measure)
