"""What is known about a model: whether it is read exactly, how, and at what cost."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .findings import (
    BlockFacts,
    Fidelity,
    LayerFacts,
    MemoryEstimate,
    ModelFacts,
    PrecisionCost,
    ReadoutFacts,
)

Verdict = Literal["exact", "undecided", "refused"]

SCHEMA = "iglens.doctor/1"
"""Name and version of the JSON form."""


@dataclass(frozen=True)
class Examination:
    """What `iglens.examine` found out; frozen, without torch.

    Of a refused model some parts are None: what could not be found out.

    Attributes:
        verdict: "exact" (proved, and again on a text), "undecided" (nothing speaks
            against it, but the check has no power), or "refused".
        sentence: The verdict in one sentence.
        name: What the model was asked for by.
        model: What it is.
        layers: Where its residual stream runs.
        readout: How states are read.
        blocks: How its blocks can be taken apart, alike ones together.
        fidelity: The readout beside the model's own logits, on a text.
        precision: What the stored dtype costs.
        memory: Blocks and bytes for a text of some length.
        batch_safe: Whether texts of several lengths may share a batch.
        tried: Of a refused model: what was taken for the stack of blocks, by the name
            of the module that holds it, and why it is none.
        warnings: Sentences a reader must see.
        versions: Package versions.
    """

    verdict: Verdict
    sentence: str
    name: str
    model: ModelFacts | None = None
    layers: LayerFacts | None = None
    readout: ReadoutFacts | None = None
    blocks: tuple[BlockFacts, ...] = ()
    fidelity: Fidelity | None = None
    precision: PrecisionCost | None = None
    memory: MemoryEstimate | None = None
    batch_safe: bool | None = None
    tried: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def is_exact(self) -> bool:
        """Whether the model was verified."""
        return self.verdict == "exact"

    def to_json(self) -> dict[str, Any]:
        """The published JSON form; NaN and infinity become null.

        `iglens/data/doctor.schema.json` describes it.
        """
        from ..storage.plain import plain

        document = {"schema": SCHEMA, **asdict(self)}
        if self.memory is not None:
            document["memory"]["peak_bytes"] = self.memory.peak_bytes
        return dict(plain(document))

    def __str__(self) -> str:
        """The report as plain text."""
        from ..report.examination import plain_text

        return plain_text(self)
