"""Taking what attention functions are given, and computing weights from it again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...inside import Attended
from ..attention import AttentionFunction
from ..calls import evaluating
from .value_source import ValueSource

_NAMES = ("query", "key", "value", "attention_mask")
"""The first arguments of every attention function, behind the module."""

_FAILURES = (RuntimeError, TypeError, ValueError, LookupError, AttributeError)
"""What a function may raise that is called out of its turn."""


@dataclass(eq=False)
class AttentionCall:
    """What one call of an attention function left, at the wanted places of each text.

    Attributes:
        module: The attention module.
        eager: The function of the model's own file.
        arguments: Arguments by name, for each text: queries of the wanted places, keys
            and values of its tokens.
        read: What the function gave there, (rows, heads, head width), for each text.
        source: The module whose output the values are a view of, if there is one.
    """

    module: nn.Module
    eager: Callable[..., Any]
    arguments: list[dict[str, Any]]
    read: list[Tensor]
    source: ValueSource | None = None


def taken_call(
    function: AttentionFunction,
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    output: Any,
    places: Sequence[Int[Tensor, " _"]],
    lengths: Sequence[int],
) -> AttentionCall | str:
    """What is kept of one call, or why nothing is.

    Args:
        function: The function, with the model's own.
        module: The attention module.
        args: Positional arguments behind it.
        kwargs: The others.
        output: What the function gave.
        places: Wanted places of every text.
        lengths: How many tokens of each text are kept: all up to the last place.
    """
    given = dict(zip(_NAMES, args, strict=False)) | dict(kwargs)
    query, key, value = (given.get(name) for name in _NAMES[:3])
    if function.eager is None or len(args) > len(_NAMES):
        return "its attention has no eager function of the model's own"
    if not (isinstance(query, Tensor) and isinstance(key, Tensor) and query.dim() == 4):
        return "its queries are no tensor of (texts, heads, tokens, head width)"
    tokens = query.shape[2]
    if not isinstance(value, Tensor) or key.shape[2] != tokens:
        return "its keys are not those of the text's tokens"
    if len(query) != len(places) or query.shape[1] % value.shape[1]:
        return "its queries are not those of the texts"
    arguments = [
        _sliced(module, given, text, wanted.to(query.device), length)
        for text, (wanted, length) in enumerate(zip(places, lengths, strict=True))
    ]
    mixed = output[0]
    if mixed.shape[:-1] != (len(query), tokens, query.shape[1]):
        return "its attention gives no tensor of (texts, tokens, heads, head width)"
    read = [mixed[i, wanted.to(mixed.device)] for i, wanted in enumerate(places)]
    return AttentionCall(module, function.eager, arguments, read)


def _sliced(
    module: nn.Module, given: Mapping[str, Any], text: int, wanted: Tensor, length: int
) -> dict[str, Any]:
    """Arguments for the wanted queries of one text."""
    query = given["query"]
    n_texts, _, tokens, _ = query.shape
    found: dict[str, Any] = {}
    for name, item in given.items():
        if not isinstance(item, Tensor):
            found[name] = item
            continue
        if item.dim() > 1 and len(item) == n_texts:
            item = item[text : text + 1]
        if name in ("key", "value"):
            item = item[:, :, :length].clone()
        elif name == "query":
            item = item[:, :, wanted]
        elif item.dim() == 4 and item.shape[-2:] == (tokens, tokens):
            item = item[:, :, wanted, :length]
        found[name] = item
    mask = found.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.dim() != 4:
        mask = _causal(module, given, wanted, length)
    if mask is not None and mask.dtype == torch.bool:
        least = torch.finfo(query.dtype).min
        blank = torch.zeros(mask.shape, dtype=query.dtype, device=mask.device)
        mask = blank.masked_fill(~mask, least)
    found["attention_mask"] = mask
    return found


def _causal(
    module: nn.Module, given: Mapping[str, Any], wanted: Tensor, length: int
) -> Tensor | None:
    """Which keys the wanted queries see where the model gave no mask."""
    causal = given.get("is_causal")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        return None
    apart = wanted[:, None] - torch.arange(length, device=wanted.device)
    seen = apart >= 0
    if (window := given.get("sliding_window")) is not None:
        seen &= apart < window
    return seen[None, None]


def attended(
    call: AttentionCall,
    text: int,
    taken: Float[Tensor, "rows width"],
    *,
    gated: bool = False,
) -> Attended | str:
    """What heads read in one text, if that is what the writer took.

    Args:
        call: What the attention function was given.
        text: Which text.
        taken: What the writer took at the same places.
        gated: Whether the writer takes elementwise multiples of what heads read.
    """
    arguments, read = call.arguments[text], call.read[text]
    n_rows, n_heads, head_width = read.shape
    value = arguments["value"][0]
    if value.shape[-1] != head_width or taken.shape[1] != n_heads * head_width:
        return "what it reads has another width than what it gives"
    pieces = taken.unflatten(1, (n_heads, head_width))
    gate = None
    if not torch.equal(pieces.to(read.device), read):
        if not gated:
            return "something stands between what its heads read and its writer"
        gate = torch.where(read == 0, 0.0, pieces.to(read).double() / read.double())
    bias = None if call.source is None else call.source.bias()
    note = None
    if bias is None and _has_bias(call.module):
        note = "the bias of the values is shared out with them"
    found = Attended(
        values=value,
        bias=torch.zeros_like(value[:, 0]) if bias is None else bias,
        weights=_Weights(call, arguments),
        n_rows=n_rows,
        n_heads=n_heads,
        gate=gate,
        note=note,
    )
    return _proved(found, pieces)


def _has_bias(module: nn.Module) -> bool:
    """Whether something in a module is added that is not zero."""
    return any(
        name.endswith("bias") and bool(weight.any())
        for name, weight in module.named_parameters()
    )


class _Weights:
    """Attention weights of some rows, by the model's own eager function."""

    def __init__(self, call: AttentionCall, arguments: Mapping[str, Any]) -> None:
        """Take the call, and what one text gave."""
        self._call, self._arguments = call, arguments

    @torch.no_grad()
    def __call__(self, rows: slice) -> Float[Tensor, "rows heads tokens"]:
        """Weights of these rows."""
        given = dict(self._arguments)
        given["query"] = given["query"][:, :, rows]
        if (mask := given["attention_mask"]) is not None:
            given["attention_mask"] = mask[:, :, rows]
        first = [given.pop(name) for name in _NAMES]
        with evaluating(self._call.module):
            _, weights = self._call.eager(self._call.module, *first, **given)
        found: Tensor = weights[0].transpose(0, 1)
        return found


def _proved(found: Attended, pieces: Tensor) -> Attended | str:
    """What was read, if it adds up to what the writer took."""
    try:
        read = found.read()
    except _FAILURES as error:
        kind = type(error).__name__
        return f"its attention cannot be computed again for some queries ({kind})"
    # the softmax of most models computes in single precision, whatever the dtype
    eps = max(torch.finfo(pieces.dtype).eps, torch.finfo(torch.float32).eps)
    steps = 8 if pieces.dtype.itemsize < 4 else 64
    missed = (read - pieces.to(read)).square().sum((1, 2)).sqrt()
    largest = found.values.double().square().sum(2).amax().sqrt()
    size = pieces.to(read).square().sum((1, 2)).sqrt() + largest
    if not bool((missed <= steps * eps * size).all()):
        return "its own attention weights times the values are not what its heads give"
    return found
