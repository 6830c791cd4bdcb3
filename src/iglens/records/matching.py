"""Which row of one result belongs to which row of another."""

from collections import defaultdict

import numpy as np

from ..errors import ArgumentError
from .attribution import Attribution

_Key = tuple[int, tuple[object, ...]]
"""Place and target of a row."""


def matched(
    a: Attribution, b: Attribution
) -> tuple[list[int], list[int], tuple[str, ...]]:
    """Rows that belong together, in the order of `a`; see `iglens.diff`.

    Returns:
        Rows of `a`, the rows of `b` that belong to them, and what was left out.

    Raises:
        ArgumentError: If no row has a counterpart.
    """
    keys_a, keys_b = _keys(a, b)
    waiting: defaultdict[_Key, list[int]] = defaultdict(list)
    for row, key in reversed(list(enumerate(keys_b))):
        waiting[key].append(row)
    pairs = [
        (row, waiting[key].pop()) for row, key in enumerate(keys_a) if waiting[key]
    ]
    if not pairs:
        raise ArgumentError(
            f"The two results explain nothing in common: the first {_rows(a)}, the "
            f"second {_rows(b)} (places counted from the end of the prompt). Explain "
            "the same `target` or `answer` in both."
        )
    rows_a, rows_b = ([*rows] for rows in zip(*pairs, strict=True))
    return rows_a, rows_b, _left_out(a.n_rows - len(pairs), b.n_rows - len(pairs))


def _keys(a: Attribution, b: Attribution) -> tuple[list[_Key], list[_Key]]:
    """Place and target of every row."""
    same_text = np.array_equal(a.token_ids, b.token_ids)
    starts = (0, 0) if same_text else (prompt_length(a), prompt_length(b))
    return _from(a, starts[0]), _from(b, starts[1])


def _from(result: Attribution, start: int) -> list[_Key]:
    """Place, counted from `start`, and target of every row."""
    positions = (result.positions - start).tolist()
    return [(p, t.key) for p, t in zip(positions, result.targets, strict=True)]


def prompt_length(result: Attribution) -> int:
    """Tokens of the prompt; of the whole text where that was not recorded."""
    known = result.provenance.settings.get("prompt_tokens")
    return known if isinstance(known, int) else len(result.token_ids)


def _rows(result: Attribution) -> str:
    """The first rows in words."""
    start = prompt_length(result)
    shown = [
        f"{target.name!r} at {position - start:+d}"
        for position, target in zip(result.positions, result.targets, strict=True)
    ]
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    return f"{', '.join(shown[:3])}{more}"


def _left_out(of_a: int, of_b: int) -> tuple[str, ...]:
    """A note on rows without a counterpart."""
    if not of_a + of_b:
        return ()
    return (
        f"Rows without a counterpart are left out: {of_a} of the first result and "
        f"{of_b} of the second.",
    )
