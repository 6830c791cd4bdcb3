"""What a deployed model's map must be: the truth from its own full forward passes.

Blocks are named by hand, and nothing here reads a weight: whatever runs a block or a
head (an adapter, a quantised kernel, a hook that fetches weights), it runs itself.
"""

from contextlib import contextmanager

import numpy as np
import torch
from families import full_logits, some_ids

from iglens import Decoder, explain

IDS = some_ids()
EVERY = {"positions": "all", "max_new_tokens": 0}


@torch.no_grad()
def true_levels(model, blocks, ids=IDS):
    """Probability of every next token, by layer, of full forwards whose last block
    gives the state of that layer."""
    states = []
    with _hooks(blocks, states):
        full_logits(model, ids)
    assert len(states) == len(blocks) + 1
    rows = []
    for state in states:
        with _gives(blocks[-1], state):
            logits = full_logits(model, ids)[-len(ids) :]
        chances = logits.double().softmax(-1)
        rows.append(chances[range(len(ids) - 1), ids[1:]])
    return torch.stack(rows, 1).numpy()


@contextmanager
def _hooks(blocks, states):
    """Collects the inputs of all blocks and the output of the last."""

    def before(module, args, kwargs):
        states.append((args[0] if args else kwargs["hidden_states"]).clone())

    def after(module, args, output):
        states.append((output[0] if isinstance(output, tuple) else output).clone())

    handles = [b.register_forward_pre_hook(before, with_kwargs=True) for b in blocks]
    handles.append(blocks[-1].register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _gives(block, state):
    """While open, the block runs and gives this state."""

    def after(module, args, output):
        if isinstance(output, tuple):
            return (state.to(output[0]), *output[1:])
        return state.to(output)

    handle = block.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def assert_exact(decoder, blocks, *, atol=1e-6):
    """The map is that of the model as it runs; returns it."""
    assert isinstance(decoder, Decoder)
    result = explain(decoder, IDS, **EVERY)
    expected = true_levels(decoder.model, blocks)
    np.testing.assert_allclose(result.levels, expected, atol=atol)
    np.testing.assert_allclose(result.model_value, expected[:, -1], atol=atol)
    assert result.fidelity.max() <= decoder.verified.tolerance.total_variation < 1e-3
    total = result.baseline + result.credits.sum(1)
    np.testing.assert_allclose(total, result.final, atol=1e-12)
    assert np.abs(np.diff(expected, axis=1)).max() > 1e-3  # there is something to see
    return result
