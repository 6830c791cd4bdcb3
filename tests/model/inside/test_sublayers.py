"""The parts of blocks, held against names written by hand and against interventions."""

import functools
from dataclasses import dataclass, replace

import pytest
import torch
import transformers as hf
from families import (
    FAMILIES,
    SIZES,
    Family,
    Handmade,
    build,
    left_as_it_was,
    part,
    randomise,
    some_ids,
)
from torch import nn

from conformance import tiny
from iglens import Decoder
from iglens.model.inside import split
from iglens.model.inside.between import site_hooks
from iglens.model.inside.sublayers import BlockPlan, Part, Sublayers
from iglens.model.structure import get

IDS = torch.tensor([some_ids(12)])


@functools.cache
def decoder_of(family, dtype=torch.float32):
    return Decoder(build(family, dtype))


@dataclass(frozen=True)
class Split:
    """What a block of a family is, in names of its modules."""

    kind: str = "sequential"
    site: str = "post_attention_layernorm"
    names: tuple = ("attention", "mlp")
    modules: tuple = ("self_attn", "mlp")
    writers: tuple = ("self_attn.o_proj", "mlp.down_proj")
    placement: str = "pre"
    carry: float | None = 1.0
    scale: float | None = 1.0
    heads: int | None = 4
    neurons: int | None = 48


LLAMA = Split()
MOE = replace(LLAMA, writers=("self_attn.o_proj", None), neurons=None)
GEMMA = replace(LLAMA, site="pre_feedforward_layernorm", placement="sandwich")
GPT2 = Split(
    site="ln_2", modules=("attn", "mlp"), writers=("attn.c_proj", "mlp.c_proj"),
    neurons=128,
)  # fmt: skip
NEOX = Split(
    "parallel", "attention", modules=("attention", "mlp"),
    writers=("attention.dense", "mlp.dense_4h_to_h"),
)  # fmt: skip
PHI = Split("parallel", "self_attn", writers=("self_attn.dense", "mlp.fc2"))
OPT = Split(
    site="final_layer_norm", modules=("self_attn", "fc2"),
    writers=("self_attn.out_proj", "fc2"),
)  # fmt: skip

SPLITS = dict.fromkeys(FAMILIES, LLAMA) | {
    "qwen3 moe": MOE,
    "mixtral": MOE,
    "gemma2": GEMMA,
    "gemma3": GEMMA,
    "gemma3 capped": GEMMA,
    "phi": PHI,
    "gpt2": GPT2,
    "gpt2 untied": GPT2,
    "neox": NEOX,
    "neox sequential": replace(
        NEOX, kind="sequential", site="post_attention_layernorm"
    ),
    "opt": OPT,
    "opt with a projection": replace(OPT, site="fc1", placement="post", carry=None),
    "olmo2": replace(LLAMA, site="mlp", placement="post"),
    "cohere": replace(LLAMA, kind="parallel", site="self_attn"),
    "granite": replace(LLAMA, scale=0.6),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_block_of_a_family_splits_as_its_code_says(family):
    expected, blocks = SPLITS[family], FAMILIES[family].blocks
    plans = decoder_of(family).sublayers.blocks
    assert [plan.layer for plan in plans] == [*range(1, len(plans) + 1)]
    for index, plan in enumerate(plans):
        name = f"{blocks}.{index}"
        assert (plan.block, plan.kind, plan.reason) == (name, expected.kind, None)
        assert tuple(p.name for p in plan.parts) == expected.names
        (site,) = plan.sites
        assert site.module == f"{name}.{expected.site}"
        assert plan.parts[0].site is site
        for p, module, writer in zip(
            plan.parts, expected.modules, expected.writers, strict=True
        ):
            assert p.module == f"{name}.{module}"
            assert p.writer == (writer and f"{name}.{writer}")
            assert (p.writer is None) == (p.writer_reason is not None)
            assert (p.placement, p.carry) == (expected.placement, expected.carry)
            assert p.scale == expected.scale
        attention, mlp = plan.parts
        assert (attention.heads, mlp.neurons) == (expected.heads, expected.neurons)
        assert attention.neurons is mlp.heads is None
        assert attention.neurons_reason == "it mixes tokens"
        assert mlp.heads_reason == "it is no attention"


def test_the_basis_is_told():
    assert decoder_of("llama").sublayers.blocks[0].basis == "additive"
    assert decoder_of("granite").sublayers.blocks[0].basis == "additive"
    opt = decoder_of("opt with a projection").sublayers.blocks[0]
    assert opt.basis == "not additive"
    parts = (Part("attention", carry=1.0), Part("mlp", carry=0.5))
    assert BlockPlan(1, "0", "sequential", parts).basis == "scaled"


def test_experts_are_counted_and_are_no_neurons():
    mlp = decoder_of("mixtral").sublayers.blocks[0].parts[1]
    assert mlp.experts == 4
    assert "some of 4 experts" in mlp.neurons_reason
    assert decoder_of("llama").sublayers.blocks[0].parts[1].experts is None


def seen(decoder, ids=IDS):
    """What the sites hold, by block and module, and every block's input and output."""
    found = {}
    stream = decoder.verified.stream

    def take(layer, site, tensor):
        found[layer, site] = tensor.clone()

    ends = {}

    def end(index):
        def hook(module, args, kwargs, output):
            ends[index + 1] = (
                stream.taken(args, kwargs).clone(),
                stream.given(output).clone(),
            )

        return hook

    handles = [
        block.register_forward_hook(end(index), with_kwargs=True)
        for index, block in enumerate(stream.blocks)
    ]
    try:
        with site_hooks(decoder.model, stream, decoder.sublayers.blocks, take):
            decoder._runner(ids)
    finally:
        for handle in handles:
            handle.remove()
    return found, ends


SEQUENTIAL = [name for name, s in SPLITS.items() if s.kind == "sequential"]
PARALLEL = [name for name, s in SPLITS.items() if s.kind == "parallel"]


@torch.no_grad()
def output_with(decoder, family, layer, state, site, held):
    """Output of a block that got another input, and whose middle state is put back."""
    block = part(decoder.model, FAMILIES[family].blocks)[layer - 1]
    outputs = []

    def before(module, args, kwargs):
        if args:
            return (state.clone(), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": state.clone()}

    def at_site(module, args, kwargs):
        tensor = get((args, kwargs), site.place)
        tensor.copy_(held.reshape(tensor.shape))

    def at_output(module, args, output):
        get(output, site.place).copy_(held)

    def after(module, args, output):
        outputs.append(decoder.verified.stream.given(output).clone())

    module = decoder.model.get_submodule(site.module)
    handles = [
        block.register_forward_pre_hook(before, with_kwargs=True),
        block.register_forward_hook(after),
        module.register_forward_pre_hook(at_site, with_kwargs=True)
        if site.side == "input"
        else module.register_forward_hook(at_output),
    ]
    try:
        decoder._runner(IDS)
    finally:
        for handle in handles:
            handle.remove()
    return outputs[0]


@pytest.mark.parametrize("family", SEQUENTIAL)
def test_the_middle_state_alone_decides_the_blocks_output(family):
    """The meaning of a cut: with it put back, the block's input no longer matters."""
    decoder = decoder_of(family)
    found, ends = seen(decoder)
    for plan in decoder.sublayers.blocks:
        (site,) = plan.sites
        before, after = ends[plan.layer]
        other = before.flip(1) * 1.5
        held = found[plan.layer, site]
        args = (decoder, family, plan.layer, other, site)
        assert torch.equal(output_with(*args, held), after)
        assert not torch.equal(output_with(*args, held.flip(1)), after)


@pytest.mark.parametrize("family", PARALLEL)
def test_the_vectors_of_a_parallel_block_add_up_to_its_output(family):
    decoder = decoder_of(family)
    found, ends = seen(decoder)
    for plan in decoder.sublayers.blocks:
        before, after = ends[plan.layer]
        outputs = []
        mlp = decoder.model.get_submodule(plan.parts[1].module)
        handle = mlp.register_forward_hook(
            lambda module, args, output, to=outputs: to.append(output)
        )
        decoder._runner(IDS)
        handle.remove()
        vector = found[plan.layer, plan.sites[0]]
        torch.testing.assert_close(before + vector + outputs[0], after)


@torch.no_grad()
def test_in_a_sandwich_the_update_is_what_the_post_norm_gives():
    decoder = decoder_of("gemma3")
    found, ends = seen(decoder)
    block = decoder.model.model.layers[1]
    given = {}
    handles = [
        module.register_forward_hook(
            lambda module, args, output, name=name: given.update(
                {name: output[0] if isinstance(output, tuple) else output}
            )
        )
        for name, module in block.named_children()
    ]
    decoder._runner(IDS)
    for handle in handles:
        handle.remove()
    plan = decoder.sublayers.blocks[1]
    (before, after), middle = ends[2], found[2, plan.sites[0]]
    torch.testing.assert_close(
        middle - before, given["post_attention_layernorm"], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        after - middle, given["post_feedforward_layernorm"], rtol=1e-4, atol=1e-5
    )
    assert (middle - before - given["self_attn"]).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("family", ["gemma3", "phi", "mixtral"])
def test_other_dtypes_split_alike(family, dtype):
    plans = decoder_of(family).sublayers
    assert decoder_of(family, dtype).sublayers == plans


@pytest.mark.parametrize("family", ["llama", "phi", "mixtral"])
def test_the_model_is_left_as_it_was(family):
    decoder = Decoder(build(family))
    asked = hf.AttentionInterface.get_interface
    with left_as_it_was(decoder.model):
        assert isinstance(decoder.sublayers, Sublayers)
    assert hf.AttentionInterface.get_interface is asked


def test_also_after_an_interruption():
    decoder = Decoder(build("llama"))
    asked = hf.AttentionInterface.get_interface
    left = 0

    def fail(*_):
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    handle = decoder.model.model.layers[2].mlp.register_forward_hook(fail)
    for stop in (1, 2, 3, 4, 6):  # four runs, and a module that is tried again
        left = stop
        with left_as_it_was(decoder.model), pytest.raises(KeyboardInterrupt):
            split.find_sublayers(decoder._runner, decoder.verified.stream)
        assert hf.AttentionInterface.get_interface is asked
    handle.remove()


def test_parts_are_found_once_and_when_they_are_asked_for():
    decoder = Decoder(build("llama"))
    runs = []
    handle = decoder.model.model.register_forward_hook(lambda *_: runs.append(1))
    first = decoder.sublayers
    assert len(runs) == 4
    assert decoder.sublayers is first
    assert len(runs) == 4
    handle.remove()


@pytest.mark.embedded
def test_the_last_block_of_the_embedded_model_splits_as_was_measured(embedded):
    from iglens.model.inside.between import capture_parts

    plans = embedded.sublayers
    assert plans.kinds == {"sequential": 30}
    attention, mlp = plans.blocks[29].parts
    assert (attention.heads, attention.width) == (9, 576)
    assert (mlp.neurons, mlp.experts) == (1536, None)
    ids = embedded.encode("The capital of France is")
    (taken,) = capture_parts(
        embedded._runner,
        embedded.verified.stream,
        plans,
        [torch.tensor(ids)],
        [torch.tensor([len(ids) - 1])],
        range(31),
    )
    states = taken.captured.states[:, 0]
    points = torch.stack([states[29], taken.between[30][0, 0], states[30]])
    (token,) = embedded.target(" Paris", ids).ids
    levels = embedded.readout.logits(points).double().softmax(-1)[:, token]
    attention, mlp = levels.diff().tolist()
    assert attention == pytest.approx(0.0299, abs=5e-4)
    assert mlp == pytest.approx(0.6726, abs=5e-4)


ODD = {
    # several parts, one of which reads a tensor from elsewhere
    "gemma4_text": ["attention | mlp | per-layer input"],
    "blt": ["attention | mlp | cross-attention", "attention | mlp"],
    # one module in a block
    "mamba": ["mixer"],
    "nemotron_h": ["mixer", "mlp", "attention"],
    # a module that enters only the last sum
    "longcat_flash": ["attention | mlp | attention 2 | mlp 2"],
    # blocks that are no modules
    "xlm": ["attention | mlp"],
    # a module that adds the stream itself; norms of the sum
    "bloom": ["attention | mlp"],
    "bert": ["attention | mlp"],
    # several streams
    "hy_v4": ["mlp+attention | mlp"],
    # tokens before texts
    "xlnet": ["attention | mlp"],
    # a hybrid, with what cannot be split
    "zamba2": ["mixer", "none: no state of the stream's shape lies between"],
    "gemma3n_text": ["none: no state of the stream's shape lies between"],
    "reformer": ["none: its stream is 2 tensors"],
}


@functools.cache
def odd(model_type):
    model = tiny.build(tiny.CAUSAL, model_type, torch.float32)
    return Decoder(model, declaration=tiny.declaration(model_type))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", ODD)
def test_odd_blocks_are_named_for_what_they_do(model_type):
    found = [
        " | ".join(p.name for p in plan.parts) or f"none: {plan.reason}"
        for plan in odd(model_type).sublayers.blocks
    ]
    kinds = [*dict.fromkeys(found)]
    assert len(kinds) == len(ODD[model_type])
    for kind, expected in zip(kinds, ODD[model_type], strict=True):
        assert kind.startswith(expected) if ":" in expected else kind == expected


@pytest.mark.filterwarnings("ignore")
def test_where_modules_give_and_take_a_state_the_taking_one_is_watched():
    (site,) = odd("bert").sublayers.blocks[0].sites
    assert site.module == "bert.encoder.layer.0.intermediate"
    assert (site.side, site.place) == ("input", (0, 0))


@pytest.mark.filterwarnings("ignore")
def test_a_module_that_runs_past_the_states_is_told():
    plan = odd("longcat_flash").sublayers.blocks[0]
    assert "model.layers.0.mlp reads an earlier state" in plan.note
    assert plan.parts[-1].writer is None
    assert odd("bert").sublayers.blocks[0].note is None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model_type", "carry"), [("gemma4_text", 0.7), ("bert", None), ("doge", None)]
)
def test_factors_of_the_stream_are_told(model_type, carry):
    model = tiny.build(tiny.CAUSAL, model_type, torch.float32)
    for block in getattr(getattr(model, "model", None), "layers", ()):
        if hasattr(block, "layer_scalar"):
            block.layer_scalar.fill_(0.7)
    plan = Decoder(model).sublayers.blocks[0]
    assert plan.parts[-1].carry == pytest.approx(carry)
    assert plan.basis == ("scaled" if carry else "not additive")


@pytest.mark.filterwarnings("ignore")
def test_heads_that_a_norm_mixes_are_not_separated():
    attention = odd("bitnet").sublayers.blocks[0].parts[0]
    assert attention.heads is None
    assert "between the heads and its writer" in attention.heads_reason
    assert attention.writer is not None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model_type", "reason"),
    [("bloom", "does not run through"), ("diffllama", "it attends 2 times")],
)
def test_why_heads_are_not_separated(model_type, reason):
    attention = odd(model_type).sublayers.blocks[0].parts[0]
    assert attention.heads is None
    assert reason in attention.heads_reason


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_every_implementation_of_attention_is_seen(implementation):
    model = build("llama", attn_implementation=implementation)
    assert Decoder(model).sublayers == decoder_of("llama").sublayers


class Monolith(nn.Module):
    """A block whose attention is written in its own forward."""

    def __init__(self, d_model=16, mixing=True):
        super().__init__()
        self.norm, self.norm_2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.up, self.down = nn.Linear(d_model, 24), nn.Linear(24, d_model)
        self.mixing = mixing

    def forward(self, hidden):
        q, k, v = self.qkv(self.norm(hidden)).chunk(3, -1)
        if self.mixing:
            v = nn.functional.scaled_dot_product_attention(
                q[:, None], k[:, None], v[:, None], is_causal=True
            )[:, 0]
        hidden = hidden + self.out(v)
        return hidden + self.down(torch.relu(self.up(self.norm_2(hidden))))


def handmade(block, n_layers=2):
    model = Handmade(n_layers=n_layers)
    for index in range(n_layers):
        model.body[index] = block()
    return randomise(model).eval()


def test_attention_that_no_module_holds_is_seen_in_the_block():
    attention, mlp = Decoder(handmade(Monolith)).sublayers.blocks[0].parts
    assert (attention.name, mlp.name) == ("attention", "mlp")
    assert attention.heads is attention.neurons is None
    assert "in the block itself" in attention.heads_reason
    assert attention.writer == "body.0.out"
    assert (mlp.writer, mlp.neurons) == ("body.0.down", 24)


def test_what_mixes_no_tokens_is_not_called_attention():
    model = handmade(functools.partial(Monolith, mixing=False))
    names = [p.name for p in Decoder(model).sublayers.blocks[0].parts]
    assert names == ["mlp", "mlp 2"]


def test_a_block_that_mixes_without_attention_is_a_mixer():
    plan = Decoder(Handmade()).sublayers.blocks[0]
    assert (plan.kind, [p.name for p in plan.parts]) == ("single", ["mixer"])
    assert plan.sites == ()
    assert not plan.is_split


class Falconish(nn.Module):
    """A parallel block that adds in place into what its modules gave."""

    def __init__(self, d_model=16):
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.attention = Handmade(1, d_model).body[0].mix
        self.mlp = nn.Sequential(
            nn.Linear(d_model, 24), nn.ReLU(), nn.Linear(24, d_model)
        )

    def forward(self, hidden):
        normed = self.norm(hidden)
        mixed = self.attention(normed.cumsum(1) / 8)
        output = self.mlp(normed)
        output += mixed
        output += hidden
        mixed.zero_()
        return output


def test_vectors_of_a_parallel_block_are_taken_before_they_are_overwritten():
    decoder = Decoder(handmade(Falconish))
    plan = decoder.sublayers.blocks[0]
    assert plan.kind == "parallel"
    found, ends = seen(decoder, IDS % 40)
    vector, (before, after) = found[1, plan.sites[0]], ends[1]
    block = decoder.model.body[0]
    with torch.no_grad():
        expected = after - before - block.mlp(block.norm(before))
    torch.testing.assert_close(vector, expected, rtol=1e-4, atol=1e-5)


def test_a_module_that_several_blocks_share_is_counted_in_each():
    shared, still = nn.LayerNorm(16), nn.Identity()

    class Sharing(Monolith):
        def __init__(self):
            super().__init__()
            self.norm = self.norm_2 = shared
            self.still = still

        def forward(self, hidden):
            return super().forward(self.still(hidden))

    plans = Decoder(handmade(Sharing, n_layers=3)).sublayers.blocks
    assert [plan.kind for plan in plans] == ["sequential"] * 3
    assert {(s.module, s.call) for plan in plans for s in plan.sites} == {
        ("body.0.norm", 1)
    }


class Moody(Monolith):
    """A block that is another one for longer texts."""

    def forward(self, hidden):
        return super().forward(hidden) + (hidden if hidden.shape[1] > 10 else 0)


def test_a_split_that_another_text_does_not_confirm_is_none():
    (reason,) = Decoder(handmade(Moody)).sublayers.reasons
    assert "another text" in reason


def test_a_hook_that_finds_another_state_is_no_proof(monkeypatch):
    decoder = Decoder(build("llama"))
    hooks = split.site_hooks

    def shifted(model, stream, plans, take):
        return hooks(model, stream, plans, lambda k, s, t: take(k, s, t + (k == 2)))

    monkeypatch.setattr(split, "site_hooks", shifted)
    plans = decoder.sublayers.blocks
    assert [plan.kind for plan in plans] == ["sequential", "none", "sequential"]
    assert "finds another state on another text" in plans[1].reason
    assert plans[1].parts == ()


def test_a_model_whose_operations_cannot_be_followed_says_so(monkeypatch):
    decoder = Decoder(build("llama"))

    def fail(*args, **kwargs):
        raise NotImplementedError("no rule for this operator")

    monkeypatch.setattr("iglens.model.inside.recorder.Recorder._origin", fail)
    (reason,) = decoder.sublayers.reasons
    assert "cannot be followed" in reason
    assert "no rule for this operator" in reason
    assert decoder.sublayers.kinds == {"none": 3}


def test_families_here_are_of_the_sizes_the_table_says():
    assert SIZES["intermediate_size"] == LLAMA.neurons
    assert SIZES["num_attention_heads"] == LLAMA.heads
    assert all(isinstance(family, Family) for family in FAMILIES.values())
