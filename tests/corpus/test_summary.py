"""Streamed statistics are those of the whole table, and say what they lack."""

import json
from importlib.resources import files
from statistics import NormalDist

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from stores import SHARD, Made, made_up, sublayers

from iglens.corpus import Selection, Store, run
from iglens.corpus.bootstrap import weights, widened
from iglens.corpus.difference import difference_of_runs
from iglens.corpus.explainer import Failure
from iglens.corpus.summary import summarise, write_summary
from iglens.errors import ArgumentError, ArtifactError
from iglens.explaining import Reader
from iglens.records.estimates import DEPTHS, crossing

LEVEL, B, SEED = 0.9, 200, 3
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


def assert_described(summary):
    """The JSON form fits its schema and holds no NaN."""
    schema = json.loads((files("iglens.data") / "summary.schema.json").read_text())
    document = summary.to_json()
    Draft202012Validator(schema).validate(document)
    assert set(document) == set(schema["properties"]) == set(schema["required"])
    json.dumps(document, allow_nan=False)
    return document


def slow_ratio(frame, above, below, seed=SEED):
    """A ratio of sums over rows, and the same with every replicate's own weights."""
    drawn = weights(frame["index"].to_numpy(), B, seed)
    above = np.stack([np.asarray(value, float) for value in above])
    below = np.asarray(below, float)
    replicates = []
    for b in range(B):
        w = drawn[:, b].astype(float)
        shaped = w.reshape(-1, *[1] * (above.ndim - 1))
        total = (w * below).sum()
        replicates.append(
            (shaped * above).sum(0) / total if total else np.nan * above[0]
        )
    return above.sum(0) / below.sum(), np.array(replicates)


def slow_interval(replicates, n_prompts):
    """Quantiles of the replicates, as far out as few prompts ask for."""
    tail = NormalDist().cdf(-widened(Z, n_prompts))
    known = replicates[np.isfinite(replicates.reshape(len(replicates), -1)).all(1)]
    return np.quantile(known, [tail, 1 - tail], axis=0)


def assert_equals_slow(group, frame):
    """Means and intervals of a group are those of a loop over the table."""
    ones = np.ones(len(frame))
    n = frame["index"].nunique()
    assert (group.n_prompts, group.n_rows) == (n, len(frame))
    for name in ("credits", "levels"):
        band = getattr(group, name)
        mean, replicates = slow_ratio(frame, frame[name], ones)
        assert band.mean == pytest.approx(mean, abs=1e-12)
        if n >= 8:
            low, high = slow_interval(replicates, n)
            assert band.low == pytest.approx(low, abs=1e-10)
            assert band.high == pytest.approx(high, abs=1e-10)
    mean, replicates = slow_ratio(frame, frame["final"], ones)
    assert group.final.value == pytest.approx(mean)
    known = frame["correct"].notna()
    if known.any():
        values = frame["correct"].where(known, 0).astype(float)
        share, replicates = slow_ratio(frame, values, known)
        assert group.correct.value == pytest.approx(share)
        n = frame[known]["index"].nunique()
        if n >= 8:
            low, high = slow_interval(replicates, n)
            assert (group.correct.low, group.correct.high) == pytest.approx((low, high))
    for name in DEPTHS:
        counts = frame[name].value_counts()
        found = group.depths[name]
        assert dict(zip(found.layers, found.counts.tolist(), strict=True)) == {
            layer: counts.get(layer, 0) for layer in found.layers
        }
        assert found.missing == frame[name].isna().sum()
        assert found.mean.value == pytest.approx(frame[name].mean(), nan_ok=True)
        if found.median is not None:
            lower = frame[name].quantile(0.5, interpolation="lower")
            assert found.median == lower
    for name in ("churn", "overshoot"):
        spread = getattr(group, name)
        assert spread.n == frame[name].notna().sum()
        assert spread.mean.value == pytest.approx(frame[name].mean())
        exact = frame[name].quantile(0.5, interpolation="lower")
        least = name == "churn"
        assert spread.quantiles[2] - least == pytest.approx(exact - least, rel=0.0101)
    assert group.fidelity == frame["fidelity"].max()
    flags = frame["flags"].explode().dropna().value_counts()
    assert group.flags == flags.to_dict()


@pytest.fixture(scope="module")
def made():
    return made_up(seed=1)


@pytest.fixture(scope="module")
def store(made, tmp_path_factory):
    return made.write(tmp_path_factory.mktemp("runs") / "run")


def summed(store, **options):
    return summarise(store, level=LEVEL, bootstrap=B, seed=SEED, **options)


def test_all_rows_equal_the_table_in_memory(made, store):
    found = summed(store)
    assert_equals_slow(found.whole[0], made.frame)
    assert (found.n_items, found.n_total, found.notes) == (30, 30, ())
    assert_described(found)


def test_the_band_is_the_worst_place_of_each_replicate(made, store):
    frame = made.frame
    mean, replicates = slow_ratio(frame, frame["credits"], np.ones(len(frame)))
    off = replicates - mean
    worst = np.quantile(np.abs(off / off.std(0)).max(1), LEVEL)
    edge = widened(float(worst), 30) * off.std(0)
    band = summed(store).whole[0].credits
    assert band.band_low == pytest.approx(mean - edge)
    assert band.band_high == pytest.approx(mean + edge)


@pytest.mark.parametrize("column", ["correct", "token_class", "relation"])
def test_slices_equal_the_rows_they_are_of(made, store, column):
    (found,) = summed(store, slices=[column]).slices
    frame = made.frame
    names = frame[column].map(lambda v: {True: "true", False: "false"}.get(v, v))
    seen = 0
    for group in found.groups:
        own = frame[names == group.value]
        if group.kind == "null":
            own = frame[names.isna()]
        assert_equals_slow(group, own)
        seen += group.n_rows
    assert seen == len(frame)


def test_two_slices_have_a_difference_drawn_together(made, tmp_path):
    two = Made([r for r in made.rows if r["correct"] is not None], made.segments,
               made.types, n_items=30)  # fmt: skip
    found = summed(two.write(tmp_path / "two"), slices=["correct"])
    (contrast,) = found.slices[0].contrasts
    groups = found.slices[0].groups
    assert (contrast.a, contrast.b) == tuple(group.value for group in groups)
    frame = two.frame
    sides = {}
    for name, value in (("true", True), ("false", False)):
        own = frame[frame["correct"] == value]
        sides[name] = slow_ratio(own, own["final"], np.ones(len(own)))
    mean, replicates = (sides[contrast.b][i] - sides[contrast.a][i] for i in (0, 1))
    assert contrast.final.value == pytest.approx(mean)
    n = min(group.n_prompts for group in found.slices[0].groups)
    low, high = slow_interval(replicates, n)
    assert (contrast.final.low, contrast.final.high) == pytest.approx((low, high))
    assert abs(contrast.correct.value) == 1
    assert_described(found)


def test_columns_of_many_numbers_become_ranges(made, store):
    (found,) = summed(store, slices=["size"]).slices
    assert [group.kind for group in found.groups] == ["bin"] * 4
    edges = np.quantile(made.frame["size"], [0.25, 0.5, 0.75], method="higher")
    place = np.searchsorted(edges, made.frame["size"], side="right")
    for at, group in enumerate(found.groups):
        assert_equals_slow(group, made.frame[place == at])
    assert found.groups[0].value == f"below {edges[0]:.4g}"


def test_of_many_values_twenty_are_told_and_the_rest_is_one(made, store):
    (found,) = summed(store, slices=["target"]).slices
    counts = made.frame["target"].value_counts()
    assert len(counts) > 20
    assert [group.kind for group in found.groups] == ["value"] * 20 + ["rest"]
    told = {group.value: group.n_rows for group in found.groups[:20]}
    assert told == {value: counts[value] for value in told}
    assert min(told.values()) >= counts.drop([*told]).max()
    assert found.groups[-1].n_rows == counts.drop([*told]).sum()


def test_values_called_like_a_rest_are_kept_apart(made, tmp_path):
    rows = [{**row, "relation": [None, "other values", "no value"][row["index"] % 3]}
            for row in made.rows]  # fmt: skip
    found = summed(
        Made(rows, made.segments, made.types).write(tmp_path / "odd"),
        slices=["relation"],
    )
    kinds = {(group.value, group.kind) for group in found.slices[0].groups}
    assert kinds == {
        ("other values", "value"), ("no value", "value"), ("no value", "null"),
    }  # fmt: skip


def test_an_empty_column_is_one_group_of_its_own(store):
    (found,) = summed(store, slices=["none"]).slices
    assert [(g.kind, g.n_prompts) for g in found.groups] == [("null", 30)]


@pytest.mark.parametrize(
    ("column", "said"), [("no such", "is not there"), ("levels", "holds lists")]
)
def test_columns_that_cannot_be_sliced_are_refused(store, column, said):
    with pytest.raises(ArgumentError, match=said) as error:
        summed(store, slices=[column])
    assert "relation" in str(error.value)


def test_shares_of_parts_are_ratios_of_sums(tmp_path):
    made = made_up(seed=4, segments=sublayers(3))
    found = summed(made.write(tmp_path / "sub")).whole[0]
    credits = np.stack(made.frame["credits"])
    for share, at in zip(found.shares, (0, 1), strict=True):
        own = credits[:, at::2]
        assert share.net.value == pytest.approx(own.sum() / credits.sum())
        absolute = np.abs(own).sum() / np.abs(credits).sum()
        assert share.absolute.value == pytest.approx(absolute)
        assert share.absolute.low < absolute < share.absolute.high
    assert sum(share.net.value for share in found.shares) == pytest.approx(1)
    assert [share.part for share in found.shares] == ["attention", "mlp"]


def test_rows_that_are_not_finite_are_left_out_and_counted(made, tmp_path):
    rows = [dict(row) for row in made.rows]
    rows[3]["credits"] = [np.nan, *rows[3]["credits"][1:]]
    rows[9]["levels"] = [*rows[9]["levels"][:-1], np.inf]
    found = summed(Made(rows, made.segments, made.types).write(tmp_path / "nan"))
    group = found.whole[0]
    assert (group.n_rows, group.n_left_out) == (len(rows) - 2, 2)
    kept = made.frame.drop([3, 9])
    assert group.credits.mean == pytest.approx(np.stack(kept["credits"]).mean(0))
    assert "2 tokens left out" in str(found)


def test_units_are_kept_apart(made, tmp_path):
    rows = [
        {**row, "unit": "nats" if row["index"] % 3 else "probability"}
        for row in made.rows
    ]
    mixed = Made(rows, made.segments, made.types)
    found = summed(mixed.write(tmp_path / "mixed"), slices=["token_class"])
    frame = mixed.frame
    assert {group.unit for group in found.whole} == {"nats", "probability"}
    for group in (*found.whole, *found.slices[0].groups):
        own = frame[frame["unit"] == group.unit]
        if group.kind == "value":
            own = own[own["token_class"] == group.value]
        assert_equals_slow(group, own)
    assert_described(found)


def test_a_null_stands_beside_and_is_drawn_with_the_same_weights(made, tmp_path):
    null = made_up(seed=2, null={"of": "targets", "seed": 0})
    store, other = made.write(tmp_path / "a"), null.write(tmp_path / "null")
    found = summed(store, null=other)
    assert_equals_slow(found.null.groups[0], null.frame)
    (contrast,) = found.null.contrasts
    sides = [
        slow_ratio(m.frame, m.frame["credits"], np.ones(len(m.frame)))
        for m in (made, null)
    ]
    low, high = slow_interval(sides[0][1] - sides[1][1], 30)
    assert contrast.credits.low == pytest.approx(low)
    assert contrast.credits.high == pytest.approx(high)
    assert found.notes == ()
    assert_described(found)


def test_a_run_clears_its_null_where_it_was_planted_to(tmp_path):
    rows = made_up(seed=5, n_prompts=60).rows
    planted = [
        {**row, "credits": [row["credits"][0] + 0.5, *row["credits"][1:]]}
        for row in rows
    ]
    of = {"null": {"of": "weights", "seed": 0}}
    segments = made_up().segments
    types = made_up().types
    store = Made(planted, segments, types).write(tmp_path / "a")
    null = Made(rows, segments, types, settings=of).write(tmp_path / "n")
    found = summed(store, null=null)
    assert found.null.clears("probability").tolist() == [True, False, False, False]
    assert found.null.clears("nats") is None
    assert "1 of 4 segments differs from it (layer 1)" in str(found)


def test_what_is_no_null_or_of_another_path_is_refused(made, store, tmp_path):
    with pytest.raises(ArgumentError, match="is no null"):
        summed(store, null=store)
    other = made_up(segments=sublayers(2), null={"of": "targets"})
    with pytest.raises(ArgumentError, match="another path"):
        summed(store, null=other.write(tmp_path / "other"))


def test_a_null_of_other_prompts_is_drawn_by_itself(made, store, tmp_path):
    null = made_up(seed=2, null={"of": "targets"}, input={"fingerprint": "other"}
                   | {"name": "x", "n_lines": 30})  # fmt: skip
    found = summed(store, null=null.write(tmp_path / "null"))
    assert "other prompts" in found.notes[0]
    low, high = slow_interval(
        slow_ratio(null.frame, null.frame["final"], np.ones(len(null.frame)), SEED + 1)[
            1
        ],
        30,
    )
    group = found.null.groups[0]
    assert (group.final.low, group.final.high) == pytest.approx((low, high))


def test_a_run_that_is_not_complete_is_summed_up_as_far_as_it_goes(made, tmp_path):
    part = made.write(tmp_path / "part", shards=[0, 2])
    found = summed(part)
    own = made.frame[made.frame["index"] // SHARD % 2 == 0]
    own = own[own["index"] < 3 * SHARD]
    assert_equals_slow(found.whole[0], own)
    assert not found.complete
    assert "14 of 30 rows are there" in found.notes[0]


def test_few_prompts_have_no_interval_and_it_is_said(tmp_path):
    found = summed(made_up(n_prompts=7).write(tmp_path / "few"))
    group = found.whole[0]
    assert not group.final.bounded
    assert np.isnan(group.credits.band_low).all()
    assert found.notes == ("7 prompts are too few for intervals (8 are needed).",)
    assert "In brackets" not in str(found)
    assert summed(made_up(n_prompts=8).write(tmp_path / "e")).whole[0].final.bounded


def test_a_run_in_which_every_row_failed_says_so(tmp_path):
    failures = [Failure(i, str(i), "TargetError", "no") for i in range(9)]
    store = Made([], [], failures=failures, n_items=9).write(tmp_path / "failed")
    found = write_summary(store)
    assert found.whole == ()
    assert "9 of 9 rows failed (TargetError 9)" in str(found)
    assert_described(found)
    with pytest.raises(ArgumentError, match="nothing to draw"):
        found.figure()
    assert found.to_arrow().num_rows == 0
    summarise(store, slices=["correct"])


def test_a_run_without_a_shard_is_refused(made, tmp_path):
    with pytest.raises(ArtifactError, match="none of its 5 shards"):
        summarise(made.write(tmp_path / "none", shards=[]))
    with pytest.raises(ArtifactError, match=r"no run\.json"):
        summarise(tmp_path)


def test_a_damaged_shard_is_named(made, tmp_path):
    store = made.write(tmp_path / "damaged")
    path = store.shard_path(2)
    data = bytearray(path.read_bytes())
    data[len(data) // 8] ^= 255
    path.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match="00002"):
        summed(store, slices=["target"])


def test_shards_of_another_path_are_refused(made, tmp_path):
    store = made.write(tmp_path / "run", shards=[0, 1])
    other = made_up(seed=1, segments=sublayers(2)).write(tmp_path / "other")
    other.shard_path(2).replace(store.shard_path(2))
    with pytest.raises(ArtifactError, match="another path"):
        summed(store)


def test_summary_json_is_the_same_however_often_it_is_made(store):
    first = write_summary(store)
    written = (store.path / "summary.json").read_bytes()
    write_summary(Store.load(store.path))
    assert (store.path / "summary.json").read_bytes() == written
    assert json.loads(written) == json.loads(json.dumps(first.to_json()))


def test_the_table_holds_every_group(store):
    found = summed(store, slices=["correct"])
    table = found.to_arrow().to_pandas()
    assert len(table) == 4 * (1 + len(found.slices[0].groups))
    own = table[table["column"].isna()]
    assert own["credit"].tolist() == found.whole[0].credits.mean.tolist()
    assert own["level"].tolist() == found.whole[0].levels.mean[1:].tolist()


def test_a_real_run_adds_up(tiny, tmp_path):
    some = Selection(limit=24, shard_rows=5)
    asked = {"selection": some, "answer": " b", "max_new_tokens": 0}
    run(tiny, "builtin", tmp_path / "run", reader=Reader(by="sublayer"), **asked)
    found = summarise(tmp_path / "run", slices=["relation", "correct"])
    group = found.whole[0]
    change = group.levels.mean[-1] - group.levels.mean[0]
    assert group.credits.mean.sum() == pytest.approx(change, abs=1e-9)
    assert sum(share.net.value for share in group.shares) == pytest.approx(1)
    assert group.n_rows == sum(g.n_rows for g in found.slices[0].groups)
    assert_described(found)


def test_the_shortest_stretch_with_half_of_the_change_is_found():
    segments = tuple(made_up().segments)
    found = crossing(np.array([0.1, 0.3, 0.25, 0.35]), segments)
    assert (found.after, found.upto) == (2, 4)
    found = crossing(np.array([-0.1, -0.6, 0.1, -0.1]), segments)
    assert (found.after, found.upto) == (1, 2)
    assert (found.credit, found.change) == pytest.approx((-0.6, -0.7))
    assert crossing(np.zeros(4), segments) is None


@pytest.mark.slow
@pytest.mark.parametrize("of", ["summary", "shards", "partitions"])
def test_memory_does_not_grow_with_the_number_of_tokens(of, tmp_path, monkeypatch):
    """Ten times the prompts, the same memory but for a bit per prompt."""
    import tracemalloc

    monkeypatch.setattr("iglens.corpus.pairs.ROWS_HELD", 300)
    monkeypatch.setattr("stores.SHARD", 70)
    made = made_up(1, n_prompts=140)
    peaks = []
    for times in (3, 30):
        rows = [
            {
                **row,
                "index": row["index"] + 140 * turn,
                "content": f"{turn:04x}{row['content'][4:]}",
            }
            for turn in range(times)
            for row in made.rows
        ]
        many = Made(rows, made.segments, made.types)
        store = many.write(tmp_path / f"a{times}")
        far = {"fingerprint": "other", "name": "x", "n_lines": len(rows)}
        many.settings = {"input": far} if of == "partitions" else {}
        other = many.write(tmp_path / f"b{times}")
        tracemalloc.start()
        if of == "summary":
            summarise(store, slices=["relation"], bootstrap=B)
        else:
            assert difference_of_runs(store, other, bootstrap=B).joined == of
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
