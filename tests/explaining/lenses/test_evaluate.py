import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from families import build, full_logits, some_ids, states_by_hooks
from toys import make_head, normal

from iglens import ArgumentError, Decoder, LogitLens, evaluate_lens
from iglens.explaining.lenses import evaluate as evaluating
from iglens.explaining.lenses import scores as scoring
from iglens.explaining.lenses.evaluate import evaluate_on
from iglens.explaining.lenses.scores import (
    Tally,
    log_probabilities,
    rows_at_once,
    spread,
)
from iglens.explaining.lenses.text import Corpus
from iglens.readout.lens import AffineLens

DOCUMENTS = tuple((tuple(some_ids(n, seed=n)),) for n in (9, 17, 30, 12))


@pytest.fixture(scope="module")
def decoder():
    return Decoder(build("gemma2"))


@pytest.fixture(scope="module")
def lens():
    weight = 0.1 * normal(2, 32, 32, dtype=torch.float32)
    return AffineLens("test", 3, (0, 2), weight, normal(2, 32, dtype=torch.float32))


def slow_scores(decoder, lens, places):
    """From full rows of logits in float64, document by document."""
    double = build("gemma2", torch.float64)
    kls, ps, qs, agreed = [], [], [], []
    for (piece,), chosen in zip(DOCUMENTS, places, strict=True):
        states = states_by_hooks(decoder.model, "gemma2", piece)[:, chosen].double()

        def read(h):
            z = double.lm_head(double.model.norm(h)).detach()
            return (5.0 * torch.tanh(z / 5.0)).softmax(-1)

        p = read(states[-1])
        at_layers = []
        for layer in (0, 2):
            h, parts = states[layer], None if lens is None else lens.translator(layer)
            if parts is not None:
                h = h + h @ parts[0].double().T + parts[1].double()
            at_layers.append(read(h))
        q = torch.stack(at_layers)
        kls.append((p * (p / q).log2()).sum(-1))
        ps.append(p)
        qs.append(q)
        agreed.append(q.argmax(-1) == p.argmax(-1))
    kl, p, q = torch.cat(kls, 1), torch.cat(ps).mean(0), torch.cat(qs, 1).mean(1)
    means = kl.mean(1)
    n = kl.shape[1]
    scatter = [(k.sum(1) - k.shape[1] * means) ** 2 for k in kls]
    return {
        "kl_bits": means,
        "kl_error": (sum(scatter) * len(kls) / (len(kls) - 1)).sqrt() / n,
        "bias_bits": (p * (p / q).log2()).sum(-1),
        "agreement": torch.cat(agreed, 1).double().mean(1),
    }


SOFT_CAP = 5.0


@pytest.fixture(scope="module", autouse=True)
def soft_cap_is_what_the_oracle_says(decoder):
    assert decoder.readout.postprocess == f"softcap {SOFT_CAP:g}"


def every_place():
    return [list(range(1, len(piece))) for (piece,) in DOCUMENTS]


@pytest.mark.parametrize("budget", [1, 2**26])
def test_scores_are_those_of_full_distributions(decoder, lens, budget):
    found = evaluate_on(
        decoder, lens, Corpus(DOCUMENTS, "x"), tokens=10**6, memory_budget=budget
    )
    assert found.layers == (0, 2)
    assert (found.tokens, found.documents) == (8 + 16 + 29 + 11, 4)
    for scores, used in ((found.raw, None), (found.fitted, lens)):
        slow = slow_scores(decoder, used, every_place())
        for name, expected in slow.items():
            np.testing.assert_allclose(
                getattr(scores, name), expected, rtol=1e-4, atol=1e-6, err_msg=name
            )


def test_of_more_tokens_evenly_spaced_ones_are_read(decoder, lens):
    found = evaluate_on(decoder, lens, Corpus(DOCUMENTS, "x"), tokens=7)
    assert found.tokens == 7
    flat = [(d, i) for d, places in enumerate(every_place()) for i in places]
    chosen = [flat[round(k * 63 / 6)] for k in range(7)]
    places = [[i for d, i in chosen if d == document] for document in range(4)]
    slow = slow_scores(decoder, lens, places)
    np.testing.assert_allclose(found.fitted.kl_bits, slow["kl_bits"], rtol=1e-4)


def test_the_same_state_diverges_by_nothing(decoder):
    tally = Tally(LogitLens(), [3])
    states = decoder.states([some_ids(20)])[0]
    final = full_logits(decoder.model, some_ids(20)).log_softmax(-1)
    tally.add(decoder.readout, states[3:], final, 0)
    scores = tally.scores(final.logsumexp(0).double())
    assert abs(float(scores.kl_bits[0])) < 1e-6
    assert abs(float(scores.bias_bits[0])) < 1e-6
    assert scores.agreement[0] == 1.0
    assert math.isnan(scores.kl_error[0])  # one document


def test_bias_is_never_above_the_divergence_and_equal_for_one_token(decoder, lens):
    found = evaluate_on(decoder, lens, Corpus(DOCUMENTS, "x"), tokens=10**6)
    assert (found.fitted.bias_bits < found.fitted.kl_bits).all()
    one = evaluate_on(decoder, lens, Corpus(DOCUMENTS, "x"), tokens=1)
    np.testing.assert_allclose(one.fitted.bias_bits, one.fitted.kl_bits, rtol=1e-5)


def test_means_of_probabilities_that_no_float_holds_are_finite():
    head = make_head(vocab=50, d_model=8, spread=400.0)  # thousands of nats apart
    tally = Tally(LogitLens(), [0])
    final = normal(6, 50).log_softmax(-1)
    tally.add(head.readout, normal(1, 6, 8, dtype=torch.float32), final, 0)
    scores = tally.scores(final.logsumexp(0))
    assert np.isfinite(scores.bias_bits).all()
    assert float(scores.bias_bits[0]) > 500


def test_rows_of_logits_stay_within_the_budget(decoder, lens, monkeypatch):
    sizes = []

    def watched(readout, states):
        sizes.append(len(states))
        return log_probabilities(readout, states)

    for module in (evaluating, scoring):
        monkeypatch.setattr(module, "log_probabilities", watched)
    budget = 97 * 4 * 6 * 5
    assert rows_at_once(decoder.readout, budget) == 5
    text = Corpus(DOCUMENTS, "x")
    evaluate_on(decoder, lens, text, tokens=10**6, memory_budget=budget)
    assert max(sizes) == 5
    assert sum(sizes) == text.tokens * (1 + 2 * 2)  # final, two lenses, two layers


def test_layers_to_judge_are_those_the_lens_has(decoder, lens):
    text = Corpus(DOCUMENTS, "x")
    assert evaluate_on(decoder, LogitLens(), text, tokens=5).layers == (0, 1, 2)
    assert evaluate_on(decoder, lens, text, tokens=5, layers="2,3").layers == (2,)
    with pytest.raises(ArgumentError, match=r"'1' chooses none.*\[0, 2\]"):
        evaluate_on(decoder, lens, text, tokens=5, layers="1")


def test_a_lens_may_be_judged_on_given_or_generated_text(decoder, lens):
    texts = [list(piece) for (piece,) in DOCUMENTS]
    given = evaluate_lens(decoder, lens, texts, tokens=30)
    assert (given.tokens, given.documents, given.source) == (30, 3, "given texts")
    own = evaluate_lens(decoder, lens, tokens=30)
    assert own.source == "self-generated, seed 1000001"
    with pytest.raises(ArgumentError, match="is empty"):
        evaluate_lens(decoder, lens, [[]])


def test_an_evaluation_as_json_has_an_entry_per_layer(decoder, lens):
    found = evaluate_on(decoder, lens, Corpus(DOCUMENTS[:1], "x"), tokens=5)
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert written["schema"] == "iglens.lens_evaluation/1"
    assert (written["lens"], written["tokens"], written["documents"]) == ("test", 5, 1)
    assert [entry["layer"] for entry in written["layers"]] == [0, 2]
    raw, fitted = written["layers"][1]["raw"], written["layers"][1]["fitted"]
    assert set(raw) == {"kl_bits", "kl_error", "bias_bits", "agreement"}
    assert fitted["kl_bits"] == found.fitted.kl_bits[1]
    assert raw["kl_error"] is None  # one document has no error


def test_every_field_of_an_evaluation_is_on_the_json_page(decoder, lens):
    found = evaluate_on(decoder, lens, Corpus(DOCUMENTS[:1], "x"), tokens=5).to_json()
    page = (Path(__file__).parents[3] / "docs/json.md").read_text()
    section = page.split("\n## iglens lens\n")[1].split("\n## ")[0]
    told = {w for code in re.findall(r"`(.*?)`", section) for w in code.split()}
    named = {word.strip("{,}") for word in told}
    layer = found["layers"][0]
    assert {*found, *layer, *layer["raw"]} <= named


@pytest.mark.parametrize(
    ("length", "count", "chosen"),
    [(5, 9, [0, 1, 2, 3, 4]), (5, 2, [0, 4]), (9, 3, [0, 4, 8]), (4, 1, [0])],
)
def test_chosen_indices_are_evenly_spread(length, count, chosen):
    assert spread(length, count).tolist() == chosen
