"""Every family is exact, against truths that use nothing of the package."""

import itertools
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from families import (
    CONTEXT,
    D_MODEL,
    FAMILIES,
    VOCAB,
    build,
    build_plain,
    full_logits,
    left_as_it_was,
    logits_of_replaced,
    oracle,
    some_ids,
    states_by_hooks,
    total_variation,
)

from iglens import (
    Decoder,
    FidelityError,
    LinearReadout,
    Trace,
    attribute,
    explain,
)
from iglens.readout import read

LIMIT = {torch.float32: 1e-5, torch.float64: 1e-10}
IDS = some_ids(12)
PLACES = list(range(1, len(IDS)))


@dataclass(frozen=True)
class Case:
    """A decoder, its trace, and the same model once more for the slow truth."""

    name: str
    dtype: torch.dtype
    decoder: Decoder
    plain: Any
    trace: Trace

    @property
    def family(self):
        return FAMILIES[self.name]


@cache
def make_case(name, dtype):
    decoder = Decoder(build(name, dtype))
    plain = build_plain(name, dtype)
    return Case(name, dtype, decoder, plain, decoder.trace(IDS, PLACES))


@pytest.fixture(params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture(params=LIMIT, ids=lambda dtype: str(dtype)[6:])
def case(name, request):
    return make_case(name, request.param)


@pytest.fixture
def single(name):
    return make_case(name, torch.float32)


def test_the_readout_is_explicit_and_says_what_follows_the_head(case):
    readout = case.decoder.readout
    assert isinstance(readout, LinearReadout)
    assert readout.kind == "explicit"
    assert readout.postprocess == case.family.postprocess
    assert (readout.d_model, readout.vocab_size) == (D_MODEL, VOCAB)
    assert readout.dtype == readout.precision == case.dtype
    assert case.decoder.verified.notes == ()
    assert case.decoder.context == CONTEXT


def test_the_blocks_are_those_the_family_has(case):
    names = [f"{case.family.blocks}.{i}" for i in range(case.family.layers)]
    assert list(case.decoder.verified.stream.names) == names
    assert case.decoder.n_layers == case.family.layers
    assert case.decoder.verified.stream.chained


def test_states_are_those_of_plain_hooks(case):
    expected = states_by_hooks(case.plain, case.name, IDS)[:, :-1]
    assert torch.equal(case.trace.states, expected)


def test_the_last_state_gives_the_logits_of_the_model(case):
    own = full_logits(case.plain, IDS)[:-1]
    assert torch.equal(case.trace.logits, own)
    read = case.decoder.readout.logits(case.trace.states[-1])
    assert total_variation(read, own) <= LIMIT[case.dtype]


def test_any_vector_gives_the_logits_of_a_forward_that_ends_in_it(case):
    generator = torch.Generator().manual_seed(3)
    size = float(case.trace.states[-1].std())
    vectors = torch.randn(len(IDS), D_MODEL, generator=generator).to(case.dtype) * size
    own = logits_of_replaced(case.plain, case.name, IDS, vectors)
    called = case.decoder.readout.logits(vectors)
    assert total_variation(called, own) <= LIMIT[case.dtype]
    blocks = case.decoder.readout.project(vectors).blocks(10)
    streamed = torch.cat([block.logits.clone() for block in blocks], 1)
    assert total_variation(streamed, own) <= LIMIT[case.dtype]
    injected = case.decoder.verified.injected.logits(vectors)
    assert total_variation(injected, own) <= LIMIT[case.dtype]


def test_single_logits_are_those_of_the_whole_row(case):
    states = case.trace.states[-1]
    tokens = torch.tensor(IDS[1:])[:, None]
    found = read(case.decoder.readout, states, tokens)
    expected = full_logits(case.plain, IDS)[:-1].double().gather(1, tokens)
    torch.testing.assert_close(found.logits, expected, rtol=0, atol=2e-5)


def test_levels_are_those_of_norm_and_head_in_float64(case):
    result = attribute(case.trace.with_precision(torch.float64), unit="probability")
    states = states_by_hooks(case.plain, case.name, IDS)[:, :-1]
    expected = oracle(case.plain, case.name, states)[:, range(len(IDS) - 1), IDS[1:]]
    np.testing.assert_allclose(result.levels, expected.T, rtol=1e-9, atol=1e-13)


def test_float32_levels_are_as_near_to_float64_as_log_softmax_is(single):
    case = single
    result = attribute(case.trace, unit="log_probability")
    states = states_by_hooks(case.plain, case.name, IDS)[:, :-1]
    truth = oracle(case.plain, case.name, states).log()
    shown = case.decoder.readout.logits(states.flatten(0, 1)).log_softmax(-1)
    plain = shown.view(truth.shape).double()
    every = range(len(IDS) - 1)
    truth, plain = truth[:, every, IDS[1:]], plain[:, every, IDS[1:]]
    ours = torch.from_numpy(result.levels).T
    resolution = torch.finfo(torch.float32).eps * float(truth.abs().max())
    worst = (plain - truth).abs().max() + resolution
    assert float((ours - truth).abs().max()) <= float(worst)


def every_subset(n_layers):
    layers = range(1, n_layers)
    return itertools.chain.from_iterable(
        itertools.combinations(layers, size) for size in range(n_layers)
    )


def test_every_subset_of_layers_sums_to_the_same_total(case):
    own = full_logits(case.plain, IDS).double().softmax(-1)
    own = own[range(len(IDS) - 1), IDS[1:]].numpy()
    whole = attribute(case.trace)
    for subset in every_subset(case.family.layers):
        result = attribute(case.trace, layers=subset)
        assert result.layers == (*subset, case.family.layers)
        total = result.baseline + result.credits.sum(1)
        np.testing.assert_allclose(total, own, rtol=0, atol=LIMIT[case.dtype])
        np.testing.assert_allclose(total, whole.final, rtol=0, atol=1e-7)
        np.testing.assert_allclose(result.completeness, 0, atol=1e-12)


def test_a_position_is_that_of_the_predicted_token(case):
    result = explain(case.decoder, IDS, positions=[3, 7], max_new_tokens=0)
    own = full_logits(case.plain, IDS).double().softmax(-1)
    assert result.positions.tolist() == [3, 7]
    assert [target.ids for target in result.targets] == [(IDS[3],), (IDS[7],)]
    expected = [float(own[2, IDS[3]]), float(own[6, IDS[7]])]
    np.testing.assert_allclose(result.final, expected, atol=LIMIT[case.dtype])
    np.testing.assert_allclose(result.model_value, expected, atol=LIMIT[case.dtype])


def test_what_comes_next_is_explained_after_the_last_token(case):
    result = explain(case.decoder, IDS, target=5)
    own = full_logits(case.plain, IDS).double().softmax(-1)
    assert result.positions.tolist() == [len(IDS)]
    expected = float(own[-1, 5])
    np.testing.assert_allclose(result.final, [expected], atol=LIMIT[case.dtype])


def test_fidelity_is_reported_and_the_check_could_tell(case):
    result = attribute(case.trace)
    assert result.fidelity.max() <= LIMIT[case.dtype]
    assert result.log_fidelity.max() <= 10 * LIMIT[case.dtype]
    assert result.readout.power > 1000
    assert result.flags == ()
    assert "cannot tell" not in "".join(result.warnings)


def test_the_model_is_left_as_it_was(single):
    with left_as_it_was(single.decoder.model):
        decoder = Decoder(single.decoder.model)
        explain(decoder, IDS, max_new_tokens=2)
        decoder.verified.injected.logits(single.trace.states[-1])


@torch.no_grad()
def normed_twice(case, states):
    norm = case.plain.get_submodule(case.family.norm)
    last = norm(states[-1]) if "projection" not in case.name else states[-1] * 2
    return torch.cat([states[:-1], last[None]])


MUTANTS = {
    "normed twice": normed_twice,
    "a layer early": lambda case, states: states.roll(1, dims=0),
    "a position late": lambda case, states: states.roll(1, dims=1),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_wrong_states_are_refused(single, mutant):
    wrong = MUTANTS[mutant](single, single.trace.states)
    with pytest.raises(FidelityError, match="total variation"):
        attribute(single.trace.with_states(wrong, single.trace.logits))


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"]
)
def test_low_precision_is_exact_and_its_gap_is_shown_not_gated(name, dtype):
    decoder = Decoder(build(name, dtype))
    result = explain(decoder, IDS, positions="all", max_new_tokens=0)
    own = full_logits(decoder.model, IDS)
    trace = decoder.trace(IDS, PLACES)
    read = decoder.readout.logits(trace.states[-1])
    assert total_variation(read, own[:-1]) <= decoder.verified.tolerance.total_variation
    assert torch.equal(trace.logits, own[:-1])
    assert result.readout.kind == "explicit"
    assert result.readout.dtype == "float32"
    assert result.provenance.model.dtype == str(dtype)[6:]
    gap = result.precision_gap
    assert 0 < gap.max() < 0.05
    assert gap.max() > result.fidelity.max()
    truth = oracle(decoder.model, name, trace.states)
    truth = truth[:, range(len(IDS) - 1), IDS[1:]]
    np.testing.assert_allclose(result.levels, truth.T, atol=2e-6)
