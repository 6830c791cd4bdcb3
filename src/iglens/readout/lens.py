r"""Lenses: maps that bring the state of a layer to where the last layer's states are.

The head was trained to read the last state only. A lens has a translator `T_l` for
every layer and reads `f(T_l(h_l))` instead of `f(h_l)`; the last translator is the
identity, so that the levels still end at the model's own value and credits still add
up to the same total, whatever the others are.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ArgumentError, NonFiniteError
from ..records import ModelInfo
from .abstract import at_least_float32


@dataclass(frozen=True)
class LensInfo:
    """Where a lens comes from.

    Attributes:
        model: The model it was fitted on.
        unembed_sha256: Hash of that model's unembedding; see
            `iglens.readout.unembedding.unembedding_sha256`. None where the head cannot
            be read as a matrix.
        method: How it was fitted: "ridge", "ridge, polished" or "tuned-lens".
        settings: What a rerun needs: text, tokens, seed, penalty, steps; JSON values.
        versions: Package versions.
        created: UTC time in ISO 8601.
    """

    model: ModelInfo
    unembed_sha256: str | None
    method: str
    settings: dict[str, object] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""


class AbstractLens(ABC):
    """A translator per layer, 0 to the last; the last one is the identity.

    Attributes:
        name: What it is called in records: "logit", or how it was fitted.
        d_model: Width of a state; None if any will do.
        n_layers: Number of blocks, which is the last layer; None if any will do.
        info: Where it comes from; None for what needs no fit.
        notes: Sentences that whoever sees a result must see.
    """

    name: str
    d_model: int | None
    n_layers: int | None
    info: LensInfo | None
    notes: tuple[str, ...]

    @abstractmethod
    def translate(
        self, states: Float[Tensor, "points rows d_model"], layers: Sequence[int]
    ) -> Float[Tensor, "points rows d_model"]:
        """`T_l(h)` of states, each point through the translator of a layer.

        Args:
            states: Residual states, before the final norm.
            layers: The translator of every point, in any order and repeated at will:
                a write needs the input of a block through the map of its output.

        Returns:
            New states in float32, or in float64 if they came in float64.

        Raises:
            ArgumentError: If there is no such translator, or the width is another.
        """

    @abstractmethod
    def carry(
        self, changes: Float[Tensor, "points rows d_model"], layers: Sequence[int]
    ) -> Float[Tensor, "points rows d_model"]:
        """`T_l(h + u) - T_l(h)` of changes `u`: what a translator makes of a write.

        Args:
            changes: Differences of residual states.
            layers: The translator of every point.

        Returns:
            New changes, in the dtype of `translate`.

        Raises:
            ArgumentError: As `translate` does.
        """

    @abstractmethod
    def pull(
        self, gradients: Float[Tensor, "rows d_model"], layer: int
    ) -> Float[Tensor, "rows d_model"]:
        """The way back: `<pull(g), u>` is `<g, carry(u)>`, in the dtype of `g`."""


@dataclass(frozen=True, eq=False)
class LogitLens(AbstractLens):
    """Every translator is the identity: the head reads the states as they are.

    Example:
        >>> LogitLens().translate(torch.ones(1, 1, 2), [0])
        tensor([[[1., 1.]]])
    """

    name: str = "logit"
    d_model: int | None = None
    n_layers: int | None = None
    info: LensInfo | None = None
    notes: tuple[str, ...] = ()

    def translate(
        self, states: Float[Tensor, "points rows d_model"], layers: Sequence[int]
    ) -> Float[Tensor, "points rows d_model"]:
        """The states themselves."""
        _check_points(states, layers)
        return states.to(at_least_float32(states.dtype))

    def carry(
        self, changes: Float[Tensor, "points rows d_model"], layers: Sequence[int]
    ) -> Float[Tensor, "points rows d_model"]:
        """The changes themselves."""
        return self.translate(changes, layers)

    def pull(
        self, gradients: Float[Tensor, "rows d_model"], layer: int
    ) -> Float[Tensor, "rows d_model"]:
        """The gradients themselves."""
        return gradients


@dataclass(frozen=True, eq=False)
class AffineLens(AbstractLens):
    """`T_l(h) = h + A_l h + b_l`, and `T_L(h) = h`.

    Attributes:
        layers: Layers with a translator besides the last, ascending.
        weight: `A_l` of each of them, applied as `A_l @ h`.
        bias: `b_l` of each of them.

    Raises:
        ArgumentError: If shapes or layers do not fit together.
        NonFiniteError: If a translator holds NaN or infinity.

    Example:
        >>> lens = AffineLens("double", 1, (0,), torch.eye(2)[None], torch.zeros(1, 2))
        >>> lens.translate(torch.ones(2, 1, 2), [0, 1]).tolist()
        [[[2.0, 2.0]], [[1.0, 1.0]]]
    """

    name: str
    n_layers: int
    layers: tuple[int, ...]
    weight: Float[Tensor, "translators d_model d_model"]
    bias: Float[Tensor, "translators d_model"]
    info: LensInfo | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no lens."""
        shapes = len(self.layers), len(self.weight), len(self.bias)
        if len(set(shapes)) > 1:
            raise ArgumentError(
                f"`layers` names {shapes[0]} translators, but `weight` holds "
                f"{shapes[1]} and `bias` {shapes[2]}."
            )
        known = [layer for layer in range(self.n_layers) if layer in self.layers]
        if list(self.layers) != known:
            raise ArgumentError(
                f"`layers` is {self.layers}; it must be ascending, in 0 to "
                f"{self.n_layers - 1}: layer {self.n_layers} is the identity."
            )
        for at, layer in enumerate(self.layers):
            values = torch.cat([self.weight[at].flatten(), self.bias[at]])
            if not bool(torch.isfinite(values).all()):
                raise NonFiniteError(f"The translator of layer {layer} is not finite.")

    @property
    def d_model(self) -> int:  # type: ignore[override]
        """Width of a state."""
        return self.bias.shape[1]

    def translate(
        self, states: Float[Tensor, "points rows d_model"], layers: Sequence[int]
    ) -> Float[Tensor, "points rows d_model"]:
        """`h + A_l h + b_l`, and `h` at the last layer."""
        return self._map(states, layers, shifted=True)

    def carry(
        self, changes: Float[Tensor, "points rows d_model"], layers: Sequence[int]
    ) -> Float[Tensor, "points rows d_model"]:
        """`u + A_l u`, and `u` at the last layer."""
        return self._map(changes, layers, shifted=False)

    def pull(
        self, gradients: Float[Tensor, "rows d_model"], layer: int
    ) -> Float[Tensor, "rows d_model"]:
        """`g + A_l^T g`, and `g` at the last layer."""
        if (parts := self.translator(layer)) is None:
            return gradients
        return gradients + gradients @ parts[0].to(gradients)

    def translator(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """`A_l` and `b_l` of a layer; None for the last, which is the identity.

        Raises:
            ArgumentError: If this lens has none for that layer.
        """
        if layer == self.n_layers:
            return None
        if layer not in self.layers:
            raise ArgumentError(
                f"The lens {self.name!r} has no translator for layer {layer}; it has "
                f"{_listed(self.layers)} and the last, {self.n_layers}. Choose "
                "`layers` among these, or fit the lens on all layers."
            )
        at = self.layers.index(layer)
        return self.weight[at], self.bias[at]

    def save(self, path: str | Path) -> None:
        """Write the lens as a safetensors file, whole or not at all.

        Raises:
            ArgumentError: If it is not known what it was fitted on.
            OutputError: If the place is not writable.
        """
        from ..storage.lens_form import write_lens

        if self.info is None:
            raise ArgumentError(
                f"The lens {self.name!r} has no `info`, so nobody could tell which "
                "model it belongs to. Make it with `fit_lens`, or give it a `LensInfo`."
            )
        header = {"name": self.name, "n_layers": self.n_layers, "d_model": self.d_model}
        arrays = {
            "layers": np.array(self.layers, dtype=np.int64),
            "weight": _array(self.weight),
            "bias": _array(self.bias),
        }
        write_lens(Path(path), header | asdict(self.info), arrays)

    @torch.no_grad()
    def _map(self, vectors: Tensor, layers: Sequence[int], *, shifted: bool) -> Tensor:
        """Every point through its translator, with or without the bias."""
        _check_points(vectors, layers)
        if vectors.shape[-1] != self.d_model:
            raise ArgumentError(
                f"The lens {self.name!r} is for states of width {self.d_model}, and "
                f"these have {vectors.shape[-1]}: it belongs to another model."
            )
        mapped = vectors.to(at_least_float32(vectors.dtype), copy=True)
        for point, layer in zip(mapped, layers, strict=True):
            if (parts := self.translator(layer)) is None:
                continue
            weight, bias = (part.to(point) for part in parts)
            change = point @ weight.T
            point += change + bias if shifted else change
        return mapped


def _array(values: Tensor) -> Float[np.ndarray, "..."]:
    """The numbers as NumPy has them, which knows no bfloat16."""
    return values.detach().cpu().to(at_least_float32(values.dtype)).numpy()


def _check_points(states: Tensor, layers: Sequence[int]) -> None:
    """Refuse another number of points than of translators."""
    if len(states) != len(layers):
        raise ArgumentError(
            f"`layers` names {len(layers)} translators for {len(states)} points."
        )


def _listed(layers: Sequence[int]) -> str:
    """Layers in few words."""
    if list(layers) == list(range(layers[0], layers[-1] + 1)) and len(layers) > 2:
        return f"{layers[0]} to {layers[-1]}"
    return ", ".join(map(str, layers))
