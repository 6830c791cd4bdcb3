import pytest
import torch
from families import FAMILIES, Block, Handmade, build, full_logits, randomise
from torch import nn

from iglens import Declaration, Decoder, UnsupportedModelError, explain
from iglens.model.discover import arbitrary_tokens, find_streams
from iglens.model.runner import Runner

TEXT = [3, 17, 5, 30, 8]


class Numbered(Handmade):
    """Blocks as attributes, the projection as a bare matrix, a soft-cap in code."""

    def __init__(self):
        super().__init__()
        del self.body, self.head
        self.block_0, self.block_1, self.block_2 = Block(), Block(), Block()
        self.unembed = nn.Parameter(torch.zeros(16, 40))
        randomise(self)

    def forward(self, input_ids):
        hidden = self.block_2(self.block_1(self.block_0(self.embed(input_ids))))
        return 5 * torch.tanh(self.norm(hidden) @ self.unembed / 5)


class Looped(Handmade):
    """Two blocks that run three times."""

    def __init__(self):
        super().__init__(n_layers=2)

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        for _ in range(3):
            hidden = self.body(hidden)
        return self.head(self.norm(hidden))


class TimeFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(40, 16)
        self.layers = nn.ModuleList(Transposed() for _ in range(3))
        self.head = nn.Linear(16, 40)
        randomise(self)

    def forward(self, input_ids):
        hidden = self.embed(input_ids).transpose(0, 1)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.head(hidden.transpose(0, 1))


class Transposed(Block):
    def forward(self, hidden):
        return super().forward(hidden.transpose(0, 1)).transpose(0, 1)


class Prefixed(Handmade):
    """Three virtual tokens in front of the text."""

    def __init__(self):
        super().__init__()
        self.virtual = nn.Parameter(torch.zeros(3, 16))
        randomise(self)

    def forward(self, input_ids):
        virtual = self.virtual.expand(len(input_ids), -1, -1)
        hidden = torch.cat([virtual, self.embed(input_ids)], 1)
        return self.head(self.norm(self.body(hidden)))


class Rescaled(Handmade):
    """The stream is halved between two blocks, as RWKV does."""

    def forward(self, input_ids):
        first, second, third = self.body
        hidden = third(second(first(self.embed(input_ids))) / 2)
        return self.head(self.norm(hidden))


class AlwaysRescaled(Handmade):
    """No block takes the very tensor that the one before gave."""

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        for block in self.body:
            hidden = block(hidden / 2)
        return self.head(self.norm(hidden))


class Wrapped(nn.Module):
    """Blocks that take and give tuples and keywords."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(40, 16)
        self.h = nn.ModuleList(InTuples() for _ in range(3))
        self.head = nn.Linear(16, 40)
        randomise(self)

    def forward(self, input_ids):
        given = {"mask": torch.ones(input_ids.shape), "hidden": self.embed(input_ids)}
        for block in self.h:
            given["hidden"] = block(**given)["out"][1]
        return {"logits": self.head(given["hidden"])}


class InTuples(Block):
    def forward(self, mask, hidden):
        return {"out": (mask.mean(), super().forward(hidden), [mask])}


class InParts(Handmade):
    """Blocks made of numbered parts, the last of which gives the block's output."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Sequential(Block(), Block()) for _ in range(3)),
        )
        randomise(self)


class SideTower(Handmade):
    """A second, longer stack that runs first, as a vision tower does."""

    def __init__(self):
        super().__init__()
        self.tower = nn.Sequential(*(Block() for _ in range(5)))
        randomise(self)

    def forward(self, input_ids):
        seen = self.tower(self.embed(input_ids))
        return self.head(self.norm(self.body(self.embed(input_ids) + seen)))


def flat():
    """Embedding, blocks, norm and head in one numbered row."""
    parts = (nn.Embedding(40, 16), Block(), Block(), nn.LayerNorm(16))
    return randomise(nn.Sequential(*parts, nn.Linear(16, 40)))


HANDMADE = {
    "a sequential body": (Handmade, ["body.0", "body.1", "body.2"]),
    "numbered attributes": (Numbered, ["block_0", "block_1", "block_2"]),
    "looped blocks": (Looped, ["body.0", "body.1"] * 3),
    "tokens first": (TimeFirst, ["layers.0", "layers.1", "layers.2"]),
    "virtual tokens": (Prefixed, ["body.0", "body.1", "body.2"]),
    "a changed stream": (Rescaled, ["body.0", "body.1", "body.2"]),
    "a stream that always changes": (AlwaysRescaled, ["body.0", "body.1", "body.2"]),
    "nested arguments": (Wrapped, ["h.0", "h.1", "h.2"]),
    "numbered parts in blocks": (InParts, ["body.0", "body.1", "body.2"]),
    "a longer tower before": (SideTower, ["body.0", "body.1", "body.2"]),
    "one flat row": (flat, ["1", "2", "3"]),
}


@pytest.fixture(params=HANDMADE)
def handmade(request):
    make, names = HANDMADE[request.param]
    return make(), names


@torch.no_grad()
def own_probabilities(model):
    logits = model(torch.tensor([TEXT]))
    logits = logits["logits"] if isinstance(logits, dict) else logits
    probabilities = logits[0, -len(TEXT) :].double().softmax(-1)
    return probabilities[range(len(TEXT) - 1), TEXT[1:]].tolist()


def test_models_without_conventions_are_found_and_read_right(handmade):
    model, names = handmade
    decoder = Decoder(model)
    assert list(decoder.verified.stream.names) == names
    result = explain(decoder, TEXT, positions="all", max_new_tokens=0)
    assert result.final.tolist() == pytest.approx(own_probabilities(model), abs=1e-6)
    assert result.fidelity.max() < 1e-5
    assert result.readout.power > 10


def test_the_state_of_a_layer_is_the_input_of_the_next_block(handmade):
    model, names = handmade
    decoder = Decoder(model)
    trace = decoder.trace(TEXT, range(1, len(TEXT) + 1))
    seen = []

    def before(module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden"]
        time_first = isinstance(model, TimeFirst)
        seen.append((hidden[:, 0] if time_first else hidden[0])[-len(TEXT) :])

    for name in dict.fromkeys(names):
        model.get_submodule(name).register_forward_pre_hook(before, with_kwargs=True)
    own_probabilities(model)
    assert torch.equal(trace.states[:-1], torch.stack(seen))


def test_a_stream_that_changes_between_blocks_is_said():
    for model in (Rescaled(), AlwaysRescaled()):
        notes = Decoder(model).verified.notes
        assert any("changes the stream between layers" in note for note in notes)
    assert not Decoder(Handmade()).verified.notes


def test_axes_and_prefix_are_found():
    [first, *_] = find_streams(Runner(TimeFirst()))
    assert (first.batch_axis, first.time_axis, first.prefix) == (1, 0, 0)
    [first, *_] = find_streams(Runner(Prefixed()))
    assert (first.batch_axis, first.time_axis, first.prefix) == (0, 1, 3)
    assert first.width == 16


def test_vectors_become_one_token_texts_and_come_back():
    for model in (TimeFirst(), Prefixed(), Handmade()):
        [stream, *_] = find_streams(Runner(model))
        vectors = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
        as_stream = stream.from_vectors(vectors)
        assert as_stream.shape[stream.batch_axis] == 4
        assert as_stream.shape[stream.time_axis] == 1 + stream.prefix
        assert torch.equal(stream.to_rows(as_stream)[:, 0], vectors)


def test_the_stack_that_is_read_is_the_last_one():
    streams = find_streams(Runner(SideTower()))
    assert [stream.container for stream in streams] == ["body", "tower"]


def test_experts_inside_a_block_are_no_layers():
    streams = find_streams(Runner(build("mixtral")))
    assert [stream.container for stream in streams] == [FAMILIES["mixtral"].blocks]


def test_declared_blocks_are_taken_and_proved():
    declared = Decoder(Handmade(), declaration=Declaration(blocks="body"))
    assert declared.n_layers == 3
    with pytest.raises(UnsupportedModelError, match="tower: reading the last state"):
        Decoder(SideTower(), declaration=Declaration(blocks="tower"))
    reason = "`blocks` names 'transformer.h', which is no module.*row: body .3 calls"
    with pytest.raises(UnsupportedModelError, match=reason):
        Decoder(Handmade(), declaration=Declaration(blocks="transformer.h"))


class NoBlocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(40, 16), nn.Linear(16, 40)

    def forward(self, input_ids):
        return self.head(self.embed(input_ids))


class Unlinked(Handmade):
    """Blocks side by side: none takes what another gives."""

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        return self.head(self.norm(sum(block(hidden) for block in self.body)))


class Narrowing(Handmade):
    """What the numbered modules give is never as wide as what they take."""

    def __init__(self):
        super().__init__()
        self.body = nn.ModuleList(nn.Linear(16, 8) for _ in range(2))
        randomise(self)

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        parts = [part(hidden) for part in self.body]
        return self.head(self.norm(torch.cat(parts, -1)))


class OnceMore(Handmade):
    """A block is called as often as the text has tokens."""

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        for _ in range(input_ids.shape[1]):
            hidden = self.body(hidden)
        return self.head(self.norm(hidden))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (NoBlocks, "Tried: none"),
        (Unlinked, "body: reading the last state misses"),
        (Narrowing, "body.*do not give a tensor as large as they take"),
        (OnceMore, "body.*called another number of times on other text"),
    ],
)
def test_a_model_without_a_stack_says_what_was_tried(make, reason):
    with pytest.raises(UnsupportedModelError, match=reason):
        Decoder(make())


def test_tokens_to_verify_on_are_the_same_every_time_and_exist():
    for model in (build("llama"), Handmade(vocab=7), TimeFirst()):
        ids = arbitrary_tokens(model, (3, 50))
        assert torch.equal(ids, arbitrary_tokens(model, (3, 50)))
        assert 0 <= int(ids.min()) <= int(ids.max())
        assert int(ids.max()) < model.get_submodule(embedding(model)).num_embeddings
        assert len(ids.unique()) > 5


def embedding(model):
    return "embed" if isinstance(model, Handmade | TimeFirst) else "model.embed_tokens"


def test_a_config_that_is_not_of_transformers_is_no_obstacle():
    model = Handmade()
    model.config = {"block_size": 8}
    decoder = Decoder(model)
    assert decoder.context is None
    assert decoder.info.architecture == "Handmade"


class OtherNames(Handmade):
    def forward(self, idx, targets=None):
        return super().forward(idx), targets


class Codebooks(Handmade):
    def forward(self, input_ids, speaker):
        return super().forward(input_ids) + speaker


def test_ids_go_to_the_first_parameter_whatever_its_name():
    result = explain(Decoder(OtherNames()), TEXT, positions="all", max_new_tokens=0)
    assert result.final.tolist() == pytest.approx(
        own_probabilities(Handmade()), abs=1e-6
    )


def test_other_inputs_can_be_declared():
    with pytest.raises(UnsupportedModelError, match=r"speaker.*Declaration\(inputs="):
        Decoder(Codebooks())
    inputs = {"inputs": lambda ids: {"input_ids": ids, "speaker": torch.ones(40)}}
    decoder = Decoder(Codebooks(), declaration=Declaration(**inputs))
    assert decoder.n_layers == 3
    result = explain(decoder, TEXT, positions="all", max_new_tokens=0)
    assert result.final.tolist() == pytest.approx(
        own_probabilities(Handmade()), abs=1e-6
    )


def test_a_traced_model_still_gives_the_same_logits():
    model = build("gpt2")
    before = full_logits(model, TEXT)
    find_streams(Runner(model))
    assert torch.equal(full_logits(model, TEXT), before)
