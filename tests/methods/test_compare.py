"""Methods side by side: sums, errors, counts, and what cannot be had."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from families import left_as_it_was, randomise
from toys import tiny_decoder, token

import iglens
from iglens.methods import METHODS, chosen_methods, compare, compared
from iglens.model.decoder import Decoder

IDS = [3, 1, 4, 1, 5]
FAMILIES = ("llama", "gpt2", "gemma2", "phi")


@pytest.fixture(scope="module", params=FAMILIES)
def decoder(request):
    return tiny_decoder(request.param, dtype=torch.float64)


@pytest.fixture(scope="module")
def found(decoder):
    return compare(decoder, IDS, n_steps=16)


def test_every_method_is_there_in_the_order_of_the_table(found):
    assert [entry.name for entry in found.entries] == list(METHODS)


def test_the_change_is_that_of_the_models_own_probability(decoder, found):
    with torch.no_grad():
        own = decoder.model(torch.tensor([IDS])).logits[0, -1].softmax(-1).max()
    assert found.final == pytest.approx(float(own), abs=1e-12)
    assert found.change == found.final - found.baseline


def test_only_methods_without_a_lens_are_refused(found):
    refused = {e.name for e in found.entries if e.found is None}
    assert refused == {"ig-lens-tuned", "tuned-lens"}
    assert all("lens" in found[name].reason for name in refused)


def test_ig_lens_adds_up_and_levels_do_not(found):
    lines = {line.name: line for line in found.table}
    assert abs(lines["ig-lens"].error) < 1e-12
    assert lines["logit-lens"].own_error is None
    assert abs(lines["logit-lens"].error) > 1e-3


def test_credits_of_ig_lens_are_the_rises_of_the_logit_lens(found):
    levels = [found.baseline, *found["logit-lens"].found.levels]
    rises = torch.tensor(levels).diff().tolist()
    assert found["ig-lens"].found.credits.tolist() == pytest.approx(rises, abs=1e-12)


@pytest.mark.parametrize("name", ["dla", "dla-sublayer", "dla-head"])
def test_dla_adds_up_in_logits_and_not_in_probability(found, name):
    line = next(line for line in found.table if line.name == name)
    assert abs(line.own_error) < 1e-10
    assert abs(line.error) > 1e-4
    assert line.unit == "logit"


def test_parts_of_dla_add_up_to_its_layers(found):
    whole = found.by_layer(found["dla"].found)
    for name in ("dla-sublayer", "dla-head"):
        parts = found.by_layer(found[name].found)
        assert parts == pytest.approx(whole, abs=1e-9)
    assert "head 3" in found["dla-head"].found.parts


def test_forwards_are_counted_not_asserted(decoder, found):
    for entry in found.entries:
        runs_once = not entry.name.startswith(("conductance", "gate-path"))
        if entry.found is not None and runs_once:
            assert (entry.cost.forwards, entry.cost.backwards) == (1, 0), entry.name
    levels = decoder.n_layers
    assert found["logit-lens"].cost.head == levels
    # levels of the path, and the last state read twice to be verified
    assert found["ig-lens"].cost.head == levels + 3
    ten, twenty = (
        compare(decoder, IDS, target=7, methods="ig-lens-gradient", n_steps=n)
        for n in (10, 20)
    )
    more = twenty.entries[0].cost.head - ten.entries[0].cost.head
    assert more == 10 * levels * 2  # a product for the logits, one for their slopes


def test_a_fitted_lens_is_read_through_and_differenced(decoder):
    generator = torch.Generator().manual_seed(0)
    shape = (decoder.n_layers, 32, 32)
    weight = 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)
    lens = iglens.AffineLens("random", 3, (0, 1, 2), weight, weight[:, 0])
    names = "ig-lens-tuned,tuned-lens"
    found = compare(decoder, IDS, target=7, methods=names, lens=lens)
    trace = decoder.trace(IDS, [len(IDS)])
    states = trace.states[:, 0]
    moved = states[:3] + torch.einsum("lij,lj->li", weight, states[:3]) + weight[:, 0]
    read = trace.readout.logits(torch.cat([moved, states[3:]])).softmax(-1)[:, 7]
    tuned, levels = (found[name].found for name in names.split(","))
    assert levels.levels.tolist() == pytest.approx(read[1:].tolist(), abs=1e-9)
    assert tuned.credits.tolist() == pytest.approx(read.diff().tolist(), abs=1e-9)


def test_the_model_is_left_as_it_was(decoder):
    with left_as_it_was(decoder.model):
        compare(decoder, IDS, n_steps=2)


def test_the_greedy_next_token_is_the_default(decoder):
    with torch.no_grad():
        best = int(decoder.model(torch.tensor([IDS])).logits[0, -1].argmax())
    assert compare(decoder, IDS, methods="ig-lens").target.ids == (best,)


def test_one_tokens_logit_is_not_that_of_a_set(decoder):
    found = compare(decoder, IDS, target=token(5, 6), methods="dla,ig-lens")
    assert "one token" in found["dla"].reason
    assert abs(found.table[1].error) < 1e-12


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"methods": "ig-lens,nothing"}, "nothing"),
        ({"methods": []}, "known are"),
        ({"n_steps": 0}, "n_steps"),
        ({"target": "@entropy"}, "neither"),
    ],
)
def test_what_cannot_be_meant_is_refused(decoder, changed, match):
    with pytest.raises(iglens.ArgumentError, match=match):
        compare(decoder, IDS, **({"methods": "ig-lens"} | changed))


def test_more_than_one_token_is_refused(decoder):
    asked = iglens.prepare(decoder, IDS, target=[5, 6])
    with pytest.raises(iglens.ArgumentError, match="these are 2"):
        compared(decoder, asked, chosen_methods("ig-lens"))


def test_names_are_taken_once_in_their_order():
    names = [method.name for method in chosen_methods("dla, ig-lens,dla")]
    assert names == ["dla", "ig-lens"]


def test_an_unknown_entry_lists_the_known_ones(found):
    with pytest.raises(iglens.ArgumentError, match="ig-lens"):
        found["nothing"]


def skipped(model, layer):
    """The probability of the token after the text, one block of a Llama skipped."""
    handle = model.model.layers[layer].register_forward_hook(
        lambda module, args, kwargs, output: args[0], with_kwargs=True
    )
    try:
        with torch.no_grad():
            return float(model(torch.tensor([IDS])).logits[0, -1].softmax(-1)[7])
    finally:
        handle.remove()


def spearman(one, other):
    """Pearson's correlation of the ranks, where no two are equal."""
    ranks = [np.argsort(np.argsort(side)) for side in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


@pytest.fixture(scope="module")
def deep():
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, vocab_size=97,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    model = randomise(transformers.LlamaForCausalLM(config)).double()
    return Decoder(model.eval())


def test_agreement_is_that_with_blocks_skipped_by_hand(deep):
    found = compare(
        deep, IDS, target=7, methods="ig-lens,logit-lens,dla-head,gate-path"
    )
    intact = found.audited.effects.intact[0]
    effects = [intact - skipped(deep.model, layer) for layer in range(6)]
    assert list(found.skip_effects.values()) == pytest.approx(effects, abs=1e-9)
    own = found["ig-lens"].found.credits
    per_head, heads = np.zeros(6), found["dla-head"].found
    np.add.at(per_head, np.array(heads.layers) - 1, heads.credits)
    given = {
        "ig-lens": own,
        "logit-lens": own,  # the rise of its level
        "dla-head": per_head,
        "gate-path": found["gate-path"].found.credits,
    }
    for line in found.table:
        numbers = given[line.name]
        assert line.agreement == pytest.approx(spearman(numbers, effects))
        without = spearman(numbers[:-1], effects[:-1])
        assert line.agreement_without_last == pytest.approx(without)
    assert len({round(line.agreement, 6) for line in found.table}) > 1


def test_runs_of_the_audit_are_counted_apart(deep):
    cost = compare(deep, IDS, target=7, methods="ig-lens").audited.cost
    assert (cost.forwards, cost.backwards, cost.head) == (6 + 2, 0, 0)
    found = compare(deep, IDS, target=7, methods="ig-lens", audit=False)
    assert found.audited is None
    assert np.isnan(found.table[0].agreement)
    assert found.entries[0].cost.forwards == 1


def test_a_model_that_cannot_be_audited_is_still_compared():
    decoder = tiny_decoder("llama")
    stream = replace(decoder.verified.stream, chained=False)
    decoder.verified = replace(decoder.verified, stream=stream)
    found = compare(decoder, IDS, target=7, methods="ig-lens,gate-path")
    assert "between its blocks" in found.audited.reason
    assert "between its blocks" in found["gate-path"].reason
    assert found["ig-lens"].reason is None
    assert np.isnan(found.table[0].agreement)
    for form in ("md", "html"):
        assert "audit: not here." in found.text(form)
