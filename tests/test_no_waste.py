"""Nothing is computed twice: the model runs once, and a shared state is read once."""

from dataclasses import replace

import pytest
import torch
from families import LAYERS, build, some_ids

from iglens import Decoder
from iglens.attribution import (
    Gradient,
    attribute,
    attribute_averaged,
    attribute_many,
    flows,
    promotion,
    sensitivity,
)
from iglens.explaining import explain
from iglens.explaining.plan import planned, run_plans
from iglens.readout.lens import LogitLens
from iglens.records import ENTROPY

IDS = some_ids(12)
POINTS = LAYERS + 1


@pytest.fixture(scope="module")
def decoder():
    return Decoder(build("llama"))


@pytest.fixture
def passes(decoder):
    """One entry per forward pass of the model: texts and tokens that went in."""
    found = []

    def note(module, args, kwargs):
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        found.append(tuple(ids.shape))

    handle = decoder.model.register_forward_pre_hook(note, with_kwargs=True)
    yield found
    handle.remove()


def counting(trace):
    """The trace, and how many states its readout has normed for the head."""
    counts, norm = [], trace.readout.norm

    def normed(states, dtype):
        counts.append(len(states))
        return norm(states, dtype)

    return replace(trace, readout=replace(trace.readout, norm=normed)), counts


def read_at(trace, *arguments, **options):
    """How many states are read for a question, without diagnostics."""
    own, counts = counting(trace)
    attribute(own, *arguments, diagnostics=False, **options)
    return sum(counts)


def test_one_trace_answers_every_question_without_the_model(decoder, passes):
    trace = decoder.trace(IDS, range(1, 12), by="sublayer")
    passes.clear()
    for target in (None, [decoder.target(5)], [ENTROPY]):
        for baseline in ("embedding", "zero", "mean", "paper-mean"):
            for unit in ("probability", "log_odds"):
                attribute(trace, target, baseline=baseline, unit=unit)
    for options in (
        {"lens": LogitLens()},
        {"layers": [1, 3]},
        {"by": "sublayer"},
        {"estimator": Gradient(4, "midpoint")},
        {"precision": torch.float64},
        {"unit": "logit", "diagnostics": True},
    ):
        attribute(trace, **options)
    attribute_averaged(trace, baselines=["zero", "mean"])
    flows(trace)
    promotion(trace)
    sensitivity(trace, baselines=["zero", "mean"])
    assert passes == []


def test_an_explanation_runs_its_text_once(decoder, passes):
    explain(decoder, IDS, positions="all", max_new_tokens=0)
    assert passes == [(1, len(IDS))]


def test_several_questions_of_one_text_run_it_once(decoder, passes):
    explain(decoder, IDS, target=[5, 6, 7], contrast="@rival")
    assert passes == [(1, len(IDS))]


def test_texts_of_a_batch_run_together(decoder, passes):
    texts = [IDS[:7], IDS, IDS[:9]]
    decoder.trace_many(texts, [[7], [12], [9]])  # tried on the way
    passes.clear()
    plans = [planned(decoder, ids, target=5) for ids in texts]
    run_plans(decoder, plans)
    assert passes == [(3, 12)]


def test_every_state_of_a_path_is_read_once(decoder):
    trace = decoder.trace(IDS, [3, 7])
    assert read_at(trace) == 2 * POINTS


def test_states_that_targets_share_are_read_once(decoder):
    trace = decoder.trace(IDS, [3, 7])
    one = read_at(trace, [decoder.target(5)])
    several = [decoder.target(token) for token in (5, 6, 7, 8)]
    assert read_at(trace, several) == one == 2 * POINTS


def test_both_sides_of_a_contrast_are_read_once(decoder):
    trace = decoder.trace(IDS, [12])
    plan = planned(decoder, IDS, target=5, contrast=6)
    assert read_at(trace, plan.on(trace).targets) == POINTS


def test_the_baseline_is_one_more_state_and_no_end_is_read_twice(decoder):
    trace = decoder.trace(IDS, [3, 7])
    assert read_at(trace, baseline="mean") == 2 * (POINTS + 1)


def test_texts_read_together_share_one_pass_over_the_vocabulary(decoder):
    traces = decoder.trace_many([IDS[:7], IDS], [[7], [3, 12]])
    own, counts = counting(traces[0])
    both = [own, replace(traces[1], readout=own.readout)]
    targets = [[decoder.target(5)], [decoder.target(5)]]
    attribute_many(both, targets, diagnostics=False)
    assert counts == [3 * POINTS]
