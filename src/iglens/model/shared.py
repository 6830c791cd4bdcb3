"""Texts that begin alike: what they share is run once, behind it each text's own rest.

Examples in front of every question, or one long system message, are most of such
texts. The model keeps what it needs of the beginning in its own cache (keys and values,
or states of a recurrence), which is repeated for every text. Whether that gives what
whole texts give is a matter of the model, its cache and the lengths (a sliding window
may have moved past the beginning): so in every batch one text is run whole too, and
nothing is shared unless its logits are the same up to rounding.
"""

import logging
from collections.abc import Sequence
from functools import partial
from itertools import takewhile
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import UnsupportedModelError
from ..readout.fidelity import NoiseFloor
from .capture import WIDTHS, Captured, Take, capture_batch, passing
from .injected import model_lock
from .noise import same_up_to_rounding
from .picked import keep_argument
from .runner import FAILURES, Runner
from .stream import Stream
from .structure import tensors

WORTHWHILE = 0.75
"""Share of all tokens that may still be run: what is saved must be more than what
repeating a cache and a second pass cost."""

_log = logging.getLogger(__name__)


def capture_alike(
    runner: Runner,
    stream: Stream,
    texts: Sequence[Int[Tensor, " _"]],
    places: Sequence[Int[Tensor, " _"]],
    layers: Sequence[int],
    noise: NoiseFloor,
) -> list[Captured] | None:
    """What `capture_batch` gives, the texts' common beginning run once.

    Args:
        runner: The model.
        stream: Where its residual stream runs.
        texts: Token ids of every text.
        places: Indices of the tokens whose states are wanted, per text, ascending.
        layers: Layers whose states are wanted, 0 and the last among them.
        noise: What the model's own output changes by from batch to batch.

    Returns:
        None where sharing would not pay, or does not give what whole texts give.
    """
    length = shared_length(texts, places)
    if not length or not _may(runner, stream):
        return None
    longest = max(range(len(texts)), key=lambda index: len(texts[index]))
    behind = partial(_behind, runner, stream, layers, length)
    try:
        with model_lock(runner.model):
            found = capture_batch(runner, stream, texts, places, layers, behind)
            few = ([texts[longest]], [places[longest]], (0, stream.n_layers))
            (whole,) = capture_batch(runner, stream, *few)
    except (UnsupportedModelError, *FAILURES) as error:
        _log.info("Texts that begin alike are run whole: %s", error)
        return None
    same = same_up_to_rounding(
        found[longest].logits, whole.logits, noise, runner.measure
    )
    return found if same else None


def shared_length(
    texts: Sequence[Int[Tensor, " _"]], places: Sequence[Int[Tensor, " _"]]
) -> int:
    """Tokens to run once: those that all texts begin with, before any wanted place.

    0 if that, and one whole text to check it by, would spare too little.

    Example:
        >>> texts = [torch.tensor([1, 2, 3, 4, 5, end]) for end in range(6)]
        >>> shared_length(texts, [torch.tensor([5])] * 6)
        5
        >>> shared_length(texts, [torch.tensor([0, 5])] * 6)
        0
    """
    longest = max(map(len, texts))
    columns = zip(*(text.tolist() for text in texts), strict=False)
    alike = sum(1 for _ in takewhile(lambda column: len({*column}) == 1, columns))
    length = min(alike, *(int(wanted[0]) for wanted in places))
    run = length + longest + len(texts) * (longest - length)
    return length if run <= WORTHWHILE * len(texts) * longest else 0


def _may(runner: Runner, stream: Stream) -> bool:
    """Whether the model is one whose texts may continue a cache."""
    plain = not stream.prefix and stream.repeat == 1 and not runner.pooled
    names = {"past_key_values", "use_cache"}
    return plain and runner.inputs is None and runner.accepted >= names


def _behind(
    runner: Runner,
    stream: Stream,
    layers: Sequence[int],
    length: int,
    ids: Int[Tensor, "texts text"],
    kept: Int[Tensor, " kept"],
    take: Take,
) -> Float[Tensor, "texts kept vocab"]:
    """Logits of one pass behind the beginning; states are those of whole texts."""
    beginnings: dict[int, Tensor] = {}

    def remember(layer: int, streams: Tensor) -> None:
        """A layer's states of the beginning."""
        beginnings[layer] = streams.clone()

    def join(layer: int, streams: Tensor) -> None:
        """A layer's states of the rests, behind those of the beginning."""
        first = beginnings.pop(layer).expand(len(streams), -1, -1)
        take(layer, torch.cat([first, streams], 1))

    # no more than what a pass of the whole texts would hold, about
    most = ids.numel() * stream.width * WIDTHS * stream.template.element_size()
    with passing(stream, frozenset(layers), remember):
        cache = _repeated(runner.cache(ids[:1, :length]), len(ids), most)
    more = {"past_key_values": cache, "use_cache": True}
    if "attention_mask" in runner.accepted:
        more["attention_mask"] = torch.ones_like(ids, device=runner.device)
    with passing(stream, frozenset(layers), join):
        keep = keep_argument(kept, ids.shape[1])
        return runner(ids[:, length:], keep=keep, more=more)


def _repeated(cache: Any, n_texts: int, most: int) -> Any:
    """A cache of one text, for so many texts.

    Raises:
        UnsupportedModelError: If there is none that can be repeated, or if it would
            have more bytes than are allowed.
    """
    if not hasattr(cache, "batch_repeat_interleave"):
        raise UnsupportedModelError("the model keeps no cache that can be repeated.")
    size = n_texts * sum(t.nbytes for _, t in tensors([*map(vars, cache.layers)]))
    if size > most:
        raise UnsupportedModelError(f"{size:,} bytes of cache are more than {most:,}.")
    cache.batch_repeat_interleave(n_texts)
    return cache
