"""Where a result comes from: enough to run it again and get the same numbers."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ModelInfo:
    """Identity of the model that was explained.

    Attributes:
        id: Name it was loaded by, or its class name if it was handed over loaded.
        path: Local folder its weights came from, if known.
        revision: Commit of the hub repository, if known.
        weights_sha256: Hash over the weight files, if they are known.
        dtype: The dtype the model computes in.
        n_layers: Number of blocks.
        vocab_size: Number of logits.
        architecture: Class of the model.
        note: Anything a reader must know, such as "Q4_1 dequantised to float16".
    """

    id: str
    path: str | None
    revision: str | None
    weights_sha256: str | None
    dtype: str
    n_layers: int
    vocab_size: int
    architecture: str
    note: str | None = None


@dataclass(frozen=True)
class ReadoutInfo:
    """How the levels were read, and how well the reading was verified.

    Attributes:
        kind: "explicit" (norm, head and post-processing called one by one, streamed
            over the vocabulary) or "injected" (the model's own forward).
        dtype: Precision of the levels.
        postprocess: What the model does to its logits after the head.
        tolerance: Fidelity up to which the readout counts as the model's own.
        power: How many tolerances a wrong state misses by; below 10 the check
            cannot tell right from wrong.
        measure: What fidelity and tolerance are: "total_variation" between the two
            distributions, or the largest difference of a "logit" where the logits are
            of none (a reward, labels that do not exclude each other).
        pruned_below: Probability below which points could be finished early with an
            upper bound; 0 where every level was read in full.
    """

    kind: str
    dtype: str
    postprocess: str
    tolerance: float
    power: float
    measure: str = "total_variation"
    pruned_below: float = 0.0


@dataclass(frozen=True)
class Provenance:
    """Everything besides the arrays that a rerun needs.

    Attributes:
        model: The model.
        prompt: The text as the user gave it, if it was text.
        versions: Package versions.
        created: UTC time in ISO 8601.
        settings: How the run was configured: attention implementation, generation,
            chat template; JSON values only.
    """

    model: ModelInfo
    prompt: str | None
    versions: dict[str, str]
    created: str
    settings: dict[str, object] = field(default_factory=dict)
