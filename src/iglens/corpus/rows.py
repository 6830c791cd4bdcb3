"""Results as rows of a table: one row per explained token, lists over the path.

The columns, in this order; a column of the input follows under its own name, with an
underscore if that is one of these:

    key             hash of token ids before the position, target and settings
    content         the same without the settings: pairs rows of two runs
    index, id       place of the input row, and what it calls itself
    prompt          the prompt, if it is text
    prompt_tokens   its length in tokens
    position        index of the predicted token
    offset          the same, counted from the end of the prompt
    target          text of the target
    target_ids      its token ids
    token_class     what kind of text it is
    correct         whether the target is the model's most probable token; null where
                    that has no meaning
    unit            of all levels and credits
    baseline, final, model_value, fidelity, precision_gap, completeness
                    as in `Attribution`
    levels          level of the target at every point of the path
    credits         credit of every segment
    onset_mass, onset_net, commit, prediction_depth
                    layers up to which it happened; null where there are none
    churn, overshoot
                    as in `Depths`
    flags           what is odd about the row
    parts, others   below parts of blocks: what is listed of each segment, and the rest
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..records import Attribution
from ..records.table import utf8
from .items import Item
from .token_class import token_class

if TYPE_CHECKING:
    import pyarrow

_DEPTHS = ("onset_mass", "onset_net", "commit", "prediction_depth")
_NUMBERS = (
    "baseline",
    "final",
    "model_value",
    "fidelity",
    "precision_gap",
    "completeness",
)
_RANKED = ("token", "set")

Row = dict[str, Any]


@dataclass(frozen=True)
class Explained:
    """One row of the input with what was found.

    Attributes:
        item: The row.
        result: Its result.
        prompt_tokens: Length of its prompt.
    """

    item: Item
    result: Attribution
    prompt_tokens: int


def table(
    found: Sequence[Explained], types: dict[str, str], settings: str, *, inside: bool
) -> "pyarrow.Table":
    """The rows of some results.

    Args:
        found: The results.
        types: Type of every column of metadata.
        settings: Hash of the settings, for the keys.
        inside: Whether parts of segments are listed.
    """
    import pyarrow

    schema = _schema(types, inside)
    rows = [row for each in found for row in _rows(each, types, settings)]
    return pyarrow.Table.from_pylist(rows, schema=schema)


def own_name(column: str) -> str:
    """What a column of the input is called among ours."""
    return f"{column}_" if column in _OURS else column


def _rows(each: Explained, types: dict[str, str], settings: str) -> Iterable[Row]:
    """The rows of one result."""
    item, result = each.item, each.result
    metadata = {own_name(n): _cast(item.metadata.get(n), types[n]) for n in types}
    ids = result.token_ids.tolist()
    odd: dict[int, list[str]] = {}
    for flag in result.flags:
        odd.setdefault(flag.row, []).append(flag.kind)
    ranked = result.readout.measure == "total_variation"
    for row, target in enumerate(result.targets):
        position = int(result.positions[row])
        content = [ids[:position], target.ids, target.against, target.kind]
        found = {
            "key": _digest([*content, settings]),
            "content": _digest(content),
            "index": item.index,
            "id": utf8(item.id),
            "prompt": utf8(item.prompt) if isinstance(item.prompt, str) else None,
            "prompt_tokens": each.prompt_tokens,
            "position": position,
            "offset": position - each.prompt_tokens,
            "target": utf8(target.name),
            "target_ids": list(target.ids),
            "token_class": token_class(target.text),
            "correct": bool(result.top1[row, -1])
            if ranked and target.kind in _RANKED
            else None,
            "unit": result.units[row],
            **{name: float(getattr(result, name)[row]) for name in _NUMBERS},
            "levels": result.levels[row],
            "credits": result.credits[row],
            **_depths(result, row),
            "flags": sorted(set(odd.get(row, []))),
        }
        yield found | _inside(result, row) | metadata


def _depths(result: Attribution, row: int) -> Row:
    """The depths of one row, as the layers they end at."""
    depths = result.depths[row]
    found: Row = {}
    for name in _DEPTHS:
        interval = getattr(depths, name)
        found[name] = None if interval is None else interval.upto
    return found | {"churn": depths.churn, "overshoot": depths.overshoot}


def _inside(result: Attribution, row: int) -> Row:
    """What is listed inside the segments of one row."""
    inside = result.components
    if inside is None:
        return {}
    columns = (
        inside.segments,
        inside.kinds,
        inside.indices[row],
        inside.sources[row],
        inside.credits[row],
    )
    names = ("segment", "kind", "index", "source", "credit")
    return {
        "parts": [
            dict(zip(names, map(_plain, part), strict=True))
            for part in zip(*columns, strict=True)
        ],
        "others": inside.others[row],
    }


def _plain(value: Any) -> Any:
    """A NumPy scalar as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def _digest(content: list[Any]) -> str:
    """32 hexadecimal digits of SHA-256."""
    text = json.dumps(content, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _cast(value: Any, kind: str) -> Any:
    """A value of metadata as its column has it."""
    if value is None:
        return None
    if kind == "string":
        return utf8(value if isinstance(value, str) else json.dumps(value))
    return float(value) if kind == "float" else value


_OURS = {
    "key": "string",
    "content": "string",
    "index": "int",
    "id": "string",
    "prompt": "string",
    "prompt_tokens": "int",
    "position": "int",
    "offset": "int",
    "target": "string",
    "target_ids": "ints",
    "token_class": "string",
    "correct": "bool",
    "unit": "string",
    **dict.fromkeys(_NUMBERS, "float"),
    "levels": "floats",
    "credits": "floats",
    **dict.fromkeys(_DEPTHS, "int"),
    "churn": "float",
    "overshoot": "float",
    "flags": "strings",
}


def _schema(types: dict[str, str], inside: bool) -> "pyarrow.Schema":
    """Names and types of all columns."""
    import pyarrow as pa

    known = {
        "string": pa.string(),
        "bool": pa.bool_(),
        "int": pa.int64(),
        "float": pa.float64(),
    }
    lists = {f"{name}s": pa.list_(kind) for name, kind in known.items()}
    known |= lists
    part = [
        ("segment", pa.int64()),
        ("kind", pa.string()),
        ("index", pa.int64()),
        ("source", pa.int64()),
        ("credit", pa.float64()),
    ]
    fields = [(name, known[kind]) for name, kind in _OURS.items()]
    if inside:
        fields += [
            ("parts", pa.list_(pa.struct(part))),
            ("others", pa.list_(pa.float64())),
        ]
    fields += [(own_name(name), known[kind]) for name, kind in types.items()]
    return pa.schema(fields)
