"""The estimate names the blocks that reading really takes; a spy in the head counts."""

from dataclasses import replace

import pytest
import torch
from families import CONTEXT, VOCAB, build, some_ids

from iglens import Decoder, attribute
from iglens.examining.memory import memory_estimate


@pytest.fixture(scope="module")
def decoder():
    return Decoder(build("llama"))


def columns(shapes):
    """How many columns came before each shape."""
    total = 0
    for _, width in shapes:
        total += width
        yield total


@pytest.mark.parametrize("budget", [2**12, 2**14, 2**16, 2**20])
@pytest.mark.parametrize("n_tokens", [2, 17, CONTEXT])
def test_passes_and_blocks_are_those_of_a_real_run(decoder, n_tokens, budget):
    trace = decoder.trace(some_ids(n_tokens), range(1, n_tokens))
    shapes = []

    def spy(logits):
        if logits.dtype == torch.float32:  # single tokens are read in float64
            shapes.append(tuple(logits.shape))
        return logits

    watched = replace(trace, readout=replace(trace.readout, post=spy))
    attribute(watched, diagnostics=False, memory_budget=budget)
    found = memory_estimate(decoder, n_tokens, budget)
    assert sum(width for _, width in shapes) == found.n_passes * VOCAB
    assert shapes[0][1] == found.block_width
    first = next(i for i, total in enumerate(columns(shapes)) if total == VOCAB) + 1
    assert found.n_blocks == first


def test_a_longer_text_takes_more(decoder):
    found = [memory_estimate(decoder, n) for n in (2, 8, 64, 512, 4096)]
    for name in ("states_bytes", "logits_bytes", "peak_bytes", "n_passes"):
        values = [getattr(one, name) for one in found]
        assert values == sorted(values)
        assert values[0] < values[-1]


def test_what_is_kept_is_what_a_trace_holds(decoder):
    trace = decoder.trace(some_ids(20), range(1, 20))
    found = memory_estimate(decoder, 20)
    assert found.states_bytes == trace.states.nbytes
    assert found.logits_bytes == trace.logits.nbytes
    assert found.n_points == len(trace.states)


def test_half_precision_keeps_half(decoder):
    narrow = Decoder(build("llama", torch.bfloat16))
    one, other = (memory_estimate(d, 50) for d in (decoder, narrow))
    assert one.states_bytes == 2 * other.states_bytes
    assert one.logits_bytes == 2 * other.logits_bytes
