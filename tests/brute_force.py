"""Shares of heads and neurons the long way: the model's own modules, many nodes."""

import families
import oracle
import torch

import iglens

IDS = [3, 1, 4, 1, 5, 9]
AT = [2, 4, 6]
TOKEN = iglens.Target((7,), "x")
CONTRAST = iglens.Target((7,), "x", (11,), "y")
WRITERS = {  # attention and MLP of block 2, by their names in each family
    "llama": ("model.layers.1.self_attn.o_proj", "model.layers.1.mlp.down_proj"),
    "qwen3": ("model.layers.1.self_attn.o_proj", "model.layers.1.mlp.down_proj"),
    "mistral": ("model.layers.1.self_attn.o_proj", "model.layers.1.mlp.down_proj"),
    "gemma3": ("model.layers.1.self_attn.o_proj", "model.layers.1.mlp.down_proj"),
    "olmo2": ("model.layers.1.self_attn.o_proj", "model.layers.1.mlp.down_proj"),
    "gpt2": ("transformer.h.1.attn.c_proj", "transformer.h.1.mlp.c_proj"),
    "neox": (
        "gpt_neox.layers.1.attention.dense",
        "gpt_neox.layers.1.mlp.dense_4h_to_h",
    ),
    "phi": ("model.layers.1.self_attn.dense", "model.layers.1.mlp.fc2"),
}
POST_NORMS = {
    "gemma3": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
}
PARALLEL = ("neox", "phi")
LEVELS = ("head", "neuron", "source")


def level(decoder, family, target, unit):
    """The oracle's level: the model's own modules, whole logits, float64."""
    known = families.FAMILIES[family]
    norm, head = (decoder.model.get_submodule(n) for n in (known.norm, known.head))

    def of(states):
        z = known.post(head(norm(states)))
        value = oracle.level(z, list(target.ids), unit)
        if target.against:
            value = value - oracle.level(z, list(target.against), unit)
        return value

    return of


def given_to(decoder, name):
    """What a module takes and gives at the explained rows, by a hook of our own."""
    kept = {}
    module = decoder.model.get_submodule(name)
    hook = module.register_forward_hook(
        lambda m, args, out: kept.update(taken=args[0], given=out)
    )
    with torch.no_grad():
        decoder.model(torch.tensor([IDS]))
    hook.remove()
    rows = torch.tensor(AT) - 1
    taken, given = (kept[side].reshape(len(IDS), -1)[rows] for side in kept)
    return module, taken, given


def columns(module):
    """What the writer makes of every entry of what it takes: width x d_model."""
    weight = module.weight.detach()
    return weight if weight.shape[0] == module.__dict__.get("nx", -1) else weight.T


def vectors(decoder, family, part):
    """The vector that every entry of the writer's input adds, post-norm frozen."""
    module, taken, given = given_to(decoder, WRITERS[family][part])
    matrix = columns(module)
    if family in POST_NORMS:
        block = decoder.model.get_submodule("model.layers.1")
        norm = getattr(block, POST_NORMS[family][part])
        gain = norm.weight.detach() + (1 if family == "gemma3" else 0)
        eps = getattr(norm, "eps", None) or norm.variance_epsilon
        scale = (given.square().mean(1) + eps).sqrt()
        return taken[:, :, None] * matrix * (gain / scale[:, None])[:, None]
    return taken[:, :, None] * matrix


def gradients(decoder, family, trace, part, target, unit):
    """The closed gradient of block 2's part, by brute force, per row."""
    of, parted = level(decoder, family, target, unit), trace.inside[2]
    found = []
    for row in range(len(AT)):
        start, end = trace.states[1, row], trace.states[2, row]
        inner = [*parted.inner(start[None], end[None], slice(row, row + 1))[:, 0]]
        every = [start, *inner, end]
        total = torch.zeros_like(start)
        for a, b, weight in parted.strokes(part):
            g = oracle.average_gradient(of, every[a], every[b])
            step = every[b] - every[a]
            with torch.no_grad():
                change = (of(every[b][None]) - of(every[a][None]))[0]
            missed = change - g @ step
            total += weight * (g + missed * step / step.square().sum())
        found.append(total)
    return torch.stack(found)
