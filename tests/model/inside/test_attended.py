"""What is kept of attention calls, and what is refused of them."""

import pytest
import torch
from torch import nn

from iglens.model.attention import AttentionFunction
from iglens.model.inside.attended import attended, taken_call
from iglens.model.inside.value_source import Values

TEXTS, HEADS, GROUPS, TOKENS, WIDTH = 2, 4, 2, 9, 3
PLACES = [torch.tensor([1, 7]), torch.tensor([0, 4, 5])]
LENGTHS = [8, 6]


def seeded(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


QUERY = seeded(TEXTS, HEADS, TOKENS, WIDTH)
KEY = seeded(TEXTS, GROUPS, TOKENS, WIDTH, seed=1)
VALUE = seeded(TEXTS, GROUPS, TOKENS, WIDTH, seed=2)


def eager(module, query, key, value, attention_mask, scaling=0.3, **kwargs):
    key, value = (t.repeat_interleave(HEADS // GROUPS, 1) for t in (key, value))
    logits = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        logits = logits + attention_mask
    weights = logits.softmax(-1)
    return (weights @ value).transpose(1, 2), weights


APART = torch.arange(TOKENS)[:, None] - torch.arange(TOKENS)
CAUSAL = torch.zeros(TOKENS, TOKENS).double().masked_fill(APART < 0, -torch.inf)


def call_with(mask, given, *, module=None, texts=TEXTS, **named):
    """A call whose model masks with one thing and hands over another."""
    module = nn.Module() if module is None else module
    qkv = [tensor[:texts] for tensor in (QUERY, KEY, VALUE)]
    output = eager(module, *qkv, mask, **named)
    function = AttentionFunction(lambda *args, **kwargs: output, eager)
    return taken_call(
        function, module, (*qkv, given), named, output, PLACES[:texts], LENGTHS[:texts]
    )


def read_of(call, text):
    return attended(call, text, call.read[text].flatten(1))


WINDOW = CAUSAL.masked_fill(APART >= 3, -torch.inf)
BIAS = CAUSAL + seeded(1, HEADS, TOKENS, TOKENS, seed=3)

MASKS = {
    "none, causal": (CAUSAL, None, {}),
    "none, in a window": (WINDOW, None, {"sliding_window": 3}),
    "none, not causal": (None, None, {"is_causal": False}),
    "added": (CAUSAL, CAUSAL[None, None], {}),
    "boolean": (WINDOW, (WINDOW == 0)[None, None], {}),
    "of every text": (CAUSAL, CAUSAL.expand(TEXTS, 1, TOKENS, TOKENS), {}),
    "of every head": (BIAS, BIAS, {}),
    "which tokens are real": (CAUSAL, torch.ones(TEXTS, TOKENS), {}),
}


@pytest.mark.parametrize("name", MASKS)
def test_weights_are_those_of_the_whole_call(name):
    mask, given, named = MASKS[name]
    call = call_with(mask, given, **named)
    _, weights = eager(None, QUERY, KEY, VALUE, mask)
    for text, places in enumerate(PLACES):
        if name == "none, not causal":  # later tokens are seen, and are not kept
            assert "are not what its heads give" in read_of(call, text)
            continue
        found = read_of(call, text)
        expected = weights[text][:, places, : LENGTHS[text]].transpose(0, 1)
        torch.testing.assert_close(found.weights(slice(None)), expected)
        torch.testing.assert_close(found.weights(slice(1, 2)), expected[1:2])


def test_a_module_that_is_not_causal_is_asked():
    module = nn.Module()
    module.is_causal = False
    call = call_with(None, None, module=module, texts=1)
    call.arguments[0] |= {"key": KEY[:1], "value": VALUE[:1]}
    assert call.arguments[0]["attention_mask"] is None
    assert not isinstance(read_of(call, 0), str)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"function": AttentionFunction(eager)}, "no eager function"),
        ({"args": (QUERY, KEY, VALUE, None, 0.3)}, "no eager function"),
        ({"args": (QUERY[0], KEY, VALUE, None)}, "its queries are no tensor"),
        ({"args": (QUERY, KEY[:, :, 1:], VALUE, None)}, "its keys are not those"),
        ({"args": (QUERY[:1], KEY, VALUE, None)}, "not those of the texts"),
        ({"args": (QUERY[:, :3], KEY, VALUE, None)}, "not those of the texts"),
        ({"output": (QUERY.flatten(2), None)}, "its attention gives no tensor of"),
        ({"output": (QUERY, None)}, "its attention gives no tensor of"),
        ({"output": QUERY[0]}, "its attention gives no tensor of"),
    ],
)
def test_calls_of_another_kind_are_refused(change, reason):
    output = eager(None, QUERY, KEY, VALUE, CAUSAL)
    given = {
        "function": AttentionFunction(eager, eager),
        "module": nn.Module(),
        "args": (QUERY, KEY, VALUE, None),
        "kwargs": {},
        "output": output,
        "places": PLACES,
        "lengths": LENGTHS,
    }
    assert not isinstance(taken_call(**given), str)
    assert reason in taken_call(**given | change)


def test_what_the_writer_takes_must_be_what_was_read():
    call = call_with(CAUSAL, None)
    taken = call.read[0].flatten(1)
    assert "stands between" in attended(call, 0, taken * 2)
    gated = attended(call, 0, taken * 2, gated=True)
    torch.testing.assert_close(gated.gate, torch.full_like(gated.gate, 2.0))
    torch.testing.assert_close(gated.read().flatten(1), taken * 2)
    assert "another width" in attended(call, 0, taken[:, :-HEADS], gated=True)


def test_an_eager_function_that_fails_is_a_reason():
    def fails(*args, **kwargs):
        raise AttributeError("no such buffer")

    call = call_with(CAUSAL, None)
    call.eager = fails
    assert "cannot be computed again" in read_of(call, 0)
    assert "(AttributeError)" in read_of(call, 0)


def linear(width):
    module = nn.Linear(5, width).double()
    module.bias.data = torch.arange(float(width)).double()
    return module


@pytest.mark.parametrize("copied", [False, True])
def test_values_are_traced_to_the_module_they_are_a_view_of(copied):
    module, taken = linear(GROUPS * WIDTH), seeded(TEXTS, TOKENS, 5)
    values = Values()
    output = module(taken)
    values.add(linear(GROUPS * WIDTH), (taken,), module(taken) + 1)
    values.add(module, (taken,), output)
    value = output.view(TEXTS, TOKENS, GROUPS, WIDTH).transpose(1, 2)
    source = values.source(torch.cat([value]) if copied else value)
    assert source.module is module
    assert torch.equal(source.bias(), module.bias.view(GROUPS, WIDTH))
    assert values.source(value + 1e-9) is None


def test_of_a_fused_projection_the_values_bias_is_taken():
    module, taken = linear(3 * GROUPS * WIDTH), seeded(TEXTS, TOKENS, 5)
    values, output = Values(), module(taken)
    values.add(module, (taken,), output)
    value = output.chunk(3, -1)[2].view(TEXTS, TOKENS, GROUPS, WIDTH).transpose(1, 2)
    expected = module.bias.chunk(3)[2].view(GROUPS, WIDTH)
    assert torch.equal(values.source(value).bias(), expected)


def test_what_differs_from_token_to_token_is_no_bias():
    class Positioned(nn.Linear):
        def forward(self, x):
            return super().forward(x) + torch.arange(x.shape[-2])[:, None]

    module, taken = Positioned(5, GROUPS * WIDTH).double(), seeded(1, TOKENS, 5)
    values, output = Values(), module(taken)
    values.add(module, (taken,), output)
    value = output.view(1, TOKENS, GROUPS, WIDTH)  # tokens where heads are expected
    assert values.source(value).bias() is None


def test_a_module_that_cannot_be_called_with_zero_has_no_known_bias():
    module, taken = linear(GROUPS * WIDTH), seeded(1, TOKENS, 5)
    values, output = Values(), module(taken)
    values.add(module, (taken,), output)
    value = output.view(1, TOKENS, GROUPS, WIDTH).transpose(1, 2)
    source = values.source(value)
    assert source.bias() is not None
    module.forward = lambda x: x @ seeded(3, 3)
    assert source.bias() is None


def test_biased_values_from_nowhere_are_noted():
    call = call_with(CAUSAL, None, module=linear(3))
    assert "shared out" in read_of(call, 0).note
    assert read_of(call_with(CAUSAL, None), 0).note is None
