"""Operations and bytes that a token takes, from the shapes of a model."""

from dataclasses import dataclass
from typing import Any

FLOAT32, BFLOAT16 = 4, 2
"""Bytes of a number."""


@dataclass(frozen=True)
class Architecture:
    """Shapes of a decoder with gated MLPs and grouped-query attention.

    Attributes:
        name: What it is called.
        n_layers: Blocks.
        d_model: Numbers in a state.
        d_mlp: Neurons of an MLP.
        n_heads: Query heads.
        n_kv_heads: Key and value heads.
        d_head: Numbers of a head.
        vocab_size: Tokens.
        tied: Whether embedding and unembedding are one matrix.
    """

    name: str
    n_layers: int
    d_model: int
    d_mlp: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    vocab_size: int
    tied: bool = False

    @classmethod
    def of(cls, name: str, config: Any) -> "Architecture":
        """The shapes in a configuration of Transformers."""
        heads = config.num_attention_heads
        return cls(
            name,
            config.num_hidden_layers,
            config.hidden_size,
            config.intermediate_size,
            heads,
            config.num_key_value_heads,
            getattr(config, "head_dim", None) or config.hidden_size // heads,
            config.vocab_size,
            bool(config.tie_word_embeddings),
        )

    @property
    def block_weights(self) -> int:
        """Numbers in the matrices of all blocks."""
        attention = 2 * self.d_model * self.d_head * (self.n_heads + self.n_kv_heads)
        return self.n_layers * (attention + 3 * self.d_model * self.d_mlp)

    @property
    def head_weights(self) -> int:
        """Numbers in the unembedding."""
        return self.vocab_size * self.d_model

    @property
    def weights(self) -> int:
        """Numbers in all matrices."""
        return self.block_weights + self.head_weights * (1 if self.tied else 2)

    def forward(self, context: int) -> float:
        """Operations of the model itself per token: blocks, attention, its own head.

        Two per weight; attention multiplies with `context` keys and values, of which
        the mask leaves half on average, but dense kernels compute all.
        """
        attention = 4 * self.n_layers * context * self.n_heads * self.d_head
        return 2.0 * (self.block_weights + self.head_weights) + attention

    @property
    def readout(self) -> float:
        """Operations of the map per token: every logit at every point of the path."""
        return 2.0 * self.head_weights * (self.n_layers + 1)

    def state_bytes(self, element: int = BFLOAT16) -> int:
        """Bytes of a token's states, held from the forward to the readout."""
        return (self.n_layers + 1) * self.d_model * element

    def logit_bytes(self, passes: int, element: int = FLOAT32) -> float:
        """Bytes that logits move per token if each pass over them leaves the cache."""
        return float(passes * self.vocab_size * (self.n_layers + 1) * element)

    def head_bytes(self, points_at_once: int, element: int = FLOAT32) -> float:
        """Bytes of the unembedding that are read per token."""
        share = (self.n_layers + 1) / points_at_once
        return self.head_weights * element * share


LLAMA_8B = Architecture("Llama 3.1 8B", 32, 4096, 14336, 32, 8, 128, 128256)
LLAMA_70B = Architecture("Llama 3.1 70B", 80, 8192, 28672, 64, 8, 128, 128256)
