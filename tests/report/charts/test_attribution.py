"""Charts show the record: every number in place, odd ones marked, texts harmless."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from factories import HOSTILE, make_attribution, recipes
from hypothesis import given, settings
from toys import tiny_decoder

import iglens
from iglens.errors import ArgumentError
from iglens.records import Flag
from iglens.report.charts import KINDS
from iglens.report.charts.bars import parts
from iglens.report.charts.files import picture_bytes
from iglens.report.charts.inside import heads, sources
from iglens.report.charts.onsets import DEPTHS
from iglens.report.charts.waterfall import EACH_UP_TO, steps


@pytest.fixture(scope="module")
def opened():
    """Real parts: a tiny model's, by source, which every picture can be made of."""
    decoder = tiny_decoder("llama")
    return iglens.explain(decoder, [3, 1, 4, 1, 5], by="source", max_new_tokens=2)


def lines(chart):
    """The lines of a chart's data."""
    spec = chart.to_dict()
    (data,) = spec["datasets"].values()
    return data


def strings(value):
    """Every text in a specification."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from strings(key)
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_can_be_drawn_in_both_themes(opened, kind, theme):
    svg = picture_bytes(opened.figure(kind, theme=theme), ".svg").decode()
    assert svg.startswith("<svg")
    assert svg.count("<path") + svg.count("<rect") > 4


@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_says_in_words_what_it_shows(opened, kind):
    spec = opened.figure(kind).to_dict()
    assert len(spec["description"]) > 40
    assert spec["title"]["text"]


def test_one_row_is_a_waterfall_and_several_are_a_map(opened):
    one = opened.select([0])
    assert one.figure().to_dict() == one.figure("waterfall").to_dict()
    assert opened.figure().to_dict() == opened.figure("map").to_dict()


@given(recipe=recipes())
@settings(deadline=None, max_examples=25)
def test_a_map_has_every_credit_in_its_place(recipe):
    result = make_attribution(**recipe)
    found = lines(result.figure("map"))
    assert len(found) == result.credits.size
    mixed = len(set(result.units)) > 1
    for line in found:
        credit = result.credits[line["column"], line["row"]]
        if not np.isfinite(credit):
            assert line["value"] is None
            assert line["odd"]
        elif not mixed:
            assert line["value"] == credit
    assert len({(line["x"], line["y"]) for line in found}) == len(found)


def test_colours_of_credits_are_symmetric_about_zero_and_change_with_the_sign():
    result = make_attribution(rows=2, n_layers=4)
    tiles = result.figure("map").to_dict()["layer"][0]["encoding"]["color"]["scale"]
    low, middle, high = tiles["domain"]
    assert (low, middle) == (-high, 0)
    assert high == np.abs(result.credits).max()
    assert len(set(tiles["range"])) == 3


def test_rows_of_other_units_are_shown_as_shares_of_the_largest_of_their_own():
    result = make_attribution(rows=6, kinds=True, unit="log_odds", seed=3)
    assert len(set(result.units)) > 1
    found = [line["value"] for line in lines(result.figure("map"))]
    assert max(map(abs, found)) == 1
    for unit in set(result.units):
        own = [r for r in range(6) if result.units[r] == unit]
        values = [line["value"] for line in lines(result.figure("map"))]
        n = len(result.segments)
        assert max(abs(v) for r in own for v in values[r * n : r * n + n]) == 1


def test_odd_cells_keep_their_place_and_say_why():
    result = make_attribution(rows=3, n_layers=5, holes=[(0, 2, np.nan)])
    spec = result.figure("map").to_dict()
    names = [str(layer) for layer in range(1, 6)]
    for layer in spec["layer"]:
        assert layer["encoding"]["y"]["scale"]["domain"] == names
    marked = {(c["column"], c["row"]): c["odd"] for c in lines(result.figure("map"))}
    assert {cell for cell, why in marked.items() if why} == {(0, 1), (0, 2)}
    assert "level is nan" in marked[0, 1]


def test_cells_that_are_fine_are_not_marked():
    found = lines(make_attribution(rows=3).figure("map"))
    assert {line["odd"] for line in found} == {None}


def test_a_flag_of_a_whole_row_is_at_its_name():
    flag = Flag(1, None, "unverified", "no logits")
    result = replace(make_attribution(rows=2), flags=(flag,))
    names = list(dict.fromkeys(line["x"] for line in lines(result.figure("map"))))
    assert [name.endswith(" !") for name in names] == [False, True]


@given(recipe=recipes())
@settings(deadline=None, max_examples=25)
def test_a_waterfall_goes_from_the_first_level_to_the_last_without_a_gap(recipe):
    result = make_attribution(**(recipe | {"holes": (), "estimator": "observed"}))
    for row in range(result.n_rows):
        first, *inner, last = steps(result, row)
        assert first["end"] == result.baseline[row]
        assert last["end"] == result.final[row]
        ends = [first["end"], *(line["end"] for line in inner)]
        assert [line["start"] for line in inner] == ends[:-1]
        assert ends[-1] == last["end"]
        for line, credit in zip(inner, result.credits[row], strict=True):
            assert line["credit"] == credit
            assert line["kind"] == ("adds" if credit >= 0 else "takes")


def test_a_waterfall_of_many_steps_adds_up_those_in_which_nothing_happens():
    n = EACH_UP_TO + 40
    result = make_attribution(rows=1, n_layers=n)
    levels = np.zeros((1, n + 1))
    levels[0, n - 1 :] = [0.25, 0.75]
    result = replace(result, levels=levels, credits=np.diff(levels))
    _, *inner, _ = steps(result, 0)
    assert len(inner) < 5
    assert sum(line["credit"] for line in inner) == 0.75
    assert steps(make_attribution(rows=1, n_layers=EACH_UP_TO), 0)[1]["y"] == "1"


def test_a_waterfall_with_a_hole_marks_both_sides_of_it():
    result = make_attribution(rows=1, n_layers=4, holes=[(0, 2, np.inf)])
    odd = [line["y"] for line in steps(result, 0) if line["odd"]]
    assert odd == ["2", "3"]
    assert all(line["start"] is None for line in steps(result, 0) if line["odd"])


def test_the_gradient_waterfall_moves_by_its_credits_not_by_the_levels():
    result = make_attribution(rows=1, estimator="gradient(midpoint, n_steps=4)")
    _, *inner, _ = steps(result, 0)
    moved = [line["end"] - line["start"] for line in inner]
    np.testing.assert_allclose(moved, result.credits[0], atol=1e-12)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("kind", ["map", "levels", "waterfall", "trajectory"])
def test_no_text_leaves_a_chart_unprintable_or_becomes_part_of_an_expression(
    text, kind
):
    result = make_attribution(rows=2, texts=(text,), top=2, layers=[1, 2], n_layers=2)
    spec = result.figure(kind).to_dict()
    for found in strings(spec):
        assert found.isprintable(), found
    harmless = make_attribution(rows=2, texts=("x",), top=2, layers=[1, 2], n_layers=2)
    expressions = [
        [layer.get("transform") for layer in one.figure(kind).to_dict()["layer"]]
        for one in (result, harmless)
    ]
    assert expressions[0] == expressions[1]


def test_ten_thousand_combining_marks_are_cut():
    tower = "a" + 10_000 * "\N{COMBINING ACUTE ACCENT}"
    spec = make_attribution(texts=(tower,)).figure("map").to_dict()
    assert max(s.count("\N{COMBINING ACUTE ACCENT}") for s in strings(spec)) < 30


@pytest.mark.slow
@given(recipe=recipes())
@settings(deadline=None, max_examples=20)
def test_a_chart_of_anything_is_json_that_every_reader_takes(recipe):
    result = make_attribution(**recipe)
    for kind in ("map", "levels", "onsets", "waterfall"):
        json.dumps(result.figure(kind).to_dict(), allow_nan=False)


@pytest.mark.slow
def test_a_chart_of_500_tokens_and_80_layers_can_be_drawn():
    result = make_attribution(rows=500, n_layers=80, texts=("x",))
    svg = picture_bytes(result.figure(), ".svg")
    assert svg.count(b"<path") >= 40_000


def test_onsets_count_every_row_that_has_one():
    result = make_attribution(rows=20, n_layers=5)
    spec = result.figure("onsets").to_dict()
    for panel, name in zip(spec["vconcat"], DEPTHS, strict=True):
        found = [getattr(depths, name) for depths in result.depths]
        wanted = Counter(interval.upto for interval in found if interval is not None)
        data = spec["datasets"][panel["data"]["name"]]
        assert {line["layer"]: line["n"] for line in data} == wanted


def test_a_rival_is_drawn_only_where_it_is_listed():
    result = make_attribution(rows=1, n_layers=4, top=2)
    ids = np.array([[[90, 91], [90, 92], [91, 92], [90, 91], [90, 92]]])
    values = np.array([[[0.5, 0.4], [0.6, 0.1], [0.3, 0.2], [0.1, 0.9], [0.2, 0.1]]])
    texts = {90: "a", 91: "b", 92: "c"}
    result = replace(result, top_ids=ids, top_probabilities=values, vocabulary=texts)
    found = lines(result.figure("trajectory"))
    by_name = {}
    for line in found:
        by_name.setdefault(line["name"], []).append(line["value"])
    target = found[0]["name"]
    np.testing.assert_array_equal(by_name.pop(target), result.levels[0])
    assert list(by_name) == ["'b'", "'a'", "'c'"]
    assert by_name["'b'"] == [0.4, None, 0.3, 0.9, None]


@pytest.mark.parametrize("unit", ["log_probability", "log_odds"])
def test_a_trajectory_is_in_probability_whatever_the_unit(unit):
    result = make_attribution(rows=1, unit=unit)
    found = np.array([line["value"] for line in lines(result.figure("trajectory"))])
    levels = result.levels[0]
    own = np.exp(levels)
    np.testing.assert_allclose(found, own if unit[4] == "p" else own / (1 + own))


def test_bars_add_up_to_the_change(opened):
    for row in range(opened.n_rows):
        pairs = parts(opened, opened.components, row)
        total = sum(credit for _, credit in pairs)
        assert total == pytest.approx(opened.credits[row].sum(), abs=1e-3)
    segment = next(i for i in range(4) if opened.components.n_parts[i])
    own = sum(credit for _, credit in parts(opened, opened.components, 0, [segment]))
    assert own == pytest.approx(opened.credits[0, segment], abs=1e-3)


def test_maps_of_heads_and_sources_hold_what_the_record_holds(opened):
    inside = opened.components
    _, by_head = heads(opened, inside, 0)
    wanted = [i for i, kind in enumerate(inside.kinds) if kind == "source"]
    total = inside.credits[0, wanted].sum()
    assert np.nansum(by_head) == pytest.approx(total, abs=1e-12)
    _, by_token = sources(opened, inside, 0)
    assert by_token.shape[0] == opened.positions[0]
    assert by_token.sum() == pytest.approx(inside.tokens[0].sum(), abs=1e-12)


REFUSED = [
    ({"kind": "pie"}, "known are map, levels"),
    ({"kind": "waterfall", "row": 3}, "has 3 rows"),
    ({"theme": "pink"}, "known are light, dark"),
    ({"kind": "heads"}, "without components"),
    ({"kind": "sources"}, "without components"),
    ({"kind": "components"}, "no parts"),
]


@pytest.mark.parametrize(("asked", "says"), REFUSED)
def test_what_cannot_be_drawn_is_refused(asked, says):
    with pytest.raises(ArgumentError, match=says):
        make_attribution(rows=3).figure(**asked)


def test_nothing_is_drawn_of_no_rows():
    with pytest.raises(ArgumentError, match="no rows"):
        make_attribution().select([]).figure()


def test_an_entropy_has_no_trajectory():
    result = make_attribution(rows=1, unit="logit")
    with pytest.raises(ArgumentError, match="no probability"):
        result.figure("trajectory")
