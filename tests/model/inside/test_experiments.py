import pytest
import torch
from torch import nn
from transformers import DynamicCache

from iglens.model.inside.experiments import (
    Case,
    differ,
    frozen,
    gates_alone,
    linear_width,
    mixes_tokens,
    separate_heads,
)

TOKENS, WIDTH = 11, 6


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args, **kwargs):
        return self.function(*args, **kwargs)


def case_of(function, shape=(1, TOKENS, WIDTH), dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    taken = torch.randn(shape, generator=generator).to(dtype)
    module = Function(function)
    return Case(module, ((taken,), {}), module(taken.clone()), TOKENS)


WEIGHT = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(4))

POINTWISE = {
    "linear": lambda x: x @ WEIGHT.to(x),
    "affine": lambda x: x @ WEIGHT.to(x) + 1,
    "gated": lambda x: torch.sigmoid(x) * x,
    "in place": lambda x: x.mul_(2),
}
MIXING = {
    "mean": lambda x: x.cumsum(1) / 8,
    "mean of all": lambda x: x + x.mean(1, keepdim=True),
    "next": lambda x: x + x.roll(1, 1),
    "attention": lambda x: torch.softmax(x @ x.mT, -1) @ x,
    "convolution": lambda x: (
        nn.functional.conv1d(x.mT, torch.ones(WIDTH, 1, 3), groups=WIDTH, padding=1).mT
    ),
}


@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pointwise_functions_mix_nothing(name, dtype):
    case = case_of(POINTWISE[name], dtype=dtype)
    assert mixes_tokens(case, [(0, 0)], [()]) is False


@pytest.mark.parametrize("name", MIXING)
def test_mixing_functions_mix(name):
    assert mixes_tokens(case_of(MIXING[name]), [(0, 0)], [()]) is True


@pytest.mark.parametrize("shape", [(TOKENS, WIDTH), (TOKENS, 1, WIDTH)])
def test_the_axis_of_tokens_is_found_by_its_length(shape):
    case = case_of(lambda x: x.cumsum(0), shape)
    assert mixes_tokens(case, [(0, 0)], [()]) is True
    assert mixes_tokens(case_of(torch.tanh, shape), [(0, 0)], [()]) is False


def test_what_cannot_be_tried_again_is_not_known():
    calls = []

    def moody(x):
        calls.append(1)
        return x + len(calls)

    def once(x):
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError
        return x

    assert mixes_tokens(case_of(moody), [(0, 0)], [()]) is None
    calls.clear()
    assert mixes_tokens(case_of(once), [(0, 0)], [()]) is None
    no_tokens = case_of(lambda x: x.sum(), (5, WIDTH))
    assert mixes_tokens(no_tokens, [(0, 0)], [()]) is None


LINEAR = {"linear", "affine", "in place"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", [*POINTWISE, *MIXING])
def test_only_linear_maps_of_each_token_alone_have_a_width(name, dtype):
    function = (POINTWISE | MIXING)[name]
    if name == "convolution" and dtype != torch.float32:
        return
    width = linear_width(case_of(function, dtype=dtype))
    assert width == (WIDTH if name in LINEAR else None)


def test_a_rectifier_is_not_linear_though_it_scales():
    assert linear_width(case_of(torch.relu)) is None


def test_several_vectors_for_a_token_are_no_width():
    assert linear_width(case_of(torch.neg, (1, TOKENS, 2, WIDTH))) is None


HEADS, HEAD = 3, 2


def writing(change, width=HEADS * HEAD):
    """What a writer takes when heads hold 1, 2, 3 and one of them is changed."""

    def written(head):
        mixed = torch.arange(1.0, HEADS + 1).repeat_interleave(HEAD).repeat(1, 5, 1)
        if head is not None:
            mixed.view(1, 5, HEADS, HEAD)[:, :, head] *= -2
        return change(mixed)[..., :width]

    return written


ATTENDED = [(1, 5, HEADS, HEAD)]


def test_heads_with_places_of_their_own_are_counted():
    assert separate_heads(writing(lambda x: x), ATTENDED) == (HEADS, None)
    gated = separate_heads(writing(lambda x: x * 0.3), ATTENDED)
    assert gated == (HEADS, None)


GATE = torch.randn(5, HEADS * HEAD, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x: x, True),
        (lambda x: x * GATE, True),
        (lambda x: x + 1, False),
        (lambda x: x.square(), False),
        (lambda x: x.unflatten(-1, (HEADS, HEAD)).flip(-1).flatten(-2), False),
        (lambda x: nn.functional.rms_norm(x.unflatten(-1, (HEADS, HEAD)), (HEAD,))
         .flatten(-2), False),
    ],
)  # fmt: skip
def test_factors_alone_are_told_from_anything_else(change, expected):
    read = torch.randn(1, 5, HEADS, HEAD, generator=torch.Generator().manual_seed(1))

    def written(head):
        mixed = read.clone()
        if head is not None:
            mixed[:, :, head] = 1 - 2 * mixed[:, :, head]
        return change(mixed.flatten(-2))

    assert gates_alone(written, read) == expected


@pytest.mark.parametrize(
    ("change", "attended", "reason"),
    [
        (lambda x: x / x.norm(), ATTENDED, "mixes them"),
        (lambda x: x.flip(-1), ATTENDED, "mixes them"),
        (torch.zeros_like, ATTENDED, "mixes them"),
        (lambda x: x[..., :4], ATTENDED, "4 numbers per token, which are not 3 heads"),
        (lambda x: x, [], "does not run through"),
        (lambda x: x, 2 * ATTENDED, "attends 2 times"),
    ],
)
def test_other_heads_are_not(change, attended, reason):
    heads, why = separate_heads(writing(change), attended)
    assert heads is None
    assert reason in why


def test_calling_again_leaves_arguments_and_caches_as_they_were():
    cache = DynamicCache()
    cache.update(torch.ones(1, 1, 2, 3), torch.ones(1, 1, 2, 3), 0)

    def grow(x, past):
        past.update(x[None, None], x[None, None], 0)
        x.zero_()
        return torch.ones(1)

    taken = torch.ones(2, 3)
    case = Case(Function(grow), ((taken,), {"past": cache}), None, 2)
    case.again(case.given)
    assert cache.get_seq_length() == 2
    assert taken.sum() == 6
    assert frozen((1, [None, "a"])) == (1, [None, "a"])


def test_rounding_is_no_difference_and_anything_more_is():
    one = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert not differ(one, one * (1 + 1e-6))
    assert differ(one, one * (1 + 1e-4))
    half = one.bfloat16()
    assert not differ(half, half)
    assert differ(half * 1.1, half)
    assert differ(one, one[:-1])
