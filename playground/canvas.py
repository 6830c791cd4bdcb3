r"""A GPT-2 full of noise, in which heads and MLPs can be given something to do.

Features are unit vectors, orthogonal to each other and to the vector of ones, in a
random basis: tokens, places, a hidden copy of every token that the head of the model
does not read, and what it does read. A constant vector keeps the length of states
nearly the same, so that norms act nearly as one factor; their gains are random, and
readers divide by them.
"""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

N_LAYERS = 8
N_HEADS = 4
WIDTH = 128
N_NEURONS = 128
VOCABULARY = 32
LENGTH = 12
"""Tokens of every text."""

N_PLACES = 64
"""Places with an embedding; iglens reads texts of its own when it checks a model."""

ANCHOR = 4.0
"""Length of the constant vector in every state."""

LOUDNESS = 0.3
"""Length of what a part adds that has nothing to do; what a mechanism writes is 1 to
3."""

SHARPNESS = 16.0
"""By how much the attention score of what a head looks for exceeds that of the rest."""

READ = 1.9
"""What the head of the model multiplies the normed state with."""


@dataclass(eq=False)
class Canvas:
    """A model under construction.

    Attributes:
        seed: What weights and features are drawn from.
        generator: The source of all of it.
        model: The model.
    """

    seed: int
    generator: torch.Generator = field(init=False)
    model: GPT2LMHeadModel = field(init=False)

    def __post_init__(self) -> None:
        """Draw features and noise."""
        self.generator = torch.Generator().manual_seed(self.seed)
        config = GPT2Config(
            n_layer=N_LAYERS,
            n_head=N_HEADS,
            n_embd=WIDTH,
            n_inner=N_NEURONS,
            vocab_size=VOCABULARY,
            n_positions=N_PLACES,
            bos_token_id=0,
            eos_token_id=0,
            tie_word_embeddings=False,
        )
        self.model = GPT2LMHeadModel(config).eval().requires_grad_(False)
        self._fill()

    @cached_property
    def features(self) -> Float[Tensor, "features d_model"]:
        """Orthonormal rows without a mean."""
        drawn = self._randn(WIDTH, WIDTH)
        drawn[:, 0] = 1.0
        return torch.linalg.qr(drawn).Q[:, 1:].T.contiguous()

    @property
    def token(self) -> Float[Tensor, "vocab d_model"]:
        """What a token's embedding is."""
        return self.features[:VOCABULARY]

    @property
    def hidden(self) -> Float[Tensor, "vocab d_model"]:
        """A copy of every token that the head of the model does not read."""
        return self.features[VOCABULARY : 2 * VOCABULARY]

    @property
    def spoken(self) -> Float[Tensor, "vocab d_model"]:
        """What the head of the model reads as every token."""
        return self.features[2 * VOCABULARY : 3 * VOCABULARY]

    @property
    def place(self) -> Float[Tensor, "places d_model"]:
        """What the embedding of a place is."""
        return self.features[3 * VOCABULARY : 3 * VOCABULARY + LENGTH]

    def attend(
        self,
        layer: int,
        head: int,
        texts: Int[Tensor, "texts length"],
        *,
        query: Float[Tensor, "pairs d_model"],
        key: Float[Tensor, "pairs d_model"],
        read: Float[Tensor, "copied d_model"],
        write: Float[Tensor, "copied d_model"],
        amount: float,
    ) -> None:
        """Let a head attend from each `query` to its `key`, and copy `read` to `write`.

        Args:
            layer: Number of the block, from 1.
            head: Number of the head, from 0.
            texts: Texts to measure the norm's factor on.
            query: Features that are looked for from.
            key: Feature that each of them looks for.
            read: Features of what is attended to.
            write: What each becomes.
            amount: Length of what is written.
        """
        block = self.model.transformer.h[layer - 1]
        factor = float(self._factors(block.ln_1, texts).mean())
        size = WIDTH // N_HEADS
        own = slice(head * size, (head + 1) * size)
        strength = (SHARPNESS * size**0.5) ** 0.5 / factor
        wired, out = block.attn.c_attn.weight, block.attn.c_proj.weight
        basis = self._orthogonal(size)
        for at, rows in enumerate((strength * query, strength * key, read / factor)):
            columns = slice(at * WIDTH + own.start, at * WIDTH + own.stop)
            wired[:, columns] = self._reader(rows, block.ln_1).T @ basis[: len(rows)]
            block.attn.c_attn.bias[columns] = 0.0
        out[own] = amount * basis[: len(write)].T @ write

    def translate(
        self,
        layer: int,
        texts: Int[Tensor, "texts length"],
        *,
        read: Float[Tensor, "copied d_model"],
        write: Float[Tensor, "copied d_model"],
        amount: float,
    ) -> None:
        """Let an MLP write `amount` times `write` for every `read` in its state.

        Two neurons for each: `gelu(x) - gelu(-x) = x`. Exact at last tokens.
        """
        block = self.model.transformer.h[layer - 1]
        factor = float(self._factors(block.ln_2, texts)[:, -1].mean())
        order = torch.randperm(N_NEURONS, generator=self.generator)
        for sign, some in zip((1.0, -1.0), order.split(len(read))[:2], strict=True):
            reader = self._reader(read / factor, block.ln_2)
            block.mlp.c_fc.weight[:, some] = sign * reader.T
            block.mlp.c_fc.bias[some] = 0.0
            block.mlp.c_proj.weight[some] = sign * amount * write

    def distract(self, layer: int, amount: float) -> None:
        """Let an MLP write this much in directions that nothing reads."""
        spare = self.features[3 * VOCABULARY + LENGTH + 1 :]
        spread = amount / (0.6 * (N_NEURONS * len(spare)) ** 0.5)
        drawn = self._randn(N_NEURONS, len(spare))
        mlp = self.model.transformer.h[layer - 1].mlp
        mlp.c_proj.weight[:] = spread * drawn @ spare

    def _reader(
        self, rows: Float[Tensor, "n d_model"], norm: torch.nn.LayerNorm
    ) -> Float[Tensor, "n d_model"]:
        """Rows that undo the gain of a norm."""
        return rows / norm.weight

    def _factors(
        self, norm: torch.nn.LayerNorm, texts: Int[Tensor, "texts length"]
    ) -> Float[Tensor, "texts length"]:
        """What a norm multiplies every state with."""
        seen: list[Tensor] = []
        handle = norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        self.model(texts)
        handle.remove()
        return 1 / seen[0].std(-1, unbiased=False)

    def _fill(self) -> None:
        """Features for the embeddings and the head, noise for all blocks."""
        base = self.model.transformer
        anchor = self.features[3 * VOCABULARY + LENGTH]
        base.wte.weight[:] = self.token + ANCHOR * anchor
        base.wpe.weight[:] = self._randn(N_PLACES, WIDTH) / WIDTH**0.5
        base.wpe.weight[:LENGTH] = self.place
        for block in base.h:
            for norm in (block.ln_1, block.ln_2):
                self._draw_norm(norm)
            spread = WIDTH**-0.5
            self._draw(block.attn.c_attn, spread)
            self._draw(block.attn.c_proj, 2 * LOUDNESS / WIDTH)
            self._draw(block.mlp.c_fc, spread)
            self._draw(block.mlp.c_proj, 1.6 * LOUDNESS * (N_NEURONS * WIDTH) ** -0.5)
        self._draw_norm(base.ln_f)
        noise = 0.02 * self._randn(VOCABULARY, WIDTH)
        self.model.lm_head.weight[:] = READ * self._reader(self.spoken, base.ln_f)
        self.model.lm_head.weight += noise

    def _draw(self, layer: torch.nn.Module, spread: float) -> None:
        """Random weights, and biases a tenth as large as an output."""
        layer.weight[:] = spread * self._randn(*layer.weight.shape)
        layer.bias[:] = 0.1 * spread * self._randn(*layer.bias.shape)

    def _draw_norm(self, norm: torch.nn.LayerNorm) -> None:
        """Random gains and offsets."""
        norm.weight[:] = 1 + 0.2 * self._randn(WIDTH).clamp(-2, 2)
        norm.bias[:] = 0.05 * self._randn(WIDTH)

    def _randn(self, *shape: int) -> Tensor:
        """Normal numbers from the seed."""
        return torch.randn(*shape, generator=self.generator)

    def _orthogonal(self, size: int) -> Float[Tensor, "size size"]:
        """A random rotation."""
        return torch.linalg.qr(self._randn(size, size)).Q
