"""Texts that are read together give what each gives alone."""

import families
import numpy as np
import pytest
import torch

import iglens
from iglens.attribution import attribute, attribute_many

TEXTS = ([3, 1, 4, 1, 5, 9, 2, 6], [7, 2], [5, 5, 5, 1, 8])
POSITIONS = ([2, 5, 8], [1], [1, 2, 3, 4, 5])
FIELDS = ("levels", "credits", "writes", "model_value", "fidelity", "lens_kl")
EXACT = ("rank", "top1", "positions", "top_ids", "token_ids")


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma2"])
def traces(request):
    decoder = iglens.Decoder(families.build(request.param).double())
    return decoder.trace_many(TEXTS, POSITIONS)


def targets(traces):
    """Several, of several kinds, so that rows differ in their tokens."""
    token, pair = iglens.Target((3,), "3"), iglens.Target((1, 2), "1|2")
    return [token.versus(iglens.Target((7,), "7")), [token, pair, iglens.ENTROPY], pair]


def assert_same(one, other):
    for name in FIELDS:
        given, found = getattr(one, name), getattr(other, name)
        np.testing.assert_allclose(found, given, atol=1e-12, err_msg=name)
    for name in EXACT:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.targets == other.targets
    assert one.segments == other.segments


@pytest.mark.parametrize("baseline", ["embedding", "zero", "mean", "paper-mean"])
def test_together_as_alone(traces, baseline):
    asked = targets(traces)
    every = attribute_many(
        traces, asked, baselines=[baseline] * len(traces), diagnostics=True
    )
    for trace, target, found in zip(traces, asked, every, strict=True):
        alone = attribute(trace, target, baseline=baseline, diagnostics=True)
        assert_same(alone, found)


def test_in_small_pieces_too(traces):
    asked = targets(traces)
    whole = attribute_many(traces, asked)
    pieces = attribute_many(traces, asked, memory_budget=1)
    for one, other in zip(whole, pieces, strict=True):
        assert_same(one, other)


def test_below_layers_one_by_one():
    decoder = iglens.Decoder(families.build("llama").double())
    traces = decoder.trace_many(TEXTS, POSITIONS, by="head")
    asked = [iglens.Target((3,), "3")] * len(traces)
    every = attribute_many(traces, asked, by="head")
    for trace, target, found in zip(traces, asked, every, strict=True):
        alone = attribute(trace, target, by="head")
        assert_same(alone, found)
        assert np.array_equal(alone.components.credits, found.components.credits)


def test_a_flag_stays_with_its_text(traces):
    """A state that is not finite in one text is no matter of the others."""
    states = traces[1].states.clone()
    states[1, 0, 0] = torch.nan
    broken = traces[1].with_states(states, traces[1].logits)
    given = [traces[0], broken, traces[2]]
    asked = [iglens.Target((3,), "3")] * 3
    found = attribute_many(given, asked, strict=False)
    assert [bool(each.flags) for each in found] == [False, True, False]
    assert {flag.row for flag in found[1].flags} == {0}
    assert_same(attribute(traces[2], asked[2]), found[2])
    with pytest.raises(iglens.NonFiniteError, match="position 1"):
        attribute_many(given, asked)


def test_what_cannot_be_together(traces):
    with pytest.raises(iglens.ArgumentError, match="one of each"):
        attribute_many(traces, [None])
    with pytest.raises(iglens.ArgumentError, match="at least one trace"):
        attribute_many([], [])
    baselines = ["embedding", "zero", "zero"]
    with pytest.raises(iglens.ArgumentError, match="read together"):
        attribute_many(traces, [iglens.Target((3,), "3")] * 3, baselines=baselines)
    other = iglens.Decoder(families.build("gpt2").double()).trace([1, 2], [1])
    with pytest.raises(iglens.ArgumentError, match="read together"):
        attribute_many([traces[0], other], [iglens.Target((3,), "3")] * 2)
