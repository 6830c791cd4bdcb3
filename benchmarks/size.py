"""How much is measured."""

from dataclasses import dataclass

from .product import BLOCKINGS

CASES = (
    "map",
    "whole",
    "accuracy",
    "published",
    "inside",
    "spread",
    "corpus",
    "memory",
    "start",
    "neighbours",
)
"""What can be asked for alone."""


@dataclass(frozen=True)
class Size:
    """A form of the suite.

    Attributes:
        name: What it is called.
        cases: What is measured.
        models: Embedded models.
        tokens: Lengths of text for the map.
        neighbours: Lengths of text for the neighbours; none of them without any.
        turn: Multiplications and additions in a turn of the bare product.
        pairs: Rounds of what takes seconds.
        launches: Rounds of what starts programs, and of runs over a corpus.
        steps: Steps of the published procedure.
        texts: Texts of the corpus.
        levels: How far down the drill-down goes.
        blockings: Of the bare product.
        seed: Of what is drawn.
    """

    name: str
    cases: tuple[str, ...]
    models: tuple[str, ...]
    tokens: tuple[int, ...]
    neighbours: tuple[int, ...]
    turn: float
    pairs: int
    launches: int
    steps: tuple[int, ...]
    texts: int
    levels: tuple[str, ...]
    blockings: tuple[tuple[int, int], ...]
    seed: int = 0


FULL = Size(
    name="full",
    cases=CASES,
    models=("smollm2", "gemma3-270m"),
    tokens=(50, 500, 5000),
    neighbours=(50, 500),
    turn=5e11,
    pairs=7,
    launches=7,
    steps=(64, 1),
    texts=48,
    levels=("sublayer", "head", "neuron", "source"),
    blockings=BLOCKINGS,
)
SHORT = Size(
    name="short",
    cases=("map", "accuracy", "inside", "spread", "corpus", "start"),
    models=("smollm2",),
    tokens=(50,),
    neighbours=(),
    turn=1e11,
    pairs=3,
    launches=1,
    steps=(),
    texts=2,
    levels=("sublayer",),
    blockings=((1024, 2048), (2048, 2048)),
)
