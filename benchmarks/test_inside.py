"""Below the layer: one token of SmolLM2, all layers, every part of every block.

Against the layer map of the same token in the same run, and in seconds.
"""

import numpy as np
import pytest
import torch
from pairs import paired

from iglens import Observed, attribute
from iglens.attribution.path import make_path
from iglens.attribution.reading import read_paths
from iglens.attribution.rows import resolve_rows
from iglens.readout import MEMORY_BUDGET

PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def traced(decoder):
    """Traces of the one next token, and its target."""
    ids = decoder.encode(PROMPT)
    target = decoder.target(" Paris", ids)

    def of(by, prompt=ids):
        return decoder.trace(prompt, [len(prompt)], by=by)

    return of, target


def readout_of(trace, target, *, parted):
    """The readout alone, as the layer map and the map of sublayers take it."""
    path = make_path(trace, None, "embedding", parted=parted)
    rows = resolve_rows(trace, target)
    return lambda: read_paths(
        path,
        rows,
        trace.readout,
        "probability",
        Observed(),
        diagnostics=False,
        memory_budget=MEMORY_BUDGET,
    )


@torch.no_grad()
def test_sublayers_against_layers(traced, benchmark):
    of, target = traced
    trace = of("sublayer")
    sublayers = readout_of(trace, target, parted=True)
    result = paired(sublayers, readout_of(trace, target, parted=False), pairs=15)
    print(f"\nsublayers, against the layer map's readout:   {result}")
    benchmark.extra_info["ratio"] = result.ratio
    benchmark.pedantic(sublayers, rounds=3)
    assert result.ratio <= 2.2


@pytest.mark.parametrize(
    ("by", "seconds"), [("head", 1.0), ("neuron", 2.0), ("source", 2.0)]
)
def test_everything_inside_all_layers(traced, benchmark, by, seconds):
    of, target = traced
    trace = of(by)

    def opened():
        return attribute(trace, target, by=by, diagnostics=False)

    result = paired(opened, lambda: attribute(trace, target, diagnostics=False))
    inside = opened().components
    worst = float(np.nanmax(np.fmax(inside.residual, inside.disagreement)))
    print(
        f"\nby {by}, {inside.n_parts.sum()} of all layers, against the map:   {result}"
        f"\n    certificates: {worst:.1g} at most"
    )
    benchmark.extra_info["ratio"] = result.ratio
    benchmark.pedantic(opened, rounds=3)
    assert worst <= 1e-6
    assert result.first <= seconds


def test_what_keeping_the_insides_adds_to_the_forward_pass(traced, benchmark):
    of, _ = traced
    for by in ("sublayer", "neuron", "source"):
        result = paired(lambda by=by: of(by), lambda: of("layer"))
        print(f"\ntrace by {by}, against one by layer:   {result}")
    benchmark.pedantic(lambda: of("source"), rounds=3)
