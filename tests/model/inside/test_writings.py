"""What writes updates, held against the states and against rerun writers."""

import functools

import pytest
import torch
import transformers as hf
from families import SIZES, build, left_as_it_was, part, randomise, some_ids

from conformance import tiny
from iglens import ArgumentError, Decoder
from iglens.inside import Writing
from iglens.model.inside.between import capture_parts
from iglens.model.inside.writings import writing_hooks

EXTRA = {
    "qwen2": hf.Qwen2Config(**SIZES),
    "gpt-oss": hf.GptOssConfig(
        **SIZES,
        head_dim=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
}
"""Families that only these tests need: biased grouped values, and sinks."""

TEXTS = [torch.tensor(some_ids(12)), torch.tensor(some_ids(7, seed=1))]
PLACES = [torch.tensor([0, 4, 5, 10]), torch.tensor([3, 6])]

PRE = ["llama", "qwen3", "mistral", "phi", "gpt2", "neox", "neox sequential", "granite"]
PRE += ["opt", "cohere"]
POST = ["gemma2", "gemma3", "olmo2"]


def model_of(family, dtype=torch.float64, **changes):
    if family not in EXTRA:
        return build(family, dtype, **changes)
    model = hf.AutoModelForCausalLM.from_config(EXTRA[family], **changes)
    return randomise(model).to(dtype).eval()


@functools.cache
def decoder_of(family, dtype=torch.float64):
    return Decoder(model_of(family, dtype))


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


@pytest.mark.parametrize("family", ["llama", "gemma3", "neox", "gpt-oss"])
def test_the_model_is_left_as_it_was(family):
    decoder = decoder_of(family)
    assert decoder.sublayers.blocks
    asked = hf.AttentionInterface.get_interface
    with left_as_it_was(decoder.model):
        written(decoder, sources=True)
    args = (decoder._runner, decoder.verified.stream, decoder.sublayers)
    with (
        left_as_it_was(decoder.model),
        pytest.raises(KeyboardInterrupt),
        writing_hooks(*args, PLACES, [1, 2], sources=True),
    ):
        raise KeyboardInterrupt
    assert hf.AttentionInterface.get_interface is asked


def test_the_pass_gives_what_it_gives_without_being_watched():
    decoder = decoder_of("mistral")
    _, watched = written(decoder, sources=True)
    layers = range(decoder.n_layers + 1)
    args = (decoder._runner, decoder.verified.stream, decoder.sublayers)
    plain = capture_parts(*args, TEXTS, PLACES, layers)
    for one, other in zip(watched, plain, strict=True):
        assert torch.equal(one.captured.states, other.captured.states)
        assert torch.equal(one.captured.logits, other.captured.logits)


@torch.no_grad()
def test_a_norm_of_the_sum_is_frozen_and_the_state_is_a_part():
    decoder = decoder_of("opt with a projection")
    found, taken = written(decoder)
    attention, mlp = found[0, 2]
    gradient = gradients(attention)
    assert attention.offsets(gradient).keys() == {"bias", "norm offset", "carry"}
    layer = decoder.model.model.decoder.layers[1]
    start = taken[0].captured.states[1]
    y, norm = layer.self_attn.out_proj(attention.taken), layer.self_attn_layer_norm
    centred = [z - z.mean(-1, keepdim=True) for z in (start, start + y)]
    scale = (centred[1].square().mean(-1, keepdim=True) + norm.eps).sqrt()
    kept = norm.weight * centred[0] / scale - start
    torch.testing.assert_close(
        attention.offsets(gradient)["carry"], (gradient * kept).sum(1)
    )
    for writing in (attention, mlp):
        rest = writing.rest(gradient, shares_of(writing, gradient))
        assert (rest.abs() < 1e-9).all()


def test_a_scaled_state_is_a_part():
    model = tiny.build(tiny.CAUSAL, "gemma4_text", torch.float32)
    for block in model.model.layers:
        block.layer_scalar.fill_(0.7)
    found, taken = written(Decoder(model))
    for (text, layer), writings in found.items():
        *others, last = writings
        gradient = gradients(last)
        assert not any("carry" in w.offsets(gradient) for w in others)
        before = taken[text].between[layer][-1].double()
        torch.testing.assert_close(
            last.offsets(gradient)["carry"], -0.3 * (gradient * before).sum(1)
        )


GATED = {"qwen3_next": [4], "afmoe": [1, 2, 3, 4]}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", GATED)
def test_factors_between_heads_and_writer_are_part_of_what_they_read(model_type):
    decoder = Decoder(tiny.build(tiny.CAUSAL, model_type, torch.float32))
    found, _ = written(decoder, sources=True)
    for layer in GATED[model_type]:
        attention = found[0, layer][0]
        assert attention.attended.gate is not None
        gradient = gradients(attention)
        gap = attention.sources(gradient).sum(2) - attention.heads(gradient)
        assert gap.abs().max() < 1e-4 * attention.heads(gradient).abs().max()


class HeadNorm(torch.nn.Module):
    """Norms what each head reads, by itself."""

    def forward(self, read):
        return torch.nn.functional.rms_norm(read.unflatten(-1, (4, -1)), (8,)).flatten(
            -2
        )


def test_heads_that_are_normed_before_their_writer_have_no_sources():
    model = build("llama", torch.float64)
    for block in model.model.layers:
        attention = block.self_attn
        attention.o_proj = torch.nn.Sequential(HeadNorm(), attention.o_proj)
    found, _ = written(Decoder(model), sources=True)
    for attention, _ in found.values():
        assert attention.heads(gradients(attention)).shape[1] == 4
        assert "between what its heads read and its writer" in attention.attended


@pytest.mark.filterwarnings("ignore")
def test_a_sink_that_scales_after_the_weights_is_refused():
    """Its eager function gives weights that are not those it multiplies with."""
    model = tiny.build(tiny.CAUSAL, "granite_swa", torch.float32)
    found, _ = written(Decoder(model), sources=True)
    assert "are not what its heads give" in found[0, 1][0].attended


def test_a_part_that_is_changed_behind_its_writer_is_refused():
    decoder = Decoder(build("llama", torch.float64))
    assert decoder.sublayers.blocks
    mlp = decoder.model.model.layers[1].mlp
    mlp.register_forward_hook(lambda module, args, output: output * 1.001)
    found, _ = written(decoder)
    assert not any(isinstance(w, str) for w in (*found[0, 1], *found[0, 3]))
    assert "is not the whole of its update" in found[0, 2][1]


def test_a_norm_that_is_given_something_else_is_refused():
    decoder = Decoder(build("gemma3", torch.float64))
    assert decoder.sublayers.blocks
    mlp = decoder.model.model.layers[1].mlp
    mlp.register_forward_hook(lambda module, args, output: output * 1.001)
    found, _ = written(decoder)
    assert "between its writer and its post-norm" in found[0, 2][1]


def test_a_writer_that_runs_twice_is_refused():
    decoder = Decoder(build("llama", torch.float64))
    assert decoder.sublayers.blocks
    mlp = decoder.model.model.layers[1].mlp
    handle = mlp.register_forward_pre_hook(lambda module, args: module.forward(*args))
    found, _ = written(decoder)
    handle.remove()
    assert "down_proj was called 2 times" in found[0, 2][1]
    assert not isinstance(found[0, 2][0], str)


def test_blocks_that_were_not_wanted_are_refused():
    decoder = decoder_of("llama")
    args = (decoder._runner, decoder.verified.stream, decoder.sublayers)
    with writing_hooks(*args, PLACES, [2]) as writings:
        (taken, _) = capture_parts(*args, TEXTS, PLACES, range(4))
    states = taken.captured.states
    with pytest.raises(ArgumentError, match="`layer` is 3; taken were 2"):
        writings.of(0, 3, states[2], states[3], taken.between[3])
    with pytest.raises(ArgumentError, match="0 tensors; block 2 has 1 sites"):
        writings.of(0, 2, states[1], states[2])
    assert len(writings.of(0, 2, states[1], states[2], taken.between[2])) == 2


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


READING = [*EXTRA, "llama", "qwen3", "mistral", "phi", "gpt2", "neox", "opt", "cohere"]
READING += ["gemma2", "gemma3", "olmo2", "granite"]


@functools.cache
def attentions(family, text):
    """Attention weights of a text as the model itself gives them, per layer."""
    model = model_of(family, attn_implementation="eager")
    if family in EXTRA:
        model.set_experts_implementation("eager")  # the fused kernel has no float64
    with torch.no_grad():
        return model(TEXTS[text][None], output_attentions=True).attentions


@pytest.mark.parametrize("family", READING)
@torch.no_grad()
def test_sources_are_the_models_weights_times_its_values(family):
    decoder = decoder_of(family)
    found, _ = written(decoder, sources=True)
    for (text, layer), writings in found.items():
        writing = writings[0]
        gradient = gradients(writing, seed=layer)
        sources = writing.sources(gradient)
        _, heads, tokens = sources.shape
        assert tokens == PLACES[text][-1] + 1
        weights = attentions(family, text)[layer - 1][0][:, PLACES[text], :tokens]
        pulled = writing.pull(gradient).unflatten(-1, (heads, -1))
        values = writing.attended.values - writing.attended.bias[:, None]
        values = values.repeat_interleave(heads // len(values), 0)
        expected = torch.einsum("hrt,rhw,htw->rht", weights, pulled, values)
        torch.testing.assert_close(sources, expected, rtol=1e-5, atol=1e-5)
        assert writing.attended.note is None


def bias_of(weight, kind, heads=4):
    """Value biases, from what the model calls them."""
    if kind == "fused":  # queries, keys, values side by side
        return weight.chunk(3)[2].view(heads, -1)
    if kind == "woven":  # the same within each head
        return weight.view(heads, 3, -1)[:, 2]
    return weight.view(-1, 8)


@pytest.mark.parametrize(
    ("family", "name", "kind"),
    [
        ("gpt2", "transformer.h.{}.attn.c_attn", "fused"),
        ("neox", "gpt_neox.layers.{}.attention.query_key_value", "woven"),
        ("phi", "model.layers.{}.self_attn.v_proj", "plain"),
        ("qwen2", "model.layers.{}.self_attn.v_proj", "plain"),
    ],
)
def test_the_bias_of_values_is_told_apart(family, name, kind):
    decoder = decoder_of(family)
    found, _ = written(decoder, sources=True)
    for (_, layer), (writing, *_) in found.items():
        bias = part(decoder.model, name.format(layer - 1)).bias
        expected = bias_of(bias, kind)
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(writing.attended.bias, expected)
        gradient = gradients(writing)
        pulled = writing.pull(gradient).unflatten(-1, (4, -1))
        own = expected.repeat_interleave(4 // len(expected), 0)
        torch.testing.assert_close(
            writing.heads(gradient) - writing.sources(gradient).sum(2),
            (pulled * own).sum(2),
            rtol=1e-5,
            atol=1e-5,
        )


def test_a_sink_takes_weight_and_gives_nothing():
    found, _ = written(decoder_of("gpt-oss"), sources=True)
    for writing, *_ in found.values():
        weights = writing.attended.weights(slice(None))
        assert (weights.sum(2) < 0.999).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "neox", "gpt-oss"])
def test_sources_add_up_to_their_head_in_lower_precision(family, dtype):
    found, _ = written(decoder_of(family, dtype), sources=True)
    for writing, *_ in found.values():
        gradient = gradients(writing)
        pulled = writing.pull(gradient).unflatten(-1, (4, -1))
        bias = writing.attended.bias.double()
        bias = bias.repeat_interleave(4 // len(bias), 0)
        weights = writing.attended.weights(slice(None)).double().sum(2)
        read = writing.sources(gradient).sum(2) + (pulled * bias).sum(2) * weights
        size = pulled.norm(dim=2) * writing.taken.double().norm(dim=1, keepdim=True)
        gap = (read - writing.heads(gradient)).abs()
        assert (gap <= 8 * torch.finfo(dtype).eps * size).all()


def test_sources_that_were_not_asked_for_are_refused_with_the_reason():
    found, _ = written(decoder_of("llama"))
    attention, mlp = found[0, 1]
    with pytest.raises(ArgumentError, match="it was not asked for"):
        attention.sources(gradients(attention))
    with pytest.raises(ArgumentError, match="it is no attention"):
        mlp.heads(gradients(mlp))
    with pytest.raises(ArgumentError, match="it mixes tokens"):
        attention.neurons(gradients(attention))


def test_weights_that_are_not_those_of_the_pass_are_refused(monkeypatch):
    """The model's own eager function, once it computes something else."""
    from transformers.models.llama import modeling_llama

    eager = modeling_llama.eager_attention_forward

    def flat(module, query, *args, **kwargs):
        return eager(module, query * 0.99, *args, **kwargs)

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", flat)
    found, _ = written(decoder_of("llama"), sources=True)
    for attention, _ in found.values():
        assert "are not what its heads give" in attention.attended
        assert attention.heads(gradients(attention)).shape[1] == 4


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_adapters_are_part_of_what_writes():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.LoraConfig(
        r=4,
        target_modules=["o_proj", "v_proj", "down_proj"],
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(model_of("qwen2", torch.float32), config).double()
    decoder = Decoder(model.eval())
    found, _ = written(decoder, sources=True)
    for attention, mlp in found.values():
        for writing in (attention, mlp):
            gradient = gradients(writing)
            shares = shares_of(writing, gradient)
            size = gradient.norm(dim=1) * writing.update.norm(dim=1)
            assert (writing.rest(gradient, shares).abs() <= 1e-9 * size).all()
        assert attention.attended.bias.abs().max() > 0.1
        gap = attention.attended.read().flatten(1) - attention.taken
        assert gap.abs().max() < 1e-5


@pytest.mark.embedded
def test_the_parts_of_the_embedded_model_add_up(embedded):
    ids = torch.tensor(embedded.encode("The capital of France is Paris. Rome is in"))
    found, _ = written(embedded, [ids], [torch.arange(1, len(ids))], sources=True)
    assert len(found) == 30
    for attention, mlp in found.values():
        gradient = gradients(attention)
        heads = attention.heads(gradient)
        sources = attention.sources(gradient)
        assert heads.shape == (len(ids) - 1, 9)
        assert sources.shape == (len(ids) - 1, 9, len(ids))
        size = attention.pull(gradient).norm(dim=1) * attention.taken.norm(dim=1)
        assert ((sources.sum(2) - heads).abs() < 1e-5 * size[:, None]).all()
        for writing, shares in (
            (attention, heads),
            (mlp, mlp.neurons(gradients(mlp))),
        ):
            gradient = gradients(writing)
            size = gradient.norm(dim=1) * writing.update.norm(dim=1)
            assert (writing.rest(gradient, shares).abs() < 1e-5 * size).all()
