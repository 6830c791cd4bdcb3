"""What is inside layers, as maps: heads by layer, source tokens by layer."""

import numpy as np
from jaxtyping import Float

from ...errors import ArgumentError
from ...records import Attribution
from ...records.components import Components
from ..text import format_credit
from .heat import DIGITS_UP_TO, Look, heat, symmetric, tiles
from .theme import Chart, Theme, titled
from .words import method_words, named, token_labels


def head_map(result: Attribution, row: int, theme: Theme) -> Chart:
    """Head x layer: what every head's writing added to one row.

    Raises:
        ArgumentError: If the result has no heads.
    """
    inside = _opened(result, ("head", "source"), "`by='head'` or 'source'")
    layers, values = heads(result, inside, row)
    columns = [str(head) for head in range(values.shape[0])]
    note = "Heads that are not listed are empty; they are summed as others."
    return _map(result, row, theme, values, columns, layers, "head", "heads", note=note)


def heads(
    result: Attribution, inside: Components, row: int
) -> tuple[list[str], Float[np.ndarray, "heads layers"]]:
    """Layers in which there are heads, and every head's credit in each; NaN: unlisted.

    What a head read from several tokens is added up.
    """
    wanted = [i for i, k in enumerate(inside.kinds) if k in ("head", "source")]
    numbers = np.broadcast_to(inside.indices, inside.credits.shape)[row]
    at = [result.segments[inside.segments[i]].layer for i in wanted]
    layers = sorted(set(at))
    count = int(max((numbers[i] for i in wanted), default=-1)) + 1
    found = np.full((count, len(layers)), np.nan)
    for part, layer in zip(wanted, at, strict=True):
        cell = int(numbers[part]), layers.index(layer)
        credit = float(inside.credits[row, part])
        found[cell] = credit if np.isnan(found[cell]) else found[cell] + credit
    return [str(layer) for layer in layers], found


def source_map(result: Attribution, row: int, theme: Theme) -> Chart:
    """Source token x layer: what attention read from every token, heads together.

    Raises:
        ArgumentError: If the result was not made by source.
    """
    inside = _opened(result, ("source",), "`by='source'`")
    layers, values = sources(result, inside, row)
    labels = token_labels(result.token_texts)[: values.shape[0]]
    note = "A token's state already mixes earlier tokens: read from, not caused by."
    return _map(
        result, row, theme, values, labels, layers, "token read from", "tokens",
        note=note,
    )  # fmt: skip


def sources(
    result: Attribution, inside: Components, row: int
) -> tuple[list[str], Float[np.ndarray, "text layers"]]:
    """Layers that read, and what they read from every token before the predicted."""
    assert inside.tokens is not None  # by source
    read = inside.tokens[row]
    upto = max(1, min(int(result.positions[row]), read.shape[1]))
    opened = [i for i in range(len(result.segments)) if inside.n_parts[i]]
    layers = [str(result.segments[i].layer) for i in opened]
    return layers, read[opened][:, :upto].T


def _opened(result: Attribution, by: tuple[str, ...], ways: str) -> Components:
    """The components, if they were made in one of some ways.

    Raises:
        ArgumentError: If not.
    """
    inside = result.components
    if inside is None or inside.by not in by:
        made = "without components" if inside is None else f"by {inside.by}"
        raise ArgumentError(f"This result was made {made}; this picture needs {ways}.")
    return inside


def _map(
    result: Attribution,
    row: int,
    theme: Theme,
    values: Float[np.ndarray, "columns layers"],
    columns: list[str],
    layers: list[str],
    axis: str,
    what: str,
    *,
    note: str,
) -> Chart:
    """A heat map of parts of one row, with its largest cells told."""
    unit = result.units[row]
    ends = symmetric(values)
    look = Look(
        columns=axis,
        rows="layer",
        legend="credit",
        names=(columns, layers),
        domain=ends,
        digits=len(columns) <= DIGITS_UP_TO,
        upright=axis == "head",
    )
    texts = [[format_credit(v, unit) for v in column] for column in values.tolist()]
    data = tiles(values, texts, {}, look, least=0.02 * ends[1])
    order = np.argsort(-np.nan_to_num(np.abs(values)), axis=None)[:5]
    told = ", ".join(
        f"{axis} {columns[c]} in layer {layers[s]} {texts[c][s]}"
        for c, s in zip(*np.unravel_index(order, values.shape), strict=True)
    )
    return titled(
        heat(data, look, theme),
        f"Which {what} {named(result.targets[row])} was read from"
        if axis != "head"
        else f"Which heads wrote {named(result.targets[row])}",
        [f"position {result.positions[row]} · {method_words(result)}", note],
        f"Heat map of credit, {len(columns)} {what} across, {len(layers)} layers down. "
        f"Largest: {told}. {note}",
    )
