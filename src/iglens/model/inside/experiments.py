"""What a module does, tried out on what it was given.

Does it mix tokens, is it linear, has each head its own place? The module is called
again on copies of its arguments in which one thing is changed.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from ..structure import Place, get, put, tensors

_FAILURES = (RuntimeError, TypeError, ValueError, LookupError, AttributeError)
"""What a module may raise that is called out of its turn."""


@dataclass(frozen=True, eq=False)
class Case:
    """A module with what it was given and gave for one text.

    Attributes:
        module: The module.
        given: Its arguments, `(args, kwargs)`, as they were before the call.
        output: What it gave.
        tokens: Length of the axis of tokens.
    """

    module: nn.Module
    given: Any
    output: Any
    tokens: int

    def again(self, given: Any) -> Any:
        """Its output for these arguments, which stay as they are."""
        args, kwargs = frozen(given)
        return self.module(*args, **kwargs)

    def token_axis(self, tensor: Any) -> int | None:
        """The axis of tokens of a tensor."""
        shape = tensor.shape if isinstance(tensor, Tensor) else ()
        return next((a for a, size in enumerate(shape) if size == self.tokens), None)


def mixes_tokens(
    case: Case, given: Sequence[Place], returned: Sequence[Place]
) -> bool | None:
    """Whether another first token changes what later ones get.

    Args:
        case: The module.
        given: Places of the arguments in which the token is changed.
        returned: Places of the outputs that are looked at.

    Returns:
        None if it cannot be told: the module does not give the same twice, or nothing
        it is given or gives has an axis of tokens.
    """
    changed = case.given
    for place in given:
        tensor = get(case.given, place)
        if (axis := case.token_axis(tensor)) is None:
            continue
        first, second = tensor.select(axis, 0), tensor.select(axis, 1)
        other = tensor.clone()
        other.select(axis, 0).copy_(second - 2 * first)
        changed = put(changed, place, other)
    if changed is case.given:
        return None
    try:
        same, moved = case.again(case.given), case.again(changed)
    except _FAILURES:
        return None
    found = None
    for place in returned:
        before, after = get(case.output, place), get(moved, place)
        if (axis := case.token_axis(before)) is None:
            continue
        if differ(get(same, place), before):
            return None
        later = case.tokens - 1
        found = bool(found) or differ(
            after.narrow(axis, 1, later), before.narrow(axis, 1, later)
        )
    return found


def linear_width(case: Case) -> int | None:
    """Numbers per token that a module takes, if it maps each token alone and linearly.

    Such a map commutes with any that acts on tokens alone. With `f` the module,
    `b = f(0)` and `x'` the tokens in reverse order, every second of them zero:
    `f(2x + x') - b = 2 (f(x) - b) + (f(x) - b)'`.
    """
    floats = [item for item in tensors(case.given) if item[1].is_floating_point()]
    if len(floats) != 1 or not isinstance(case.output, Tensor):
        return None
    ((place, taken),) = floats
    axis = case.token_axis(taken)
    if axis is None or taken.numel() != taken.shape[-1] * case.tokens:
        return None

    def moved(tokens: Tensor) -> Tensor:
        odd = torch.arange(1, case.tokens, 2, device=tokens.device)
        return tokens.flip(axis).index_fill(axis, odd, 0.0)

    try:
        offset = case.again(put(case.given, place, torch.zeros_like(taken)))
        mixed = case.again(put(case.given, place, 2 * taken + moved(taken)))
    except _FAILURES:
        return None
    update = case.output - offset
    expected = 2 * update + moved(update) + offset
    return None if differ(mixed, expected, steps=8) else taken.shape[-1]


def separate_heads(
    written: Callable[[int | None], Tensor], attended: Sequence[tuple[int, ...]]
) -> tuple[int | None, str | None]:
    """Number of heads, if each has its own piece of what the writer takes.

    Args:
        written: What the writer takes if this head of the attention is changed.
        attended: Shapes (texts, tokens, heads, head width) of what the attention
            functions gave.

    Returns:
        The number, or why there is none.
    """
    if not attended:
        return None, "its attention does not run through `AttentionInterface`"
    if len(attended) > 1:
        return None, f"it attends {len(attended)} times"
    heads, width = attended[0][2:]
    try:
        plain, *changed = (written(head) for head in (None, 0, heads - 1))
    except _FAILURES as error:
        return None, f"it cannot be called again alone ({type(error).__name__})"
    if plain.shape[-1] != heads * width:
        return None, (
            f"its writer takes {plain.shape[-1]} numbers per token, which are not "
            f"{heads} heads of {width}"
        )
    pieces = plain.unflatten(-1, (heads, width))
    for head, other in zip((0, heads - 1), changed, strict=True):
        moved = other.unflatten(-1, (heads, width))
        rest = [h for h in range(heads) if h != head]
        if not differ(moved[..., head, :], pieces[..., head, :]) or differ(
            moved[..., rest, :], pieces[..., rest, :]
        ):
            return None, "what stands between the heads and its writer mixes them"
    return heads, None


def gates_alone(written: Callable[[int | None], Tensor], read: Tensor) -> bool:
    """Whether the writer takes what heads read, number by number, times some factors.

    If it does, a head that reads `1 - 2 r` in place of `r` leaves `f - 2 f r` for the
    writer: with `f r`, twice, that adds up to the factors `f`, which must fit.

    Args:
        written: What the writer takes if this head of the attention is changed so.
        read: What the attention function gave, (texts, tokens, heads, head width).
    """
    heads, width = read.shape[2:]
    plain = written(None).unflatten(-1, (heads, width)).flatten(0, -3)
    for head in (0, heads - 1):
        changed = written(head).unflatten(-1, (heads, width)).flatten(0, -3)
        factors = changed[:, head] + 2 * plain[:, head]
        expected = factors * read.flatten(0, 1)[:, head].to(factors)
        if differ(expected, plain[:, head], steps=8):
            return False
    return True


def frozen(structure: Any) -> Any:
    """A copy of arguments that calling with them does not change, caches included."""
    if isinstance(structure, Tensor):
        return structure.clone()
    if isinstance(structure, Cache):
        return copy.deepcopy(structure)
    if isinstance(structure, dict):
        return {name: frozen(item) for name, item in structure.items()}
    if type(structure) in (tuple, list):
        return type(structure)(frozen(item) for item in structure)
    return structure


def differ(one: Tensor, other: Tensor, *, steps: int = 1) -> bool:
    """Whether two results differ by more than rounding, in the root mean square.

    In half precision by more than `steps` steps of the dtype: one for numbers that are
    equal but for the order of sums, more for those computed in another way. Sums of
    many products round by more than one step in the wider dtypes.
    """
    if one.shape != other.shape:
        return True
    if one.dtype in (torch.float32, torch.float64):
        steps = 64
    gap, size = ((one - other).double(), other.double())
    least = steps * torch.finfo(one.dtype).eps
    return bool(gap.square().sum() > least**2 * size.square().sum())
