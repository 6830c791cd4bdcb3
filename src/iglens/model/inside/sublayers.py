"""The parts of every block: which states lie between them, and what writes them.

Nothing here goes by the names of modules or classes. The operations of one forward
pass are recorded as a graph (`dataflow`); a tensor of the stream's shape that every
path from `h_{k-1}` to `h_k` crosses is a residual state between two parts of block
`k`, wherever its norms stand (`cuts`). What is learned on one text is proved on
another: hooks alone must find, bit for bit, the states that lie on every path there.

**Kinds of blocks.** "sequential": one state or more lie between its parts, and the
update of a part is a *difference of states*, never a module's raw output. "parallel":
no state lies between, but `h_k` is a sum of what its modules give; parts are then
vectors, the last being the remainder. "single": only one module with weights, nothing
to split. "none": no split was found or proved; `reason` says why.

**Names of parts.** Each module with weights is called alone on what it was given in
the recorded run, with one early token changed. If the output of later tokens moves, it
mixes tokens: "attention" if a softmax (or a fused attention kernel) weights what is
mixed, else "mixer" (state spaces, convolutions, recurrences). If not, it is pointwise:
"mlp". Attention that reads only tensors from outside the block's stream is
"cross-attention"; a pointwise part into which a tensor per token enters that does not
come from the stream is "per-layer input". A part of several such modules is named
after all of them, "attention+mixer"; names that occur twice are counted, "mlp 2".
"""

from dataclasses import dataclass
from typing import Literal

from ..structure import Place

BlockKind = Literal["sequential", "parallel", "single", "none"]
Placement = Literal["pre", "post", "sandwich", "none"]
Basis = Literal["additive", "scaled", "not additive"]


@dataclass(frozen=True)
class Site:
    """Where an ordinary hook finds a tensor.

    Attributes:
        module: Name of the module in the model.
        side: Whether it is among the module's arguments or in its output.
        place: Where in `(args, kwargs)`, or in the output.
        call: Which call of the module within the block, from 0.
    """

    module: str
    side: Literal["input", "output"]
    place: Place
    call: int = 0


@dataclass(frozen=True)
class Part:
    """One part of a block: attention, MLP, ….

    Attributes:
        name: What it is: "attention", "mixer", "mlp", …; unique within the block.
        modules: Its modules with weights, in the order of their calls.
        module: The one of them that says what the part is, for display.
        site: Sequential blocks: where the state *after* this part is found. Parallel
            blocks: where this part's vector is found. None for the last part, which
            ends at the block's own output (parallel: is the remainder).
        site_scale: Parallel blocks: factor with which that vector enters the sum.
        placement: Whether something that normalises stands before its weights ("pre"),
            behind its writer ("post"), at both ends ("sandwich") or nowhere ("none").
        carry: Factor with which the state before it enters the state after it
            (parallel: the block's output); None if that is no number (a norm of the
            sum, learned vectors).
        scale: Factor with which the writer's output, behind its post-norm if it has
            one, enters; None if that is no number.
        writer: Name of the linear module whose output becomes the update, up to norm
            and scale: the attention's output projection, the MLP's down projection.
        writer_reason: Why there is none.
        norm: Name of the module that norms what the writer gives, or the sum that the
            mixture enters ("post", "sandwich"), if it is a single one.
        width: Numbers per token that the writer takes.
        heads: Number of heads, if the writer's input is one piece for each of them.
        heads_reason: Why heads cannot be separated.
        gated: Whether the writer takes what heads read, number by number, times
            factors at most.
        neurons: Number of neurons, if the writer's input is one number for each.
        neurons_reason: Why neurons cannot be separated.
        experts: Number of experts that a router chooses from, if there is one.
        mixture: Name of the module that adds up what the chosen experts give, with the
            router's weights, if that enters the update up to norm and scale.
        mixture_scale: The factor with which it enters; None if that is no number.
    """

    name: str
    modules: tuple[str, ...] = ()
    module: str | None = None
    site: Site | None = None
    site_scale: float = 1.0
    placement: Placement = "none"
    carry: float | None = None
    scale: float | None = None
    writer: str | None = None
    writer_reason: str | None = None
    norm: str | None = None
    width: int | None = None
    heads: int | None = None
    heads_reason: str | None = None
    gated: bool = False
    neurons: int | None = None
    neurons_reason: str | None = None
    experts: int | None = None
    mixture: str | None = None
    mixture_scale: float | None = None


@dataclass(frozen=True)
class BlockPlan:
    """How one block splits.

    Attributes:
        layer: Number of the block, from 1: its segment is `h_{layer-1}` to `h_layer`.
        block: Name of the block's module.
        kind: "sequential", "parallel", "single" or "none".
        parts: Its parts in order; those of an unsplit block ("none") are empty.
        reason: Why the block is not split; None where it is.
        note: What a reader must know of a block that is split, if anything.
    """

    layer: int
    block: str
    kind: BlockKind
    parts: tuple[Part, ...] = ()
    reason: str | None = None
    note: str | None = None

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where the hooks of this block look: one fewer than it has parts."""
        return tuple(part.site for part in self.parts if part.site is not None)

    @property
    def is_split(self) -> bool:
        """Whether there is more than one part."""
        return len(self.parts) > 1

    @property
    def basis(self) -> Basis:
        """Whether `h_k` is `h_{k-1}`, or a multiple of it, plus updates.

        Not additive, too, where a block is not split: nothing is known of it.
        """
        carries = [part.carry for part in self.parts]
        if not carries or None in carries:
            return "not additive"
        return "additive" if all(carry == 1.0 for carry in carries) else "scaled"


@dataclass(frozen=True)
class Sublayers:
    """The parts of all blocks of one model.

    Attributes:
        blocks: One plan for each block call, in order.
    """

    blocks: tuple[BlockPlan, ...]

    @property
    def kinds(self) -> dict[str, int]:
        """How many blocks there are of each kind."""
        found = [plan.kind for plan in self.blocks]
        return {kind: found.count(kind) for kind in dict.fromkeys(found)}

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why blocks are not split, each reason once."""
        reasons = (plan.reason for plan in self.blocks)
        return tuple(dict.fromkeys(reason for reason in reasons if reason))
