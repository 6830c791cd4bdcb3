"""Small things to explain: heads and traces made by hand, and tiny real models."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

from iglens.model.decoder import Decoder
from iglens.readout import LinearReadout
from iglens.readout.fidelity import NoiseFloor, Tolerance
from iglens.records import ModelInfo, Provenance, Target
from iglens.trace import Trace

NORMS = ("rms", "layer", "gemma", "none")
POSTS = ("identity", "soft-cap", "scale")
DTYPES = (torch.float32, torch.float64, torch.bfloat16)

TOLERANCES = {
    torch.float32: Tolerance(1e-5, 1e-4, 1e-4),
    torch.float64: Tolerance(1e-11, 1e-10, 1e-10),
    torch.bfloat16: Tolerance(1e-3, 1e-2, 1e-2),
}


@dataclass(frozen=True)
class Head:
    """The mathematical parts of a readout."""

    norm: Callable
    unembed: torch.Tensor
    bias: torch.Tensor | None = None
    post: Callable | None = None

    def __post_init__(self):
        if self.post is None:
            object.__setattr__(self, "post", lambda z: z)

    @property
    def readout(self):
        return LinearReadout.plain(self.norm, self.unembed, self.bias, self.post)

    def but(self, **changes):
        return replace(self, **changes)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def make_norm(kind, gain, shift):
    """A norm written out; Gemma's gain is `1 + w`."""

    def norm(h):
        if kind == "none":
            return h
        if kind == "layer":
            h = h - h.mean(-1, keepdim=True)
        scaled = h * (h.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        if kind == "gemma":
            return scaled * (1 + gain.to(h.dtype))
        scaled = scaled * gain.to(h.dtype)
        return scaled + shift.to(h.dtype) if kind == "layer" else scaled

    return norm


def make_post(kind):
    return {
        "identity": None,
        "soft-cap": lambda z: 3.0 * torch.tanh(z / 3.0),
        "scale": lambda z: z * 0.4,
    }[kind]


def make_head(
    *,
    vocab=97,
    d_model=12,
    norm="rms",
    bias=True,
    post="identity",
    spread=1.0,
    dtype=torch.float32,
    seed=0,
):
    """A random head; logits have a standard deviation of about `spread` times two."""
    gain = 1 + 0.5 * normal(d_model, seed=seed + 1)
    shift = 0.5 * normal(d_model, seed=seed + 2)
    unembed = 2 * spread * normal(vocab, d_model, seed=seed + 3) / d_model**0.5
    offsets = normal(vocab, seed=seed + 4) if bias else None
    return Head(
        make_norm(norm, gain, shift),
        unembed.to(dtype),
        None if offsets is None else offsets.to(dtype),
        make_post(post),
    )


def make_states(points, rows, d_model, *, dtype=torch.float32, seed=0):
    """States that grow along the path, as residual streams do."""
    size = torch.linspace(0.5, 3.0, points, dtype=torch.float64)
    steps = normal(points, rows, d_model, seed=seed + 7)
    return (steps * size[:, None, None]).cumsum(0).to(dtype)


def make_trace(head=None, *, n_layers=4, rows=3, states=None, seed=0, **changes):
    """A trace of a text with `rows + 1` tokens, every one but the first predicted.

    `states` are those of all tokens but the last (points x rows x d_model).
    """
    head = make_head(seed=seed) if head is None else head
    readout, d_model = head.readout, head.unembed.shape[1]
    if states is None:
        dtype = head.unembed.dtype
        states = make_states(n_layers + 1, rows, d_model, dtype=dtype, seed=seed)
    n_layers, rows = len(states) - 1, states.shape[1]
    ids = torch.randint(readout.vocab_size, (rows + 1,), generator=generator(seed + 11))
    counts = torch.arange(1, rows + 1)[:, None]
    given = {
        "token_ids": ids,
        "token_texts": tuple(f"<{token}>" for token in ids.tolist()),
        "positions": torch.arange(1, rows + 1),
        "layers": tuple(range(n_layers + 1)),
        "states": states,
        "causal_mean": (states[0].double().cumsum(0) / counts).to(states.dtype),
        "text_mean": states.double().mean(1).to(states.dtype),
        "logits": readout.logits(states[-1]),
        "readout": readout,
        "noise": NoiseFloor(1e-7, 1e-6, 1e-6),
        "tolerance": TOLERANCES[readout.dtype],
        "power": 1e4,
        "modules": tuple(f"blocks.{i}" for i in range(n_layers)),
        "decode": lambda token: f"<{token}>",
        "provenance": Provenance(
            ModelInfo(
                "toy", None, None, None, "float32", n_layers, readout.vocab_size, "Toy"
            ),
            None,
            {"torch": torch.__version__},
            "2026-01-01T00:00:00+00:00",
        ),
    }
    return Trace(**(given | changes))


def trace_of_levels(*rows, seed=0, **changes):
    """A trace on which token 0 has exactly these probabilities, point by point.

    Two tokens, no norm: the state is the log-odds.
    """
    levels = torch.tensor(rows, dtype=torch.float64).T
    states = (levels.log() - (-levels).log1p())[:, :, None]
    unembed = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    return make_trace(Head(lambda h: h, unembed), states=states, seed=seed, **changes)


def token(*ids):
    return Target(tuple(sorted(ids)), "|".join(f"<{i}>" for i in sorted(ids)))


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 97,
    "max_position_embeddings": 64,
}

FAMILIES = {
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "gemma2": lambda: transformers.Gemma2Config(
        **SIZES, head_dim=8, final_logit_softcapping=5.0
    ),
    "gpt2": lambda: transformers.GPT2Config(
        n_embd=32, n_layer=3, n_head=4, vocab_size=97, n_positions=64
    ),
    "phi": lambda: transformers.PhiConfig(**SIZES | {"num_key_value_heads": 4}),
    "granite": lambda: transformers.GraniteConfig(**SIZES, logits_scaling=3.0),
}


def tiny_model(family, *, dtype=torch.float32, seed=0):
    """A model of three blocks with random weights, biases and gains."""
    model = transformers.AutoModelForCausalLM.from_config(FAMILIES[family]())
    source = generator(seed)
    for weight in model.parameters():
        drawn = torch.randn(weight.shape, generator=source)
        gain = weight.dim() == 1
        weight.data = (1 + 0.5 * drawn if gain else 0.3 * drawn).to(weight.dtype)
    return model.to(dtype).eval()


def tiny_decoder(family, *, dtype=torch.float32, seed=0):
    decoder = Decoder(tiny_model(family, dtype=dtype, seed=seed))
    assert decoder.n_layers == 3
    assert decoder.readout.vocab_size == 97
    return decoder


class LargestTensor(TorchDispatchMode):
    """While active, notes the largest tensor that any operation allocates."""

    def __init__(self):
        super().__init__()
        self.bytes = 0
        self.made_by = None

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        known = {storage.data_ptr() for storage in _storages((args, kwargs))}
        for storage in _storages(output):
            if storage.data_ptr() not in known and storage.nbytes() > self.bytes:
                self.bytes, self.made_by = storage.nbytes(), str(func)
        return output


def _storages(structure):
    """Memory behind every tensor; zeros of forward-mode derivatives have none."""
    for tensor in _tensors(structure):
        if not tensor._is_zerotensor():
            yield tensor.untyped_storage()


def _tensors(structure):
    if isinstance(structure, torch.Tensor):
        yield structure
    elif isinstance(structure, dict):
        for item in structure.values():
            yield from _tensors(item)
    elif isinstance(structure, tuple | list):
        for item in structure:
            yield from _tensors(item)
