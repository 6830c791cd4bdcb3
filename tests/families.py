"""Tiny random decoders of many families, and what they must give, written slowly.

Nothing here is learned from the package: blocks, norm and head of every family are
named by hand, so that what discovery finds can be wrong.
"""

import copy
import hashlib
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import tokenizers
import torch
import transformers as hf
from torch import nn

D_MODEL, LAYERS, VOCAB, CONTEXT = 32, 3, 97, 64

SIZES = {
    "hidden_size": D_MODEL,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCAB,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

NO_GROUPS = SIZES | {"num_key_value_heads": 4}


@dataclass(frozen=True)
class Family:
    """One architecture: its configuration, and where its parts are."""

    config: type
    blocks: str
    norm: str
    head: str
    options: dict[str, Any] = field(default_factory=dict)
    post: Callable[[torch.Tensor], torch.Tensor] = lambda logits: logits
    postprocess: str = "identity"
    tied: bool = False
    layers: int = LAYERS


def llama_like(config, **options):
    """Parts named as in Llama."""
    extras = {
        name: options.pop(name)
        for name in ("post", "postprocess", "tied", "layers")
        if name in options
    }
    given = SIZES | options
    return Family(config, "model.layers", "model.norm", "lm_head", given, **extras)


def softcap(cap):
    return lambda logits: cap * torch.tanh(logits / cap)


GPT2_SIZES = {
    "n_embd": D_MODEL,
    "n_layer": LAYERS,
    "n_head": 4,
    "vocab_size": VOCAB,
    "n_positions": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

NEOX_SIZES = {key: SIZES[key] for key in SIZES if key != "num_key_value_heads"}

OPT_SIZES = {
    "ffn_dim": 48,
    **{
        key: SIZES[key]
        for key in SIZES
        if key not in ("intermediate_size", "num_key_value_heads")
    },
}

FAMILIES = {
    "llama": llama_like(hf.LlamaConfig),
    "llama tied": llama_like(hf.LlamaConfig, tie_word_embeddings=True, tied=True),
    "llama of one layer": llama_like(hf.LlamaConfig, num_hidden_layers=1, layers=1),
    "qwen3": llama_like(
        hf.Qwen3Config, head_dim=8, tie_word_embeddings=True, tied=True
    ),
    "qwen3 moe": llama_like(
        hf.Qwen3MoeConfig,
        head_dim=8,
        moe_intermediate_size=16,
        num_experts=4,
        num_experts_per_tok=2,
    ),
    "mistral": llama_like(hf.MistralConfig, sliding_window=4),
    "mixtral": llama_like(hf.MixtralConfig, num_local_experts=4),
    "gemma2": llama_like(
        hf.Gemma2Config,
        head_dim=8,
        query_pre_attn_scalar=16,
        sliding_window=4,
        attn_logit_softcapping=3.0,
        final_logit_softcapping=5.0,
        post=softcap(5.0),
        postprocess="softcap 5",
        tied=True,
    ),
    "gemma3": llama_like(
        hf.Gemma3TextConfig,
        head_dim=8,
        query_pre_attn_scalar=16,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        tied=True,
    ),
    "gemma3 capped": llama_like(
        hf.Gemma3TextConfig,
        head_dim=8,
        final_logit_softcapping=4.0,
        tie_word_embeddings=False,
        post=softcap(4.0),
        postprocess="softcap 4",
    ),
    "phi": Family(
        hf.PhiConfig, "model.layers", "model.final_layernorm", "lm_head", NO_GROUPS
    ),
    "gpt2": Family(
        hf.GPT2Config, "transformer.h", "transformer.ln_f", "lm_head", GPT2_SIZES,
        tied=True,
    ),
    "gpt2 untied": Family(
        hf.GPT2Config, "transformer.h", "transformer.ln_f", "lm_head",
        GPT2_SIZES | {"tie_word_embeddings": False},
    ),
    "neox": Family(
        hf.GPTNeoXConfig, "gpt_neox.layers", "gpt_neox.final_layer_norm", "lm_head",
        NEOX_SIZES,
    ),
    "neox sequential": Family(
        hf.GPTNeoXConfig, "gpt_neox.layers", "gpt_neox.final_layer_norm", "lm_head",
        NEOX_SIZES | {"use_parallel_residual": False},
    ),
    "opt": Family(
        hf.OPTConfig, "model.decoder.layers", "model.decoder.final_layer_norm",
        "lm_head", OPT_SIZES | {"word_embed_proj_dim": D_MODEL}, tied=True,
    ),
    "opt with a projection": Family(
        hf.OPTConfig, "model.decoder.layers", "model.decoder.project_out", "lm_head",
        OPT_SIZES | {"word_embed_proj_dim": 16, "do_layer_norm_before": False},
        tied=True,
    ),
    "olmo2": llama_like(hf.Olmo2Config),
    "cohere": llama_like(
        hf.CohereConfig,
        logit_scale=0.3,
        post=lambda logits: logits * 0.3,
        postprocess="scale 0.3",
        tied=True,
    ),
    "granite": llama_like(
        hf.GraniteConfig,
        logits_scaling=4.0,
        embedding_multiplier=2.0,
        residual_multiplier=0.6,
        attention_multiplier=0.25,
        post=lambda logits: logits / 4,
        postprocess="scale 0.25",
    ),
}  # fmt: skip


def build(name, dtype=torch.float32, seed=0, **changes):
    """A model of a family with random weights, biases and gains; sizes are checked."""
    family = FAMILIES[name]
    model = hf.AutoModelForCausalLM.from_config(
        family.config(**family.options | changes)
    )
    randomise(model, seed)
    if not changes:
        _check_sizes(model, family)
    return model.to(dtype).eval()


def build_plain(name, dtype=torch.float32):
    """The same model again, which no decoder touches and which runs in any dtype."""
    model = build(name, dtype)
    model.set_experts_implementation("eager")  # the fused kernel has no float64
    return model


def randomise(model, seed=0):
    """Weights of spread 0.3, biases of 0.5, gains around 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        values = torch.randn(weight.shape, generator=generator)
        if weight.dim() > 1:
            values *= 0.3
        else:
            values = values * 0.5 + (0.0 if name.endswith("bias") else 1.0)
        weight.data = values.to(weight.dtype)
    return model


def _check_sizes(model, family):
    """Options that a configuration ignores would make a family of another one."""
    config = model.config
    assert len(part(model, family.blocks)) == family.layers
    assert config.hidden_size == D_MODEL
    assert config.vocab_size == VOCAB
    assert part(model, family.head).weight.shape[0] == VOCAB
    embedding = model.get_input_embeddings().weight
    assert embedding.shape[0] == VOCAB
    assert (part(model, family.head).weight is embedding) == family.tied
    for key, value in family.options.items():
        assert getattr(config, key) == value, key


def part(model, path):
    """The module of that name."""
    return model.get_submodule(path)


def some_ids(length=9, seed=0):
    """Token ids that are no special ones, the same every time."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCAB, (length,), generator=generator).tolist()


@torch.no_grad()
def full_logits(model, ids):
    """Logits of one plain forward pass, batch of one."""
    return model(torch.tensor([ids]), use_cache=False).logits[0]


@torch.no_grad()
def states_by_hooks(model, name, ids):
    """Inputs of all blocks and the output of the last, by hooks on named modules."""
    blocks, states = part(model, FAMILIES[name].blocks), []

    def before(module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        states.append(hidden[0].clone())

    def after(module, args, output):
        hidden = output[0] if isinstance(output, tuple) else output
        states.append(hidden[0].clone())

    handles = [b.register_forward_pre_hook(before, with_kwargs=True) for b in blocks]
    handles.append(blocks[-1].register_forward_hook(after))
    try:
        full_logits(model, ids)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(states)


@torch.no_grad()
def logits_of_replaced(model, name, ids, vectors):
    """Logits of a full forward in which only the last block's output is replaced."""

    def after(module, args, output):
        if isinstance(output, tuple):
            return (vectors[None].to(output[0]), *output[1:])
        return vectors[None].to(output)

    handle = part(model, FAMILIES[name].blocks)[-1].register_forward_hook(after)
    try:
        return full_logits(model, ids)
    finally:
        handle.remove()


@torch.no_grad()
def oracle(model, name, states):
    """Float64 probabilities: the model's own norm and head, called one by one."""
    family, double = FAMILIES[name], copy.deepcopy(model).double()
    normed = part(double, family.norm)(states.double())
    return family.post(part(double, family.head)(normed)).softmax(-1)


def total_variation(one, other):
    """Largest of all rows, from logits."""
    gap = one.double().softmax(-1) - other.double().softmax(-1)
    return float(gap.abs().sum(-1).max()) / 2


@contextmanager
def left_as_it_was(model):
    """Fails if a model's weights, hooks, forwards, modes or configuration change."""
    before = fingerprint(model)
    yield
    after = fingerprint(model)
    assert after.keys() == before.keys()
    for key in before:
        assert after[key] == before[key], key


def fingerprint(model):
    """Everything of a model that must stay, bit for bit."""
    found = {}
    for name, tensor in model.state_dict().items():
        found["state", name] = (id(tensor.untyped_storage()), tensor.dtype)
        bits = tensor.contiguous().flatten().view(torch.uint8).numpy()
        found["bits", name] = hashlib.sha256(bits).hexdigest()
    for name, module in model.named_modules():
        found["class", name] = type(module)
        found["training", name] = module.training
        found["attributes", name] = sorted(module.__dict__)
        forward = module.__dict__.get("forward")
        found["forward", name] = forward if forward is None else id(forward)
        for key, value in module.__dict__.items():
            if key.endswith("_hooks") or "hooks_" in key:
                found[key, name] = dict(value)
    config = getattr(model, "config", None)
    if hasattr(config, "to_dict"):
        found["config"] = (config.to_dict(), dict(vars(config)))
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        found["generation"] = generation.to_dict()
    found["gradients"] = [weight.requires_grad for weight in model.parameters()]
    return found


SPECIAL = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
LETTERS = "abcdefghijklmnopqrstuvwxyzPTFRĠ|.:\\"
MERGES = (
    "P a", "r i", "Pa ri", "Pari s", "Ġ Paris", "R o", "m e", "Ro me", "Ġ Rome",
    "T h", "Th e", "Ġ i", "Ġi s", "c a", "p i", "ca pi", "t a", "ta l", "capi tal",
    "Ġ capital", "Ġ o", "Ġo f", "F r", "a n", "Fr an", "c e", "Fran ce", "Ġ France",
    "Ġ |", "i s",
)  # fmt: skip
TEXT = "The capital of France is"

CHAT = (
    "{% for message in messages %}"
    "{% if message['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "<|im_start|>{{ message['role'] }}:{{ message['content'] }}<|im_end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}"
)


def tokenizer(*, chat=False, bos=False):
    """A byte-level BPE tokenizer that fits the tiny models.

    `chat` gives it a chat template, `bos` makes it add `<s>` in front of a text.
    """
    tokens = [*SPECIAL, *LETTERS, *(merge.replace(" ", "") for merge in MERGES)]
    assert len(set(tokens)) == len(tokens) <= VOCAB
    fast = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            {token: index for index, token in enumerate(tokens)},
            [tuple(merge.split()) for merge in MERGES],
            unk_token="<unk>",
        )
    )
    fast.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = tokenizers.decoders.ByteLevel()
    if bos:
        fast.post_processor = tokenizers.processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    made = hf.PreTrainedTokenizerFast(
        tokenizer_object=fast,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    if chat:
        made.chat_template = CHAT
    return made


class Block(nn.Module):
    """A causal residual block: every position adds the mean of the ones before."""

    def __init__(self, d_model=16):
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.mix = nn.Linear(d_model, d_model)

    def forward(self, hidden):
        normed = self.norm(hidden)
        count = torch.arange(1, hidden.shape[1] + 1, dtype=hidden.dtype)[:, None]
        return hidden + torch.tanh(self.mix(normed.cumsum(1) / count))


class Handmade(nn.Module):
    """A decoder without any convention of Transformers: logits in, logits out."""

    def __init__(self, n_layers=3, d_model=16, vocab=40):
        super().__init__()
        self.embed = nn.Embedding(vocab, d_model)
        self.body = nn.Sequential(*(Block(d_model) for _ in range(n_layers)))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, vocab)
        randomise(self)

    def forward(self, input_ids):
        return self.head(self.norm(self.body(self.embed(input_ids))))
