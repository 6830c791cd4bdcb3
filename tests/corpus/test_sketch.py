"""Quantiles of a stream are as near to the true ones as they say."""

import numpy as np
import pytest

from iglens.corpus.sketch import LARGEST, RESOLUTION, Sketch


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_quantiles_are_within_the_resolution(scale):
    values = scale * np.random.default_rng(0).lognormal(0, 2, 5000)
    sketch = Sketch()
    for part in np.array_split(values, 7):
        sketch.add(part)
    assert sketch.n == 5000
    for share in (0.0, 0.05, 0.5, 0.95, 1.0):
        exact = np.quantile(values, share, method="lower")
        assert sketch.quantile(share) == pytest.approx(exact, rel=1.01 * RESOLUTION)


def test_zeros_unknowns_and_giants_have_their_places():
    sketch = Sketch()
    assert np.isnan(sketch.quantile(0.5))
    sketch.add(np.array([0.0, 0.0, np.nan, -1e-17, 1e300]))
    assert sketch.n == 4
    assert sketch.quantile(0.5) == 0
    assert sketch.quantile(1.0) == pytest.approx(LARGEST, rel=0.02)
