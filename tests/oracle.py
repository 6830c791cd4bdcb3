"""The slow, obvious truth: whole rows of logits in float64, reverse-mode gradients.

Written from the definitions alone; nothing here is shared with the package.
"""

import itertools
import math

import numpy as np
import torch


def tolerance(dtype, size=1.0):
    """Rounding of some hundred operations on numbers of this size."""
    return 100 * torch.finfo(dtype).eps * max(size, 1.0)


def logits(head, states):
    """`post(W norm(h) + b)`, every token at once."""
    z = head.norm(states.double()) @ head.unembed.double().T
    if head.bias is not None:
        z = z + head.bias.double()
    return head.post(z)


def level(z, ids, unit):
    """The level of a set of tokens, one per row of logits."""
    ids = list(ids)
    rest = [v for v in range(z.shape[-1]) if v not in ids]
    inside = z[..., ids].logsumexp(-1)
    if unit == "probability":
        return z.softmax(-1)[..., ids].sum(-1)
    if unit == "log_probability":
        return inside - z.logsumexp(-1)
    if unit == "logit":
        return inside
    return inside - z[..., rest].logsumexp(-1)


def levels(head, path, ids, unit):
    """Levels along a path: points x rows x d_model gives rows x points."""
    return level(logits(head, path), ids, unit).T


def quadrature(rule, n_steps):
    """Nodes and weights on [0, 1], spelled out."""
    n = n_steps
    if rule == "midpoint":
        return [((i + 0.5) / n, 1 / n) for i in range(n)]
    if rule == "trapezoid":
        return [(i / n, (0.5 if i in (0, n) else 1) / n) for i in range(n + 1)]
    root = math.sqrt(0.6)
    return {
        1: [(0.5, 1.0)],
        2: [(0.5 - math.sqrt(1 / 12), 0.5), (0.5 + math.sqrt(1 / 12), 0.5)],
        3: [(0.5 - root / 2, 5 / 18), (0.5, 8 / 18), (0.5 + root / 2, 5 / 18)],
    }[n]


def gradient_credits(head, path, ids, unit, nodes):
    """`sum_s w_s <grad f(h_s), h_j - h_{j-1}>` per segment: rows x segments."""
    credits = []
    for start, end in itertools.pairwise(path.double()):
        credit = torch.zeros(len(start), dtype=torch.float64)
        for place, weight in nodes:
            state = (start + place * (end - start)).requires_grad_()
            total = level(logits(head, state), ids, unit).sum()
            (gradient,) = torch.autograd.grad(total, state)
            credit += weight * (gradient * (end - start)).sum(-1)
        credits.append(credit)
    return torch.stack(credits, 1)


def rank(z, token):
    """1 plus the tokens with a larger logit, or an equal one and a lower id."""
    own = float(z[token])
    return 1 + sum(
        float(other) > own or (float(other) == own and v < token)
        for v, other in enumerate(z)
    )


def divergence(final, z):
    """`KL(softmax(final) || softmax(z))`, over tokens that `final` can give."""
    terms = final.softmax(-1) * (final.log_softmax(-1) - z.log_softmax(-1))
    return torch.where(final == -torch.inf, 0.0, terms).sum(-1)


def total_variation(one, other):
    """Half the summed difference of two distributions."""
    return (one.double().softmax(-1) - other.double().softmax(-1)).abs().sum(-1) / 2


def average_gradient(function, start, end, edges=None):
    """`int grad f(h + t D) dt`: Gauss-Legendre, 24 nodes on each of eight panels.

    `function` gives one number per state; `edges` are the panels' ends if not those of
    eight equal ones.
    """
    edges = [i / 8 for i in range(9)] if edges is None else edges
    places, weights = np.polynomial.legendre.leggauss(24)
    start, end = start.double(), end.double()
    total = torch.zeros_like(start)
    for left, right in itertools.pairwise(edges):
        at = torch.from_numpy(left + (right - left) * (places + 1) / 2)
        path = start + at[:, None] * (end - start)
        path.requires_grad_()
        (gradients,) = torch.autograd.grad(function(path).sum(), path)
        total += torch.from_numpy(weights * (right - left) / 2) @ gradients
    return total
