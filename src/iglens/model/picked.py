"""Logits of single tokens out of a text, without those of all the tokens behind them.

Most models of Transformers compute the logits of the last so many tokens, or of tokens
that are picked by their indices. The second is written nowhere but in each model's own
code, so it is tried on the text's beginning before it is relied on; other models
compute every logit from the first wanted token on.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from ..errors import UnsupportedModelError
from ..readout.measure import gap
from .injected import model_lock
from .runner import Runner

_TRIED = 9
"""Tokens of the text on which picking is tried."""

_SAME = 0.05
"""Largest gap that rounding may cause, in the lowest precision.

That of another token is larger by far, and every text is checked besides."""


def kept_places(
    runner: Runner,
    ids: Int[Tensor, "texts text"],
    places: Sequence[Int[Tensor, " _"]],
) -> Int[Tensor, " kept"]:
    """Indices of the tokens whose logits are computed, the wanted ones among them.

    The model is not run; whether it can pick must have been tried before.

    Args:
        runner: The model.
        ids: The texts, filled up to one length.
        places: The wanted tokens of every text.
    """
    wanted = torch.cat(list(places)).unique()
    if runner.tried.get("picks", False) and _spares(wanted, ids.shape[1]):
        return wanted
    return torch.arange(int(wanted[0]), ids.shape[1])


def _spares(wanted: Int[Tensor, " wanted"], length: int) -> bool:
    """Whether picking these tokens would spare enough others."""
    return len(wanted) > 1 and length - int(wanted[0]) - len(wanted) > _TRIED


def keep_argument(kept: Int[Tensor, " kept"], length: int) -> int | Tensor:
    """These tokens as a runner takes them: a number of last ones, or indices."""
    last = length - int(kept[0])
    return last if last == len(kept) else kept - length


def try_picking(
    runner: Runner,
    texts: Sequence[Int[Tensor, " _"]],
    places: Sequence[Int[Tensor, " _"]],
) -> None:
    """Find out whether the model can pick, if that would spare logits of these texts.

    Done once for a model, by two short runs of the longest text's beginning.
    """
    longest = max(texts, key=len)
    spares = _spares(torch.cat(list(places)).unique(), len(longest))
    if spares and not runner.pooled and "picks" not in runner.tried:
        with model_lock(runner.model):
            runner.tried["picks"] = picks(runner, longest[None, :_TRIED])


def picks(runner: Runner, ids: Int[Tensor, "one text"]) -> bool:
    """Whether picking two tokens of a text gives their logits and no others."""
    if not runner.can_keep:
        return False
    at = torch.tensor([0, ids.shape[1] // 2])
    try:
        picked = runner(ids, keep=at - ids.shape[1])[0]
    except UnsupportedModelError:
        return False
    own = runner(ids)[0, at.to(picked.device)]
    return picked.shape == own.shape and bool(
        (gap(picked, own, runner.measure) <= _SAME).all()
    )
