import itertools
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from factories import BASELINES, GRADIENT, assert_same, make_attribution, recipes
from hypothesis import given, settings
from isolated import run_python

from iglens.depths import Interval
from iglens.errors import ArgumentError
from iglens.records import Attribution, Flag, Segment, Target, block_segment

finite = st.fixed_dictionaries(
    {
        "rows": st.integers(1, 3),
        "layers": st.sets(st.integers(1, 9), min_size=1).map(sorted),
        "top": st.integers(0, 2),
        "baseline": st.sampled_from(BASELINES),
        "seed": st.integers(0, 2**32),
    }
)


@given(recipe=finite)
@settings(deadline=None)
def test_baseline_and_credits_add_up_to_the_final_level(recipe):
    result = make_attribution(**recipe)
    total = result.baseline + result.credits.sum(1)
    np.testing.assert_allclose(total, result.final, atol=1e-12)
    np.testing.assert_allclose(result.completeness, 0, atol=1e-12)


def test_completeness_is_what_the_credits_add_too_much():
    result = make_attribution()
    result = replace(result, credits=result.credits + np.eye(1, 6) / 2)
    np.testing.assert_allclose(result.completeness, 0.5)


def test_precision_gap_has_no_sign():
    result = make_attribution(rows=2)
    result = replace(result, model_value=result.final + np.array([0.25, -0.5]))
    np.testing.assert_allclose(result.precision_gap, [0.25, 0.5])


def test_opposite_infinities_give_nan_without_a_warning():
    result = make_attribution(holes=[(0, 0, -np.inf), (0, 6, -np.inf)])
    assert np.isnan(result.completeness[0])
    assert np.isnan(result.precision_gap[0])


@given(data=st.data(), recipe=recipes())
@settings(deadline=None)
def test_depths_are_those_of_each_row_alone(data, recipe):
    result = make_attribution(**recipe)
    row = data.draw(st.integers(0, result.n_rows - 1))
    assert result.select([row]).depths == (result.depths[row],)


@given(data=st.data(), recipe=finite)
@settings(deadline=None)
def test_coarsening_equals_attribution_along_the_coarse_path(data, recipe):
    result = make_attribution(**recipe)
    kept = data.draw(st.sets(st.sampled_from(result.layers)))
    coarse = result.coarsen(kept)
    points = [0] + [
        place + 1
        for place, layer in enumerate(result.layers)
        if layer in kept | {0, result.layers[-1]}
    ]
    modules = tuple(f"model.layers.{i}" for i in range(9))
    ends = [result.point_layers[point] for point in points]
    assert coarse.segments == tuple(
        block_segment(after, layer, modules)
        for after, layer in itertools.pairwise(ends)
    )
    direct = result.levels[:, points]
    np.testing.assert_array_equal(coarse.levels, direct)
    np.testing.assert_allclose(coarse.credits, np.diff(direct, axis=1), atol=1e-12)
    for name in ("top1", "rank", "lens_kl", "top_ids", "top_probabilities"):
        found, whole = getattr(coarse, name), getattr(result, name)
        np.testing.assert_array_equal(found, whole[:, points])


@given(data=st.data(), recipe=recipes())
@settings(deadline=None)
def test_coarsening_in_two_steps_equals_coarsening_in_one(data, recipe):
    result = make_attribution(**recipe)
    some = data.draw(st.sets(st.sampled_from(result.layers)))
    few = data.draw(st.sets(st.sampled_from(sorted(some)))) if some else set()
    at_once, in_steps = result.coarsen(few), result.coarsen(some).coarsen(few)
    sums = ("credits", "writes")  # of the same numbers, in another order
    assert_same(in_steps, at_once, but=sums)
    for name in sums:
        found, expected = getattr(in_steps, name), getattr(at_once, name)
        np.testing.assert_allclose(found, expected, atol=1e-12)


@given(recipe=recipes())
@settings(deadline=None)
def test_keeping_every_layer_changes_nothing(recipe):
    result = make_attribution(**recipe)
    assert_same(result.coarsen(result.layers), result)


@pytest.mark.parametrize("baseline", BASELINES)
def test_the_last_layer_and_the_embedding_segment_are_always_kept(baseline):
    coarse = make_attribution(baseline=baseline).coarsen([])
    ends = {"embedding": (6,), "paper-mean": (6,)}
    assert coarse.layers == ends.get(baseline, (0, 6))


def test_a_layer_that_is_not_on_the_path_is_refused():
    with pytest.raises(ArgumentError, match=r"names \[3, 99\].*path \[1, 2, 6\]"):
        make_attribution(layers=[1, 2, 6]).coarsen([2, 99, 3])


def test_gradient_credits_are_summed_not_replaced_by_differences():
    result = make_attribution(estimator=GRADIENT)
    coarse = result.coarsen([3])
    sums = np.add.reduceat(result.credits, [0, 3], axis=1)
    np.testing.assert_array_equal(coarse.credits, sums)
    assert np.abs(coarse.completeness).max() > 1e-6


def test_stepping_over_an_odd_level_restores_the_observed_credit():
    result = make_attribution(holes=[(0, 2, np.nan), (0, 4, -np.inf)])
    coarse = result.coarsen([3])
    np.testing.assert_allclose(coarse.credits, np.diff(coarse.levels, axis=1))
    assert coarse.flags == ()


def test_a_kept_odd_level_keeps_its_flag_and_gives_no_credit():
    coarse = make_attribution(holes=[(1, 3, np.inf)]).coarsen([3])
    assert np.isnan(coarse.credits[1]).all()
    assert [(flag.row, flag.point) for flag in coarse.flags] == [(1, 1)]


def test_a_stepped_over_level_has_no_flag_even_before_an_odd_end():
    result = make_attribution(n_layers=3, holes=[(0, 1, np.nan), (0, 3, np.nan)])
    for coarse in (result.coarsen([]), result.coarsen([2]).coarsen([])):
        assert [(flag.row, flag.point) for flag in coarse.flags] == [(0, 1)]


def test_an_odd_gradient_credit_keeps_its_flag_when_stepped_over():
    holes = [(0, 2, np.nan)]
    result = make_attribution(holes=holes, estimator=GRADIENT)
    coarse = result.coarsen([3])
    assert np.isnan(coarse.credits[0]).tolist() == [True, False]
    assert [(flag.row, flag.point) for flag in coarse.flags] == [(0, 1)]


def test_a_flag_of_the_whole_row_survives_coarsening():
    flag = Flag(1, None, "unverified", "no logits")
    result = replace(make_attribution(), flags=(flag,))
    assert result.coarsen([3]).flags == (flag,)


@given(data=st.data(), recipe=recipes())
@settings(deadline=None)
def test_selecting_gives_the_rows_in_the_order_asked(data, recipe):
    result = make_attribution(**recipe)
    rows = data.draw(st.lists(st.integers(0, result.n_rows - 1), max_size=5))
    found = result.select(rows)
    assert found.n_rows == len(rows)
    for new, row in enumerate(rows):
        assert_same(found.select([new]), result.select([row]))
        assert found.targets[new] == result.targets[row]
        np.testing.assert_array_equal(found.levels[new], result.levels[row])


def test_a_row_selected_twice_has_its_flags_twice():
    found = make_attribution(holes=[(1, 2, np.nan)]).select([1, 0, 1])
    assert [(flag.row, flag.point) for flag in found.flags] == [(0, 2), (2, 2)]


def test_rows_count_from_the_end_as_in_a_list():
    result = make_attribution(holes=[(2, 1, np.nan)])
    assert_same(result.select([-1]), result.select([2]))


@pytest.mark.parametrize("row", [3, -4])
def test_a_row_that_is_not_there_is_refused(row):
    with pytest.raises(ArgumentError, match=rf"names \[{row}\].* 3 rows"):
        make_attribution(rows=3).select([0, row])


def test_point_layers_start_at_the_baseline():
    assert make_attribution(layers=[2, 4]).point_layers == (0, 2, 4)
    mean = make_attribution(layers=[2, 4], baseline="mean")
    assert mean.point_layers == (None, 0, 2, 4)


def test_depths_are_in_path_layers():
    result = make_attribution(rows=1, layers=[2, 4])
    result = replace(result, levels=np.array([[0.0, 0.1, 1.0]]))
    assert result.depths[0].commit == Interval(2, 4)


def test_arrays_that_disagree_are_refused_in_tests():
    result = make_attribution()
    with pytest.raises(Exception, match="Type-check error"):
        replace(result, levels=result.levels[:-1])


@pytest.mark.parametrize(
    ("after", "layer", "expected"),
    [
        (0, 1, Segment(1, 0, "block", "layer 1 (b.0)", "b.0")),
        (0, 2, Segment(2, 0, "blocks", "layers 1-2 (b.1)", "b.1")),
        (1, 3, Segment(3, 1, "blocks", "layers 2-3")),
        (None, 0, Segment(0, None, "embedding", "embedding")),
        (None, 1, Segment(1, None, "blocks", "baseline to layer 1 (b.0)", "b.0")),
    ],
)
def test_a_segment_is_named_after_its_last_block(after, layer, expected):
    assert block_segment(after, layer, ("b.0", "b.1")) == expected


def test_a_target_is_a_set_when_it_has_several_ids():
    assert Target((3,), "a").kind == "token"
    assert Target((3, 5), "a").kind == "set"


@pytest.mark.parametrize(("ids", "message"), [((), "no token"), ((3, 3), "twice")])
def test_a_target_that_is_no_set_is_refused(ids, message):
    with pytest.raises(ArgumentError, match=message):
        Target(ids, "a")


def test_saving_and_loading_are_methods_too(tmp_path):
    result = make_attribution(top=2)
    result.save(tmp_path / "result.safetensors")
    result.save(str(tmp_path / "result.json"))
    assert_same(Attribution.load(str(tmp_path / "result.safetensors")), result)
    assert_same(Attribution.load(tmp_path / "result.json"), result)


@pytest.mark.parametrize("module", ["records", "storage", "report.html", "depths"])
def test_records_and_files_need_no_torch(module):
    code = f"import sys, iglens.{module}; sys.exit('torch' in sys.modules)"
    run_python(code)


def test_writing_and_showing_a_result_needs_no_torch(tmp_path):
    make_attribution(top=2).save(tmp_path / "a.json")
    code = (
        "import sys, iglens.records; from pathlib import Path\n"
        f"a = iglens.records.Attribution.load({str(tmp_path / 'a.json')!r})\n"
        "for e in ('csv', 'parquet', 'safetensors', 'json'):\n"
        f"    a.save(Path({str(tmp_path)!r}) / f'b.{{e}}')\n"
        "a._repr_html_()\n"
        "sys.exit('torch' in sys.modules)"
    )
    run_python(code)
