"""Effects, correlations and curves of tiny models, against hooks written by hand."""

import numpy as np
import pytest
import torch
from families import FAMILIES, build, full_logits, left_as_it_was, part, some_ids

import iglens
from iglens.auditing import audit
from iglens.gating.level import level_of
from iglens.model.decoder import Decoder
from iglens.records import ENTROPY, Target

PROMPTS = [some_ids(n, seed=n) for n in (5, 7, 6)]
SKIPPED = ("llama", "gpt2", "gemma3", "phi", "olmo2")


def skipped(model, name, ids, layers):
    """The distribution after a text, some blocks giving what they take."""

    def hook(module, args, kwargs, output):
        given = args[0] if args else kwargs["hidden_states"]
        return (given, *output[1:]) if isinstance(output, tuple) else given

    blocks = part(model, FAMILIES[name].blocks)
    handles = [
        blocks[at].register_forward_hook(hook, with_kwargs=True) for at in layers
    ]
    try:
        return full_logits(model, ids)[-1].double().softmax(-1)
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("name", SKIPPED)
def test_an_effect_is_what_the_target_loses_without_the_block(name):
    model = build(name)
    with left_as_it_was(model):
        found = audit(Decoder(model), PROMPTS, target=[5, 9, 11])
    for text, (ids, token) in enumerate(zip(PROMPTS, (5, 9, 11), strict=True)):
        intact = skipped(model, name, ids, [])[token]
        for layer in range(3):
            without = skipped(model, name, ids, [layer])[token]
            effect = found.effects.effects[text, layer]
            assert effect == pytest.approx(float(intact - without), abs=1e-6)
        without = skipped(model, name, ids, range(3))[token]
        assert found.effects.removed[text] == pytest.approx(float(without), abs=1e-6)


@pytest.mark.parametrize("by", ["layer", "sublayer"])
@pytest.mark.parametrize("at", ["all", "last"])
def test_the_last_credit_is_the_effect_of_skipping_the_last_part(by, at):
    found = audit(Decoder(build("llama")), PROMPTS, by=by, at=at)
    assert np.allclose(found.credits[:, -1], found.effects.effects[:, -1], atol=1e-6)
    assert np.abs(found.credits[:, 0] - found.effects.effects[:, 0]).max() > 1e-4


def test_nothing_removed_is_the_baseline_of_the_credits():
    found = audit(Decoder(build("gpt2")), PROMPTS, target=7)
    baselines = [float(result.baseline[0]) for result in found.results]
    assert np.allclose(found.effects.removed, baselines, atol=1e-6)


def test_correlations_are_of_all_layers_and_of_all_but_the_last():
    found = audit(Decoder(build("llama")), PROMPTS, target=[5, 9, 11], by="sublayer")
    assert [(one.method, one.with_last) for one in found.correlations] == [
        ("credit", True),
        ("credit", False),
        ("update size", True),
        ("update size", False),
    ]
    effects = found.effects.effects
    for one in found.correlations[:2]:
        keep = slice(None) if one.with_last else slice(0, 4)
        for text in range(3):
            places = [
                np.argsort(np.argsort(side[text, keep]))
                for side in (found.credits, effects)
            ]
            expected = np.corrcoef(*places)[0, 1]
            assert one.per_text[text] == pytest.approx(expected)
        assert one.low <= one.mean <= one.high
        assert np.isfinite(one.null)


def test_one_text_has_neither_null_nor_interval():
    found = audit(Decoder(build("llama")), PROMPTS[:1], target=5)
    credit = found.correlations[0]
    assert np.isnan([credit.null, credit.low, credit.high]).all()
    assert np.isfinite(credit.mean)


def test_update_sizes_are_those_of_the_predicting_state():
    decoder = Decoder(build("llama"))
    found = audit(decoder, PROMPTS, target=5)
    for text, states in enumerate(decoder.states(PROMPTS)):
        steps = torch.diff(states[:, -1], dim=0).norm(dim=1)
        assert np.allclose(found.sizes[text], steps, rtol=1e-4)


def test_curves_take_out_the_largest_first():
    model = build("llama")
    found = audit(Decoder(model), PROMPTS[:1], target=5, curves=True)
    curves = {(one.kind, one.order): one.levels[0] for one in found.curves}
    assert {order for _, order in curves} == {
        "credit", "effect", "update size", "random",
    }  # fmt: skip
    order = np.argsort(-found.effects.effects[0], kind="stable").tolist()
    for step in range(4):
        out, inside = order[:step], [at for at in range(3) if at not in order[:step]]
        for kind, layers in (("deletion", out), ("insertion", inside)):
            expected = skipped(model, "llama", PROMPTS[0], layers)[5]
            level = curves[kind, "effect"][step]
            assert level == pytest.approx(float(expected), abs=1e-6)
    again = audit(Decoder(model), PROMPTS[:1], target=5, curves=True, seed=4)
    known = {(one.kind, one.order): one.levels[0] for one in again.curves}
    assert np.allclose(known["deletion", "credit"], curves["deletion", "credit"])
    ends = [0, -1]
    for kind in ("deletion", "insertion"):
        random = curves[kind, "random"]
        assert np.allclose(random[ends], curves[kind, "credit"][ends], atol=1e-6)


def test_mean_ablation_is_not_skipping():
    decoder = Decoder(build("llama"))
    mean = audit(decoder, PROMPTS, target=5, ablation="mean")
    skip = audit(decoder, PROMPTS, target=5)
    assert mean.effects.kind == "mean"
    assert np.abs(mean.effects.effects - skip.effects.effects).max() > 1e-4
    assert np.allclose(mean.effects.intact, skip.effects.intact, atol=1e-6)


def test_invisible_work_has_a_large_effect_and_a_small_credit():
    found = audit(Decoder(build("llama")), PROMPTS, target=5, by="sublayer")
    listed = {(one.text, one.segment) for one in found.invisible}
    effects, credits = np.abs(found.effects.effects), np.abs(found.credits)
    for text in range(3):
        for segment in range(6):
            large = effects[text, segment] >= 0.1 * effects[text].max()
            small = credits[text, segment] <= 0.1 * effects[text, segment]
            assert ((text, segment) in listed) == (large and small)


@pytest.mark.parametrize("unit", ["probability", "log_probability", "log_odds"])
def test_levels_of_whole_rows_are_those_of_the_definition(unit):
    logits = torch.randn(4, 11, generator=torch.Generator().manual_seed(0))
    p = logits.double().softmax(-1)
    one, other = p[:, [2, 5]].sum(1), p[:, 7]
    values = {
        "probability": one - other,
        "log_probability": one.log() - other.log(),
        "log_odds": (one / (1 - one)).log() - (other / (1 - other)).log(),
    }
    found = level_of(logits, Target((2, 5), "a", (7,), "b"), unit)
    assert torch.allclose(found, values[unit], atol=1e-12)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"by": "head"}, "layer or sublayer"),
        ({"at": "first"}, "all, last"),
        ({"ablation": "noise"}, "skip, mean"),
        ({"target": [1, 2]}, "2 targets for 3 prompts"),
        ({"target": ENTROPY}, "tokens, sets of them"),
    ],
)
def test_what_cannot_be_audited_is_refused(given, message):
    with pytest.raises(iglens.ArgumentError, match=message):
        audit(Decoder(build("llama")), PROMPTS, **given)


def test_no_prompts_are_refused():
    with pytest.raises(iglens.ArgumentError, match="at least one text"):
        audit(Decoder(build("llama")), [])
