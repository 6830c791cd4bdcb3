"""Paired differences are those of a join in memory, however the pairs were found."""

import json
from importlib.resources import files
from statistics import NormalDist

import numpy as np
import pandas
import pytest
from jsonschema import Draft202012Validator
from stores import Made, blocks, made_up, sublayers

from iglens.corpus import Selection, Store, pairs, run
from iglens.corpus.bootstrap import weights, widened
from iglens.corpus.difference import difference_of_runs
from iglens.errors import ArgumentError, ArtifactError, OutputError
from iglens.explaining import Reader
from iglens.records.estimates import DEPTHS

LEVEL, B, SEED = 0.9, 200, 3
OTHER_INPUT = {"fingerprint": "sha256:other", "name": "x", "n_lines": 30}


def differ(a, b, **options):
    return difference_of_runs(a, b, level=LEVEL, bootstrap=B, seed=SEED, **options)


def assert_described(found):
    """The JSON form fits its schema and holds no NaN."""
    schema = (files("iglens.data") / "run_difference.schema.json").read_text()
    schema, document = json.loads(schema), found.to_json()
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(document)
    assert set(document) == set(schema["properties"]) == set(schema["required"])
    json.dumps(document, allow_nan=False)


def joined(a, b, by):
    """Both tables side by side; the k-th of equal keys with the k-th."""
    frames = [side.frame.copy() for side in (a, b)]
    for frame in frames:
        frame["k"] = frame.groupby(by).cumcount()
    return pandas.merge(*frames, on=[*by, "k"], suffixes=("_a", "_b"))


def slow(table, values, prompts="index_a"):
    """Mean over rows and its interval, by a loop over replicates."""
    drawn = weights(table[prompts].to_numpy(), B, SEED).astype(float)
    values = np.asarray(values, float)
    replicates = np.array([(w @ values) / w.sum() for w in drawn.T])
    n = table[prompts].nunique()
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    tail = NormalDist().cdf(-widened(z, n))
    return values.mean(0), *np.quantile(replicates, [tail, 1 - tail], axis=0)


def assert_equals_slow(found, table):
    """Every number of a difference is that of the joined table."""
    (group,) = found.groups
    assert (group.n_pairs, group.n_prompts) == (len(table), table["index_a"].nunique())
    a, b = (np.stack(table[f"credits_{side}"]) for side in "ab")
    for band, values in ((group.a, a), (group.b, b), (group.credits, b - a)):
        mean, low, high = slow(table, values)
        assert band.mean == pytest.approx(mean)
        assert band.low == pytest.approx(low)
        assert band.high == pytest.approx(high)
    mean, low, high = slow(table, table["final_b"] - table["final_a"])
    assert group.final.value == pytest.approx(mean)
    assert (group.final.low, group.final.high) == pytest.approx((low, high))
    for name in DEPTHS:
        shift = (table[f"{name}_b"] - table[f"{name}_a"]).dropna()
        assert group.n_depths[name] == len(shift)
        assert group.depths[name].value == pytest.approx(shift.mean())
    judged = table["correct_a"].notna() & table["correct_b"].notna()
    assert group.n_judged == judged.sum()
    both = table[judged]
    gap = both["correct_b"].astype(float) - both["correct_a"].astype(float)
    assert group.correct.value == pytest.approx(gap.mean())


def changed(made, drop=(), **settings):
    """The same tokens with other numbers, some of them gone."""
    rng = np.random.default_rng(99)
    rows = []
    for at, row in enumerate(made.rows):
        credits = np.array(row["credits"]) + rng.normal(0.1, 0.05, len(row["credits"]))
        levels = [0.0, *np.cumsum(credits)]
        own = {"credits": credits.tolist(), "levels": levels, "final": levels[-1]}
        if at not in drop:
            rows.append({**row, **own, "onset_net": int(rng.integers(1, 5))})
    return Made(rows, made.segments, made.types, n_items=30, settings=settings)


@pytest.fixture(scope="module")
def made():
    return made_up(seed=1)


@pytest.fixture(scope="module")
def store(made, tmp_path_factory):
    return made.write(tmp_path_factory.mktemp("runs") / "a")


@pytest.mark.parametrize("how", ["shards", "partitions"])
@pytest.mark.parametrize("pair", ["content", "id"])
def test_equals_a_join_in_memory(made, store, tmp_path, how, pair, monkeypatch):
    monkeypatch.setattr(pairs, "ROWS_HELD", 9)  # several files, several batches
    other = changed(made, drop=(3, 20, 21), **(
        {} if how == "shards" else {"input": OTHER_INPUT}
    ))  # fmt: skip
    found = differ(store, other.write(tmp_path / "b"), pair=pair)
    assert (found.joined, found.paired_by, found.by) == (how, pair, "segments")
    by = ["content"] if pair == "content" else ["id", "offset"]
    assert_equals_slow(found, joined(made, other, by))
    assert (found.a.n_unpaired, found.b.n_unpaired) == (3, 0)
    assert_described(found)


@pytest.mark.parametrize("how", ["shards", "partitions"])
def test_the_kth_of_equal_rows_goes_with_the_kth(made, tmp_path, how, monkeypatch):
    monkeypatch.setattr(pairs, "ROWS_HELD", 9)
    rows = [{**row, "content": f"{row['index'] // 7:032x}"} for row in made.rows]
    twins = Made(rows, made.segments, made.types)
    other = changed(twins, drop=(5,), **(
        {} if how == "shards" else {"input": OTHER_INPUT}
    ))  # fmt: skip
    found = differ(twins.write(tmp_path / "a"), other.write(tmp_path / "b"))
    assert_equals_slow(found, joined(twins, other, ["content"]))
    assert found.n_pairs == len(rows) - 1


def test_without_common_content_the_id_pairs(made, store, tmp_path):
    rows = [{**row, "content": f"b{row['content'][1:]}"} for row in made.rows]
    other = Made(rows, made.segments, made.types)
    found = differ(store, other.write(tmp_path / "b"))
    assert found.paired_by == "id"
    assert found.n_pairs == len(rows)
    with pytest.raises(ArgumentError, match="nothing is in both"):
        differ(store, tmp_path / "b", pair="content")


def test_content_of_another_vocabulary_is_not_asked(made, store, tmp_path):
    model = {"id": "another", "n_layers": 4, "vocab_size": 98}
    found = differ(store, changed(made, model=model).write(tmp_path / "b"))
    assert found.paired_by == "id"


@pytest.mark.parametrize("shards", [[1, 4], [0, 2]])
def test_rows_of_a_missing_shard_have_no_counterpart(made, store, tmp_path, shards):
    other = changed(made)
    part = other.write(tmp_path / "b", shards=shards)
    found = differ(store, part)
    own = other.frame[other.frame["index"].floordiv(7).isin(shards)]
    assert found.n_pairs == len(own)
    assert found.a.n_unpaired == len(made.rows) - len(own)
    assert f"{9 if 4 in shards else 14} of 30 rows" in " ".join(found.notes)
    back = differ(part, store)
    assert (back.a.n_unpaired, back.b.n_unpaired) == (0, found.a.n_unpaired)
    assert back.groups[0].final.value == pytest.approx(-found.groups[0].final.value)


def test_a_run_differs_from_itself_by_nothing(store):
    found = differ(store, store)
    (group,) = found.groups
    assert (group.credits.mean == 0).all()
    assert (group.credits.band_low == 0).all()
    assert (group.final.low, group.final.high) == (0, 0)
    assert "No step's credit differs" in str(found)


def test_pairing_knows_more_than_two_summaries(made, store, tmp_path):
    """The band of the difference is narrower than what both means leave open."""
    found = differ(store, changed(made).write(tmp_path / "b")).groups[0]
    alone = found.a.high - found.a.low
    assert (found.credits.high - found.credits.low < alone / 2).all()
    assert found.credits.clear.all()


def test_paths_of_parts_and_of_blocks_meet_in_layers(tmp_path):
    fine = made_up(seed=1, segments=sublayers(3))
    rows = [
        {**row, "credits": np.reshape(row["credits"], (3, 2)).sum(1).tolist(),
         "levels": row["levels"][::2]}
        for row in fine.rows
    ]  # fmt: skip
    whole = Made(rows, blocks(3), fine.types)
    found = differ(whole.write(tmp_path / "a"), fine.write(tmp_path / "b"))
    assert found.by == "layers"
    assert found.groups[0].credits.mean == pytest.approx(np.zeros(3), abs=1e-12)


def test_models_of_different_depth_are_compared_by_fractions(tmp_path):
    shallow, deep = made_up(seed=1, segments=blocks(3)), made_up(2, segments=blocks(8))
    found = differ(shallow.write(tmp_path / "a"), deep.write(tmp_path / "b"), pair="id")
    (group,) = found.groups
    table = joined(shallow, deep, ["id", "offset"])
    for side, band in (("a", group.a), ("b", group.b)):
        total = np.stack(table[f"credits_{side}"]).sum(1).mean()
        assert band.mean.sum() == pytest.approx(total)
    shift = (table["onset_net_b"] / 8 - table["onset_net_a"] / 3).dropna()
    assert group.depths["onset_net"].value == pytest.approx(shift.mean())
    assert "of the depth" in found.labels[0]
    assert "spread evenly" in str(found)
    assert_described(found)


def test_units_are_kept_apart_and_pairs_of_two_units_left_out(made, tmp_path):
    def united(made, split):
        rows = [{**r, "unit": "nats" if r["index"] < split else "probability"}
                for r in made.rows]  # fmt: skip
        return Made(rows, made.segments, made.types)

    a, b = united(made, 10), united(changed(made), 12)
    found = differ(a.write(tmp_path / "a"), b.write(tmp_path / "b"))
    frame = made.frame
    odd = frame["index"].between(10, 11).sum()
    assert f"{odd} pairs are left out" in " ".join(found.notes)
    sizes = {group.unit: group.n_pairs for group in found.groups}
    assert sizes == {
        "nats": (frame["index"] < 10).sum(),
        "probability": (frame["index"] >= 12).sum(),
    }


def test_pairs_that_are_not_finite_are_left_out(made, store, tmp_path):
    other = changed(made)
    other.rows[4]["credits"] = [np.inf, *other.rows[4]["credits"][1:]]
    (group,) = differ(store, other.write(tmp_path / "b")).groups
    assert (group.n_pairs, group.n_left_out) == (len(made.rows) - 1, 1)
    assert np.isfinite(group.credits.mean).all()


def test_few_prompts_have_no_interval_and_it_is_said(tmp_path):
    a = made_up(n_prompts=5)
    other = Made(a.rows, a.segments, a.types)
    found = differ(a.write(tmp_path / "a"), other.write(tmp_path / "b"))
    assert not found.groups[0].final.bounded
    assert "5 prompts are too few" in " ".join(found.notes)
    assert "too few prompts" in str(found)
    assert_described(found)


def test_other_readings_are_said(made, store, tmp_path):
    reading = {"unit": "probability", "baseline": ["zero", "mean"], "by": "layer"}
    other = changed(made, reading=reading | {"lens": "fitted", "estimator": "observed"})
    found = differ(store, other.write(tmp_path / "b"))
    assert (
        "these differ: baseline (embedding, zero + mean), lens (logit, fitted)"
        in (found.notes[0])
    )


def test_units_that_differ_are_refused(made, store, tmp_path):
    reading = {"unit": "log_odds", "baseline": ["embedding"], "by": "layer"}
    other = changed(made, reading=reading | {"lens": "logit", "estimator": "observed"})
    with pytest.raises(ArgumentError, match=r"in probability, .* in log_odds"):
        differ(store, other.write(tmp_path / "b"))


def test_runs_without_anything_are_refused(made, store, tmp_path):
    failed = Made([], [], n_items=9).write(tmp_path / "failed")
    with pytest.raises(ArgumentError, match="could be explained"):
        differ(store, failed)
    with pytest.raises(ArtifactError, match="none of its"):
        differ(store, made.write(tmp_path / "none", shards=[]))
    with pytest.raises(ArgumentError, match="`pair` is 'key'"):
        differ(store, store, pair="key")


def test_no_room_to_sort_in_is_one_sentence(made, store, tmp_path, monkeypatch):
    other = changed(made, input=OTHER_INPUT).write(tmp_path / "b")
    monkeypatch.setattr("tempfile.tempdir", "/proc/self")
    with pytest.raises(OutputError, match="TMPDIR"):
        differ(store, other)


def test_real_runs_of_the_same_prompts(tiny, tmp_path):
    asked = {"selection": Selection(limit=24, shard_rows=5), "answer": " b"}
    asked["max_new_tokens"] = 0
    run(tiny, "builtin", tmp_path / "a", **asked)
    run(tiny, "builtin", tmp_path / "b", reader=Reader(by="sublayer"), **asked)
    run(tiny, "builtin", tmp_path / "null", null="weights", **asked)
    same = differ(tmp_path / "a", tmp_path / "b")
    assert (same.paired_by, same.joined, same.by) == ("content", "shards", "layers")
    assert same.groups[0].credits.mean == pytest.approx(np.zeros(3), abs=1e-5)
    other = differ(tmp_path / "a", tmp_path / "null")
    assert other.n_pairs == sum(s.n_rows for s in Store.load(tmp_path / "a").shards())
    assert other.groups[0].credits.mean != pytest.approx(np.zeros(3), abs=1e-5)
    assert "null (none, weights)" in other.notes[0]
