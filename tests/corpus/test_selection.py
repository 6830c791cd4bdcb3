"""Shards are planned from the input alone."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from iglens.corpus.items import Broken, Columns
from iglens.corpus.read import AbstractInput
from iglens.corpus.selection import Selection, Shards, Survey
from iglens.errors import ArgumentError


class Numbers(AbstractInput):
    """So many rows, of which every seventh is none."""

    def lines(self):
        for index in range(int(self.name)):
            yield Broken("bad") if index % 7 == 6 else {"prompt": str(index)}

    def fingerprint(self):
        return self.name


def shards(n, **selection):
    return Shards(Numbers(str(n)), n, Columns("prompt"), Selection(**selection))


@given(
    n=st.integers(1, 60),
    limit=st.none() | st.integers(1, 80),
    shuffle=st.booleans(),
    shard_rows=st.integers(1, 20),
    data=st.data(),
)
def test_every_row_is_in_one_shard(n, limit, shuffle, shard_rows, data):
    cut = shards(n, limit=limit, shuffle=shuffle, shard_rows=shard_rows)
    every = dict(cut.items(range(len(cut))))
    assert [len(items) for items in every.values()] == [
        cut.size(number) for number in range(len(cut))
    ]
    rows = [item.index for items in every.values() for item in items]
    assert len(rows) == len(set(rows)) == cut.n_rows == min(n, limit or n)
    if not shuffle:
        assert rows == list(range(cut.n_rows))
    wanted = data.draw(st.sets(st.sampled_from(range(len(cut)))))
    some = dict(cut.items(wanted))
    assert some == {number: every[number] for number in sorted(wanted)}


def test_shuffling_is_by_seed():
    orders = [
        [
            i.index
            for _, items in shards(30, shuffle=True, seed=s).items({0})
            for i in items
        ]
        for s in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_bad_lines_keep_their_place():
    ((_, items),) = shards(9).items({0})
    assert [item.broken for item in items] == [None] * 6 + ["bad"] + [None] * 2


def test_types_of_columns():
    class Rows(Numbers):
        def lines(self):
            yield {"a": 1, "b": True, "c": None, "d": 1, "e": "x", "f": 2**70, "g": 1}
            yield {"a": 2, "b": None, "c": None, "d": 1.5, "e": 1, "h": [1], "g": True}

    assert Survey.of(Rows("")).types == {
        "a": "int",
        "b": "bool",
        "c": "string",
        "d": "float",
        "e": "string",
        "f": "string",
        "g": "string",
        "h": "string",
    }


def test_nothing_to_take():
    with pytest.raises(ArgumentError, match="holds no rows"):
        Survey.of(Numbers("0"))
    with pytest.raises(ArgumentError, match="`limit` is 0"):
        Selection(limit=0)
    with pytest.raises(ArgumentError, match="`shard_rows` is 0"):
        Selection(shard_rows=0)
