import pytest
import torch
from families import FAMILIES, Handmade, build, part, randomise
from torch import nn

from iglens.model.discover import find_streams
from iglens.model.runner import Runner
from iglens.model.tail import Operation, describe, trace_tail


def tail_of(model):
    runner = Runner(model)
    return trace_tail(runner, find_streams(runner)[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_tail_is_norm_head_and_what_follows(name):
    model, family = build(name), FAMILIES[name]
    tail = tail_of(model)
    assert tail.before == (part(model, family.norm),)
    assert tail.head is part(model, family.head)
    assert tail.postprocess == family.postprocess
    logits = torch.linspace(-9, 9, 7, dtype=torch.float64)
    after = logits
    for step in tail.after:
        after = step(after)
    torch.testing.assert_close(after, family.post(logits))


class Ending(Handmade):
    """A hand-written model whose logits go through some function."""

    def __init__(self, end):
        super().__init__()
        self.end = end

    def forward(self, input_ids):
        return self.end(self, self.norm(self.body(self.embed(input_ids))))


ENDINGS = {
    "identity": lambda m, h: m.head(h),
    "scale 0.5": lambda m, h: m.head(h) * 0.5,
    "scale 0.25": lambda m, h: m.head(h) / 4,
    "softcap 30": lambda m, h: 30 * torch.tanh(m.head(h) / 30),
    "mul 2 clamp -3 3": lambda m, h: (m.head(h) * 2).clamp(-3, 3),
    "sub 1": lambda m, h: m.head(h) - 1,
    "tanh mul 7": lambda m, h: torch.tanh(m.head(h)) * 7,
}


@pytest.mark.parametrize("words", ENDINGS)
def test_what_follows_the_head_is_put_in_words(words):
    tail = tail_of(Ending(ENDINGS[words]))
    assert tail.postprocess.startswith(words)
    assert isinstance(tail.before[0], nn.LayerNorm)


def test_operations_in_place_are_traced_like_others():
    def end(model, hidden):
        logits = model.head(hidden)
        logits.div_(4).tanh_()
        logits *= 4
        return logits

    tail = tail_of(Ending(end))
    assert tail.postprocess == "softcap 4"
    values = torch.tensor([1.0, -8.0])
    for step in tail.after:
        values = step(values)
    torch.testing.assert_close(values, 4 * torch.tanh(torch.tensor([1.0, -8.0]) / 4))


def test_views_copies_and_contiguous_change_nothing():
    def end(model, hidden):
        flat = hidden.reshape(-1, 16).clone()
        return model.head(flat).view(*hidden.shape[:2], 40).contiguous()

    assert tail_of(Ending(end)).after == ()


def test_a_tensor_inside_a_list_is_no_elementwise_argument():
    tail = tail_of(Ending(lambda m, h: m.head(torch.cat([h])) * 0.5))
    assert tail.postprocess == "scale 0.5"
    assert tail_of(Ending(lambda m, h: m.head(torch.cat([h + h.flip(-1)])))) is None


def test_operations_in_front_of_the_head_are_kept_in_order():
    tail = tail_of(Ending(lambda m, h: m.head(h * 3)))
    norm, scale = tail.before
    assert isinstance(norm, nn.LayerNorm)
    assert isinstance(scale, Operation)
    assert float(scale(torch.tensor(2.0))) == 6.0


def test_casts_are_known_as_such():
    tail = tail_of(Ending(lambda m, h: m.head(h).double() * 2))
    assert [step.is_cast for step in tail.after] == [True, False]
    assert tail.postprocess == "scale 2"


def shared(model, hidden):
    """Every logit minus the mean of the row: not elementwise."""
    logits = model.head(hidden)
    return logits - logits.mean(-1, keepdim=True)


def own_vector(model, hidden):
    return model.head(hidden) + torch.arange(40) / 10


def permuted(model, hidden):
    return model.head(hidden).flip(-1)


def cropped(model, hidden):
    return model.head(hidden)[..., :30]


def matrix_only(model, hidden):
    return hidden @ model.embed.weight.T


def two_heads(model, hidden):
    return model.head(hidden) + model.head(hidden * 2)


def gated(model, hidden):
    return model.head(hidden * torch.sigmoid(hidden.mean(-1, keepdim=True)))


@pytest.mark.parametrize(
    "end", [shared, own_vector, permuted, cropped, matrix_only, two_heads, gated]
)
def test_a_tail_that_is_no_chain_is_left_to_injection(end):
    assert tail_of(Ending(end)) is None


def test_a_norm_inside_another_module_is_called_from_outside():
    """What wraps the norm may do more than the norm."""

    class Final(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(16)

        def forward(self, hidden):
            return self.norm(hidden) * 2

    model = Ending(lambda m, h: m.head(m.final(h)))
    model.final = randomise(Final())
    assert tail_of(model).before[-1] is model.final


def test_describe_names_unknown_operations():
    square = Operation(torch.ops.aten.pow, (), (2,), {}, False)
    assert describe((square,)) == "pow 2"
    assert describe(()) == "identity"
