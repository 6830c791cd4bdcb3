"""What two results must have in common before one is taken from the other."""

from collections.abc import Iterable, Iterator

from ..errors import ArgumentError
from .attribution import Attribution


def check_comparable(a: Attribution, b: Attribution) -> None:
    """Refuse results that differ in more than prompt and model.

    Raises:
        ArgumentError: If unit, baseline, lens, estimator or vocabulary differ.
    """
    if found := list(_differences(a, b)):
        raise ArgumentError(
            f"The two results cannot be compared: {'; '.join(found)}. Make both with "
            "the same choices."
        )
    shown = zip(_texts(a), _texts(b), strict=True)
    for token, one, other in _unlike(shown):
        raise ArgumentError(
            f"The two results have different vocabularies: token {token} is {one!r} "
            f"in the first and {other!r} in the second, so that equal ids are not the "
            "same target."
        )


def _differences(a: Attribution, b: Attribution) -> Iterator[str]:
    """What differs and must not, in words."""
    names = {
        "unit": "the unit",
        "baseline_kind": "the baseline",
        "lens": "the lens",
        "estimator": "the estimator",
    }
    for name, what in names.items():
        one, other = getattr(a, name), getattr(b, name)
        if one != other:
            yield f"{what} is {one} in the first and {other} in the second"


def _texts(result: Attribution) -> tuple[dict[int, str], dict[int, str]]:
    """Text of every token, and of every logit, that the result shows.

    Those of a classifier's logits are its labels. What had no tokenizer to know its
    text is left out.
    """
    read = dict(zip(result.token_ids.tolist(), result.token_texts, strict=True))
    known = [
        {token: text for token, text in seen.items() if text != f"<{token}>"}
        for seen in (read, result.vocabulary)
    ]
    return known[0], known[1]


def _unlike(
    shown: Iterable[tuple[dict[int, str], dict[int, str]]],
) -> Iterator[tuple[int, str, str]]:
    """Ids whose text is not the same on both sides, with both texts."""
    for one, other in shown:
        for token in sorted(one.keys() & other.keys()):
            if one[token] != other[token]:
                yield token, one[token], other[token]


def check_paths(a: Attribution, b: Attribution) -> None:
    """Refuse paths through other layers.

    Raises:
        ArgumentError: If they do not stop at the same places; says what they share.
    """
    if [s.place for s in a.segments] == [s.place for s in b.segments]:
        return
    last = a.layers[-1], b.layers[-1]
    if last[0] != last[1]:
        raise ArgumentError(
            f"The first result ends at layer {last[0]} and the second at layer "
            f"{last[1]}: one layer of a model is not the same place as the layer of "
            "that number in a model of another depth."
        )
    shared = [layer for layer in a.layers if layer in b.layers and layer > 0]
    shown = ",".join(map(str, dict.fromkeys(shared)))
    raise ArgumentError(
        f"The paths differ: {_path(a)} in the first and {_path(b)} in the second. Take "
        f"both through the layers they share: `layers` {shown}."
    )


def _path(result: Attribution) -> str:
    """A path in few words."""
    parts = {segment.part for segment in result.segments} - {"block", "blocks"}
    inside = f" with {', '.join(sorted(parts))}" if parts else ""
    return f"{len(result.segments)} segments{inside}"
