from collections import namedtuple

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutputWithPast

from iglens.model.structure import get, put, tensors

Pair = namedtuple("Pair", ["hidden", "rest"])

ONE, TWO = torch.ones(1), torch.ones(2)

NESTED = {"a": (None, [ONE, 3]), "b": Pair(TWO, "text"), "c": {1, 2}}


def test_every_tensor_is_found_with_its_place_and_nothing_else():
    found = list(tensors(NESTED))
    assert [place for place, _ in found] == [("a", 1, 0), ("b", 0)]
    assert found[0][1] is ONE
    assert found[1][1] is TWO
    assert list(tensors(None)) == []
    assert list(tensors("text")) == []


def test_a_tensor_alone_sits_at_no_place():
    assert [place for place, _ in tensors(ONE)] == [()]
    assert get(ONE, ()) is ONE
    assert put(ONE, (), TWO) is TWO


def test_get_finds_what_tensors_names():
    for place, tensor in tensors(NESTED):
        assert get(NESTED, place) is tensor


@pytest.mark.parametrize(
    "structure",
    [
        (ONE, None),
        [ONE, None],
        {"hidden": ONE},
        Pair(ONE, None),
        (None, {"x": [ONE]}),
        BaseModelOutputWithPast(last_hidden_state=ONE),
    ],
)
def test_put_replaces_one_tensor_and_leaves_the_original(structure):
    [(place, _)] = tensors(structure)
    changed = put(structure, place, TWO)
    assert type(changed) is type(structure)
    assert get(changed, place) is TWO
    assert get(structure, place) is ONE
    assert len(changed) == len(structure)
