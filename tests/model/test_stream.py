"""Streams of every layout become rows of vectors, and come back."""

import pytest
import torch
from families import randomise, total_variation
from torch import nn

from iglens import Decoder, UnsupportedModelError
from iglens.model.declaration import Declaration
from iglens.model.discover import arbitrary_tokens, find_streams
from iglens.model.runner import Runner
from iglens.model.stream import gather, scatter

WIDTH, VOCAB = 16, 40
IDS = torch.randint(0, VOCAB, (1, 9), generator=torch.Generator().manual_seed(0))


def mixed(states):
    """Every position's mean of itself and the ones before."""
    count = torch.arange(1, states.shape[-2] + 1, dtype=states.dtype)[:, None]
    return states.cumsum(-2) / count


class Pair(nn.Module):
    """A block of a reversible stack: two tensors in, two out."""

    def __init__(self):
        super().__init__()
        self.f, self.g = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, one, other):
        one = one + torch.tanh(self.f(mixed(other)))
        return one, other + torch.tanh(self.g(one))


class Reversible(nn.Module):
    """Logits from both tensors of the last block."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.layers = nn.ModuleList(Pair() for _ in range(3))
        self.head = nn.Linear(2 * WIDTH, VOCAB)
        randomise(self)

    def forward(self, input_ids):
        one = other = self.embed(input_ids)
        other = other * 1.0  # a tensor of its own
        for layer in self.layers:
            one, other = layer(one, other)
        return self.head(torch.cat([one, other], -1))


class Repeated(nn.Module):
    """The text stands twice on the axis of tokens; the second copy is read."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Linear(WIDTH, WIDTH)

        def forward(self, both):
            main, second = both.chunk(2, 1)
            return both + torch.tanh(self.mix(torch.cat([mixed(main), second], 1)))

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.layers = nn.ModuleList(self.Block() for _ in range(3))
        self.head = nn.Linear(WIDTH, VOCAB)
        randomise(self)

    def forward(self, input_ids):
        states = self.embed(input_ids)
        both = torch.cat([states, states.flip(-1)], 1)
        for layer in self.layers:
            both = layer(both)
        main, second = both.chunk(2, 1)
        return self.head(torch.tanh(main) + second)


class Several(nn.Module):
    """Three distributions for each token, texts and distributions on one axis."""

    def __init__(self):
        super().__init__()
        self.body = Reversible()

    def forward(self, input_ids):
        return self.body(input_ids).repeat_interleave(3, 0)


class Beside(Reversible):
    """Its numbered modules are only a part of each layer: `h_0` is elsewhere."""

    def __init__(self):
        super().__init__()
        self.start, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, VOCAB)
        self.layers = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))
        randomise(self)

    def forward(self, input_ids):
        states = self.start(self.embed(input_ids))
        for layer in self.layers:
            states = layer(states + torch.tanh(mixed(states)))
        return self.head(states)


def read(decoder, model):
    taken = decoder.trace(IDS[0].tolist(), range(1, IDS.shape[1] + 1))
    with torch.no_grad():
        own = model(IDS)[0]
    return taken, total_variation(decoder.readout.logits(taken.states[-1]), own)


def test_two_tensors_are_one_stream_when_both_are_read():
    model = Reversible()
    decoder = Decoder(model)
    stream = decoder.verified.stream
    assert (len(stream.enter), len(stream.leave)) == (2, 2)
    assert stream.width == decoder.readout.d_model == 2 * WIDTH
    taken, missed = read(decoder, model)
    assert missed < 1e-6
    with torch.no_grad():
        embedded = model.embed(IDS)[0]
    assert torch.equal(taken.states[0], embedded.repeat(1, 2))


def test_a_text_that_stands_twice_is_two_vectors_per_token():
    model = Repeated()
    decoder = Decoder(model)
    stream = decoder.verified.stream
    assert (stream.repeat, stream.prefix, stream.width) == (2, 0, 2 * WIDTH)
    taken, missed = read(decoder, model)
    assert missed < 1e-6
    with torch.no_grad():
        embedded = model.embed(IDS)[0]
    expected = torch.cat([embedded, embedded.flip(-1)], -1)
    assert torch.equal(taken.states[0], expected)


@pytest.mark.parametrize("model", [Reversible(), Repeated()], ids=["two", "twice"])
def test_vectors_come_back_from_the_stream(model):
    stream = find_streams(Runner(model))[-1]
    vectors = torch.randn(5, stream.width, generator=torch.Generator().manual_seed(1))
    there = stream.from_vectors(vectors)
    assert torch.equal(stream.to_rows(there)[:, 0], vectors)
    rows = torch.randn(1, stream.width, generator=torch.Generator().manual_seed(2))
    changed = stream.with_rows(there, 3, rows)
    assert torch.equal(stream.to_rows(changed)[3], rows)
    assert torch.equal(stream.to_rows(changed)[:3, 0], vectors[:3])
    assert torch.equal(stream.to_rows(there)[:, 0], vectors)


def test_gathering_and_scattering_are_inverse():
    one, other = torch.zeros(2, 3), torch.ones(2, 3)
    structure = (one, {"kept": 5, "other": other})
    places = ((0,), (1, "other"))
    both = gather(structure, places)
    assert both.shape == (2, 2, 3)
    back = scatter(structure, places, both * 2)
    assert torch.equal(back[0], one)
    assert torch.equal(back[1]["other"], 2 * other)
    assert back[1]["kept"] == 5
    assert gather(structure, places[:1]) is one


def test_the_first_of_several_distributions_is_read():
    model = Several()
    decoder = Decoder(model)
    assert decoder.readout.vocab_size == VOCAB
    assert read(decoder, model)[1] < 1e-6
    assert any("gives 3 distributions" in note for note in decoder.verified.notes)
    assert not any("distributions" in n for n in Decoder(Reversible()).verified.notes)


def test_a_declared_first_module_gives_h_0_and_outputs_the_rest():
    model = Beside()
    seen = []
    for layer in model.layers:
        layer.register_forward_hook(lambda module, args, output: seen.append(output[0]))
    decoder = Decoder(model, declaration=Declaration(first="start"))
    seen.clear()
    taken, missed = read(decoder, model)
    assert missed < 1e-6
    with torch.no_grad():
        assert torch.equal(taken.states[0], model.embed(IDS)[0])
    for layer, output in enumerate(seen[:3], start=1):
        assert torch.equal(taken.states[layer], output)


def test_a_first_module_that_is_not_there_is_named():
    with pytest.raises(UnsupportedModelError, match=r"`first` names 'nowhere'"):
        Decoder(Beside(), declaration=Declaration(first="nowhere"))


class Settings:
    """A configuration inside another."""

    def __init__(self, **values):
        vars(self).update(values)


def test_special_ids_are_no_test_tokens():
    model = Reversible()
    inner = Settings(vocab_size=VOCAB, image_token_index=3)
    model.config = Settings(
        text_config=inner, eos_token_id=[0, 1], pad_token_id=None, bos_token_id=2
    )
    found = set(arbitrary_tokens(model, (20, 20)).flatten().tolist())
    assert found == set(range(4, VOCAB))
