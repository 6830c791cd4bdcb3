import numpy as np
import oracle
import pytest
import torch
from toys import NORMS, POSTS, Head, make_head, make_trace, normal, token

from iglens.attribution import Gradient, Observed, attribute
from iglens.errors import ArgumentError
from iglens.records import UNITS

RULES = ("midpoint", "trapezoid", "gauss-legendre")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_nodes_are_those_of_the_rule(rule, n_steps):
    found = Gradient(n_steps, rule).nodes
    np.testing.assert_allclose(found, oracle.quadrature(rule, n_steps), atol=1e-15)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n_steps", [1, 7, 64])
def test_weights_sum_to_one_and_nodes_lie_inside(rule, n_steps):
    places, weights = Gradient(n_steps, rule).nodes.T
    assert weights.sum() == pytest.approx(1.0, rel=1e-14)
    assert (weights > 0).all()
    assert places.min() >= 0
    assert places.max() <= 1
    np.testing.assert_allclose(places, np.sort(1 - places), atol=1e-15)


def test_estimators_are_named_with_all_that_matters():
    assert Observed().name == "observed"
    assert Gradient(7, "trapezoid").name == "gradient(trapezoid, n_steps=7)"
    found = attribute(make_trace(), estimator=Gradient(3))
    assert found.estimator == "gradient(midpoint, n_steps=3)"


@pytest.mark.parametrize("n_steps", [0, -3])
def test_no_step_at_all_is_refused(n_steps):
    with pytest.raises(ArgumentError, match="at least 1"):
        Gradient(n_steps)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("ids", [(3,), (3, 96, 40)])
def test_gradient_credits_are_those_of_reverse_mode_autograd(rule, unit, ids):
    head = make_head(post="soft-cap", dtype=torch.float64)
    trace = make_trace(head, n_layers=3)
    found = attribute(trace, token(*ids), unit=unit, estimator=Gradient(3, rule))
    expected = oracle.gradient_credits(
        head, trace.states, ids, unit, oracle.quadrature(rule, 3)
    )
    np.testing.assert_allclose(found.credits, expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("post", POSTS)
def test_gradients_go_through_every_kind_of_head(norm, post):
    head = make_head(norm=norm, post=post, dtype=torch.float64)
    trace = make_trace(head, n_layers=2)
    targets = [token(3), token(96, 4)]
    found = attribute(trace, targets, estimator=Gradient(2, "trapezoid"))
    for row, target in enumerate(targets):
        expected = oracle.gradient_credits(
            head,
            trace.states,
            target.ids,
            "probability",
            oracle.quadrature("trapezoid", 2),
        )
        np.testing.assert_allclose(
            found.credits[row::2], expected, rtol=1e-9, atol=1e-13
        )


def test_gradients_are_taken_in_the_precision_of_the_readout():
    """Nodes between bfloat16 states are not rounded to bfloat16."""
    head = make_head(dtype=torch.bfloat16)
    trace = make_trace(head, n_layers=3)
    found = attribute(trace, token(3), estimator=Gradient(3))
    expected = oracle.gradient_credits(
        head,
        trace.states,
        [3],
        "probability",
        oracle.quadrature("midpoint", 3),
    )
    np.testing.assert_allclose(found.credits, expected, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("unit", UNITS)
def test_gradients_approach_what_is_observed(rule, unit):
    trace = make_trace(make_head(dtype=torch.float64))
    exact = attribute(trace, unit=unit)
    errors = []
    for n_steps in (2, 8, 32, 128):
        found = attribute(trace, unit=unit, estimator=Gradient(n_steps, rule))
        errors.append(np.abs(found.credits - exact.credits).max())
        np.testing.assert_array_equal(found.levels, exact.levels)
    assert errors[-1] < 1e-3 * errors[0]
    assert errors[-1] < 1e-3 * np.abs(exact.credits).max()


def test_what_gradients_miss_is_reported_and_what_is_observed_misses_nothing():
    trace = make_trace(make_head(dtype=torch.float64))
    found = attribute(trace, estimator=Gradient(2))
    missing = found.credits.sum(1) - (found.final - found.baseline)
    np.testing.assert_allclose(found.completeness, missing, atol=1e-15)
    assert np.abs(found.completeness).max() > 1e-4
    assert np.abs(attribute(trace).completeness).max() <= 1e-12


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n_steps", [1, 2, 5])
def test_without_norm_and_softmax_every_rule_is_direct_logit_attribution(rule, n_steps):
    """The log-odds of two tokens without a norm are linear in the state."""
    unembed = normal(2, 12)
    trace = make_trace(Head(lambda h: h, unembed))
    direct = torch.diff(trace.states, dim=0) @ (unembed[0] - unembed[1])
    for estimator in (Observed(), Gradient(n_steps, rule)):
        found = attribute(trace, token(0), unit="log_odds", estimator=estimator)
        np.testing.assert_allclose(found.credits, direct.T, rtol=1e-10, atol=1e-12)
        coarse = attribute(
            trace, token(0), unit="log_odds", estimator=estimator, layers=[3]
        )
        np.testing.assert_allclose(
            coarse.credits, found.coarsen([3]).credits, rtol=1e-10, atol=1e-12
        )


def test_tokens_the_model_excludes_do_not_spoil_gradients():
    head = make_head(dtype=torch.float64)
    head.bias[10:] = -torch.inf
    trace = make_trace(head, token_ids=torch.tensor([1, 2, 3, 4]))
    kept = head.but(unembed=head.unembed[:10], bias=head.bias[:10])
    small = make_trace(kept, states=trace.states, token_ids=trace.token_ids)
    ours, theirs = (
        attribute(t, token(2, 3), estimator=Gradient(4)) for t in (trace, small)
    )
    np.testing.assert_allclose(ours.credits, theirs.credits, atol=1e-14)
    excluded = attribute(trace, token(20), estimator=Gradient(4))
    assert (excluded.credits == 0).all()


def test_gradients_from_zero_are_finite_with_an_epsilon_in_the_norm():
    found = attribute(make_trace(), baseline="zero", estimator=Gradient(4, "trapezoid"))
    assert np.isfinite(found.credits).all()


def test_a_coarse_gradient_is_warned_of_and_a_fine_one_is_not():
    trace = make_trace(make_head(vocab=31), n_layers=3, rows=4)

    def warned(n_steps):
        found = attribute(trace, estimator=Gradient(n_steps, "gauss-legendre"))
        told = any("miss the change" in warning for warning in found.warnings)
        missed = np.abs(found.completeness) > 0.05 * np.abs(
            found.final - found.baseline
        )
        assert told == missed.any()
        return told

    assert warned(1)
    assert not warned(96)
