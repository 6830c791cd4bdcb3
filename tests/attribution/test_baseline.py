import numpy as np
import oracle
import pytest
import torch
from toys import NORMS, Head, make_head, make_trace, normal, token, trace_of_levels

from iglens.attribution import (
    BASELINES,
    Baseline,
    Gradient,
    Observed,
    attribute,
    attribute_averaged,
    sensitivity,
)
from iglens.errors import ArgumentError
from iglens.records import UNITS

ROWS, WIDTH = 4, 12
HEAD = make_head(dtype=torch.float64)
TRACE = make_trace(HEAD, rows=ROWS)
VECTOR, VECTORS = normal(WIDTH, seed=3), normal(ROWS, WIDTH, seed=4)


def first_state(name):
    """The definitions, spelled out."""
    states = TRACE.states
    return {
        "embedding": states[0],
        "zero": torch.zeros(ROWS, WIDTH, dtype=torch.float64),
        "mean": torch.stack([states[0, : row + 1].mean(0) for row in range(ROWS)]),
        "paper-mean": states[1].mean(0).expand(ROWS, -1),
        "vector": VECTOR.expand(ROWS, -1),
        "vectors": VECTORS,
    }[name]


def given_as(name):
    return {"vector": VECTOR, "vectors": VECTORS}.get(name, name)


EVERY = (*BASELINES, "vector", "vectors")


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("unit", UNITS)
def test_the_path_starts_where_the_definition_says(name, unit):
    found = attribute(TRACE, token(5, 9), baseline=given_as(name), unit=unit)
    z = oracle.logits(HEAD, first_state(name))
    expected = oracle.level(z, [5, 9], unit).numpy()
    np.testing.assert_allclose(found.baseline, expected, rtol=1e-12)
    assert found.baseline_kind == name.removesuffix("s")


@pytest.mark.parametrize("name", EVERY)
def test_the_embedding_has_a_segment_unless_the_path_starts_there(name):
    found = attribute(TRACE, baseline=given_as(name))
    layers = {"embedding": (1, 2, 3, 4), "paper-mean": (1, 2, 3, 4)}
    assert found.layers == layers.get(name, (0, 1, 2, 3, 4))
    assert found.point_layers[0] == (0 if name == "embedding" else None)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("layers", [None, [2], [4]])
def test_after_the_embedding_nothing_depends_on_the_baseline(name, layers):
    ours = attribute(TRACE, layers=layers, baseline=given_as(name))
    plain = attribute(TRACE, layers=layers)
    shared = len(plain.layers) + (name != "paper-mean")
    np.testing.assert_allclose(
        ours.levels[:, -shared:], plain.levels[:, -shared:], rtol=1e-12
    )
    own = len(ours.layers) - shared + 1
    np.testing.assert_allclose(
        ours.credits[:, own:],
        plain.credits[:, len(plain.layers) - len(ours.layers) + own :],
        rtol=1e-10,
    )


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("layers", [[1], [3], [2, 3], [4]])
def test_only_the_paper_s_mean_depends_on_the_chosen_layers(name, layers):
    whole = attribute(TRACE, baseline=given_as(name))
    part = attribute(TRACE, baseline=given_as(name), layers=layers)
    same = np.allclose(part.baseline, whole.baseline, rtol=1e-12)
    assert same == (name != "paper-mean" or min(layers) == 1)
    if name == "paper-mean":
        mean = TRACE.states[min(layers)].mean(0).expand(ROWS, -1)
        z = oracle.logits(HEAD, mean)
        own = [[int(i)] for i in TRACE.token_ids[1:]]
        expected = [
            float(oracle.level(row, ids, "probability"))
            for row, ids in zip(z, own, strict=True)
        ]
        np.testing.assert_allclose(part.baseline, expected, rtol=1e-12)
        np.testing.assert_allclose(
            part.credits.sum(1), part.final - part.baseline, atol=1e-15
        )


def test_the_paper_s_mean_is_of_the_lowest_layer_that_was_traced():
    some = make_trace(
        HEAD,
        states=TRACE.states[[0, 3, 4]],
        layers=(0, 3, 4),
        modules=TRACE.modules,
    )
    found = attribute(some, token(5), baseline="paper-mean")
    same = attribute(TRACE, token(5), baseline="paper-mean", layers=[3, 4])
    np.testing.assert_allclose(found.levels, same.levels, rtol=1e-12)
    assert found.layers == same.layers == (3, 4)


def test_the_mean_sees_no_later_token():
    states = TRACE.states.clone()
    states[:, 2:] += 1.0
    later = make_trace(HEAD, states=states)
    ours, theirs = (attribute(t, token(3), baseline="mean") for t in (TRACE, later))
    np.testing.assert_array_equal(ours.baseline[:2], theirs.baseline[:2])
    assert (ours.baseline[2:] != theirs.baseline[2:]).all()


@pytest.mark.parametrize("norm", NORMS)
def test_zero_is_uniform_without_biases(norm):
    head = make_head(norm=norm, bias=False, dtype=torch.float64)
    found = attribute(make_trace(head), baseline="zero")
    uniform = np.allclose(found.baseline, 1 / 97, rtol=1e-12)
    assert uniform == (norm != "layer")  # a LayerNorm's shift is a bias, too


@pytest.mark.parametrize("bad", ["Zero", "", "uniform"])
def test_unknown_names_are_refused_with_the_known_ones(bad):
    with pytest.raises(ArgumentError, match="embedding, zero, mean, paper-mean"):
        attribute(TRACE, baseline=bad)


@pytest.mark.parametrize("shape", [(11,), (1, 12), (3, 12), (4, 13), (), (5, 4, 12)])
def test_vectors_of_other_shapes_are_refused(shape):
    with pytest.raises(ArgumentError, match=r"needs \(12,\) or \(4, 12\)"):
        attribute(TRACE, baseline=torch.zeros(shape))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_vectors_that_are_no_numbers_are_refused(value):
    bad = VECTORS.clone()
    bad[2, 3] = value
    with pytest.raises(ArgumentError, match="NaN or infinity"):
        attribute(TRACE, baseline=bad)


def test_vectors_are_taken_in_the_dtype_of_the_states():
    trace = make_trace(make_head(dtype=torch.float32))
    zeros = torch.zeros(12, dtype=torch.float64)
    ours, named = (attribute(trace, baseline=b) for b in (zeros, "zero"))
    np.testing.assert_array_equal(ours.levels, named.levels)


# --- warnings ----------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS[:3])
@pytest.mark.parametrize(("p_base", "fires"), [(0.049, False), (0.051, True)])
def test_a_baseline_that_gives_the_target_much_is_warned_of(unit, p_base, fires):
    few = trace_of_levels([0.01, 0.2, 0.9], [p_base, 0.2, 0.9])
    # the same levels among many tokens: the others share what is left
    unembed = torch.zeros(61, 1, dtype=torch.float64)
    unembed[0] = 1.0
    trace = make_trace(Head(lambda h: h, unembed), states=few.states + np.log(60))
    found = attribute(trace, token(0), unit=unit)
    np.testing.assert_allclose(found.levels, attribute(few, token(0), unit=unit).levels)
    warned = [w for w in found.warnings if "baseline already gives" in w]
    assert len(warned) == fires
    if fires:
        assert "1 of 2 targets" in warned[0]
        assert "0.051" in warned[0]
        assert "'<0>'" in warned[0]


@pytest.mark.parametrize("baseline", EVERY)
@pytest.mark.parametrize("estimator", [Observed(), Gradient(2)])
def test_only_gradients_from_zero_are_warned_of(baseline, estimator):
    found = attribute(TRACE, baseline=given_as(baseline), estimator=estimator)
    warned = any("the readout jumps there" in warning for warning in found.warnings)
    assert warned == (baseline == "zero" and isinstance(estimator, Gradient))


# --- several baselines ---------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("estimator", [Observed(), Gradient(7)])
def test_several_baselines_are_averaged_and_still_add_up(unit, estimator):
    names = ["zero", "mean", VECTOR, "embedding"]
    options = {"unit": unit, "estimator": estimator}
    found = attribute_averaged(TRACE, token(5, 9), baselines=names, **options)
    alone = [attribute(TRACE, token(5, 9), baseline=n, **options) for n in names[:3]]
    own = attribute(TRACE, token(5, 9), **options)
    expected = np.mean([r.baseline for r in (*alone, own)], 0)
    np.testing.assert_allclose(found.baseline, expected)
    np.testing.assert_array_equal(found.credits[:, 1:], own.credits)
    error = found.credits.sum(1) - (found.final - found.baseline)
    expected = np.mean([r.completeness for r in (*alone, own)], 0)
    np.testing.assert_allclose(error, expected, atol=1e-12)
    assert found.baseline_kind == "mean of zero, mean, vector, embedding"
    assert (found.rank[:, 0] == 0).all()


def test_paper_mean_fits_no_average():
    with pytest.raises(ArgumentError, match="other segments"):
        attribute_averaged(TRACE, baselines=["zero", "paper-mean"])


def test_only_the_first_segment_depends_on_the_baseline():
    found = sensitivity(TRACE, token(5), baselines=["embedding", "zero", VECTOR])
    assert found.kinds == ("embedding", "zero", "vector")
    assert (found.moved == 0).all()
    assert (found.first[:, 0] == 0).all()
    np.testing.assert_allclose(
        found.baseline + found.first, found.baseline[:, :1].repeat(3, 1), atol=1e-12
    )
    assert "within 0" in str(found)
    assert found.to_json()["baselines"] == ["embedding", "zero", "vector"]


def test_a_prepared_baseline_keeps_its_name():
    states = TRACE.states[0] * 0.5
    found = attribute(TRACE, baseline=Baseline("corpus", states))
    same = attribute(TRACE, baseline=states)
    assert found.baseline_kind == "corpus"
    np.testing.assert_array_equal(found.levels, same.levels)
    with pytest.raises(ArgumentError, match="shape"):
        attribute(TRACE, baseline=Baseline("corpus", states[:, 1:]))
