import numpy as np
import pytest
import torch
from families import build, some_ids, states_by_hooks

from iglens import ArgumentError, Decoder, fit_lens
from iglens.explaining.lenses import solve
from iglens.explaining.lenses.accumulate import accumulate, groups_within
from iglens.explaining.lenses.moments import Moments
from iglens.explaining.lenses.parts import Parts
from iglens.explaining.lenses.ridge import ridge_translator
from iglens.explaining.lenses.solve import fit_on, fitted_layers
from iglens.explaining.lenses.text import Corpus
from iglens.model.loading.child import silent

LENGTHS = (5, 9, 9, 17, 30, 64)


def corpus(count, first=0):
    """Documents of many lengths; every third has two pieces."""
    documents = []
    for seed in range(first, first + count):
        length = LENGTHS[seed % len(LENGTHS)]
        pieces = [tuple(some_ids(length, seed=seed))]
        if seed % 3 == 0:
            pieces.append(tuple(some_ids(7, seed=seed + 1000)))
        documents.append(tuple(pieces))
    return Corpus(tuple(documents), "test")


def parts(fit=24, choice=3, held_out=3):
    return Parts(corpus(fit), corpus(choice, 100), corpus(held_out, 200), 0)


@pytest.fixture(scope="module")
def decoder():
    return Decoder(build("llama"))


def rows(model, family, pieces):
    """States of all tokens but the first of each piece, by hooks, in float64."""
    states = [states_by_hooks(model, family, piece)[:, 1:] for piece in pieces]
    return torch.cat(states, 1).double()


def oracle(x, last, penalty):
    """The definition, solved at once: the penalty as rows of their own."""
    x, r = x.numpy(), (last - x).numpy()
    n, d = x.shape
    strength = penalty * np.trace(np.cov(x.T, bias=True)) / d
    top = np.hstack([x, np.ones((n, 1))]) / np.sqrt(n)
    bottom = np.hstack([np.sqrt(strength) * np.eye(d), np.zeros((d, 1))])
    aim = np.vstack([r / np.sqrt(n), np.zeros((d, d))])
    solution = np.linalg.lstsq(np.vstack([top, bottom]), aim, rcond=None)[0]
    return torch.from_numpy(solution[:-1].T), torch.from_numpy(solution[-1])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_streamed_translator_is_the_least_squares_one_of_the_states(family):
    model = build(family, torch.float64)
    text = corpus(24)
    moments = accumulate(Decoder(model), text, (0, 2), silent)
    every = rows(model, family, text.pieces)
    for layer in (0, 2):
        weight, bias = ridge_translator(moments[layer], 0.03, layer=layer)
        slow_weight, slow_bias = oracle(every[layer], every[-1], 0.03)
        torch.testing.assert_close(weight, slow_weight, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(bias, slow_bias, rtol=1e-9, atol=1e-9)


def test_a_lens_has_these_translators_in_float32(decoder):
    text = parts()
    lens = fit_on(decoder, text, (0, 1, 2), ridge=0.1)
    every = rows(decoder.model, "llama", text.learned.pieces)
    for layer in range(3):
        weight, bias = oracle(every[layer], every[-1], 0.1)
        torch.testing.assert_close(lens.weight[layer], weight.float())
        torch.testing.assert_close(lens.bias[layer], bias.float())
    assert lens.weight.dtype == lens.bias.dtype == torch.float32


def test_the_last_translator_is_the_identity(decoder):
    lens = fit_on(decoder, parts(), (0, 1, 2), ridge=0.1)
    states = decoder.states([some_ids()])[0]
    assert torch.equal(lens.translate(states, range(4))[3], states[3])
    assert not torch.allclose(lens.translate(states, range(4))[2], states[2])


@pytest.mark.parametrize("ridge", [0.1, None])
def test_groups_of_layers_do_not_change_the_lens(decoder, ridge):
    one = fit_on(decoder, parts(), (0, 1, 2), ridge=ridge)
    stages = set()
    small = fit_on(
        decoder,
        parts(),
        (0, 1, 2),
        ridge=ridge,
        memory_budget=2 * Moments.bytes_of(32),
        progress=lambda stage, done, total: stages.add(stage),
    )
    torch.testing.assert_close(small.weight, one.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(small.bias, one.bias, rtol=1e-5, atol=1e-6)
    assert small.info.settings == one.info.settings
    assert "reading states of layers 2 to 2" in stages


def test_layers_are_grouped_within_the_budget():
    size = Moments.bytes_of(10)
    moments = Moments(10)
    held = (moments.xx, moments.xy, moments.mean_x, moments.mean_y)
    assert size == sum(tensor.nbytes for tensor in held)
    assert groups_within(2 * size, (0, 1, 2, 5, 7), 10) == [(0, 1), (2, 5), (7,)]
    assert groups_within(1, (0, 1), 10) == [(0,), (1,)]
    assert groups_within(10**9, (0, 1), 10) == [(0, 1)]


def test_what_is_held_out_does_not_matter(decoder):
    one, other = parts(), parts()
    changed = Parts(other.fit, other.choice, corpus(5, 300), 0)
    for ridge in (0.1, None):
        a = fit_on(decoder, one, (0, 2), ridge=ridge)
        b = fit_on(decoder, changed, (0, 2), ridge=ridge)
        assert torch.equal(a.weight, b.weight)


def test_what_chose_the_penalty_is_fitted_on_too(decoder):
    text = parts()
    chosen = fit_on(decoder, text, (0, 1, 2))
    penalty = chosen.info.settings["ridge"]
    assert chosen.info.settings["ridge_chosen"] is True
    given = fit_on(decoder, text, (0, 1, 2), ridge=penalty)
    assert given.info.settings["ridge_chosen"] is False
    torch.testing.assert_close(chosen.weight, given.weight, rtol=1e-5, atol=1e-6)


def test_the_chosen_penalty_is_the_best_of_those_tried(decoder, monkeypatch):
    monkeypatch.setattr(solve, "PENALTIES", (1e-8, 0.3, 1e6))
    text = parts(fit=8)
    chosen = fit_on(decoder, text, (0, 1, 2)).info.settings["ridge"]
    distances = {}
    final = rows(decoder.model, "llama", text.choice.pieces)
    fit = rows(decoder.model, "llama", text.fit.pieces)
    head = decoder.model.double()
    p = head.lm_head(head.model.norm(final[-1])).log_softmax(-1)
    for penalty in (1e-8, 0.3, 1e6):
        logs = []
        for layer in range(3):
            weight, bias = oracle(fit[layer], fit[-1], penalty)
            h = final[layer] + final[layer] @ weight.T + bias
            q = head.lm_head(head.model.norm(h)).log_softmax(-1)
            logs.append((p.exp() * (p - q)).sum(-1).mean().log())
        distances[penalty] = float(sum(logs).detach())
    decoder.model.float()
    assert chosen == min(distances, key=distances.get)
    assert sorted(distances.values())[1] > min(distances.values()) + 0.01


def test_a_part_of_the_layers_may_be_fitted(decoder):
    texts = [some_ids(40, seed) for seed in range(10)]
    lens = fit_lens(decoder, texts, layers="1,3", ridge=0.1)
    assert lens.layers == (1,)
    assert lens.n_layers == 3


@pytest.mark.parametrize(
    ("layers", "message"),
    [([3], "layer 3 is the identity"), ([4], "names 4"), ("::0", "`layers`")],
)
def test_layers_that_cannot_be_fitted_are_refused(decoder, layers, message):
    with pytest.raises(ArgumentError, match=message):
        fitted_layers(decoder, layers)


def test_arguments_are_refused_before_any_text_is_read(decoder):
    def texts():
        raise AssertionError("read")
        yield

    with pytest.raises(ArgumentError, match="`ridge` is -1"):
        fit_lens(decoder, texts(), ridge=-1.0)
    with pytest.raises(ArgumentError, match="identity"):
        fit_lens(decoder, texts(), layers=[3])
    with pytest.raises(ArgumentError, match="`checkpoint` is for polishing"):
        fit_lens(decoder, texts(), checkpoint="x")


def test_a_lens_says_what_it_is_of(decoder):
    texts = [some_ids(40, seed) for seed in range(10)]
    info = fit_lens(decoder, texts, ridge=0.1, seed=7).info
    assert info.model == decoder.info
    assert info.method == "ridge"
    assert info.settings == {
        "ridge": 0.1,
        "ridge_chosen": False,
        "text": "given texts",
        "seed": 7,
        "tokens": 9 * 39,
        "documents": 9,
        "text_sha256": info.settings["text_sha256"],
        "held_out_tokens": 39,
        "held_out_documents": 1,
    }


@pytest.mark.embedded
@pytest.mark.slow
def test_the_embedded_model_s_middle_layers_come_within_a_few_bits(embedded):
    from iglens.explaining.lenses.evaluate import evaluate_on
    from iglens.explaining.lenses.parts import gather

    text = gather(embedded, tokens=1400)
    lens = fit_on(embedded, text, (12, 24, 29), ridge=0.1)
    found = evaluate_on(embedded, lens, text.held_out, tokens=100)
    assert (found.raw.kl_bits > [20, 10, 2]).all()
    # sampled text differs from machine to machine, and these are few tokens of it
    assert (found.fitted.kl_bits < found.raw.kl_bits / 2).all()
    assert found.fitted.kl_bits[1] < 4
    assert (found.fitted.bias_bits < found.raw.bias_bits / 2).all()
    assert (found.fitted.agreement > found.raw.agreement).all()
