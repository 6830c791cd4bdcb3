"""Directions of a user's own: shares, their error, what does not fit."""

import numpy as np
import pytest
import torch
from brute_force import TOKEN, gradients

import iglens
from iglens.errors import ArgumentError
from iglens.inside.directions import Directions


def features(trace, seed=0, n=6):
    """Random directions with coefficients that miss a part of the update."""
    generator = torch.Generator().manual_seed(seed)
    width, rows = trace.states.shape[2], len(trace.positions)
    vectors = torch.randn(n, width, generator=generator)
    return Directions(vectors, torch.randn(rows, n, generator=generator))


@pytest.mark.parametrize(("family", "part"), [("llama", "mlp"), ("neox", "attention")])
def test_directions_of_ones_own_and_their_error_are_the_credit(opened, family, part):
    decoder, trace, _ = opened(family, "head")
    given = features(trace)
    result = iglens.attribute(
        trace, TOKEN, by="sublayer", directions={(2, part): given}
    )
    inside, index = result.components, 0 if part == "attention" else 1
    assert inside.kinds == ("direction",) * 6 + ("error",)
    np.testing.assert_allclose(inside.totals, result.credits, atol=1e-12)
    assert np.abs(inside.others[:, 2 + index]).max() < 1e-12
    g = gradients(decoder, family, trace, index, TOKEN, "probability")
    expected = (g @ given.vectors.double().T) * given.coefficients.double()
    np.testing.assert_allclose(inside.credits[:, :6], expected, atol=2e-9)


def test_directions_of_a_whole_layer(opened):
    _, trace, _ = opened("llama", "head")
    given = features(trace)
    result = iglens.attribute(trace, TOKEN, directions={(3, "block"): given})
    inside = result.components
    assert set(inside.segments.tolist()) == {2}
    np.testing.assert_allclose(inside.totals, result.credits, atol=1e-12)


def test_directions_that_do_not_fit_are_refused(opened):
    _, trace, _ = opened("llama", "head")
    good = features(trace)
    with pytest.raises(ArgumentError, match=r"names \[\(9, 'mlp'\)\]; this path has"):
        iglens.attribute(trace, TOKEN, by="sublayer", directions={(9, "mlp"): good})
    bad = Directions(torch.zeros(2, 5), torch.zeros(3, 2))
    with pytest.raises(ArgumentError, match="are for 3 positions of width 5"):
        iglens.attribute(trace, TOKEN, by="sublayer", directions={(2, "mlp"): bad})
    with pytest.raises(ArgumentError, match="4 columns, but there are 2 directions"):
        Directions(torch.zeros(2, 5), torch.zeros(3, 4))
    with pytest.raises(ArgumentError, match="`vectors` holds NaN"):
        Directions(torch.full((2, 5), torch.nan), torch.zeros(3, 2))
