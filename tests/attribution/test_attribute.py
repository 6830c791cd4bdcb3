from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from isolated import run_python
from toys import (
    DTYPES,
    NORMS,
    POSTS,
    Head,
    LargestTensor,
    make_head,
    make_states,
    make_trace,
    token,
    trace_of_levels,
)

from iglens import Interval
from iglens.attribution import Gradient, attribute
from iglens.attribution.verdict import POWER_ROWS
from iglens.errors import ArgumentError, FidelityError, NonFiniteError
from iglens.readout import CalledReadout
from iglens.records import UNITS


def as_called(readout):
    return CalledReadout(
        tail=readout.own_logits,
        d_model=readout.d_model,
        vocab_size=readout.vocab_size,
        dtype=readout.dtype,
        precision=readout.precision,
    )


# --- levels and credits ------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("unit", UNITS)
def test_levels_are_those_of_whole_rows_of_logits(norm, post, dtype, unit):
    head = make_head(norm=norm, post=post, dtype=dtype)
    trace = make_trace(head)
    targets = [token(3), token(96, 0, 41)]
    found = attribute(trace, targets, unit=unit)
    precision = torch.promote_types(dtype, torch.float32)
    for row, target in enumerate(targets):
        expected = oracle.levels(head, trace.states, target.ids, unit)
        np.testing.assert_allclose(
            found.levels[row::2],
            expected,
            rtol=oracle.tolerance(precision),
            atol=oracle.tolerance(precision),
        )


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("baseline", ["embedding", "zero", "mean", "paper-mean"])
def test_credits_add_up_to_the_change_of_the_level(unit, baseline):
    found = attribute(make_trace(rows=6), unit=unit, baseline=baseline)
    total = found.baseline + found.credits.sum(1)
    np.testing.assert_allclose(total, found.final, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found.credits, np.diff(found.levels, axis=1))
    assert np.abs(found.completeness).max() <= 1e-12


def test_a_called_head_gives_the_same_credits_as_the_same_head_as_a_matrix():
    trace = make_trace(make_head(post="soft-cap", dtype=torch.float64))
    called = replace(trace, readout=as_called(trace.readout))
    for estimator in (None, Gradient(3)):
        ours, theirs = (attribute(t, estimator=estimator) for t in (called, trace))
        np.testing.assert_allclose(ours.credits, theirs.credits, atol=1e-14)
        np.testing.assert_array_equal(ours.rank, theirs.rank)
        np.testing.assert_allclose(ours.lens_kl, theirs.lens_kl, atol=1e-13)


def test_levels_in_float64_are_exact_where_those_in_float32_are_not():
    head = make_head()
    trace = make_trace(head, rows=8)
    truth = oracle.levels(head, trace.states, [5], "log_probability").numpy()
    errors = {}
    for precision in (torch.float32, torch.float64):
        found = attribute(trace, token(5), unit="log_probability", precision=precision)
        errors[found.readout.dtype] = np.abs(found.levels - truth).max()
    assert errors["float64"] < 1e-13 < 1e-8 < errors["float32"]
    assert attribute(trace).readout.dtype == "float32"


def test_the_model_s_own_level_is_that_of_its_own_logits():
    trace = make_trace(make_head(dtype=torch.bfloat16), rows=6)
    for unit in UNITS:
        found = attribute(trace, token(3, 7), unit=unit)
        own = oracle.level(trace.logits.double(), [3, 7], unit).numpy()
        np.testing.assert_allclose(found.model_value, own, rtol=1e-5)
        np.testing.assert_array_equal(
            found.precision_gap, np.abs(found.final - found.model_value)
        )
        assert found.precision_gap.max() > 1e-5  # what bfloat16 costs


def test_the_record_says_what_was_explained_and_how():
    trace = make_trace(n_layers=3, warnings=("Mind the gap.",))
    found = attribute(trace, token(3), baseline="zero", unit="log_probability")
    assert found.positions.tolist() == [1, 2, 3]
    assert found.token_ids.tolist() == trace.token_ids.tolist()
    assert found.targets == (token(3),) * 3
    assert [s.label for s in found.segments] == [
        "embedding",
        "layer 1 (blocks.0)",
        "layer 2 (blocks.1)",
        "layer 3 (blocks.2)",
    ]
    assert found.unit == "log_probability"
    assert found.baseline_kind == "zero"
    assert found.lens == "logit"
    assert set(found.noise_floor) == {trace.noise.log_probability}
    assert set(attribute(trace).noise_floor) == {trace.noise.probability}
    assert found.readout.kind == "explicit"
    assert found.readout.tolerance == trace.tolerance.total_variation
    assert found.provenance == trace.provenance
    assert found.warnings[0] == "Mind the gap."
    assert found.vocabulary == {i: f"<{i}>" for i in np.unique(found.top_ids).tolist()}


def test_wrong_arguments_are_refused_in_plain_words_without_type_checks():
    run_python("""
import torch
from toys import make_trace
from iglens import ArgumentError, ArgumentTypeError, Gradient, attribute

trace = make_trace()
for wrong, kind, words in (
    (lambda: attribute(trace, unit="percent"), ArgumentError, "log_probability"),
    (lambda: Gradient(4, "simpson"), ArgumentError, "gauss-legendre"),
    (lambda: attribute(trace, baseline=0), ArgumentTypeError, "as a state has"),
    (lambda: attribute(trace, baseline=None), ArgumentTypeError, "paper-mean"),
    (
        lambda: trace.with_states(trace.states, trace.logits[1:]),
        ArgumentError,
        "(3, 97)",
    ),
):
    try:
        wrong()
    except kind as error:
        assert words in str(error), error
    else:
        raise AssertionError(words)
""")


# --- depths ------------------------------------------------------------------------


def test_depths_are_intervals_of_the_layers_of_the_path():
    trace = trace_of_levels([0.02, 0.05, 0.6, 0.3, 0.9])
    (full,) = attribute(trace, token(0)).depths
    assert full.onset_mass == Interval(2, 3)
    assert full.onset_net == Interval(1, 2)
    assert full.commit == Interval(3, 4)
    assert full.prediction_depth == Interval(3, 4)
    assert full.churn == pytest.approx(1.48 / 0.88)
    assert full.overshoot == 0.0
    (coarse,) = attribute(trace, token(0), layers=[2]).depths
    assert coarse.onset_mass == coarse.onset_net == Interval(0, 2)
    assert coarse.commit == coarse.prediction_depth == Interval(0, 2)
    assert coarse.churn == pytest.approx(1.0)


def test_a_depth_reached_at_the_baseline_has_nothing_before_it():
    trace = trace_of_levels([0.6, 0.8, 0.95])
    (own,) = attribute(trace, token(0)).depths
    assert own.prediction_depth == Interval(None, 0)
    (zero,) = attribute(trace, token(0), baseline="zero").depths  # a tie: 0.5
    assert zero.prediction_depth == Interval(None, 0)
    assert zero.onset_net == Interval(0, 1)


def test_depths_of_a_change_that_is_rounding_are_null():
    trace = trace_of_levels([0.3, 0.6, 0.3 + 5e-7])
    (found,) = attribute(trace, token(0)).depths  # below 10 x 1e-7
    assert found.onset_mass is found.onset_net is found.commit is found.churn is None
    (log,) = attribute(trace, token(0), unit="log_probability").depths
    assert log.onset_net is None
    certain = trace_of_levels([0.3, 0.6, 0.3 + 5e-6])
    assert attribute(certain, token(0)).depths[0].onset_net is not None


# --- diagnostics -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("baseline", ["embedding", "zero"])
def test_diagnostics_are_those_of_whole_rows_of_logits(dtype, baseline):
    head = make_head(dtype=dtype, post="soft-cap")
    trace = make_trace(head)
    targets = [token(3), token(90, 7)]
    found = attribute(trace, targets, baseline=baseline)
    path = trace.states
    if baseline == "zero":
        path = torch.cat([torch.zeros_like(path[:1]), path])
    z = oracle.logits(head, path)
    atol = oracle.tolerance(dtype)
    for row in range(found.n_rows):
        place, target = row // 2, targets[row % 2]
        for point in range(len(path)):
            logits = z[point, place]
            ranks = [oracle.rank(logits, one) for one in target.ids]
            assert found.rank[row, point] == min(ranks)
            assert found.top1[row, point] == (min(ranks) == 1)
            kl = float(oracle.divergence(z[-1, place], logits))
            assert found.lens_kl[row, point] == pytest.approx(kl, abs=atol)
            best = logits.softmax(-1).sort(descending=True, stable=True)
            assert found.top_ids[row, point].tolist() == best.indices[:5].tolist()
            np.testing.assert_allclose(
                found.top_probabilities[row, point], best.values[:5], atol=atol
            )


def test_the_final_state_does_not_diverge_from_itself():
    assert (attribute(make_trace()).lens_kl[:, -1] == 0).all()


@pytest.mark.parametrize("baseline", ["embedding", "zero"])
def test_diagnostics_change_no_level_and_no_arg_max(baseline):
    trace = make_trace(make_head(bias=False), rows=5)
    targets = [token(0), token(3), token(96, 0)]
    with_, without = (
        attribute(trace, targets, baseline=baseline, diagnostics=d)
        for d in (True, False)
    )
    np.testing.assert_array_equal(with_.levels, without.levels)
    np.testing.assert_array_equal(with_.credits, without.credits)
    np.testing.assert_array_equal(with_.top1, without.top1)
    assert (without.rank == 0).all()
    assert np.isnan(without.lens_kl).all()
    assert without.top_ids.shape == without.top_probabilities.shape
    assert without.top_ids.shape == (*without.levels.shape, 0)
    assert without.vocabulary == {}


def test_of_tokens_that_tie_the_lowest_id_leads():
    """The zero baseline is uniform without biases."""
    trace = make_trace(make_head(bias=False))
    for diagnostics in (True, False):
        found = attribute(
            trace,
            [token(0), token(1), token(5, 0)],
            baseline="zero",
            diagnostics=diagnostics,
        )
        assert found.top1[:, 0].tolist() == [True, False, True] * 3
    found = attribute(trace, [token(0), token(1), token(90, 7)], baseline="zero")
    assert found.rank[:, 0].tolist() == [1, 2, 8] * 3
    assert (found.top_ids[:, 0] == np.arange(5)).all()


@pytest.mark.parametrize("diagnostics", [True, False])
def test_the_arg_max_is_found_among_equal_tokens(diagnostics):
    """Tokens 3 and 50 are the same token twice, far ahead of the others."""
    head = make_head(norm="none", bias=True, dtype=torch.float64)
    head.unembed[3] = head.unembed[50] = torch.ones(12)
    head.bias[3] = head.bias[50] = 100.0
    states = torch.ones(3, 2, 12, dtype=torch.float64)  # sums of ones are exact
    found = attribute(
        make_trace(head, states=states),
        [token(3), token(50), token(50, 3), token(50, 9)],
        diagnostics=diagnostics,
    )
    assert found.top1[:4].all(1).tolist() == [True, False, True, False]


def test_ranks_and_arg_max_agree():
    trace = make_trace(make_head(vocab=11, spread=0.2), rows=40)
    found = attribute(trace, [token(i) for i in range(11)], diagnostics=True)
    np.testing.assert_array_equal(found.top1, found.rank == 1)
    by_position = found.rank.reshape(40, 11, -1)
    assert (np.sort(by_position, axis=1) == np.arange(1, 12)[:, None]).all()


@pytest.mark.parametrize(("rows", "read"), [(64, True), (65, False)])
def test_diagnostics_are_read_for_up_to_64_rows(rows, read):
    found = attribute(make_trace(rows=rows, n_layers=1))
    assert (found.top_ids.shape[2] > 0) == read
    assert (found.rank > 0).all() == read
    assert attribute(
        make_trace(rows=rows, n_layers=1), diagnostics=not read
    ).top_ids.shape[2] == (0 if read else 5)


def test_a_vocabulary_smaller_than_the_list_of_top_tokens_is_listed_whole():
    found = attribute(trace_of_levels([0.2, 0.9]), token(0))
    assert found.top_ids.tolist() == [[[1, 0], [0, 1]]]
    np.testing.assert_allclose(found.top_probabilities, [[[0.8, 0.2], [0.9, 0.1]]])


# --- what is not a number ----------------------------------------------------------


def spoiled(value=torch.nan):
    trace = make_trace(rows=4)
    states = trace.states.clone()
    states[2, 1, 5] = value
    return trace, trace.with_states(states, trace.logits)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_state_that_is_no_number_is_refused_with_layer_and_position(value):
    _, mutant = spoiled(value)
    with pytest.raises(NonFiniteError, match=r"layer 2 .* position 2 .*strict=False"):
        attribute(mutant)


def test_only_states_of_the_path_and_of_explained_rows_matter():
    trace, mutant = spoiled()
    assert attribute(mutant, layers=[1, 3]).flags == ()
    others = [(1, token(3)), (3, token(3))]
    assert attribute(mutant, others).flags == ()
    assert attribute(trace).flags == ()


@pytest.mark.parametrize("estimator", [None, Gradient(2)])
@pytest.mark.parametrize("baseline", ["embedding", "zero"])
def test_next_to_a_flagged_state_there_are_no_credits_and_elsewhere_they_are_right(
    estimator, baseline
):
    trace, mutant = spoiled()
    options = {"estimator": estimator, "baseline": baseline}
    found = attribute(mutant, strict=False, **options)
    right = attribute(trace, **options)
    point = 2 + (baseline == "zero")
    assert [(f.row, f.point, f.kind) for f in found.flags] == [
        (1, point, "non_finite_state")
    ]
    expected = right.credits.copy()
    expected[1, point - 1 : point + 1] = np.nan
    np.testing.assert_allclose(found.credits, expected, atol=1e-6)
    assert np.isnan(found.levels[1, point])
    assert not found.top1[1, point]
    finite = np.isfinite(found.levels)
    np.testing.assert_allclose(found.levels[finite], right.levels[finite], atol=1e-6)
    assert found.depths[1].onset_net is None
    assert found.depths[0] == right.depths[0]


def test_a_last_state_that_is_no_number_spoils_its_row_only():
    trace = make_trace(rows=3)
    states = trace.states.clone()
    states[-1, 0, 0] = torch.nan
    found = attribute(trace.with_states(states, trace.logits), strict=False)
    assert {(f.row, f.point) for f in found.flags} == {(0, 4), (0, None)}
    assert np.isnan(found.lens_kl[0]).all()
    right = attribute(trace)
    np.testing.assert_allclose(found.credits[1:], right.credits[1:], atol=1e-6)
    np.testing.assert_allclose(found.lens_kl[1:], right.lens_kl[1:], atol=1e-6)


def test_a_state_before_the_last_that_is_no_number_says_nothing_about_power():
    trace = make_trace(rows=3)
    states = trace.states.clone()
    states[-2, 0, 0] = torch.nan
    found = attribute(trace.with_states(states, trace.logits), strict=False)
    assert not any("cannot tell" in warning for warning in found.warnings)
    assert found.readout.power >= 10


@pytest.mark.parametrize("unit", UNITS)
def test_a_level_that_is_no_number_is_flagged_and_gives_no_credit(unit):
    """At the embedding, the token's logit underflows to minus infinity."""
    unembed = torch.tensor([[3e38], [1.0], [0.5]])
    head = Head(lambda h: h, unembed)
    states = torch.tensor([-10.0, 1e-38, 2e-38])[:, None, None]
    trace = make_trace(as_float(head), states=states)
    found = attribute(trace, token(0), unit=unit, strict=True)
    if unit == "probability":
        assert found.levels[0, 0] == 0.0
        assert found.flags == ()
        return
    assert found.levels[0, 0] == -np.inf
    assert [(f.row, f.point, f.kind) for f in found.flags] == [
        (0, 0, "non_finite_level")
    ]
    assert np.isnan(found.credits[0, 0])
    assert np.isfinite(found.credits[0, 1])


@pytest.mark.parametrize("estimator", [None, Gradient(2)])
def test_a_token_the_model_excludes_has_no_credit_in_log_probability(estimator):
    """Its level is minus infinity throughout, whatever gradients say."""
    head = make_head()
    head.bias[9] = -torch.inf
    trace = make_trace(head, rows=2)
    found = attribute(
        trace, [token(9), token(3)], unit="log_probability", estimator=estimator
    )
    assert np.isnan(found.credits[::2]).all()
    assert np.isfinite(found.credits[1::2]).all()
    assert {(f.row, f.point) for f in found.flags} == {
        (row, point) for row in (0, 2) for point in range(5)
    }


def as_float(head):
    """Logits in float32 also for single tokens, so that they overflow there too."""
    return head.but(post=lambda z: z.float().to(z.dtype))


# --- states from elsewhere ---------------------------------------------------------


def test_states_without_logits_are_refused_and_flagged_otherwise():
    trace = make_trace()
    mine = trace.with_states(trace.states)
    with pytest.raises(FidelityError, match=r"`logits=` to `Trace.with_states`"):
        attribute(mine)
    found, right = attribute(mine, strict=False), attribute(trace)
    np.testing.assert_array_equal(found.credits, right.credits)
    assert {(f.row, f.point, f.kind) for f in found.flags} == {
        (row, None, "unverified") for row in range(3)
    }
    assert any("Not verified" in warning for warning in found.warnings)
    assert np.isnan(found.fidelity).all()
    assert np.isnan(found.log_fidelity).all()
    assert np.isnan(found.model_value).all()
    assert not any("Not verified" in warning for warning in right.warnings)


def test_patched_states_with_their_logits_are_accepted():
    head = make_head()
    trace = make_trace(head)
    patched = make_states(5, 3, 12, seed=5).float()
    mine = trace.with_states(patched, head.readout.logits(patched[-1]))
    found = attribute(mine, token(3))
    assert found.flags == ()
    expected = oracle.levels(head, patched, [3], "probability")
    np.testing.assert_allclose(found.levels, expected, atol=1e-6)


# --- memory ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def big():
    """300 states, 50,021 tokens: all logits at once would take 60 MB."""
    head = make_head(vocab=50_021, d_model=32, bias=False)
    return make_trace(head, n_layers=29, rows=10)


@pytest.mark.parametrize(
    "options",
    [
        {"diagnostics": False},
        {"diagnostics": True},
        {"diagnostics": False, "estimator": Gradient(1)},
        {"diagnostics": False, "baseline": "zero"},
        {"diagnostics": False, "precision": torch.float64},
    ],
    ids=str,
)
def test_attribution_allocates_no_tensor_larger_than_the_budget(big, options):
    budget = 2**21
    with LargestTensor() as largest:
        found = attribute(big, memory_budget=budget, **options)
    assert found.levels.size >= 300
    assert 0 < largest.bytes <= budget, largest.made_by


def test_a_called_head_holds_whole_rows_but_few_at_once(big):
    called = replace(big, readout=as_called(big.readout))
    with LargestTensor() as largest:
        attribute(called, memory_budget=2**20, diagnostics=False)
    assert largest.bytes == POWER_ROWS * 50_021 * 4  # of the check for power


@pytest.mark.parametrize("bad", [[5], [0, -1]])
def test_layers_out_of_range_are_refused(bad):
    with pytest.raises(ArgumentError, match="layers 1 to 4"):
        attribute(make_trace(), layers=bad)
