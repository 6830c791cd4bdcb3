"""A corpus, explained: what comes out is what `explain` gives, row by row."""

import json

import datasets
import duckdb
import numpy as np
import pandas
import polars
import pyarrow.parquet
import pytest
import torch
from corpora import BAD_IDS, contents

import iglens
from iglens.corpus import Columns, Selection, Store, run
from iglens.errors import ArgumentError
from iglens.explaining import Reader

SMALL = Selection(shard_rows=10)
ARRAYS = ("levels", "credits")
NUMBERS = ("baseline", "final", "model_value")


def frame(path):
    """Every row of a store."""
    return pandas.concat([batch.to_pandas() for batch in Store.load(path).batches()])


def good_rows(corpus):
    """What the corpus says, without the rows that are none."""
    found = []
    for line in corpus.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row["id"] not in BAD_IDS:
            found.append(row)
    return found


@pytest.fixture(params=["layer", "sublayer", "head"])
def by(request):
    return request.param


def test_equals_one_by_one(tiny, corpus, tmp_path, by):
    """Ragged batches give what each text gives alone."""
    reader = Reader(by=by, baseline=["mean"], unit="log_odds", top=3)
    outcome = run(tiny, corpus, tmp_path / "run", selection=SMALL, reader=reader)
    table = frame(tmp_path / "run")
    rows = good_rows(corpus)
    assert outcome.complete
    assert (outcome.n_rows, outcome.n_failures) == (42, len(BAD_IDS))
    assert table["id"].unique().tolist() == [row["id"] for row in rows]
    for row in rows[::5]:
        found = table[table["id"] == row["id"]]
        alone = iglens.explain(
            tiny,
            row["prompt"],
            answer=row["answer"],
            by=by,
            baseline="mean",
            unit="log_odds",
            top=3,
        )
        assert found["position"].tolist() == alone.positions.tolist()
        assert found["target"].tolist() == [t.name for t in alone.targets]
        assert found["correct"].tolist() == alone.top1[:, -1].tolist()
        for name in ARRAYS:
            stored = np.stack(found[name])
            np.testing.assert_allclose(stored, getattr(alone, name), atol=2e-5)
        for name in NUMBERS:
            np.testing.assert_allclose(found[name], getattr(alone, name), atol=2e-5)
        if by == "head":
            parts = [sum(p["credit"] for p in each) for each in found["parts"]]
            every = np.array(parts) + np.stack(found["others"]).sum(1)
            np.testing.assert_allclose(every, alone.credits.sum(1), atol=1e-4)


def test_stored_rows_add_up(tiny, corpus, tmp_path):
    run(tiny, corpus, tmp_path / "run", selection=SMALL)
    table = frame(tmp_path / "run")
    total = np.stack(table["credits"]).sum(1)
    np.testing.assert_allclose(total, table["final"] - table["baseline"], atol=1e-12)
    assert table["fidelity"].max() < 1e-5
    assert set(table["token_class"]) == {"word piece"}
    assert table["even"].dtype == bool
    assert table["length"].between(2, 40).all()


def test_failures_say_why(tiny, corpus, tmp_path):
    run(tiny, corpus, tmp_path / "run", selection=SMALL)
    lines = (tmp_path / "run" / "failures.jsonl").read_text().splitlines()
    found = {each["id"]: each for each in map(json.loads, lines)}
    assert list(found) == BAD_IDS
    assert found["0"]["reason"].startswith("Line 1 is no JSON")
    assert (
        found["no-prompt"]["reason"] == "Column 'prompt' is empty: there is no prompt."
    )
    assert "holds a int" in found["number"]["reason"]
    assert "`answer` is empty" in found["no-answer"]["reason"]
    assert "99999" in found["ids"]["reason"]
    assert found["ids"]["error"] == "ArgumentError"


def test_keys(tiny, corpus, tmp_path):
    """The key changes with the settings, the content does not."""
    for name, unit in {"one": "probability", "other": "log_odds"}.items():
        reader = Reader(unit=unit)
        run(tiny, corpus, tmp_path / name, selection=SMALL, reader=reader)
    one, other = frame(tmp_path / "one"), frame(tmp_path / "other")
    assert one["content"].tolist() == other["content"].tolist()
    assert not set(one["key"]) & set(other["key"])
    assert one["content"].is_unique
    more = write(tmp_path, [{"prompt": "ab"}, {"prompt": "ab"}, {"prompt": "abc"}])
    run(tiny, more, tmp_path / "twice", target="c")
    keys = frame(tmp_path / "twice")["key"].tolist()
    assert keys[0] == keys[1] != keys[2]


def write(folder, rows, name="rows.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_others_can_read_it(tiny, corpus, tmp_path):
    path = tmp_path / "run"
    run(tiny, corpus, path, selection=SMALL, reader=Reader(by="head", top=2))
    expected = frame(path)
    files = str(path / "shards" / "*.parquet")
    query = f"select avg(final), count(*) from '{files}'"
    mean = duckdb.connect().execute(query).fetchone()
    assert mean == (pytest.approx(expected["final"].mean()), len(expected))
    assert polars.read_parquet(files)["key"].to_list() == expected["key"].tolist()
    loaded = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded["credits"][0] == pytest.approx(expected["credits"].iloc[0])


def test_what_is_asked_of_rows_that_do_not_say(tiny, tmp_path):
    rows = write(tmp_path, [{"prompt": "abc"}, {"prompt": "The capital of"}])
    run(tiny, rows, tmp_path / "next", target=["a", "b|c"])
    assert frame(tmp_path / "next")["target"].tolist() == ["a", "b|c"] * 2
    run(tiny, rows, tmp_path / "own", max_new_tokens=2)
    own = frame(tmp_path / "own")
    assert own["offset"].tolist() == [0, 1, 0, 1]
    assert own["correct"].all()
    run(tiny, rows, tmp_path / "text", positions="prompt", max_new_tokens=0)
    assert frame(tmp_path / "text")["position"].min() == 1
    run(tiny, rows, tmp_path / "rival", target="a", contrast="@rival")
    rival = frame(tmp_path / "rival")
    assert rival["target"].str.startswith("a - ").all()
    assert rival["correct"].isna().all()


def test_targets_of_rows(tiny, tmp_path):
    rows = [
        {"text": "abc", "next": "a"},
        {"text": [3, 4, 5], "next": 7},
        {"text": "abc", "next": None},
    ]
    path = write(tmp_path, rows)
    columns = Columns(target="next")
    run(tiny, path, tmp_path / "run", columns=columns, target="b")
    found = frame(tmp_path / "run")
    assert [ids.tolist() for ids in found["target_ids"]][1] == [7]
    assert found["target"].tolist()[::2] == ["a", "b"]
    assert found["prompt"].isna().tolist() == [False, True, False]


def test_a_column_of_our_name_is_renamed(tiny, tmp_path):
    path = write(tmp_path, [{"prompt": "abc", "final": "x", "unit": 3}])
    run(tiny, path, tmp_path / "run", target="a")
    found = frame(tmp_path / "run").iloc[0]
    assert (found["final_"], found["unit_"]) == ("x", 3)
    assert found["unit"] == "probability"


class Short(torch.nn.Module):
    """A model that has memory for so many texts at once."""

    def __init__(self, model, room):
        super().__init__()
        self.room, self.seen = room, []
        model.register_forward_pre_hook(self._check, with_kwargs=True)

    def _check(self, model, args, given):
        texts = len(given["input_ids"])
        self.seen.append(texts)
        if texts > self.room:
            raise torch.OutOfMemoryError("Tried to allocate 99.00 GiB")


@pytest.fixture
def short():
    """A decoder of its own, and a way to take its memory."""
    import families

    decoder = iglens.Decoder(families.build("llama"), families.tokenizer())
    assert decoder.batch_safe  # tried now, with memory
    return decoder


def test_batches_are_halved_when_memory_is_short(short, corpus, tmp_path):
    run(short, corpus, tmp_path / "plenty", selection=SMALL)
    seen = Short(short.model, 3).seen
    outcome = run(short, corpus, tmp_path / "short", selection=SMALL)
    assert outcome.n_failures == len(BAD_IDS)
    assert max(seen) > 3
    assert {n for n in seen if n <= 3} - {1}
    plenty, scarce = frame(tmp_path / "plenty"), frame(tmp_path / "short")
    assert plenty["key"].tolist() == scarce["key"].tolist()
    np.testing.assert_allclose(
        np.stack(plenty["credits"]), np.stack(scarce["credits"]), atol=1e-5
    )


def test_without_any_memory_rows_fail_and_say_so(short, corpus, tmp_path):
    Short(short.model, 0)
    outcome = run(short, corpus, tmp_path / "run", selection=SMALL)
    assert outcome.n_failures == outcome.n_rows
    lines = (tmp_path / "run" / "failures.jsonl").read_text().splitlines()
    assert sum("allocate 99.00 GiB" in line for line in lines) == 36


def test_one_bad_text_does_not_spoil_its_batch(tiny, tmp_path):
    """A state that is not finite fails its own row, in the midst of others."""
    import families

    model = families.build("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[5] = torch.nan
    decoder = iglens.Decoder(model, families.tokenizer())
    rows = [{"id": str(i), "prompt": [6, 7 + i, 8]} for i in range(6)]
    rows[2]["prompt"] = [6, 5, 8]
    path = write(tmp_path, rows)
    outcome = run(decoder, path, tmp_path / "run", target=9)
    assert (outcome.n_failures, outcome.n_tokens) == (1, 5)
    (failure,) = (tmp_path / "run" / "failures.jsonl").read_text().splitlines()
    assert json.loads(failure)["id"] == "2"
    assert json.loads(failure)["error"] == "NonFiniteError"


def test_small_budgets_change_nothing_but_rounding(tiny, corpus, tmp_path):
    run(tiny, corpus, tmp_path / "wide", selection=SMALL)
    run(tiny, corpus, tmp_path / "narrow", selection=SMALL, memory=1)
    wide, narrow = frame(tmp_path / "wide"), frame(tmp_path / "narrow")
    assert wide["content"].tolist() == narrow["content"].tolist()
    np.testing.assert_allclose(
        np.stack(wide["credits"]), np.stack(narrow["credits"]), atol=1e-5
    )


def test_parts_make_the_whole(tiny, corpus, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(tiny, corpus, whole, selection=SMALL)
    for which in (3, 1, 2):
        outcome = run(tiny, corpus, parts, selection=SMALL, part=(which, 3))
    assert outcome.complete
    assert contents(whole) == contents(parts)
    with pytest.raises(ArgumentError, match="counted from 1/3"):
        run(tiny, corpus, parts, selection=SMALL, part=(0, 3))


def test_shuffled_targets_are_others(tiny, corpus, tmp_path):
    run(tiny, corpus, tmp_path / "run", selection=SMALL)
    run(tiny, corpus, tmp_path / "null", selection=SMALL, null="targets", seed=3)
    own, null = frame(tmp_path / "run"), frame(tmp_path / "null")
    assert own["position"].tolist() == null["position"].tolist()
    assert sorted(own["target"]) == sorted(null["target"])
    assert own["target"].tolist() != null["target"].tolist()
    run(tiny, corpus, tmp_path / "again", selection=SMALL, null="targets", seed=3)
    assert contents(tmp_path / "null") == contents(tmp_path / "again")


def test_random_weights(tiny, corpus, tmp_path):
    run(tiny, corpus, tmp_path / "run", selection=SMALL)
    run(tiny, corpus, tmp_path / "null", selection=SMALL, null="weights")
    own, null = frame(tmp_path / "run"), frame(tmp_path / "null")
    assert own["content"].tolist() == null["content"].tolist()
    assert not np.allclose(np.stack(own["levels"]), np.stack(null["levels"]))
    assert null["fidelity"].max() < 1e-5


def test_names_only(tiny, corpus, tmp_path):
    """What a file cannot hold cannot be gone on with."""
    vector = Reader(baseline=torch.zeros(tiny.readout.d_model))
    with pytest.raises(ArgumentError, match="names and files"):
        run(tiny, corpus, tmp_path / "run", reader=vector)
    with pytest.raises(ArgumentError, match="targets as text"):
        run(tiny, corpus, tmp_path / "run", target=iglens.ENTROPY)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"layers": "99"}, "99"),
        ({"target": "no such token"}, "one token"),
        ({"target": "a", "contrast": "no such token"}, "one token"),
    ],
)
def test_a_bad_question_is_refused_once(tiny, corpus, tmp_path, asked, says):
    with pytest.raises(ArgumentError, match=says):
        run(tiny, corpus, tmp_path / "run", **asked)
    assert not (tmp_path / "run").exists()


def test_checksums_of_pages(tiny, corpus, tmp_path):
    """A bit that flips inside a shard is seen when it is read."""
    path = tmp_path / "run"
    run(tiny, corpus, path, selection=SMALL)
    file = Store.load(path).shard_path(1)
    metadata = pyarrow.parquet.read_metadata(file)
    column = metadata.row_group(0).column(metadata.schema.names.index("final"))
    data = bytearray(file.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    file.write_bytes(data)
    with pytest.raises(iglens.IGLensError, match=r"00001\.parquet is damaged"):
        frame(path)
