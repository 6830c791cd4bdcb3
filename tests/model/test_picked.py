"""Logits of single tokens: the model's own, and no others are computed."""

import pytest
import torch
from families import FAMILIES, build, full_logits, some_ids
from torch import nn

from iglens import Decoder
from iglens.model.picked import keep_argument, kept_places, picks, try_picking
from iglens.model.runner import Runner

IDS = some_ids(40)
WANTED = [2, 7, 39]


def head_rows(model):
    """How many rows the head has been given, call by call."""
    rows = []
    head = model.get_output_embeddings()
    head.register_forward_hook(
        lambda m, args, out: rows.append(args[0][..., 0].numel())
    )
    return rows


@pytest.mark.parametrize("name", FAMILIES)
def test_picked_logits_are_the_models_own(name):
    model = build(name)
    decoder = Decoder(model)
    trace = decoder.trace(IDS, WANTED)
    own = full_logits(model, IDS)[torch.tensor(WANTED) - 1]
    assert torch.allclose(trace.logits, own, atol=1e-5, rtol=1e-5)


def test_no_logits_are_computed_that_nobody_asked_for():
    model = build("llama")
    decoder = Decoder(model)
    decoder.trace(IDS, WANTED)  # tried on the way
    rows = head_rows(model)
    decoder.trace(IDS, WANTED)
    assert rows == [len(WANTED)]


def test_texts_that_are_asked_at_other_places_share_no_waste():
    model = build("llama")
    decoder = Decoder(model)
    texts, wanted = [IDS, IDS[:20]], [[39, 40], [3, 4]]
    together = decoder.trace_many(texts, wanted)
    rows = head_rows(model)
    decoder.trace_many(texts, wanted)
    assert rows == [2 * 4]
    for trace, ids, places in zip(together, texts, wanted, strict=True):
        own = full_logits(model, ids)[torch.tensor(places) - 1]
        assert torch.allclose(trace.logits, own, atol=1e-5, rtol=1e-5)


def test_a_few_tokens_at_the_end_are_kept_by_number():
    kept = torch.arange(5, 9)
    assert keep_argument(kept, 9) == 4
    assert keep_argument(torch.tensor([0, 5]), 9).tolist() == [-9, -4]


class TakesNumbersAlone(nn.Module):
    """A model that reads `logits_to_keep` as older ones do."""

    def __init__(self, model, wrong=False):
        super().__init__()
        self.model, self.config, self.wrong = model, model.config, wrong

    def forward(self, input_ids, logits_to_keep=0):
        if self.wrong and isinstance(logits_to_keep, torch.Tensor):
            logits_to_keep = logits_to_keep.flip(0)
        elif isinstance(logits_to_keep, torch.Tensor):
            raise TypeError("slice indices must be integers")
        return self.model(input_ids, use_cache=False, logits_to_keep=logits_to_keep)


@pytest.mark.parametrize("wrong", [False, True])
def test_a_model_that_cannot_pick_computes_what_lies_between(wrong):
    model = build("llama")
    odd = TakesNumbersAlone(model, wrong)
    ids = torch.tensor([IDS])
    assert picks(Runner(model), ids[:, :9])
    assert not picks(Runner(odd), ids[:, :9])
    places = [torch.tensor(WANTED) - 1]
    for each, kept in ((model, [1, 6, 38]), (odd, [*range(1, 40)])):
        runner = Runner(each)
        try_picking(runner, [*ids], places)
        assert kept_places(runner, ids, places).tolist() == kept
    trace = Decoder(odd).trace(IDS, WANTED)
    own = full_logits(model, IDS)[torch.tensor(WANTED) - 1]
    assert torch.allclose(trace.logits, own, atol=1e-5, rtol=1e-5)


def test_declared_inputs_are_not_added_to():
    model = build("llama")
    runner = Runner(model, lambda ids: {"input_ids": ids, "use_cache": False})
    assert not picks(runner, torch.tensor([IDS]))


def test_a_trace_holds_hardly_any_logits_but_its_own():
    decoder = Decoder(build("gpt2"))
    for wanted in (WANTED, [39, 40], [*range(1, 41)]):
        logits = decoder.trace(IDS, wanted).logits
        assert logits.untyped_storage().nbytes() <= 1.1 * logits.nbytes
    for trace in decoder.trace_many([IDS, IDS[:9]], [[40], [9]]):
        assert trace.logits.untyped_storage().nbytes() == trace.logits.nbytes
