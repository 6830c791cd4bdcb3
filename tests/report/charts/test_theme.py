"""Colours keep their meaning for colour-blind readers, in grey, and on their paper."""

from itertools import combinations

import numpy as np
import pytest

from iglens.errors import ArgumentError
from iglens.report.charts.theme import DARK, LIGHT, theme_of

# Viénot, Brettel and Mollon 1999: what dichromats see, in linear RGB
SEEN = {
    "everybody": np.eye(3),
    "protan": np.array([[0.1124, 0.8876, 0], [0.1124, 0.8876, 0], [0.004, -0.004, 1]]),
    "deutan": np.array([[0.2928, 0.7072, 0], [0.2928, 0.7072, 0], [-0.022, 0.022, 1]]),
}
THEMES = (LIGHT, DARK)


def linear(colour):
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def luminance(colour):
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def lab(rgb):
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    white = np.array([0.9505, 1, 1.089])
    share = np.clip(to_xyz @ rgb / white, 0, None)
    f = np.where(share > 216 / 24389, np.cbrt(share), (24389 / 27 * share + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def apart(one, other, eye):
    """Distance of two colours as an eye sees them (CIE 1976; 2.3 can just be told)."""
    a, b = (lab(np.clip(SEEN[eye] @ linear(colour), 0, 1)) for colour in (one, other))
    return float(np.linalg.norm(a - b))


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("eye", SEEN)
@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_gains_and_losses_are_told_apart_by_every_eye(theme, eye):
    colours = (theme.gain, theme.loss, theme.middle)
    assert min(apart(a, b, eye) for a, b in combinations(colours, 2)) > 40


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_levels_keep_their_order_in_grey(theme):
    steps = np.diff([luminance(colour) for colour in theme.ramp])
    assert (steps > 0).all() or (steps < 0).all()


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_text_and_bars_stand_out_from_the_paper(theme):
    assert contrast(theme.ink, theme.paper) > 12
    assert contrast(theme.soft, theme.paper) > 4.5
    for colour in (theme.gain, theme.loss, *theme.others):
        assert contrast(colour, theme.paper) > 3


def test_an_unknown_theme_names_those_there_are():
    with pytest.raises(ArgumentError, match="known are light, dark"):
        theme_of("sepia")
