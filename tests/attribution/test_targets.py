"""Every scalar of the logits telescopes: contrasts, entropy, divergence, one's own."""

import numpy as np
import oracle
import pytest
import torch
from toys import NORMS, POSTS, make_head, make_trace, normal, token

from iglens.attribution import Gradient, Scalar, attribute
from iglens.attribution.rows import against, against_best_rival
from iglens.errors import ArgumentError, FidelityError
from iglens.records import ENTROPY, KL_TO_FINAL, UNITS, Target

DOUBLE = torch.float64
CONTRAST = token(3, 41).versus(token(96))
STARS = Scalar("stars", lambda z: z[:, :5].softmax(-1) @ torch.arange(5.0).double())


def level(z, target, unit):
    """The level of any target, one per row of logits along points x rows."""
    if target is ENTROPY:
        p = z.softmax(-1)
        return -(p * p.log()).sum(-1)
    if target is KL_TO_FINAL:
        return oracle.divergence(z[-1], z)
    if target is STARS:
        p = z[..., :5].exp()
        return sum(k * p[..., k] for k in range(5)) / p.sum(-1)
    found = oracle.level(z, target.ids, unit)
    return found - oracle.level(z, target.against, unit) if target.against else found


EVERY = [token(5), CONTRAST, ENTROPY, KL_TO_FINAL, STARS]
NAMES = ["token", "contrast", "entropy", "kl", "scalar"]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("budget", [1, 2**26])
def test_every_kind_has_the_levels_of_its_definition(unit, post, norm, budget):
    head = make_head(norm=norm, post=post, dtype=DOUBLE)
    trace = make_trace(head)
    found = attribute(trace, EVERY, unit=unit, memory_budget=budget)
    z = oracle.logits(head, trace.states)
    for row, target in enumerate(EVERY):
        expected = level(z, target, unit).T
        np.testing.assert_allclose(
            found.levels[row :: len(EVERY)], expected, rtol=1e-9, atol=1e-12
        )
    np.testing.assert_allclose(
        found.baseline + found.credits.sum(1), found.final, atol=1e-12
    )
    np.testing.assert_allclose(found.model_value, found.final, atol=1e-11)


@pytest.mark.parametrize("target", EVERY, ids=NAMES)
@pytest.mark.parametrize("unit", ["probability", "log_probability"])
def test_gradients_of_every_kind_approach_the_observed_credit(target, unit):
    head = make_head(post="soft-cap", dtype=DOUBLE)
    trace = make_trace(head, n_layers=3)
    observed = attribute(trace, target, unit=unit)
    missed = [
        attribute(trace, target, unit=unit, estimator=Gradient(n)).credits
        - observed.credits
        for n in (8, 80)
    ]
    assert np.abs(missed[1]).max() < 2e-3
    assert np.abs(missed[1]).max() < np.abs(missed[0]).max() / 20


@pytest.mark.parametrize("target", EVERY[1:], ids=NAMES[1:])
def test_a_single_precision_entropy_is_as_good_as_whole_rows(target):
    head = make_head(spread=8.0)
    trace = make_trace(head)
    found = attribute(trace, target)
    expected = level(oracle.logits(head, trace.states), target, "probability").T
    np.testing.assert_allclose(found.levels, expected, rtol=2e-4, atol=2e-5)


def test_the_units_of_rows_differ_where_the_scalars_do():
    found = attribute(make_trace(), EVERY, unit="log_odds").select([0, 1, 2, 3, 4])
    assert found.units == ("log_odds", "log_odds", "nats", "nats", "scalar")
    assert [t.kind for t in found.targets] == NAMES


def test_only_tokens_and_sets_have_a_rank_and_a_prediction_depth():
    trace = make_trace(make_head(dtype=DOUBLE), rows=1)
    best = int(trace.logits.argmax())
    first = token(best)
    other = token((best + 1) % 97)
    found = attribute(trace, [first, first.versus(other), ENTROPY, STARS])
    assert [d.prediction_depth is None for d in found.depths] == [False, *[True] * 3]
    assert (found.rank[2:] == 0).all()
    assert (found.rank[:2, -1] == 1).all()


def test_noise_floors_belong_to_the_kind():
    trace = make_trace()
    found = attribute(trace, EVERY).select([0, 1, 2, 3, 4])
    p, log = trace.noise.probability, trace.noise.log_probability
    spread = log * (1 + np.log(97))
    np.testing.assert_allclose(found.noise_floor, [p, 2 * p, spread, spread, np.nan])


def test_a_normaliser_cancels_where_both_probabilities_vanish():
    head = make_head(dtype=DOUBLE)
    bias = head.bias.clone()
    bias[[3, 7]] = torch.tensor([-5000.0, -5001.0], dtype=DOUBLE)
    trace = make_trace(head.but(bias=bias))
    found = attribute(trace, token(3).versus(token(7)), unit="log_probability")
    z = oracle.logits(head.but(bias=bias), trace.states)
    np.testing.assert_allclose(found.levels, (z[..., 3] - z[..., 7]).T, rtol=1e-10)


def test_a_contrast_is_verified_on_both_sides():
    trace = make_trace(make_head(dtype=DOUBLE))
    logits = trace.logits.clone()
    logits[:, 96] -= 3 * (logits[:, 96] < logits.mean(1))  # no distribution moves much
    logits[:, 96] -= 1e-6
    moved = trace.with_states(trace.states, logits)
    with pytest.raises(FidelityError):
        attribute(moved, CONTRAST)


def test_raw_logits_are_verified_although_no_distribution_fixes_them():
    trace = make_trace(make_head(dtype=DOUBLE))
    shifted = trace.with_states(trace.states, trace.logits + 0.5)
    assert attribute(shifted, token(3), unit="probability").fidelity.max() < 1e-12
    with pytest.raises(FidelityError):
        attribute(shifted, token(3), unit="logit")


def test_the_best_rival_is_the_most_probable_other_token():
    trace = make_trace(make_head(dtype=DOUBLE))
    pairs = against_best_rival(trace, [token(3), token(5, 8)])
    assert [position for position, _ in pairs] == [1, 1, 2, 2, 3, 3]
    for index, (position, target) in enumerate(pairs):
        own = trace.logits[position - 1]
        rivals = [v for v in range(97) if v not in ((3,), (5, 8))[index % 2]]
        assert target.against == (max(rivals, key=lambda v: float(own[v])),)
    unknown = trace.with_states(trace.states)
    assert against_best_rival(unknown, token(3)) == against_best_rival(trace, token(3))


def test_every_token_of_a_text_may_be_set_against_one_rival():
    trace = make_trace()
    pairs = against(trace, Target((96,), "no"))
    ids = trace.token_ids[1:].tolist()
    assert [target.ids for _, target in pairs] == [(i,) for i in ids]
    assert {target.against for _, target in pairs} == {(96,)}
    assert attribute(trace, pairs).targets[0].kind == "contrast"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: token(3, 5).versus(token(5, 3)), "with itself"),
        (lambda: token(3, 5).versus(token(5)), r"\[5\] on both sides"),
        (lambda: token(3).versus(ENTROPY), "make no contrast"),
        (lambda: CONTRAST.versus(token(5)), "make no contrast"),
        (lambda: against_best_rival(make_trace(), ENTROPY), "entropy' has no rival"),
        (lambda: against_best_rival(make_trace(), CONTRAST), "has no rival"),
        (lambda: Target((), "nothing"), "holds no token"),
        (lambda: Target((1,), "x", kind="entropy"), "has no tokens"),
        (lambda: attribute(make_trace(), Target((3,), "a", (97,), "b")), r"\[97\]"),
        (
            lambda: attribute(make_trace(), Scalar("all", lambda z: z.sum())),
            "one per row",
        ),
        (lambda: attribute(make_trace(), Scalar("none", lambda _: 3)), "one per row"),
    ],
)
def test_what_is_no_target_is_refused_with_the_reason(make, said):
    with pytest.raises(ArgumentError, match=said):
        make()


def test_a_scalar_that_is_not_finite_is_flagged():
    odd = Scalar("odd", lambda z: torch.full_like(z[:, 0], torch.nan))
    found = attribute(make_trace(), odd)
    assert np.isnan(found.credits).all()
    assert {flag.kind for flag in found.flags} == {"non_finite_level"}


def test_masked_tokens_leave_entropy_and_divergence_finite():
    head = make_head(dtype=DOUBLE)
    bias = head.bias.clone()
    bias[:7] = -torch.inf
    trace = make_trace(head.but(bias=bias))
    found = attribute(trace, [ENTROPY, KL_TO_FINAL], estimator=Gradient(80))
    assert np.isfinite(found.levels).all()
    assert np.abs(found.completeness).max() < 1e-2
    z = oracle.logits(head, trace.states)[..., 7:]
    expected = level(z, ENTROPY, "probability").T
    np.testing.assert_allclose(found.levels[::2], expected, rtol=1e-9)


def test_a_row_s_scalar_does_not_depend_on_the_others():
    trace = make_trace(make_head(dtype=DOUBLE), states=normal(4, 6, 12, seed=3))
    together = attribute(trace, EVERY)
    for index, target in enumerate(EVERY):
        alone = attribute(trace, target)
        np.testing.assert_allclose(
            together.levels[index :: len(EVERY)], alone.levels, rtol=1e-10, atol=1e-12
        )
