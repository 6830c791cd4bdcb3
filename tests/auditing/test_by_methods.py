"""Methods of `compare` held against the effects of an audit."""

import numpy as np
import pytest
import torch
from families import build, some_ids

import iglens
from iglens.auditing import audit
from iglens.model.decoder import Decoder

PROMPTS = [some_ids(n, seed=n) for n in (5, 7, 6)]
TARGETS = [5, 9, 11]


@pytest.fixture(scope="module")
def decoder():
    return Decoder(build("llama", dtype=torch.float64))


def by_name(found):
    return {(one.method, one.with_last): one for one in found.correlations}


def test_every_text_agrees_as_a_comparison_of_it_says(decoder):
    names = ["ig-lens", "dla-sublayer", "logit-lens-frozen", "gate-path"]
    found = by_name(audit(decoder, PROMPTS, target=TARGETS, methods=names))
    for text, (ids, target) in enumerate(zip(PROMPTS, TARGETS, strict=True)):
        for line in iglens.compare(decoder, ids, target=target, methods=names).table:
            rho = found[line.name, True].per_text[text]
            assert rho == pytest.approx(line.agreement)
            rho = found[line.name, False].per_text[text]
            assert rho == pytest.approx(line.agreement_without_last, nan_ok=True)
    for name in names:
        one = found[name, True]
        assert one.mean == pytest.approx(np.mean(one.per_text))
        assert one.low <= one.mean <= one.high


def test_ig_lens_is_the_credit(decoder):
    found = by_name(audit(decoder, PROMPTS, target=TARGETS, methods="ig-lens"))
    for with_last in (True, False):
        own = found["credit", with_last].per_text
        assert found["ig-lens", with_last].per_text == pytest.approx(own)


def test_what_cannot_be_had_says_why_and_stops_nothing(decoder):
    found = audit(decoder, PROMPTS, target=TARGETS, methods="ig-lens-tuned,dla")
    known = by_name(found)
    assert "fitted lens" in known["ig-lens-tuned", True].reason
    assert np.isnan(known["ig-lens-tuned", True].mean)
    assert known["dla", True].reason is None
    assert np.isfinite(known["dla", True].mean)
    assert "ig-lens-tuned: not here" in str(found)


def test_a_lens_and_steps_reach_the_methods(decoder):
    weight = 0.1 * torch.randn(3, 32, 32, dtype=torch.float64)
    lens = iglens.AffineLens("random", 3, (0, 1, 2), weight, weight[:, 0])
    given = {"target": TARGETS, "methods": "ig-lens-tuned"}
    found = by_name(audit(decoder, PROMPTS, **given, lens=lens))
    assert np.isfinite(found["ig-lens-tuned", True].mean)
    told = []
    audit(
        decoder,
        PROMPTS[:1],
        target=5,
        methods="conductance,dla",
        n_steps=2,
        progress=lambda *given: told.append(given),
    )
    assert [given for given in told if given[0] == "Methods"] == [
        ("Methods", 1, 2),
        ("Methods", 2, 2),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": "guesses"}, "known are all"),
        ({"methods": "dla", "by": "sublayer"}, "effects of layers"),
        ({"methods": "dla", "n_steps": 0}, "n_steps"),
    ],
)
def test_what_does_not_go_together_is_refused(decoder, given, message):
    with pytest.raises(iglens.ArgumentError, match=message):
        audit(decoder, PROMPTS, target=5, **given)
