"""What a user may say about a model that discovery cannot see: data, no code."""

from dataclasses import dataclass

from .runner import Inputs


@dataclass(frozen=True)
class Declaration:
    """Facts about an odd model; every field is optional, and all are verified.

    Attributes:
        blocks: Name of the module that holds the blocks, such as "model.layers".
        first: Name of the module whose first tensor is `h_0`, where the blocks do not
            start at the embedding; `h_k` is then the output of block `k`.
        inputs: Forward arguments for token ids, if the ids alone do not do.
        causal: False for a model that generates from left to right and yet lets its
            tokens see later ones: only what comes after a whole text can then be
            explained.
    """

    blocks: str | None = None
    first: str | None = None
    inputs: Inputs | None = None
    causal: bool = True
