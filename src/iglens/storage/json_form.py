"""The published JSON form; `iglens/data/attribution.schema.json` describes it."""

import json
from typing import Any

from ..depths import Depths, Interval
from ..records import Attribution
from ..records.answer import whole_answer
from .answer_form import answer_fields
from .components_form import components_to_json
from .header import header_to_json
from .plain import nulled, written_flags

STABLE = (
    "schema",
    "model",
    "tokens",
    "positions",
    "target",
    "unit",
    "baseline_kind",
    "lens",
    "estimator",
    "readout",
    "layers",
    "labels",
    "segments",
    "levels",
    "credits",
    "baseline",
    "final",
    "model_value",
    "fidelity",
    "precision_gap",
    "completeness",
    "rank",
    "lens_kl",
    "top_tokens",
    "depths",
    "flags",
    "warnings",
    "versions",
)
"""Fields that keep their name and meaning within a version of the schema."""

_NUMBERS = (
    "levels",
    "credits",
    "writes",
    "noise_floor",
    "baseline",
    "final",
    "model_value",
    "fidelity",
    "log_fidelity",
    "precision_gap",
    "completeness",
    "lens_kl",
)


def attribution_to_json(attribution: Attribution) -> dict[str, Any]:
    """The result as JSON values; NaN and infinity become null and a flag.

    Args:
        attribution: The result.

    Returns:
        The document, stable fields first. Floats are exact: they are written with as
        many digits as it takes to read the same number back.
    """
    fields = {
        **header_to_json(attribution, written_flags(attribution)),
        "tokens": _tokens(attribution),
        "positions": attribution.positions.tolist(),
        "layers": list(attribution.layers),
        "labels": [segment.label for segment in attribution.segments],
        **{name: nulled(getattr(attribution, name)) for name in _NUMBERS},
        "rank": [[r or None for r in row] for row in attribution.rank.tolist()],
        "top1": attribution.top1.tolist(),
        "pruned": attribution.pruned.tolist(),
        "top_tokens": _top_tokens(attribution),
        "depths": [_depths(row) for row in attribution.depths],
        "churn": [row.churn for row in attribution.depths],
        "overshoot": [row.overshoot for row in attribution.depths],
    }
    fields["components"] = components_to_json(attribution.components)
    answer = whole_answer(attribution)
    fields["answer"] = None if answer is None else answer_fields(answer)
    stable = {name: fields.pop(name) for name in STABLE}
    return stable | fields


def json_bytes(attribution: Attribution) -> bytes:
    """The document as one line of ASCII, which every terminal and editor can hold."""
    document = attribution_to_json(attribution)
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def _tokens(attribution: Attribution) -> list[dict[str, Any]]:
    ids = attribution.token_ids.tolist()
    return [
        {"position": position, "id": token, "text": text}
        for position, (token, text) in enumerate(
            zip(ids, attribution.token_texts, strict=True)
        )
    ]


def _top_tokens(attribution: Attribution) -> list[list[list[dict[str, Any]]]]:
    """Per row and point the most probable tokens; empty where not computed."""
    texts = attribution.vocabulary
    ids = attribution.top_ids.tolist()
    probabilities = nulled(attribution.top_probabilities)
    return [
        [
            [
                {"id": token, "text": texts.get(token, ""), "probability": probability}
                for token, probability in zip(*point, strict=True)
                if token >= 0
            ]
            for point in zip(*row, strict=True)
        ]
        for row in zip(ids, probabilities, strict=True)
    ]


def _depths(row: Depths) -> dict[str, list[int | None] | None]:
    def pair(interval: Interval | None) -> list[int | None] | None:
        return None if interval is None else list(interval)

    return {
        "onset_mass": pair(row.onset_mass),
        "onset_net": pair(row.onset_net),
        "commit": pair(row.commit),
        "prediction_depth": pair(row.prediction_depth),
    }
