"""What the head reads raw, and through a fitted lens."""

from collections.abc import Iterator

import numpy as np

import iglens

from .section import Row, Section, Size, percent
from .subjects import Subject

JUDGED = 512
"""Tokens that lenses are judged on."""


def _layers(subject: Subject) -> list[int]:
    """Some layers from the embedding to the last but one."""
    last = subject.n_layers - 1
    return sorted({round(last * share) for share in (0, 0.25, 0.5, 0.75, 1)})


def _quality(subject: Subject, size: Size) -> Iterator[Row]:
    """Divergence from the final distribution, bias and agreement by layer."""
    texts = None if subject.judged is None else list(subject.judged)
    found = iglens.evaluate_lens(
        subject.decoder, subject.lens, texts, tokens=JUDGED, layers=_layers(subject)
    )
    for at, layer in enumerate(found.layers):
        yield (
            f"{layer} of {subject.n_layers}",
            *(f"{scores.kl_bits[at]:.2f}" for scores in (found.raw, found.fitted)),
            *(f"{scores.bias_bits[at]:.2f}" for scores in (found.raw, found.fitted)),
            *(percent(scores.agreement[at]) for scores in (found.raw, found.fitted)),
        )


def _credits(subject: Subject, size: Size) -> Iterator[Row]:
    """What becomes of credits."""
    for name, lens in (("raw", "logit"), ("fitted", subject.lens)):
        results = [
            iglens.explain(subject.decoder, list(f.ids), target=f.target, lens=lens)
            for f in subject.facts
        ]
        depths = [result.depths[0] for result in results]
        credits = np.concatenate([result.credits for result in results])
        writes = np.concatenate([result.writes for result in results])
        moved = np.abs(credits - writes).sum(1)
        net, commit = (
            [getattr(d, which).upto for d in depths if getattr(d, which) is not None]
            for which in ("onset_net", "commit")
        )
        yield (
            name,
            f"{np.mean(net):.1f} of {subject.n_layers}",
            f"{np.mean(commit):.1f}",
            f"{np.mean([d.overshoot for d in depths]):.2f}",
            f"{credits[:, -1].mean():+.2f}",
            f"{np.abs(credits).sum(1).mean():.2f}",
            f"{moved.mean():.2f}",
        )


QUALITY = Section(
    "lens-quality",
    lambda size: (
        "layer",
        "KL in bits, raw",
        "fitted",
        "bias in bits, raw",
        "fitted",
        "same first choice, raw",
        "fitted",
    ),
    _quality,
)
CREDITS = Section(
    "lens-credits",
    lambda size: (
        "lens",
        "half is readable at layer",
        "for good from",
        "overshoot",
        "last layer's credit",
        "size of all credits",
        "of that, the translators' part",
    ),
    _credits,
)
