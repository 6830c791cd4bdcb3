"""The pair of rules, and panels that are halved."""

import numpy as np
import pytest
import torch

from iglens.attribution.integral.quadrature import GAUSS, KRONROD, MIDDLE, NODES


def test_the_coarser_rule_is_that_of_gauss():
    places, weights = np.polynomial.legendre.leggauss(7)
    np.testing.assert_allclose(NODES[1::2], (places + 1) / 2, atol=1e-16)
    np.testing.assert_allclose(GAUSS[1::2], weights / 2, atol=1e-16)
    assert (GAUSS[::2] == 0).all()
    assert NODES[MIDDLE] == 0.5


@pytest.mark.parametrize(("weights", "degree"), [(GAUSS, 13), (KRONROD, 23)])
def test_rules_are_exact_up_to_their_degree_and_no_further(weights, degree):
    error = [float(weights @ NODES**k) - 1 / (k + 1) for k in range(degree + 2)]
    assert np.abs(error[: degree + 1]).max() < 1e-15
    # the first degree beyond that is integrated wrongly, by what is left of it
    ends = torch.tensor([0.5])
    beyond = float(weights @ (NODES - ends).double() ** (degree + 1))
    assert abs(beyond - 0.5 ** (degree + 1) / (degree + 2)) > 1e-17
