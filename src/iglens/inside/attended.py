"""What heads read: values of source tokens, and the weights they are read with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..readout import MEMORY_BUDGET


@dataclass(frozen=True, eq=False)
class Attended:
    """A head's piece of what the writer takes, as a sum over source tokens.

    Head `h` at a row gives `gate * sum_j alpha_j v_j`, with the values of its group of
    heads, from which a bias that is the same for every token is told apart.

    Attributes:
        values: `v` of the text's tokens, up to the last that any row sees.
        bias: What of it is bias; zero where values have none.
        weights: `alpha` of some rows, (rows, heads, tokens), as the model's own eager
            attention computes it. Zero for tokens that are not seen; what a sink takes
            is missing from the sum.
        n_rows: Number of rows.
        n_heads: Number of heads; as many of them in a row share values as there are
            times as many heads as groups.
        gate: Elementwise factors between attention and writer, if there are any.
        note: What a reader must know, if anything.
    """

    values: Float[Tensor, "groups tokens head_width"]
    bias: Float[Tensor, "groups head_width"]
    weights: Callable[[slice], Tensor]
    n_rows: int
    n_heads: int
    gate: Float[Tensor, "rows heads head_width"] | None = None
    note: str | None = None

    def shares(
        self, pulled: Float[Tensor, "rows heads head_width"]
    ) -> Float[Tensor, "rows heads tokens"]:
        """`alpha_j <p, v_j - b>` of every head and token.

        Args:
            pulled: The gradient with respect to what the writer takes, in float64.
        """
        found = pulled.new_zeros(self.n_rows, self.n_heads, self.values.shape[1])
        values = self.values.to(pulled) - self.bias.to(pulled)[:, None]
        gated = pulled if self.gate is None else pulled * self.gate.to(pulled)
        grouped = gated.unflatten(1, (len(values), -1))
        for rows in self._pieces():
            read = torch.einsum("rghw,gtw->rght", grouped[rows], values)
            found[rows] = read.flatten(1, 2) * self.weights(rows).to(read)
        return found

    def at(self, rows: slice) -> "Attended":
        """The same of some rows."""
        first, stop, _ = rows.indices(self.n_rows)
        return replace(
            self,
            weights=lambda some: self.weights(
                slice(first + some.start, first + some.stop)
            ),
            n_rows=stop - first,
            gate=None if self.gate is None else self.gate[rows],
        )

    def read(self) -> Float[Tensor, "rows heads head_width"]:
        """What all tokens together give each head, in float64."""
        values = self.values.double()
        pieces = []
        for rows in self._pieces():
            weights = self.weights(rows).to(values).unflatten(1, (len(values), -1))
            read = torch.einsum("rght,gtw->rghw", weights, values)
            pieces.append(read.flatten(1, 2))
        found = torch.cat(pieces)
        return found if self.gate is None else found * self.gate.to(found)

    def _pieces(self) -> Iterator[slice]:
        """As many rows at a time as memory allows: three such tables in float64."""
        each = 24 * self.n_heads * self.values.shape[1]
        step = max(1, MEMORY_BUDGET // each)
        for start in range(0, self.n_rows, step):
            yield slice(start, min(start + step, self.n_rows))
