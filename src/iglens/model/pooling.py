"""Models that give one row of logits for a whole text: classifiers, reward models.

In Transformers they apply their head at every position and hand on one of them, that
of the last token that is no padding. Nothing of this is assumed: what a model gives
is seen when it runs, and where it reads is proved like everything else.
"""

from dataclasses import replace
from typing import Any

import torch

from ..readout.fidelity import MARGIN, NoiseFloor
from ..readout.measure import gap
from .discover import arbitrary_tokens, vocabulary
from .noise import TOKENS
from .padding import padding_token
from .runner import Runner

_APART = ("multi_label_classification", "regression")
"""Kinds of problem whose labels share no softmax, as Transformers names them."""


def as_it_answers(runner: Runner) -> Runner:
    """The runner, told whether its model answers a whole text with one row of logits.

    Labels that exclude each other have a distribution, the softmax of their logits. A
    single label has none, nor do several that are judged one by one.
    """
    labels = runner.pools(arbitrary_tokens(runner.model, (1, TOKENS)))
    if not labels:
        return runner
    config: Any = getattr(runner.model, "config", None)
    apart = labels == 1 or getattr(config, "problem_type", None) in _APART
    return replace(runner, pooled=True, measure="logit" if apart else "total_variation")


def n_tokens(model: Any) -> int:
    """How many token ids a model takes, where its logits do not tell."""
    embedding = getattr(model, "get_input_embeddings", lambda: None)()
    size = getattr(embedding, "num_embeddings", None)
    return int(size or vocabulary(model))


def skipped_padding(runner: Runner, noise: NoiseFloor) -> int | None:
    """The padding token, if the model reads the token before it at a text's end."""
    token = padding_token(runner.model)
    if not runner.pooled or token is None or token < 0:
        return None
    text = arbitrary_tokens(runner.model, (1, TOKENS))
    filled = torch.cat([text, torch.full((1, 2), token)], 1)
    moved = gap(runner(filled)[0], runner(text)[0], runner.measure)
    floor = noise.logit if runner.measure == "logit" else noise.probability
    return token if float(moved.max()) <= MARGIN * floor else None
