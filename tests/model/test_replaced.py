"""Soundness: one additive stream, or several that are read jointly, or a refusal."""

import pytest
import torch
from families import Block, Handmade, build, left_as_it_was, randomise, some_ids
from torch import nn

from iglens import Declaration, Decoder, UnsupportedModelError, explain
from iglens.model.replaced import (
    last_output_replaced,
    outputs_replaced,
    what_else_is_read,
)
from iglens.model.runner import Runner
from iglens.model.verify import verify

IDS = [3, 17, 5, 30, 8, 21]
EVERY = {"positions": "all", "max_new_tokens": 0}


class Lanes(nn.Module):
    """Hyper-connections: several copies of the stream, mixed before and after."""

    def __init__(self, lanes=3, d_model=16):
        super().__init__()
        self.inner = Block(d_model)
        self.read = nn.Parameter(torch.empty(lanes))
        self.write = nn.Parameter(torch.empty(lanes))
        self.mix = nn.Parameter(torch.empty(lanes, lanes))

    def forward(self, streams):
        taken = torch.einsum("s,btsd->btd", self.read, streams)
        update = self.inner(taken) - taken
        mixed = torch.einsum("rs,btsd->btrd", self.mix, streams)
        return mixed + update[:, :, None] * self.write[:, None]


class HyperConnected(Handmade):
    """The tail reads all lanes jointly."""

    def __init__(self, lanes=3):
        super().__init__()
        self.lanes = lanes
        self.body = nn.ModuleList(Lanes(lanes) for _ in range(3))
        self.merge = nn.Linear(lanes, 1)
        randomise(self)

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        streams = hidden[:, :, None].expand(-1, -1, self.lanes, -1).contiguous()
        for block in self.body:
            streams = block(streams)
        merged = self.merge(streams.movedim(2, -1))[..., 0]
        return self.head(self.norm(merged))


class Predicted(nn.Module):
    """AltUp: one copy is computed with, the others are predicted and corrected."""

    def __init__(self, active, d_model=16):
        super().__init__()
        self.inner, self.active = Block(d_model), active
        self.predict = nn.Parameter(torch.empty(2, 2))
        self.correct = nn.Parameter(torch.empty(2))

    def forward(self, streams):
        predicted = torch.einsum("rs,sbtd->rbtd", self.predict, streams)
        computed = self.inner(predicted[self.active])
        error = computed - predicted[self.active]
        return predicted + error * self.correct[:, None, None, None]


class AlternatingUpdates(Handmade):
    """Streams stand in front of the texts; they are merged after the last block."""

    def __init__(self):
        super().__init__()
        self.body = nn.ModuleList(Predicted(i % 2) for i in range(3))
        self.side = nn.Linear(16, 16)
        randomise(self)

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        streams = torch.stack([hidden, self.side(hidden)])
        for block in self.body:
            streams = block(streams)
        return self.head(self.norm((streams[0] + streams[1]) / 2))


@torch.no_grad()
def levels_by_lanes(model, ids):
    """Probability of each next token, reading the streams between the blocks."""
    tensors = []
    handles = [
        block.register_forward_pre_hook(lambda module, args: tensors.append(args[0]))
        for block in model.body
    ]
    handles.append(
        model.body[-1].register_forward_hook(lambda m, a, out: tensors.append(out))
    )
    model(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    levels = []
    for streams in tensors:
        if isinstance(model, HyperConnected):
            merged = model.merge(streams.movedim(2, -1))[..., 0]
        else:
            merged = (streams[0] + streams[1]) / 2
        chances = model.head(model.norm(merged))[0].double().softmax(-1)
        levels.append(chances[range(len(ids) - 1), ids[1:]])
    return torch.stack(levels, 1)


@pytest.mark.parametrize("kind", [HyperConnected, AlternatingUpdates])
def test_parallel_streams_that_are_read_jointly_are_one_state(kind):
    model = kind()
    with left_as_it_was(model):
        decoder = Decoder(model)
        result = explain(decoder, IDS, **EVERY)
    stream = decoder.verified.stream
    assert stream.width == 16 * (3 if kind is HyperConnected else 2)
    expected = levels_by_lanes(model, IDS)
    torch.testing.assert_close(
        torch.from_numpy(result.levels), expected, atol=1e-6, rtol=0
    )
    assert result.fidelity.max() <= decoder.verified.tolerance.total_variation
    assert decoder.verified.power > 100


class SecretLane(HyperConnected):
    """A lane that the blocks do not hand on: it runs beside them."""

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        streams = hidden[:, :, None].expand(-1, -1, self.lanes, -1).contiguous()
        secret = hidden
        for block in self.body:
            streams = block(streams)
            secret = secret + streams.mean(2)
        merged = self.merge(streams.movedim(2, -1))[..., 0]
        return self.head(self.norm(merged + secret))


class ReadsEarlier(Handmade):
    """The tail also reads the state after one of the blocks."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, input_ids):
        states = [self.embed(input_ids)]
        for block in self.body:
            states.append(block(states[-1]))
        return self.head(self.norm(states[-1] + 0.5 * states[self.layer]))


class ReadsOthers(Handmade):
    """The tail also reads the positions before."""

    def forward(self, input_ids):
        hidden = self.body(self.embed(input_ids))
        before = nn.functional.pad(hidden, (0, 0, 1, 0))[:, :-1]
        return self.head(self.norm(hidden + 0.5 * before))


class ReadsTokens(Handmade):
    """The tail also reads which token stands there."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Embedding(40, 40)
        randomise(self)

    def forward(self, input_ids):
        hidden = self.norm(self.body(self.embed(input_ids)))
        return self.head(hidden) + self.bias(input_ids)


class ReadsThePlace(Handmade):
    """The temperature grows with the position."""

    def forward(self, input_ids):
        hidden = self.norm(self.body(self.embed(input_ids)))
        places = torch.arange(1, input_ids.shape[1] + 1)[:, None]
        return self.head(hidden) / places


UNSOUND = {
    "the output of body.0 and the output of body.1 and the tokens": SecretLane,
    "the output of body.0.": lambda: ReadsEarlier(1),
    "the output of body.1.": lambda: ReadsEarlier(2),
    "the tokens, by another way than the blocks' outputs.": lambda: ReadsEarlier(0),
    "the last block's output at other positions.": ReadsOthers,
    "the tokens, by another way": ReadsTokens,
    "the place in the text.": ReadsThePlace,
}


@pytest.mark.parametrize("named", UNSOUND)
def test_a_model_of_more_than_one_stream_is_refused_and_what_it_reads_is_named(named):
    model = UNSOUND[named]()
    with left_as_it_was(model), pytest.raises(UnsupportedModelError) as caught:
        Decoder(model)
    message = str(caught.value)
    assert f"the logits also depend on {named}" in message
    assert "\n" not in message
    assert "body" in caught.value.tried


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "mixtral"])
def test_of_a_sound_model_nothing_else_is_read(name):
    runner = Runner(build(name))
    verified = verify(runner)
    ids = torch.tensor([some_ids()])
    seeded = torch.Generator().manual_seed(3)
    vectors = torch.randn(ids.shape[1], 32, generator=seeded)
    allowed = verified.tolerance.total_variation
    assert what_else_is_read(runner, verified.stream, ids, vectors, allowed) == []


def test_outputs_of_any_blocks_are_replaced_and_put_back():
    model = Handmade()
    runner = Runner(model)
    stream = verify(runner).stream
    ids, seen = torch.tensor([IDS]), []
    vectors = torch.randn(len(IDS), 16, generator=torch.Generator().manual_seed(0))
    handle = model.body[2].register_forward_pre_hook(
        lambda module, args: seen.append(args[0][0])
    )
    with left_as_it_was(model), outputs_replaced(stream, {2: vectors}):
        runner(ids)
    assert torch.equal(seen[0], vectors)
    handle.remove()
    with torch.no_grad():
        expected = model.head(model.norm(vectors))
    with last_output_replaced(stream, vectors):
        torch.testing.assert_close(runner(ids)[0], expected)


class TwoLevels(Handmade):
    """Numbered parts that are no whole blocks, as in XLM: `h_0` stands elsewhere."""

    def __init__(self):
        super().__init__()
        self.start = nn.Linear(16, 16)
        self.side = nn.Linear(16, 16)
        self.body = nn.ModuleList(nn.LayerNorm(16) for _ in range(3))
        randomise(self)

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        self.side(torch.ones_like(hidden))
        hidden = self.start(hidden)
        for norm in self.body:
            count = torch.arange(1, hidden.shape[1] + 1)[:, None]
            hidden = norm(hidden + torch.tanh(hidden.cumsum(1) / count))
        return self.head(hidden)


def test_a_declared_first_module_is_proved_by_another_texts_states():
    model = TwoLevels()
    with left_as_it_was(model):
        decoder = Decoder(model, declaration=Declaration(first="start"))
    trace = decoder.trace(IDS, [1, 2])
    with torch.no_grad():
        assert torch.equal(trace.states[0], model.embed(torch.tensor(IDS[:2])))


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ("side", "does not take h_0: with another text's states there"),
        ("body.1", "it runs after body.0, the first block"),
        ("head", "it runs after body.0, the first block"),
        ("embed", r"takes no tensor of real numbers, and the stream is one of \(2, 8"),
        ("nowhere", "which TwoLevels does not call.* such as one of side, start, body"),
    ],
)
def test_a_declared_first_module_that_does_not_hold_is_refused(first, reason):
    model = TwoLevels()
    with left_as_it_was(model), pytest.raises(UnsupportedModelError, match=reason):
        Decoder(model, declaration=Declaration(first=first))


class Narrow(TwoLevels):
    """The states in front have another width."""

    def __init__(self):
        super().__init__()
        self.embed, self.start = nn.Embedding(40, 8), nn.Linear(8, 16)
        self.side = nn.Linear(8, 8)
        randomise(self)


def test_a_declared_first_module_of_another_width_is_refused_with_both():
    reason = r"it takes a tensor of \(2, 8, 8\), and the stream is one of \(2, 8, 16\)"
    with pytest.raises(UnsupportedModelError, match=reason):
        Decoder(Narrow(), declaration=Declaration(first="start"))
