"""What writes updates, held against the states and against rerun writers."""

import functools

import pytest
import torch
from families import build, left_as_it_was, part, some_ids

from iglens import Decoder
from iglens.inside import Writing
from iglens.model.between import capture_parts
from iglens.model.writings import writing_hooks

TEXTS = [torch.tensor(some_ids(12)), torch.tensor(some_ids(7, seed=1))]
PLACES = [torch.tensor([0, 4, 5, 10]), torch.tensor([3, 6])]

PRE = ["llama", "qwen3", "mistral", "phi", "gpt2", "neox", "neox sequential", "granite"]
PRE += ["opt", "cohere"]
POST = ["gemma2", "gemma3", "olmo2"]


@functools.cache
def decoder_of(family, dtype=torch.float64):
    return Decoder(build(family, dtype))


def written(decoder, texts=TEXTS, places=PLACES, **options):
    """Writings of every block of every text, by text and layer, and the states."""
    runner, stream = decoder._runner, decoder.verified.stream
    layers = range(stream.n_layers + 1)
    args = (runner, stream, decoder.sublayers)
    with writing_hooks(*args, places, layers[1:], **options) as writings:
        taken = capture_parts(*args, texts, places, layers)
    found = {}
    for text, one in enumerate(taken):
        states = one.captured.states
        for layer in layers[1:]:
            found[text, layer] = writings.of(
                text, layer, states[layer - 1], states[layer], one.between.get(layer)
            )
    return found, taken


def gradients(writing, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(writing.update.shape, generator=generator).double()


def shares_of(writing, gradient):
    return writing.heads(gradient) if writing.n_heads else writing.neurons(gradient)


@pytest.mark.parametrize("family", [*PRE, *POST])
def test_parts_of_parts_add_up_to_the_difference_of_states(family):
    found, taken = written(decoder_of(family))
    exact = 1e-9 if family in PRE else 1e-6  # norms compute in single precision
    for (text, layer), writings in found.items():
        states = taken[text].captured.states
        total = torch.zeros(len(PLACES[text])).double()
        for writing in writings:
            assert isinstance(writing, Writing), writing
            gradient = gradients(writing)
            shares = shares_of(writing, gradient)
            rest = writing.rest(gradient, shares)
            size = gradient.norm(dim=1) * writing.update.norm(dim=1)
            assert (rest.abs() <= exact * size).all()
            offsets = writing.offsets(gradient)
            total += shares.sum(1) + rest + sum(offsets.values(), torch.zeros(1))
        change = states[layer] - states[layer - 1]
        torch.testing.assert_close(
            total, (gradient * change).sum(1), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("family", [*PRE, *POST])
@torch.no_grad()
def test_heads_and_neurons_are_what_the_writer_loses_without_them(family):
    """The writer itself, run again with one piece of what it takes set to zero."""
    decoder = decoder_of(family)
    found, _ = written(decoder)
    for (_, layer), writings in found.items():
        parts = decoder.sublayers.blocks[layer - 1].parts
        for p, writing in zip(parts, writings, strict=True):
            gradient = gradients(writing, seed=layer)
            shares = shares_of(writing, gradient)
            n_parts = shares.shape[1]
            assert n_parts == (p.heads or p.neurons)
            module = part(decoder.model, p.writer)
            scale = p.scale
            for index in (0, n_parts // 2, n_parts - 1):
                less = writing.taken.clone().unflatten(-1, (n_parts, -1))
                less[:, index] = 0
                lost = module(writing.taken) - module(less.flatten(1))
                if p.norm is not None:
                    lost = normed_like(decoder, p, module(writing.taken), lost)
                expected = (gradient * lost * scale).sum(1)
                exact = 1e-10 if p.norm is None else 1e-5
                torch.testing.assert_close(
                    shares[:, index], expected, rtol=exact, atol=exact
                )


def normed_like(decoder, p, given, lost):
    """A vector times gain over the scale of another: RMSNorm's, written by hand."""
    module = part(decoder.model, p.norm)
    plus = 1.0 if "Gemma" in type(module).__name__ else 0.0
    eps = getattr(module, "eps", None) or module.variance_epsilon
    scale = (given.square().mean(-1, keepdim=True) + eps).sqrt()
    return lost * (module.weight + plus) / scale


def test_biases_are_parts_of_their_own():
    for family, expected in [("gpt2", {"bias"}), ("llama", set()), ("gemma3", set())]:
        found, _ = written(decoder_of(family))
        for writing in found[0, 1]:
            assert writing.offsets(gradients(writing)).keys() == expected
    (attention, _) = written(decoder_of("gpt2"))[0][0, 2]
    bias = part(decoder_of("gpt2").model, "transformer.h.1.attn.c_proj").bias
    gradient = gradients(attention)
    torch.testing.assert_close(attention.offsets(gradient)["bias"], gradient @ bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "neox", "olmo2"])
def test_in_lower_precision_rounding_is_what_is_left(family, dtype):
    found, _ = written(decoder_of(family, dtype))
    within = 64 * torch.finfo(dtype).eps
    for writings in found.values():
        for writing in writings:
            assert isinstance(writing, Writing), writing
            gradient = gradients(writing)
            rest = writing.rest(gradient, shares_of(writing, gradient))
            size = gradient.norm(dim=1) * writing.update.norm(dim=1)
            assert (rest.abs() <= within * size).all()
            assert rest.dtype == torch.float64


def test_several_texts_are_written_as_each_alone():
    decoder = decoder_of("gpt2")
    both, _ = written(decoder)
    for index in (0, 1):
        alone, _ = written(decoder, TEXTS[index : index + 1], PLACES[index : index + 1])
        for layer in (1, 2, 3):
            for one, other in zip(both[index, layer], alone[0, layer], strict=True):
                gradient = gradients(one)
                torch.testing.assert_close(
                    shares_of(one, gradient), shares_of(other, gradient)
                )


@pytest.mark.parametrize("family", ["llama", "gemma3", "neox"])
def test_the_model_is_left_as_it_was(family):
    decoder = decoder_of(family)
    assert decoder.sublayers.blocks
    with left_as_it_was(decoder.model):
        written(decoder)
    args = (decoder._runner, decoder.verified.stream, decoder.sublayers)
    with (
        left_as_it_was(decoder.model),
        pytest.raises(KeyboardInterrupt),
        writing_hooks(*args, PLACES, [1, 2]),
    ):
        raise KeyboardInterrupt


def test_a_norm_of_the_sum_is_refused():
    found, _ = written(decoder_of("opt with a projection"))
    assert all("normed together" in reason for reason in found[0, 1])


@pytest.mark.parametrize("name", ["o_proj", "down_proj"])
def test_a_writer_that_is_changed_after_it_was_found_is_refused(name):
    decoder = Decoder(build("llama", torch.float64))
    assert decoder.sublayers.blocks
    module = decoder.model.model.layers[1].get_submodule(
        {"o_proj": "self_attn.o_proj", "down_proj": "mlp.down_proj"}[name]
    )
    module.register_forward_hook(lambda module, args, output: output.sin())
    found, _ = written(decoder)
    kinds = [isinstance(writing, str) for writing in found[0, 2]]
    assert kinds == [name == "o_proj", name == "down_proj"]
    assert "no matrix" in "".join(w for w in found[0, 2] if isinstance(w, str))
    assert not any(isinstance(writing, str) for writing in found[0, 1])
