"""Methods that differentiate the head, against plain autograd in float64."""

import numpy as np
import pytest
import torch
from toys import make_head, make_trace, token

from iglens.methods import METHODS, Case
from iglens.readout import CalledReadout
from iglens.records import Target

STEPS = 8
SET = token(5, 9)
CONTRAST = Target((5,), "a", against=(9,), against_text="b")


def plain(head, states, ids, unit="probability"):
    """A level from whole rows of logits."""
    logits = head.post(head.norm(states) @ head.unembed.T + head.bias)
    if unit == "logit":
        return logits[:, list(ids)].logsumexp(1)
    return logits.softmax(-1)[:, list(ids)].sum(1)


def slope(head, states, ids, unit="probability"):
    leaf = states.clone().requires_grad_()
    return torch.autograd.grad(plain(head, leaf, ids, unit).sum(), leaf)[0]


@pytest.fixture(params=["rms", "layer", "gemma"])
def head(request):
    return make_head(norm=request.param, post="soft-cap", dtype=torch.float64)


def case_of(head, target=None, **changes):
    trace = make_trace(head, rows=1)
    return Case(lambda: trace, target or token(5), n_steps=STEPS, **changes)


def test_gradient_times_displacement_is_one_slope_per_layer(head):
    case = case_of(head, SET)
    states = case.states
    expected = (slope(head, states[:-1], (5, 9)) * states.diff(dim=0)).sum(1)
    found = METHODS["gradient-displacement"](case)
    assert found.credits.tolist() == pytest.approx(expected.tolist(), abs=1e-10)
    ends = plain(head, states[[0, -1]], (5, 9))
    assert found.total == pytest.approx(float(ends[1] - ends[0]), abs=1e-10)


def test_idgi_is_that_of_the_published_loop(head):
    case = case_of(head)
    expected = []
    for start, end in zip(case.states[:-1], case.states[1:], strict=True):
        places = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)[:, None]
        path = start + places * (end - start)
        gradients, values = slope(head, path, (5,)), plain(head, path, (5,))
        result = torch.zeros_like(start)
        for j in range(STEPS):
            square = gradients[j] ** 2
            result += square * (values[j + 1] - values[j]) / square.sum()
        expected.append(float(result.sum()))
    found = METHODS["idgi"](case).credits.tolist()
    assert found == pytest.approx(expected, abs=1e-10)
    assert found == pytest.approx(METHODS["ig-lens"](case).credits.tolist(), abs=1e-10)


def test_idgi_shares_a_step_by_squared_gradients(head):
    from iglens.methods.idgi import idgi

    states = make_trace(head, rows=1).states[:2, 0]
    gradients, values = slope(head, states, (5,)), plain(head, states, (5,))
    weights = gradients[0] ** 2 / (gradients[0] ** 2).sum()
    expected = weights * (values[1] - values[0])
    # the gradient of the log-odds has the same direction
    other = slope(head, states, (5,)) * 1e3
    for some in (gradients, other):
        assert torch.allclose(idgi(some, values)[0], expected, rtol=1e-9)


def test_idgi_on_a_flat_segment_is_no_number_and_says_so():
    head = make_head(norm="rms", dtype=torch.float64)
    flat = head.but(unembed=torch.zeros_like(head.unembed))
    found = METHODS["idgi"](case_of(flat, strict=False))
    assert np.isnan(found.credits).all()
    assert "0/0" in found.notes[0]


def test_idgi_counts_every_node_there_and_back(head):
    case = case_of(head)
    METHODS["idgi"](case)
    assert case.evaluations.head == 2 * (STEPS * len(case.layers) + 1)


def test_a_head_that_is_called_gives_the_same(head):
    case = case_of(head)
    linear = case.trace.readout
    called = CalledReadout(
        linear.own_logits, 12, 97, torch.float64, torch.float64, kind="injected"
    )
    other = Case(
        lambda: make_trace(head, rows=1, readout=called), token(5), n_steps=STEPS
    )
    for name in ("idgi", "gradient-displacement", "ig-lens"):
        one, two = (METHODS[name](c).credits.tolist() for c in (case, other))
        assert one == pytest.approx(two, abs=1e-10), name


@pytest.mark.parametrize(
    "unit", ["probability", "log_probability", "log_odds", "logit"]
)
@pytest.mark.parametrize("target", [SET, CONTRAST], ids=["set", "contrast"])
def test_the_plain_level_is_that_of_the_streamed_readout(head, unit, target):
    from iglens.methods.level import plain_level

    case = case_of(head, target, unit=unit)
    logits = head.readout.logits(case.states)
    expected = plain_level(logits, target, unit).tolist()
    if target is CONTRAST and unit == "log_probability":
        return  # read as a difference of logits: the same but for rounding
    assert case.levels(case.states).tolist() == pytest.approx(expected, abs=1e-9)
