"""The map of a text, readout alone, against the alternatives in the same run."""

import pytest
import torch
from contenders import BLOCKINGS, bare_product, full_logits, published_procedure
from pairs import paired

from iglens import Observed, attribute
from iglens.attribution.path import make_path
from iglens.attribution.reading import read_paths
from iglens.attribution.rows import resolve_rows
from iglens.readout import MEMORY_BUDGET


@pytest.fixture(scope="module")
def case(decoder, traces):
    trace = traces(200)
    with torch.no_grad():
        normed = decoder.model.model.norm(trace.states.flatten(0, 1))
    return decoder.model, trace, normed


def ours(trace):
    """Every level of every token and layer: what the others compute too."""
    path, rows = make_path(trace, None, "embedding"), resolve_rows(trace, None)
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
def test_against_the_bare_blocked_product(case, benchmark):
    model, trace, normed = case
    weight = model.lm_head.weight.detach()
    found = {
        blocking: paired(
            ours(trace), lambda b=blocking: bare_product(normed, weight, b), pairs=1
        ).second
        for blocking in BLOCKINGS
    }
    best = min(found, key=found.get)
    result = paired(ours(trace), lambda: bare_product(normed, weight, best))
    print(f"\n(a) the bare product, blocked {best[0]} x {best[1]}:   {result}")
    benchmark.extra_info["ratio"] = result.ratio
    benchmark.pedantic(ours(trace), rounds=1)
    assert result.ratio <= 1.5


@torch.no_grad()
def test_what_the_fidelity_check_and_the_record_add(case, benchmark):
    _, trace, _ = case

    def whole():
        return attribute(trace, diagnostics=False)

    result = paired(whole, ours(trace))
    print(f"\n    attribute, against its readout alone:   {result}")
    benchmark.extra_info["ratio"] = result.ratio
    benchmark.pedantic(whole, rounds=1)
    assert result.ratio <= 1.5


@torch.no_grad()
def test_against_full_logits_per_layer(case, benchmark):
    model, trace, _ = case
    targets = trace.token_ids[1:]
    result = paired(ours(trace), lambda: full_logits(model, trace.states, targets))
    print(f"\n(b) full logits and log_softmax per layer:   {result}")
    benchmark.extra_info["ratio"] = result.ratio
    benchmark.pedantic(ours(trace), rounds=1)
    assert result.ratio < 1


@torch.no_grad()
@pytest.mark.parametrize(("n_steps", "timed"), [(64, 2), (1, 30)])
def test_against_the_published_procedure(decoder, traces, n_steps, timed, benchmark):
    """Of 64 steps two segments are timed, and counted for all thirty."""
    trace = traces(50)
    states, targets = trace.states, trace.token_ids[1:]
    segments = len(states) - 1

    def published():
        return published_procedure(
            decoder.model, states[:timed], states[1 : timed + 1], targets, n_steps
        )

    result = paired(published, ours(trace))
    ratio = result.ratio * segments / timed
    print(
        f"\n(c) the published procedure, {n_steps} step(s), 50 tokens: {ratio:.0f}x "
        f"({timed} segments {result.first:.2f} s, times {segments / timed:g}; ours "
        f"{result.second:.2f} s for all)"
    )
    benchmark.extra_info["ratio"] = ratio
    benchmark.pedantic(ours(trace), rounds=1)
    assert ratio >= (100 if n_steps == 64 else 1)
