"""What was checked, how it was made, where it comes from: the page's small print."""

import json
from dataclasses import dataclass

import numpy as np

from ...records import Attribution, Provenance
from ..charts.words import unit_words
from ..visible import visible


@dataclass(frozen=True)
class Check:
    """One number that was verified.

    Attributes:
        name: What was checked.
        passed: Whether it came out; None where it could not be checked or has no
            bound.
        said: The number beside its bound.
        meaning: What that tells, for somebody who reads it for the first time.
    """

    name: str
    passed: bool | None
    said: str
    meaning: str


def checks(result: Attribution) -> list[Check]:
    """Fidelity, completeness, the certificate and the precision gap."""
    found = [_fidelity(result), _completeness(result)]
    if result.components is not None:
        found.append(_certificate(result))
    gap = float(np.nan_to_num(result.precision_gap).max(initial=0.0))
    found.append(
        Check(
            "precision gap",
            None,
            f"{gap:.1g}",
            "By how much levels here differ from the model's own output in its own "
            "dtype. Shown, never spread over layers.",
        )
    )
    return found


def _fidelity(result: Attribution) -> Check:
    """Whether the readout is the model's own."""
    worst = float(result.fidelity.max(initial=0.0))
    bound = result.readout.tolerance
    logit = result.readout.measure == "logit"
    what = "largest difference of a logit" if logit else "total variation"
    if np.isnan(worst):
        return Check("readout", None, "not verified", "The model's logits are unknown.")
    return Check(
        "readout",
        worst <= bound,
        f"{worst:.1g}, at most {bound:.1g}",
        f"The {what} between what this page reads from the last state and what the "
        "model itself says, over the whole vocabulary.",
    )


def _completeness(result: Attribution) -> Check:
    """Whether credits add up."""
    worst = float(np.nan_to_num(np.abs(result.completeness)).max(initial=0.0))
    if result.estimator == "observed":
        meaning = "Credits are differences of levels, so they add up but for rounding."
        return Check("adds up", worst <= 1e-6, f"within {worst:.1g}", meaning)
    meaning = "What the steps of this estimator miss: a real error of integration."
    return Check("adds up", None, f"within {worst:.1g}", meaning)


def _certificate(result: Attribution) -> Check:
    """Whether parts of layers were integrated well enough."""
    inside = result.components
    assert inside is not None  # else there is nothing to certify
    worst = float(
        np.nan_to_num(np.fmax(inside.residual, inside.disagreement)).max(initial=0.0)
    )
    return Check(
        "parts certified",
        inside.certified,
        f"{worst:.1g}, at most {inside.tolerance:.1g}",
        "What integrals inside layers missed, and by how much two rules of integration "
        "differ on any part.",
    )


def method_card(result: Attribution) -> list[tuple[str, str, str]]:
    """Unit, baseline, path, lens, estimator and readout, each with what it means."""
    model, n = result.provenance.model, len(result.segments)
    return [
        ("Unit", unit_words(result.unit), "What levels and credits are measured in."),
        (
            "Baseline",
            result.baseline_kind,
            "The state that the path starts from; its level is shown first.",
        ),
        (
            "Path",
            f"{n} steps over {model.n_layers} layers",
            "The states of the predicting position, from the first to the last.",
        ),
        (
            "Lens",
            result.lens,
            "How states between layers are read: 'logit' is the model's own head, "
            "unchanged. Through another lens a layer's credit mixes what the block "
            "wrote with what the lens changed.",
        ),
        (
            "Estimator",
            result.estimator,
            "'observed' credits each step with the change of level that it made.",
        ),
        (
            "Readout",
            f"{result.readout.kind}, {result.readout.dtype}",
            f"After the head: {result.readout.postprocess}.",
        ),
    ]


READING = (
    "This is about reading, not about causes. A token becomes readable at a layer when "
    "the model's own head, applied to the state there, begins to say it. A layer "
    "without credit may still have done decisive work that later layers make visible."
)
"""What every reader has to know."""


def provenance(result: Attribution) -> list[tuple[str, str]]:
    """Where a result's numbers come from."""
    return origin(result.provenance)


def origin(known: Provenance) -> list[tuple[str, str]]:
    """Where numbers come from: model, prompt, versions, settings."""
    model = known.model
    versions = ", ".join(f"{name} {number}" for name, number in known.versions.items())
    return [
        ("Model", model.id),
        ("Class", model.architecture),
        ("Revision", model.revision or "not known"),
        ("Weights", model.weights_sha256 or "not known"),
        ("Computes in", model.dtype + (f" ({model.note})" if model.note else "")),
        ("Prompt", visible(known.prompt or "given as token ids")[:2000]),
        ("Made", known.created),
        ("Versions", versions),
        ("Settings", json.dumps(known.settings, ensure_ascii=False, default=str)),
    ]
