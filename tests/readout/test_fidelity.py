"""Right readings pass in silence; every mutant is refused, and its cause is named."""

import re
from dataclasses import replace

import oracle
import pytest
import torch
from toys import (
    DTYPES,
    FAMILIES,
    NORMS,
    POSTS,
    TOLERANCES,
    LargestTensor,
    make_head,
    make_post,
    make_states,
    make_trace,
    normal,
    tiny_decoder,
    token,
)

from iglens.attribution import attribute
from iglens.errors import FidelityError, NonFiniteError
from iglens.readout import LinearReadout
from iglens.readout.fidelity import check, diagnose
from iglens.readout.measure import total_variation
from iglens.readout.target import margin

ROWS = 6


def refusal(trace, targets=None):
    with pytest.raises(FidelityError) as error:
        attribute(trace, targets)
    return str(error.value)


def assert_flagged_only(trace, kind="unfaithful", targets=None):
    """Not strict: every row is returned, and marked."""
    found = attribute(trace, targets, strict=False)
    assert {flag.kind for flag in found.flags} == {kind}
    assert {flag.row for flag in found.flags} == set(range(found.n_rows))
    assert all(flag.point is None for flag in found.flags)


def least_probable(trace):
    """Per position, the token the model gives the lowest probability."""
    worst = trace.logits.argmin(1).tolist()
    return [
        (position, token(one))
        for position, one in zip(trace.positions.tolist(), worst, strict=True)
    ]


# --- the comparison itself ---------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("budget", [0, 97 * 4 * 6 * 2, 2**26])
def test_the_check_compares_whole_distributions_in_any_memory(dtype, budget):
    head, tokens = make_head(dtype=dtype), torch.tensor([[3], [-1], [96], [0], [7]])
    states = normal(5, 12, dtype=dtype)
    own = (head.readout.logits(states).double() + normal(5, 97)).to(dtype)
    found = check(head.readout, states, own, tokens, memory_budget=budget)
    expected = oracle.total_variation(head.readout.logits(states), own)
    torch.testing.assert_close(found.missed, expected, rtol=1e-5, atol=1e-6)
    chosen = tokens >= 0
    log_p = torch.nn.functional.logsigmoid(margin(found.own, chosen))
    for row, one in enumerate(tokens[:, 0].tolist()):
        if one >= 0:
            expected = oracle.level(own[row].double(), [one], "log_probability")
            assert float(log_p[row]) == pytest.approx(float(expected), rel=1e-5)


def test_total_variation_is_zero_for_equals_and_one_for_strangers():
    z = normal(4, 97, dtype=torch.float32)
    assert total_variation(z, z + 3).max() < 1e-6
    apart = torch.tensor([[900.0, 0.0]]), torch.tensor([[0.0, 900.0]])
    assert float(total_variation(*apart)) == 1.0


def test_the_check_allocates_no_tensor_larger_than_the_budget():
    head, tokens = make_head(vocab=50_021, d_model=32, bias=False), torch.zeros(300, 1)
    states = normal(300, 32, dtype=torch.float32)
    own = head.readout.logits(states)
    budget = 2**22
    with LargestTensor() as largest:
        found = check(head.readout, states, own, tokens.long(), memory_budget=budget)
    assert found.missed.max() < 1e-5
    assert 0 < largest.bytes <= budget, largest.made_by


# --- right readings are accepted ---------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_right_states_are_accepted_in_silence(norm, post, dtype):
    trace = make_trace(make_head(norm=norm, post=post, dtype=dtype), rows=ROWS)
    for targets in (None, least_probable(trace)):
        found = attribute(trace, targets)
        assert found.flags == ()
        assert found.warnings == () or "baseline" in found.warnings[0]
        assert found.fidelity.max() <= TOLERANCES[dtype].total_variation
        assert found.log_fidelity.max() <= TOLERANCES[dtype].log_probability


def test_what_is_within_tolerance_is_accepted_and_reported():
    trace = make_trace(rows=ROWS)
    noisy = trace.logits + 1e-6 * normal(*trace.logits.shape, dtype=torch.float32)
    found = attribute(trace.with_states(trace.states, noisy))
    assert found.flags == ()
    assert (found.fidelity > 0).all()
    expected = oracle.total_variation(trace.logits, noisy).numpy()
    assert found.fidelity == pytest.approx(expected, abs=1e-6)


def test_a_token_the_model_excludes_is_accepted():
    head = make_head()
    head.bias[9] = -torch.inf
    found = attribute(make_trace(head, rows=ROWS), token(9))
    assert (found.levels == 0).all()
    assert (found.credits == 0).all()
    assert found.flags == ()


# --- mutants are refused -----------------------------------------------------------


@pytest.mark.parametrize("norm", ["rms", "layer", "gemma"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_state_that_is_normed_already_is_refused(norm, dtype):
    head = make_head(norm=norm, dtype=dtype)
    trace = make_trace(head, rows=ROWS)
    states = trace.states.clone()
    states[-1] = head.norm(states[-1])
    mutant = trace.with_states(states, trace.logits)
    assert "already carries the final norm" in refusal(mutant)
    assert_flagged_only(mutant)


@pytest.mark.parametrize("improbable", [False, True])
def test_a_double_norm_is_refused_where_the_target_alone_would_pass(improbable):
    """The target's probability stays below 1e-8 whatever is done to the state."""
    head = make_head(spread=3.0, dtype=torch.float64)
    head.bias[0] = -60.0
    trace = make_trace(head, rows=ROWS)
    targets = (
        token(0) if improbable else token(*trace.logits.argmax(1).unique().tolist())
    )
    right = attribute(trace, targets)
    assert (right.final.max() < 1e-8) == improbable
    states = trace.states.clone()
    states[-1] = head.norm(states[-1])
    mutant = trace.with_states(states, trace.logits)
    wrong = attribute(mutant, targets, strict=False)
    assert (abs(wrong.final - right.final).max() < 1e-8) == improbable
    assert "already carries the final norm" in refusal(mutant, targets)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"post": make_post("soft-cap")}, r"level off at 3\b.*soft-cap is missing"),
        ({"post": make_post("scale")}, r"factor of 0\.4\d*: a logit scale is missing"),
        ({"bias": normal(97, seed=5)}, "a bias is missing"),
    ],
    ids=["soft-cap", "scale", "bias"],
)
def test_a_readout_that_lacks_a_part_is_refused(norm, dtype, changes, cause):
    plain = make_head(norm=norm, bias=False, dtype=dtype)
    if "bias" in changes:
        changes = {"bias": changes["bias"].to(dtype)}
    trace = make_trace(plain.but(**changes), rows=ROWS)
    attribute(trace)
    mutant = replace(trace, readout=plain.readout)
    assert_flagged_only(mutant)
    message = refusal(mutant)
    if dtype == torch.bfloat16:  # rounding blurs how the logits relate
        cause = "missing|No simple relation"
    assert re.search(cause, message), message
    for target in least_probable(trace):
        refusal(mutant, [target])


@pytest.mark.parametrize("dtype", DTYPES)
def test_states_that_are_one_layer_early_are_refused(dtype):
    """The last block's output is missing; everything moved up by one."""
    trace = make_trace(make_head(dtype=dtype), rows=ROWS)
    early = torch.cat([trace.states[:1], trace.states[:-1]])
    message = refusal(trace.with_states(early, trace.logits))
    assert "the state is of another run or layer" in message
    assert_flagged_only(trace.with_states(early, trace.logits))


@pytest.mark.parametrize("dtype", DTYPES)
def test_states_that_are_one_layer_late_are_refused(dtype):
    """The path goes on after the last block's output."""
    trace = make_trace(make_head(dtype=dtype), rows=ROWS)
    late = torch.cat([trace.states[1:], trace.states[-1:] + trace.states[:1]])
    mutant = trace.with_states(late, trace.logits)
    assert "1 step(s) before the last one fits" in refusal(mutant)
    assert_flagged_only(mutant)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shift", "cause"),
    [(1, "fits the next row"), (-1, "fits the row before"), (2, "another run")],
)
@pytest.mark.parametrize("targets", [None, [token(1), token(2)]])
def test_states_of_other_positions_are_refused(dtype, shift, cause, targets):
    """Also where several targets are asked about at one position."""
    trace = make_trace(make_head(dtype=dtype), rows=ROWS + 3)
    rows = torch.arange(1, ROWS + 1)
    mutant = replace(
        trace,
        states=trace.states[:, rows + shift],
        causal_mean=trace.causal_mean[rows + shift],
        logits=trace.logits[rows],
        positions=trace.positions[rows],
    )
    assert cause in refusal(mutant, targets)
    assert_flagged_only(mutant, targets=targets)


def test_states_of_another_text_are_refused():
    trace, other = make_trace(rows=ROWS), make_states(5, ROWS, 12, seed=9).float()
    mutant = trace.with_states(other, trace.logits)
    assert "another run" in refusal(mutant)
    assert_flagged_only(mutant)


def test_one_wrong_row_among_right_ones_is_refused_and_flagged_alone():
    """The cause is looked for in the wrong row, however far down it is."""
    trace = make_trace(rows=20)
    states = trace.states.clone()
    states[-1, 17] += normal(12, dtype=torch.float32)
    mutant = trace.with_states(states, trace.logits)
    message = refusal(mutant)
    assert "position 18 " in message
    assert "another run" in message
    found = attribute(mutant, strict=False)
    assert [(flag.row, flag.kind) for flag in found.flags] == [(17, "unfaithful")]
    others = [(int(p), token(1)) for p in trace.positions if int(p) != 18]
    assert attribute(mutant, others).flags == ()


def test_a_refusal_gives_both_misses_and_both_tolerances():
    trace = make_trace(rows=1)
    message = refusal(trace.with_states(trace.states + 1.0, trace.logits))
    assert re.search(
        r"position 1 the total variation is 0\.\d+ \(tolerance 1e-05\).*"
        r"log-probability is off by \d\S* nats \(tolerance 0\.0001\)",
        message,
    ), message


def test_a_distribution_that_is_off_is_refused_where_the_target_is_exact():
    """Two other tokens change places: the target's probability stays what it is."""
    trace = make_trace(rows=ROWS)
    logits = trace.logits.clone()
    logits[:, [10, 20]] = logits[:, [20, 10]]
    mutant = trace.with_states(trace.states, logits)
    found = attribute(mutant, token(1), strict=False)
    assert (found.log_fidelity < 1e-6).all()
    assert (found.fidelity > 1e-4).all()
    assert {flag.kind for flag in found.flags} == {"unfaithful"}
    refusal(mutant, token(1))


def test_a_target_that_alone_is_off_is_refused():
    """Its probability is too small to show in the total variation."""
    head = make_head(dtype=torch.float64)
    head.bias[0] = -60.0
    trace = make_trace(head, rows=ROWS)
    logits = trace.logits.clone()
    logits[:, 0] += 1.0
    mutant = trace.with_states(trace.states, logits)
    assert "off by 1 nats" in refusal(mutant, token(0))
    assert_flagged_only(mutant, targets=token(0))
    assert attribute(mutant, token(1)).flags == ()


def test_logits_that_are_no_numbers_are_refused_with_their_position():
    trace = make_trace(rows=ROWS)
    logits = trace.logits.clone()
    logits[3, 8] = torch.nan
    mutant = trace.with_states(trace.states, logits)
    with pytest.raises(NonFiniteError, match="logits are not finite at position 4"):
        attribute(mutant)
    found = attribute(mutant, strict=False)
    assert [(flag.row, flag.kind) for flag in found.flags] == [(3, "unfaithful")]


# --- the power of the check --------------------------------------------------------


def idle(trace):
    """The last block does nothing, and the model was never seen to be checkable."""
    states = trace.states.clone()
    states[-2] = states[-1]
    return replace(trace.with_states(states, trace.logits), power=1.0)


def test_a_check_that_cannot_tell_says_so():
    found = attribute(idle(make_trace(rows=ROWS)))
    assert any("cannot tell" in warning for warning in found.warnings)
    assert found.readout.power < 10


def test_a_check_that_can_tell_on_this_text_or_at_load_is_silent():
    trace = make_trace(rows=ROWS)
    for able in (replace(trace, power=1.0), replace(idle(trace), power=1e3)):
        found = attribute(able)
        assert not any("cannot tell" in warning for warning in found.warnings)
        assert found.readout.power >= 10


# --- diagnoses ---------------------------------------------------------------------


def test_a_last_state_that_is_no_number_is_diagnosed_first():
    head = make_head()
    path = make_states(3, 2, 12)
    path[-1, 0, 0] = torch.nan
    own = head.readout.logits(path[-2])
    assert diagnose(head.readout, path, own, 1e-5) == "The last state is not finite."


def test_the_norm_is_not_blamed_where_it_does_nothing():
    head = make_head(norm="none")
    path = make_states(3, 2, 12)
    own = head.readout.logits(path[-2])
    assert "1 step(s) before" in diagnose(head.readout, path, own, 1e-5)


# --- real models -------------------------------------------------------------------


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    decoder = tiny_decoder(request.param)
    ids = [5, 17, 60, 3, 88, 41, 7]
    return decoder, decoder.trace(ids, range(1, 7))


def test_a_real_model_s_states_are_accepted(family):
    _, trace = family
    for targets in (None, least_probable(trace)):
        assert attribute(trace, targets).flags == ()


def test_a_real_model_s_states_normed_twice_are_refused(family):
    decoder, trace = family
    tail = decoder.readout
    assert isinstance(tail, LinearReadout)
    states = trace.states.clone()
    states[-1] = tail.norm(states[-1], torch.float32)
    mutant = trace.with_states(states, trace.logits)
    assert "already carries the final norm" in refusal(mutant)
    refusal(mutant, least_probable(trace))


def test_a_real_model_s_states_one_layer_or_position_off_are_refused(family):
    _, trace = family
    early = torch.cat([trace.states[:1], trace.states[:-1]])
    refusal(trace.with_states(early, trace.logits))
    for shift in (-1, 1):
        refusal(trace.with_states(trace.states.roll(shift, 1), trace.logits))


@pytest.mark.parametrize(
    ("name", "lacks"),
    [("gemma2", "soft-cap"), ("granite", "scale"), ("phi", "bias")],
)
def test_a_real_model_s_readout_that_lacks_a_part_is_refused(name, lacks):
    decoder = tiny_decoder(name)
    trace = decoder.trace([5, 17, 60, 3, 88, 41, 7], range(1, 7))
    whole = decoder.readout
    weights = whole.weights

    def own_logits(states):
        matrix, bias = weights()
        given = None if lacks == "bias" else bias
        z = torch.nn.functional.linear(whole.norm(states, torch.float32), matrix, given)
        return whole.post(z) if lacks == "bias" else z

    mutant = replace(trace, readout=replace(whole, own_logits=own_logits))
    assert f"{lacks} is missing" in refusal(mutant)
    refusal(mutant, least_probable(trace))
