"""Derivatives of a level by every logit, against autograd through whole rows."""

import oracle
import pytest
import torch
from toys import normal

from iglens.readout import TokenLogits
from iglens.readout.weights import weigh_level, weigh_normaliser
from iglens.records import UNITS


def summary(z, tokens):
    """The wanted tokens' logits and the log-sum-exp of the others; -1 is unused."""
    others = z.clone()
    slots = torch.full((len(z), len(tokens)), -torch.inf).double()
    for slot, token in enumerate(tokens):
        if token >= 0:
            slots[:, slot] = z[:, token]
            others[:, token] = -torch.inf
    rest = others.logsumexp(1)
    return TokenLogits(slots, rest, rest)


def gradient(function, z):
    leaf = z.clone().requires_grad_()
    return torch.autograd.grad(function(leaf).sum(), leaf)[0]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("tokens", [[4], [4, -1, 0], [0, 1, 2, 3, 4, 5]])
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_weights_are_the_derivatives_of_the_level(unit, tokens, size):
    z = size * normal(5, 6, seed=2)
    chosen = torch.tensor([token in (4, 5) for token in tokens]).expand(5, -1)
    ids = [token for token in tokens if token in (4, 5)]
    found = weigh_level(summary(z, tokens), chosen, unit)
    expected = gradient(lambda leaf: oracle.level(leaf, ids, unit), z)
    torch.testing.assert_close(found.value, oracle.level(z, ids, unit))
    change = normal(5, 6, seed=3)
    changes = summary(change, tokens)
    changes.logits.nan_to_num_(neginf=0.0)
    rest = torch.tensor([v for v in range(6) if v not in tokens], dtype=torch.long)
    shares = z[:, rest].softmax(1)
    changes = TokenLogits(
        changes.logits, (shares * change[:, rest]).sum(1), changes.rest_max
    )
    torch.testing.assert_close(
        found.slope(changes), (expected * change).sum(1), rtol=1e-9, atol=1e-12
    )
    for slot, token in enumerate(tokens):
        by = expected[:, token] if token >= 0 else torch.zeros(5).double()
        torch.testing.assert_close(found.slots[:, slot], by, rtol=1e-7, atol=1e-14)


def test_the_normaliser_is_differentiated_too():
    z = 10 * normal(5, 6, seed=2)
    found = weigh_normaliser(summary(z, [4, -1]))
    torch.testing.assert_close(found.value, z.logsumexp(1))
    torch.testing.assert_close(found.slots[:, 0], z.softmax(1)[:, 4])
    torch.testing.assert_close(found.slots.sum(1) + found.rest, torch.ones(5).double())


@pytest.mark.parametrize("unit", ["probability", "log_probability"])
def test_an_impossible_token_has_no_weight(unit):
    z = normal(3, 6)
    z[:, 4] = -torch.inf
    found = weigh_level(summary(z, [4]), torch.ones(3, 1, dtype=torch.bool), unit)
    assert (found.slots == 0).all()
    assert found.rest.isfinite().all()
