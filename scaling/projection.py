"""The cost model on a GPU: what bounds it, tokens per hour, and their price."""

from dataclasses import dataclass

from .architecture import BFLOAT16, FLOAT32, LLAMA_8B, LLAMA_70B, Architecture

CONTEXT = 1024
"""Tokens of a text."""

POINTS_AT_ONCE = 2048
"""States that share one pass over the unembedding."""

PASSES = 4
"""Passes over logits that no kernel fuses: written, largest, exponentials, summed."""


@dataclass(frozen=True)
class Gpu:
    """What a data sheet says, and what is assumed of it.

    Attributes:
        name: What it is called.
        bf16: Dense bfloat16 operations per second of the tensor cores.
        fp32: Float32 operations per second outside of them.
        bandwidth: Bytes per second of its memory.
        memory: Bytes of it.
        price: Dollars per hour, an assumption.
        forward_share: Share of `bf16` that a forward pass reaches, an assumption.
        product_share: Share of a peak that a large product reaches, an assumption.
    """

    name: str
    bf16: float
    fp32: float
    bandwidth: float
    memory: float
    price: float
    forward_share: float = 0.4
    product_share: float = 0.7


H100 = Gpu("H100 SXM", 989e12, 67e12, 3.35e12, 80e9, 3.0)
"""Data sheet of the H100 SXM; the price is a round number of 2026, to be replaced."""

MODELS = (LLAMA_8B, LLAMA_70B)


@dataclass(frozen=True)
class Projected:
    """A model on so many GPUs.

    Attributes:
        model: Its shapes.
        gpu: What it runs on.
        element: Bytes of a number in the readout: 4 in float32 (the default of every
            result), 2 for a bfloat16 product.
        pruned: Share of rows that certified pruning finishes early.
    """

    model: Architecture
    gpu: Gpu
    element: int = FLOAT32
    pruned: float = 0.0

    @property
    def n_gpus(self) -> int:
        """GPUs that hold the weights in bfloat16, with a fifth of each left free."""
        return -int(-(self.model.weights * BFLOAT16) // (0.8 * self.gpu.memory))

    @property
    def forward_seconds(self) -> float:
        """Per token, while one GPU works at a time."""
        rate = self.gpu.bf16 * self.gpu.forward_share
        return self.model.forward(CONTEXT) / rate

    @property
    def product_seconds(self) -> float:
        """Per token, of the readout's products."""
        peak = self.gpu.bf16 if self.element == BFLOAT16 else self.gpu.fp32
        return (1 - self.pruned) * self.model.readout / (peak * self.gpu.product_share)

    @property
    def memory_seconds(self) -> float:
        """Per token, of what the readout moves if nothing is fused."""
        moved = self.model.logit_bytes(PASSES) + self.model.head_bytes(
            POINTS_AT_ONCE, self.element
        )
        return (1 - self.pruned) * moved / self.gpu.bandwidth

    @property
    def seconds(self) -> float:
        """Per token: the passes over logits follow the products."""
        return self.forward_seconds + self.product_seconds + self.memory_seconds

    @property
    def bound(self) -> str:
        """What takes longest."""
        parts = {
            "forward": self.forward_seconds,
            "products of the readout": self.product_seconds,
            "passes over logits": self.memory_seconds,
        }
        return max(parts, key=lambda name: parts[name])

    @property
    def tokens_per_hour(self) -> float:
        """Explained tokens, of one copy of the model."""
        return 3600 / self.seconds

    @property
    def price_per_million(self) -> float:
        """Dollars per million explained tokens; all GPUs are paid for."""
        hours = 1e6 / self.tokens_per_hour
        return hours * self.gpu.price * self.n_gpus


def shapes() -> str:
    """Operations and bytes per token, by model."""
    lines = [
        "| model | weights | forward, GFLOP | readout, GFLOP | readout / forward | "
        "states, KB | unembedding, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in MODELS:
        forward = model.forward(CONTEXT)
        cells = (
            model.name,
            f"{model.weights / 1e9:.1f} billion",
            f"{forward / 1e9:.1f}",
            f"{model.readout / 1e9:.1f}",
            f"{model.readout / forward:.1f}",
            f"{model.state_bytes() / 1e3:.0f}",
            f"{model.head_weights * FLOAT32 / 1e6:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def projections() -> str:
    """Tokens per hour and their price, by model and readout."""
    lines = [
        "| model | GPUs | readout | forward, µs | products, µs | passes, µs | "
        "bound by | tokens per hour | $ per million |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    kinds = {
        "float32": (FLOAT32, 0.0),
        "float32, 40% pruned": (FLOAT32, 0.4),
        "bfloat16 products": (BFLOAT16, 0.0),
    }
    for model in MODELS:
        for name, (element, pruned) in kinds.items():
            at = Projected(model, H100, element, pruned)
            cells = (
                model.name,
                f"{at.n_gpus} x {H100.name}",
                name,
                *(
                    f"{1e6 * s:.0f}"
                    for s in (at.forward_seconds, at.product_seconds, at.memory_seconds)
                ),
                at.bound,
                f"{at.tokens_per_hour / 1e6:.1f} million",
                f"{at.price_per_million:.2f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
