"""Charts of flows, promotions, comparisons and audits hold what their records hold."""

from dataclasses import replace

import numpy as np
import pytest
from toys import tiny_decoder

import iglens
from iglens.auditing import audit
from iglens.errors import ArgumentError
from iglens.explaining import prepare
from iglens.report.charts.exchange import MATTERS, gains_and_losses
from iglens.report.charts.files import picture_bytes

IDS = [3, 1, 4, 1, 5]


@pytest.fixture(scope="module")
def decoder():
    return tiny_decoder("llama")


@pytest.fixture(scope="module")
def asked(decoder):
    return prepare(decoder, IDS, max_new_tokens=2)


@pytest.fixture(scope="module")
def flow(decoder, asked):
    return iglens.Reader().flows(decoder, asked, top=3)


@pytest.fixture(scope="module")
def promotion(decoder, asked):
    return iglens.Reader().promotion(decoder, asked)


@pytest.fixture(scope="module")
def comparison(decoder):
    return iglens.compare(decoder, IDS, n_steps=8)


@pytest.fixture(scope="module")
def audited(decoder):
    texts = [IDS, [2, 7, 1], [6, 6, 2, 8]]
    return audit(decoder, texts, target=[5, 9, 11], gates=True)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["flow", "promotion", "comparison", "audited"])
def test_every_record_draws_itself_and_says_so_in_words(request, name, theme):
    chart = request.getfixturevalue(name).figure(theme=theme)
    assert len(chart.to_dict()["description"]) > 40
    assert picture_bytes(chart, ".svg").startswith(b"<svg")


@pytest.mark.parametrize("name", ["flow", "promotion", "comparison", "audited"])
def test_an_unknown_theme_is_refused(request, name):
    with pytest.raises(ArgumentError, match="known are light, dark"):
        request.getfixturevalue(name).figure(theme="pink")


def test_gains_and_losses_are_those_of_the_layers_that_move(flow):
    moved = np.abs(flow.credits[0])
    shown = gains_and_losses(flow, 0)
    wanted = [str(s.layer) for s, m in zip(flow.subject.segments, moved, strict=True)
              if m > MATTERS * moved.sum()]  # fmt: skip
    assert list(dict.fromkeys(line["layer"] for line in shown)) == wanted
    levels = flow.levels.copy()
    levels[0, 1] = levels[0, 0] + 1e-3 * moved.sum()  # one layer with next to nothing
    quiet = gains_and_losses(replace(flow, levels=levels), 0)
    assert str(flow.subject.segments[0].layer) not in {x["layer"] for x in quiet}
    numbers = {
        round(float(x), 12) for a in (flow.gains, flow.losses) for x in a[0].flat
    }
    assert {round(line["change"], 12) for line in shown} <= numbers
    own = [line["change"] for line in shown if line["who"] == "target"]
    assert own
    for change in own:
        assert np.abs(flow.credits[0] - change).min() < 1e-6


@pytest.mark.parametrize("name", ["flow", "promotion"])
def test_a_row_that_is_not_there_is_refused(request, name):
    record = request.getfixturevalue(name)
    with pytest.raises(ArgumentError, match="from 0"):
        record.figure(row=9)
    last, same = record.figure(row=-1), record.figure(row=record.subject.n_rows - 1)
    assert last.to_dict() == same.to_dict()


def test_a_flow_that_moves_nothing_is_no_chart(flow):
    still = replace(flow, levels=flow.levels * 0)
    with pytest.raises(ArgumentError, match="no layer moves"):
        still.figure()


def test_both_splits_of_a_promotion_add_up_to_the_credit(promotion):
    spec = promotion.figure().to_dict()
    for data in spec["datasets"].values():
        sums = {}
        for line in data:
            sums[line["y"]] = sums.get(line["y"], 0.0) + line["value"]
        np.testing.assert_allclose(list(sums.values()), promotion.credits[0], atol=1e-9)


def test_a_comparison_has_a_panel_for_every_method_that_is_here(comparison):
    spec = comparison.figure().to_dict()
    here = [entry for entry in comparison.entries if entry.found is not None]
    assert [panel["title"]["text"] for panel in spec["concat"]] == [
        entry.title for entry in here
    ]
    for panel, entry in zip(spec["concat"], here, strict=True):
        data = spec["datasets"][panel["data"]["name"]]
        numbers = {line["layer"]: line["value"] for line in data}
        assert numbers == comparison.by_layer(entry.found)
        marks = panel["mark"]["type"]
        assert marks == ("line" if entry.found.kind == "reading" else "bar")


@pytest.mark.parametrize("name", ["comparison", "audited"])
def test_they_save_themselves_as_pictures(request, tmp_path, name):
    record = request.getfixturevalue(name)
    record.save(tmp_path / "x.svg")
    record.save(tmp_path / "x.picture", "pdf")
    assert (tmp_path / "x.svg").read_bytes() == picture_bytes(record.figure(), ".svg")
    assert (tmp_path / "x.picture").read_bytes().startswith(b"%PDF")


def test_an_audit_has_a_dot_for_every_number(audited):
    spec = audited.figure().to_dict()
    data = max(spec["datasets"].values(), key=len)
    for name, values in (
        ("credit", audited.credits),
        ("effect", audited.effects.effects),
        ("gates", audited.gates.effects),
    ):
        found = [line["value"] for line in data if line["what"] == name]
        np.testing.assert_allclose(found, values.mean(0), atol=1e-12)
    assert len(spec["vconcat"]) == 2
    assert len(replace(audited, correlations=()).figure().to_dict()["vconcat"]) == 1
