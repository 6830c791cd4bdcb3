"""Norms that are a linear map over a scale are recognised; others are not."""

import families
import pytest
import torch
from torch.nn import functional
from toys import NORMS, make_head, normal

from iglens import Decoder
from iglens.readout.scaled_norm import scaled_norm

STATES = normal(5, 12, seed=3) * 7


def gained(h):
    return h * torch.linspace(0.5, 2.0, h.shape[-1]).to(h)


def rms(h, eps=1e-6):
    return h * (h.square().mean(-1, keepdim=True) + eps).rsqrt()


@pytest.mark.parametrize("width", [1, 2, 12, 13])
@pytest.mark.parametrize("kind", NORMS)
def test_every_norm_is_recovered_from_what_it_gives(kind, width):
    norm = make_head(norm=kind, d_model=width, dtype=torch.float64).norm
    states = normal(5, width, seed=3)
    found = scaled_norm(norm, states)
    assert found is not None
    tested = normal(6, width, seed=9) * 10.0 ** torch.arange(-8, 4, 2)[:, None]
    torch.testing.assert_close(found(tested), norm(tested), rtol=1e-10, atol=1e-13)
    if width > 1:
        assert found.centred == (kind == "layer")
        assert found.scaled == (kind != "none")
        assert found.eps == pytest.approx(1e-6 if found.scaled else 0.0, rel=1e-9)


PROJECTION = normal(7, 12, seed=4)
OFFSET = normal(12, seed=5)
SAME_FORM = {
    "projected after": lambda h: gained(rms(h)) @ PROJECTION.T,
    "projected after centring": lambda h: (
        functional.layer_norm(h, (12,), bias=OFFSET) @ PROJECTION.T
    ),
    "projected only": lambda h: h @ PROJECTION.T,
    "scaled before": lambda h: gained(rms(h * 0.01)),
    "scaled after": lambda h: gained(rms(h)) * 30,
    "shifted": lambda h: gained(h) + OFFSET,
    "of length one": lambda h: h / h.norm(dim=-1, keepdim=True),
    "without eps": lambda h: gained(rms(h, 0.0)),
    "with a large eps": lambda h: gained(rms(h, 0.5)),
    "in single precision": lambda h: gained(rms(h.float())).double(),
    "of torch": lambda h: functional.layer_norm(h, (12,), bias=OFFSET, eps=1e-12),
}


@pytest.mark.parametrize("name", SAME_FORM)
def test_the_form_covers(name):
    norm = SAME_FORM[name]
    found = scaled_norm(norm, STATES)
    assert found is not None
    tested = normal(6, 12, seed=9) * 10.0 ** torch.arange(-6, 6, 2)[:, None]
    within = 1e-5 if name == "in single precision" else 1e-10
    torch.testing.assert_close(found(tested), norm(tested), rtol=within, atol=1e-12)
    there, back = normal(3, 12, seed=1), normal(3, len(found.offset), seed=2)
    torch.testing.assert_close(
        (found.linear(there) * back).sum(-1), (there * found.transposed(back)).sum(-1)
    )


OTHER_FORMS = {
    "eps outside the root": lambda h: h / (h.norm(dim=-1, keepdim=True) + 1e-3),
    "largest entry": lambda h: h / h.abs().amax(-1, keepdim=True),
    "a floor, no eps": lambda h: h / h.norm(dim=-1, keepdim=True).clamp(min=1e-3),
    "groups": lambda h: rms(h.unflatten(-1, (3, 4))).flatten(-2),
    "an elementwise curve": lambda h: torch.tanh(rms(h)),
    "the projection first": lambda h: rms(h @ PROJECTION.T),
    "half precision": lambda h: gained(rms(h.bfloat16())).double(),
    "a slight curve": lambda h: rms(h) + 1e-8 * rms(h) ** 3,
    "one state treated apart": lambda h: torch.where(
        (h == STATES[2]).all(-1, keepdim=True), rms(h) * 1.001, rms(h)
    ),
    "nothing but NaN": lambda h: h * torch.nan,
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_FORMS)
def test_the_form_is_not_claimed_for(name):
    assert scaled_norm(OTHER_FORMS[name], STATES) is None


@pytest.mark.parametrize("name", families.FAMILIES)
def test_the_norms_of_real_models_have_the_form(name):
    readout = Decoder(families.build(name)).readout
    found = scaled_norm(
        lambda h: readout.norm(h, torch.float64).double(), normal(5, 32, seed=3)
    )
    assert found is not None
    tested = normal(6, 32, seed=9) * 10.0 ** torch.arange(-6, 6, 2)[:, None]
    expected = readout.norm(tested, torch.float64).double()
    torch.testing.assert_close(found(tested), expected, rtol=1e-5, atol=1e-5)
