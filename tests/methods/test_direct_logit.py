"""Direct Logit Attribution and the frozen lens, against norms written out."""

import pytest
import torch
from toys import make_head, make_norm, make_trace, normal, token

import iglens
from iglens.methods import METHODS, Case
from iglens.readout import LinearReadout

NAMES = ("dla", "ig-lens", "ig-lens-gradient")


def case_of(trace, **changes):
    return Case(lambda: trace, token(5), **changes)


def frozen_logits(head, kind, states, seed=0):
    """Logits of states divided by the last one's scale, step by step."""
    gain = 1 + 0.5 * normal(12, seed=seed + 1)
    shift = 0.5 * normal(12, seed=seed + 2)
    centred = states - states.mean(-1, keepdim=True) if kind == "layer" else states
    scale = (centred[-1].square().mean() + 1e-6).sqrt() if kind != "none" else 1.0
    scaled = centred / scale
    scaled = scaled * {"none": 1, "gemma": 1 + gain}.get(kind, gain)
    scaled = scaled + (shift if kind == "layer" else 0)
    assert torch.allclose(scaled[-1], make_norm(kind, gain, shift)(states[-1]))
    bias = 0 if head.bias is None else head.bias
    return scaled @ head.unembed.T + bias


@pytest.mark.parametrize("kind", ["rms", "layer", "gemma", "none"])
def test_dla_is_the_change_of_the_frozen_centred_logit(kind):
    head = make_head(norm=kind, dtype=torch.float64)
    trace = make_trace(head, rows=1)
    logits = frozen_logits(head, kind, trace.states[:, 0])
    centred = logits[:, 5] - logits.mean(1)
    found = METHODS["dla"](case_of(trace))
    assert found.credits.tolist() == pytest.approx(centred.diff().tolist(), abs=1e-9)
    assert abs(found.missed) < 1e-9


@pytest.mark.parametrize("kind", ["rms", "layer", "gemma", "none"])
@pytest.mark.parametrize("post", ["identity", "soft-cap", "scale"])
def test_the_frozen_lens_reads_frozen_logits(kind, post):
    head = make_head(norm=kind, post=post, dtype=torch.float64)
    trace = make_trace(head, rows=1)
    logits = head.post(frozen_logits(head, kind, trace.states[:, 0]))
    found = METHODS["logit-lens-frozen"](case_of(trace))
    expected = logits.softmax(-1)[1:, 5].tolist()
    assert found.levels.tolist() == pytest.approx(expected, abs=1e-10)


def test_a_scale_after_the_head_is_in_the_credits_and_a_cap_is_told():
    found = {
        post: METHODS["dla"](
            case_of(make_trace(make_head(post=post, dtype=torch.float64), rows=1))
        )
        for post in ("identity", "scale", "soft-cap")
    }
    plain = found["identity"].credits
    assert found["scale"].credits.tolist() == pytest.approx((0.4 * plain).tolist())
    assert found["soft-cap"].credits.tolist() == pytest.approx(plain.tolist())
    assert [len(f.notes) for f in found.values()] == [0, 0, 1]


def test_on_a_linear_head_in_logits_all_credits_agree():
    unembed = normal(97, 12, seed=3)
    unembed -= unembed.mean(0)  # centred as it is
    trace = make_trace(rows=1, states=normal(5, 1, 12, seed=4))
    readout = LinearReadout.plain(lambda h: h, unembed)
    given = {"readout": readout, "logits": readout.logits(trace.states[-1])}
    trace = make_trace(rows=1, states=trace.states, **given)
    case = case_of(trace, unit="logit", strict=False)
    expected = (trace.states[:, 0] @ unembed[5]).diff().tolist()
    for name in sorted(credit_methods()):
        credits = METHODS[name](case).credits.tolist()
        assert credits == pytest.approx(expected, abs=1e-9), name


def credit_methods():
    """Methods that credit whole layers along the path of states."""
    others = ("conductance", "dla-", "gate-path", "ig-lens-tuned")
    lenses = {"logit-lens", "logit-lens-frozen", "tuned-lens"}
    return {n for n in METHODS if not n.startswith(others)} - lenses


def test_a_norm_of_another_kind_is_refused():
    head = make_head(dtype=torch.float64).but(norm=lambda h: h.tanh())
    with pytest.raises(iglens.UnsupportedModelError, match="no linear map"):
        METHODS["dla"](case_of(make_trace(head, rows=1)))
