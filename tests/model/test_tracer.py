"""Several texts in one forward pass equal one after the other."""

import families
import numpy as np
import pytest
import torch

from iglens import ArgumentError, Decoder, attribute
from iglens.model.noise import keeps_texts_apart

LENGTHS = (3, 9, 5, 1)


def texts():
    return [families.some_ids(n, seed=n) for n in LENGTHS]


def everywhere(ids):
    return range(1, len(ids) + 1)


@pytest.mark.parametrize(
    "name", ["llama", "mistral", "gemma2", "gpt2", "opt", "mixtral"]
)
def test_texts_of_any_length_in_one_batch_equal_one_by_one(name):
    decoder = Decoder(families.build(name))
    ragged = texts()
    wanted = [everywhere(ids) for ids in ragged]
    together = decoder.trace_many(ragged, wanted)
    assert decoder.batch_safe
    for ids, positions, trace in zip(ragged, wanted, together, strict=True):
        alone = decoder.trace(ids, positions)
        for baseline in ("embedding", "mean", "paper-mean"):
            targets = [(p, targets_at(ids, p)) for p in positions]
            one = attribute(alone, targets, baseline=baseline)
            other = attribute(trace, targets, baseline=baseline)
            np.testing.assert_allclose(other.levels, one.levels, atol=1e-5)
        assert trace.token_ids.tolist() == ids
        assert trace.positions.tolist() == list(positions)


def targets_at(ids, position):
    from iglens import Target

    token = ids[position] if position < len(ids) else 5
    return Target((token,), str(token))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_batches_are_exact_in_float64(name):
    decoder = Decoder(families.build(name, torch.float64))
    ragged = texts()
    together = decoder.trace_many(ragged, [everywhere(ids) for ids in ragged])
    for ids, trace in zip(ragged, together, strict=True):
        alone = decoder.trace(ids, everywhere(ids))
        torch.testing.assert_close(trace.states, alone.states, rtol=0, atol=1e-6)
        torch.testing.assert_close(trace.logits, alone.logits, rtol=0, atol=1e-6)


def test_a_subset_of_layers_and_positions_is_kept_per_text():
    decoder = Decoder(families.build("llama"))
    ragged = texts()[:3]
    traces = decoder.trace_many(ragged, [[2], [4, 9], [1, 3]], layers=[1])
    assert [t.positions.tolist() for t in traces] == [[2], [4, 9], [1, 3]]
    assert {t.layers for t in traces} == {(0, 1, decoder.n_layers)}


class Leaky(torch.nn.Module):
    """A model in which a text's tokens see the largest number of the whole batch."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.config = inner, inner.config

    def get_input_embeddings(self):
        return self.inner.get_input_embeddings()

    def forward(self, input_ids, attention_mask=None, use_cache=False):
        output = self.inner(input_ids=input_ids, use_cache=False)
        output["logits"] = output["logits"] * (1 + 0.1 * len(input_ids))
        return output


def test_a_model_that_mixes_texts_runs_them_one_by_one_and_says_so():
    from dataclasses import replace

    decoder = Decoder(families.build("llama"))
    assert keeps_texts_apart(decoder._runner, decoder.verified.noise)
    leaky = replace(decoder._runner, model=Leaky(decoder.model))
    assert not keeps_texts_apart(leaky, decoder.verified.noise)
    decoder.__dict__["batch_safe"] = False
    ragged = texts()[:2]
    traces = decoder.trace_many(ragged, [[2], [3]])
    assert all("one by one" in trace.warnings[-1] for trace in traces)
    alone = decoder.trace(ragged[0], [2])
    assert torch.equal(traces[0].states, alone.states)


@pytest.mark.parametrize(
    ("texts", "positions"), [([], []), ([[3]], []), ([[3, 4], [5]], [[1], [2]])]
)
def test_texts_and_positions_that_do_not_match_are_refused(texts, positions):
    decoder = Decoder(families.build("llama"))
    with pytest.raises(ArgumentError):
        decoder.trace_many(texts, positions)
