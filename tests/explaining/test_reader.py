"""One trace, several questions: the map, its rivals, its promotion, its baselines."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import iglens
from iglens.errors import ArgumentError, IGLensError

IDS = [3, 1, 4, 1, 5]


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=20)
    return iglens.Decoder(GPT2LMHeadModel(config).double())


@pytest.mark.parametrize("contrast", [7, "@rival"])
def test_rivals_and_promotion_of_a_contrast_are_those_of_its_first_side(
    decoder, contrast
):
    reader = iglens.Reader()
    alone = iglens.prepare(decoder, IDS, target=5)
    against = iglens.prepare(decoder, IDS, target=5, contrast=contrast)
    one, other = (reader.flows(decoder, asked) for asked in (alone, against))
    np.testing.assert_array_equal(one.sent, other.sent)
    assert other.subject.targets[0].kind == "token"
    one, other = (reader.promotion(decoder, asked) for asked in (alone, against))
    np.testing.assert_array_equal(one.rivals, other.rivals)


def test_what_follows_one_path_takes_no_average(decoder):
    asked = iglens.prepare(decoder, IDS, target=5)
    reader = iglens.Reader(baseline=["embedding", "zero"])
    for ask in (reader.flows, reader.promotion):
        with pytest.raises(ArgumentError, match="2 baselines to average"):
            ask(decoder, asked)


def test_the_whole_distribution_has_no_rivals(decoder):
    asked = iglens.prepare(decoder, IDS, target="@entropy")
    with pytest.raises(IGLensError, match="tokens and sets"):
        iglens.Reader().flows(decoder, asked)
