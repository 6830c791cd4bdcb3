"""Charts of answers, differences, interactions, baselines and gates are the records."""

import json
from dataclasses import replace

import altair
import numpy as np
import pytest
from factories import HOSTILE, make_attribution, recipes
from hypothesis import given, settings
from toys import tiny_decoder

import iglens
from iglens.errors import ArgumentError
from iglens.explaining import prepare
from iglens.records import Flag
from iglens.records.answer import Answer
from iglens.records.difference import Difference
from iglens.report.charts.difference import changes
from iglens.report.charts.files import picture_bytes
from iglens.report.charts.interaction import TOGETHER, lines
from iglens.report.charts.sensitivity import starts
from iglens.report.charts.waterfall import EACH_UP_TO

IDS = [3, 1, 4, 1, 5]
NAMES = ("answer", "pair", "interaction", "sensitivity", "gates", "flow", "promotion")


@pytest.fixture(scope="module")
def decoder():
    return tiny_decoder("llama")


@pytest.fixture(scope="module")
def records(decoder):
    """One of each, of the same tiny model."""
    by_layer = prepare(decoder, IDS, max_new_tokens=2)
    parts = prepare(decoder, IDS, max_new_tokens=2, by="sublayer")
    result = iglens.explain(decoder, IDS, max_new_tokens=3)
    other = iglens.explain_like(decoder, [2, 7, *IDS[2:]], result)
    reader = iglens.Reader()
    return {
        "answer": result.answer(),
        "pair": iglens.diff(result, other),
        "interaction": iglens.Reader(by="sublayer").interaction(decoder, parts),
        "sensitivity": reader.sensitivity(decoder, by_layer),
        "gates": iglens.gates(decoder, IDS, max_new_tokens=2),
        "flow": reader.flows(decoder, by_layer, top=2),
        "promotion": reader.promotion(decoder, by_layer),
    }


def panels(spec):
    """Every single chart in a composed one, with its lines."""
    for how in ("vconcat", "hconcat", "concat"):
        if how in spec:
            return [one for inner in spec[how] for one in panels(inner)]
    return [spec]


def drawn(chart):
    """The lines of every panel."""
    spec = chart.to_dict()
    found = []
    for panel in panels(spec):
        name = (panel.get("data") or panel["layer"][0]["data"])["name"]
        found.append(spec["datasets"][name])
    return found


def strings(value):
    """Every text in a specification."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        for one in inner:
            yield from strings(one)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_every_record_draws_itself_and_says_so_in_words(records, name, theme):
    chart = records[name].figure(theme=theme)
    spec = chart.to_dict()
    assert len(spec["description"]) > 40
    assert spec["title"]["text"]
    assert picture_bytes(chart, ".svg").startswith(b"<svg")


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_theme_is_refused(records, name):
    with pytest.raises(ArgumentError, match="known are light, dark"):
        records[name].figure(theme="pink")


@pytest.mark.parametrize("name", ["pair", "interaction", "sensitivity", "gates"])
def test_rows_are_counted_as_in_a_list(records, name):
    asked = {"kind": "waterfall"} if name == "pair" else {}
    record = records[name]
    count = {
        "pair": lambda: record.n_rows,
        "interaction": lambda: record.subject.n_rows,
        "sensitivity": lambda: len(record.targets),
        "gates": lambda: len(record.targets),
    }[name]()
    last = record.figure(row=count - 1, **asked).to_dict()
    assert record.figure(row=-1, **asked).to_dict() == last
    assert record.figure(row=0, **asked).to_dict() != last
    for row in (count, -count - 1):
        with pytest.raises(ArgumentError, match="from 0"):
            record.figure(row=row, **asked)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_shows_the_chart_and_its_words(records, name):
    with altair.renderers.enable("mimetype"):
        bundle = records[name]._repr_mimebundle_()
    bundle, _ = bundle if isinstance(bundle, tuple) else (bundle, None)
    spec = bundle["application/vnd.vegalite.v6.json"]
    assert spec["description"] == records[name].figure().to_dict()["description"]
    assert bundle["text/plain"] == str(records[name])


def test_a_notebook_shows_words_where_nothing_can_be_drawn(records):
    still = replace(records["flow"], levels=records["flow"].levels * 0)
    assert still._repr_mimebundle_() == {"text/plain": str(still)}


def test_metadata_of_a_renderer_are_kept(records):
    with altair.renderers.enable("png", scale_factor=0.3):
        shown = records["sensitivity"]._repr_mimebundle_()
    assert isinstance(shown, tuple)
    assert shown[0]["text/plain"] == str(records["sensitivity"])
    assert {"width", "height"} <= set(shown[1]["image/png"])


# an answer


@pytest.mark.parametrize("unit", ["probability", "log_probability"])
def test_an_answer_has_every_cell_and_both_margins(records, unit):
    answer = records["answer"]
    joint = unit == "probability"
    cells = answer.credits if joint else answer.log_credits
    rows = answer.joint_credits if joint else answer.joint_log_credits
    above, middle, beside = drawn(answer.figure(unit=unit))
    assert {(c["column"], c["row"]): c["value"] for c in middle} == {
        (t, s): cells[t, s] for t in range(len(cells)) for s in range(cells.shape[1])
    }
    np.testing.assert_array_equal([x["credit"] for x in above], cells.sum(1))
    np.testing.assert_array_equal([x["credit"] for x in beside], rows)
    columns, steps = ([*dict.fromkeys(c[axis] for c in middle)] for axis in "xy")
    assert [x["name"] for x in above] == columns
    assert [x["name"] for x in beside] == steps
    np.testing.assert_allclose(cells.sum(0), rows, atol=1e-9)


def test_an_answer_has_no_other_tables(records):
    with pytest.raises(ArgumentError, match="known are probability, log_probability"):
        records["answer"].figure(unit="bits")


def test_the_margins_stand_beside_their_cells(records):
    spec = records["answer"].figure().to_dict()
    above, middle, beside = panels(spec)
    assert above["width"] == middle["width"]
    assert beside["height"] == middle["height"]
    x, y = (middle["layer"][0]["encoding"][axis]["scale"]["domain"] for axis in "xy")
    assert above["layer"][0]["encoding"]["x"]["scale"]["domain"] == x
    assert beside["layer"][0]["encoding"]["y"]["scale"]["domain"] == y


def an_answer(**but):
    """The answer of made-up rows at consecutive positions."""
    result = make_attribution(rows=3, n_layers=4, unit="log_probability", **but)
    result = replace(
        result,
        positions=np.arange(2, 5),
        token_ids=np.arange(5),
        token_texts=tuple(f"t{i}" for i in range(5)),
        targets=tuple(iglens.Target((i,), f"t{i}") for i in range(2, 5)),
    )
    return Answer.of(result)


def test_odd_cells_of_an_answer_are_crossed():
    answer = an_answer(holes=[(1, 2, np.nan)])
    _, middle, beside = drawn(answer.figure(unit="log_probability"))
    odd = {(c["column"], c["row"]) for c in middle if c["odd"]}
    assert odd == {(1, 1), (1, 2)}
    assert [c["value"] for c in middle if c["odd"]] == [None, None]
    assert [x["credit"] is None for x in beside] == [False, True, True, False]
    assert not any(c["odd"] for c in drawn(an_answer().figure())[1])


def test_the_order_of_sharing_is_named(records):
    product = replace(records["answer"], sharing="product")
    told = " ".join(product.figure().to_dict()["title"]["subtitle"])
    assert "goes to the last token" in told
    usual = " ".join(records["answer"].figure().to_dict()["title"]["subtitle"])
    assert "logarithmic mean" in usual


# a difference


def test_a_difference_of_several_rows_is_a_map_and_of_one_a_pair(records):
    pair = records["pair"]
    one = iglens.diff(pair.a.select([0]), pair.b.select([0]))
    assert one.figure().to_dict() == one.figure("waterfall").to_dict()
    assert pair.figure().to_dict() == pair.figure("map").to_dict()
    with pytest.raises(ArgumentError, match="known are map, waterfall"):
        pair.figure("pie")


def test_the_map_of_a_difference_has_b_less_a_in_every_cell(records):
    pair = records["pair"]
    (cells,) = drawn(pair.figure("map"))
    assert len(cells) == pair.credits.size
    for cell in cells:
        at = cell["column"], cell["row"]
        assert cell["value"] == pair.b.credits[at] - pair.a.credits[at]
    ends = pair.figure().to_dict()["layer"][0]["encoding"]["color"]["scale"]["domain"]
    assert ends == [-np.abs(pair.credits).max(), 0, np.abs(pair.credits).max()]


def test_the_pair_has_both_waterfalls_and_their_difference(records):
    pair = records["pair"]
    for row in range(pair.n_rows):
        a, b, less = drawn(pair.figure("waterfall", row=row))
        for side, shown in ((pair.a, a), (pair.b, b)):
            credits = [line["credit"] for line in shown[1:-1]]
            np.testing.assert_array_equal(credits, side.credits[row])
            assert (shown[0]["end"], shown[-1]["end"]) == (
                side.baseline[row],
                side.final[row],
            )
        shown = [line["credit"] for line in less]
        np.testing.assert_array_equal(shown[1:-1], pair.credits[row])
        assert (shown[0], shown[-1]) == (pair.baseline[row], pair.final[row])
        assert sum(shown[:-1]) == pytest.approx(shown[-1], abs=1e-9)
        assert [x["y"] for x in a][1:] == [x["y"] for x in b][1:]
        assert [x["y"] for x in a][1:] == [x["y"] for x in less][1:]


def test_both_waterfalls_have_one_scale(records):
    spec = records["pair"].figure("waterfall").to_dict()
    both, _ = spec["hconcat"]
    assert both["resolve"]["scale"]["x"] == "shared"


def test_of_many_layers_both_sides_add_up_the_same_quiet_runs():
    n = EACH_UP_TO + 30
    sides = []
    for jump in (20, 60):
        made = make_attribution(rows=1, n_layers=n)
        levels = np.zeros((1, n + 1))
        levels[0, jump:] = 0.75
        sides.append(replace(made, levels=levels, credits=np.diff(levels)))
    pair = Difference(*sides)
    a, b, less = drawn(pair.figure())
    assert len(a) == len(b) == len(less) < 10
    assert [x["y"] for x in a] == [x["y"] for x in b]
    moved = {x["y"]: x["credit"] for x in less if x["credit"]}
    assert moved == {"19 → 20": -0.75, "59 → 60": 0.75}


def test_odd_cells_of_either_side_are_crossed_and_say_whose():
    a = make_attribution(rows=2, n_layers=4)
    flag = Flag(1, 2, "uncertified", "too far off")
    pair = Difference(a, replace(a, flags=(flag,)))
    (cells,) = drawn(pair.figure())
    told = {(c["column"], c["row"]): c["odd"] for c in cells if c["odd"]}
    assert told == {(1, 1): "b: uncertified: too far off"}
    holes = make_attribution(rows=2, n_layers=4, holes=[(0, 2, np.nan)])
    (cells,) = drawn(Difference(holes, a).figure())
    odd = [c for c in cells if c["odd"]]
    assert [(c["column"], c["row"], c["value"]) for c in odd] == [
        (0, 1, None),
        (0, 2, None),
    ]
    assert all(c["odd"].startswith("a: ") for c in odd)


@pytest.mark.slow
@given(recipe=recipes())
@settings(deadline=None, max_examples=8)
def test_a_difference_of_anything_is_json_that_every_reader_takes(recipe):
    result = make_attribution(**recipe)
    pair = Difference(result, result)
    json.dumps(pair.figure("map").to_dict(), allow_nan=False)
    json.dumps(pair.figure("waterfall", row=-1).to_dict(), allow_nan=False)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("kind", ["map", "waterfall"])
def test_no_text_leaves_a_difference_unprintable(text, kind):
    result = make_attribution(rows=2, texts=(text,), n_layers=2, layers=[1, 2])
    other = replace(
        result, provenance=replace(result.provenance, prompt=text + " and more")
    )
    for found in strings(Difference(result, other).figure(kind).to_dict()):
        assert found.isprintable(), found


def test_small_changes_go_without_a_number_and_odd_ones_do_not():
    a = make_attribution(rows=1, n_layers=3)
    levels = np.array([[0.0, 0.001, 0.9, np.nan]])
    credits = np.array([[0.001, 0.899, np.nan]])
    flat = replace(a, levels=levels * 0, credits=np.zeros((1, 3)))
    pair = Difference(flat, replace(a, levels=levels, credits=credits))
    groups = [(str(i), [i]) for i in range(3)]
    assert [x["text"] for x in changes(pair, 0, groups)] == [
        "",
        "",
        "+0.899",
        "\N{MULTIPLICATION SIGN}",
        "\N{MULTIPLICATION SIGN}",
    ]


# interaction, baselines, gates


def test_what_parts_change_alone_and_together_adds_up_to_the_layer(records):
    found = records["interaction"]
    data = lines(found, 1)
    for index, layer in enumerate(found.layers):
        own = [x for x in data if x["y"] == str(layer)]
        together = [x for x in own if x["part"] == TOGETHER]
        assert [x["value"] for x in together] == [found.interaction[1, index]]
        at = [i for i, s in enumerate(found.subject.segments) if s.layer == layer]
        assert sum(x["value"] for x in own) == pytest.approx(
            found.credits[1, at].sum(), abs=1e-9
        )
        ends = [x["end"] for x in together if x["end"] is not None]
        assert ends in ([], [found.credits[1, at].sum()])
    assert any(x.get("end") for x in data)


def test_a_part_that_is_no_number_leaves_a_gap(records):
    alone = records["interaction"].alone.copy()
    alone[0, 1] = np.nan
    chart = replace(records["interaction"], alone=alone).figure()
    json.dumps(chart.to_dict(), allow_nan=False)


def test_baselines_start_where_they_are_and_meet_at_the_embedding(records):
    found = records["sensitivity"]
    data = starts(found, 0)
    assert [x["y"] for x in data] == list(found.kinds)
    np.testing.assert_array_equal([x["start"] for x in data], found.baseline[0])
    np.testing.assert_array_equal([x["credit"] for x in data], found.first[0])
    ends = [x["end"] for x in data]
    np.testing.assert_allclose(ends, ends[0], atol=1e-9)


def test_gates_stand_beside_credits_and_their_difference(records):
    found = records["gates"]
    shown, ledger = drawn(found.figure(row=1))
    for name, values in (("credit", found.credits), ("gates", found.effects)):
        said = [x["value"] for x in shown if x["what"] == name]
        np.testing.assert_array_equal(said, values[1])
    np.testing.assert_array_equal([x["credit"] for x in ledger], found.ledger[1])
    title = " ".join(found.figure(row=1).to_dict()["title"]["text"])
    assert found.targets[1].name.strip() in title or "prepares" in title


def test_an_uncertified_gate_path_says_so(records):
    found = records["gates"]
    bad = replace(found, apart=found.apart + 1)
    told = [
        " ".join(one.figure().to_dict()["title"]["subtitle"]) for one in (found, bad)
    ]
    assert "NOT certified" in told[1]
    assert "NOT certified" not in told[0]


def test_effects_of_skipping_promise_no_sum(records):
    skipped = replace(records["gates"], kind="skip")
    told = " ".join(skipped.figure().to_dict()["title"]["subtitle"])
    assert "need not add up" in told
    assert {x["what"] for x in drawn(skipped.figure())[0]} == {"credit", "effect"}
