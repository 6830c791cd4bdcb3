"""What an examination finds out about a model, piece by piece; see `Examination`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelFacts:
    """What a model is, before anything is said about its layers.

    Attributes:
        id: Name it was loaded by, or its class name if it was handed over loaded.
        path: Local folder its weights came from, if known.
        revision: Commit of the hub repository, if known.
        weights_sha256: Hash over the weight files, if they are known.
        note: What a reader must know about the weights, or None.
        architecture: Class of the model.
        n_parameters: Numbers in its parameters, shared ones once.
        n_bytes: Bytes of its parameters and buffers.
        dtypes: Numbers in parameters, by the dtype they are stored in.
        devices: Bytes by where they are; "offloaded" is what is not in memory.
        n_logits: Logits of its head; None if that was not found out.
        labels: What they stand for, if it is no tokens.
        tokenizer_size: Tokens of its tokenizer; None without one.
        context: Tokens it was made for, if its configuration says.
        chat_template: Whether the tokenizer has one.
        attention: Attention implementation, if the configuration names one.
        quantisation: How its weights are quantised; None if they are not.
        declared: What was declared of it, field by field.
    """

    id: str
    path: str | None
    revision: str | None
    weights_sha256: str | None
    note: str | None
    architecture: str
    n_parameters: int
    n_bytes: int
    dtypes: dict[str, int]
    devices: dict[str, int]
    n_logits: int | None
    labels: tuple[str, ...] | None
    tokenizer_size: int | None
    context: int | None
    chat_template: bool
    attention: str | None
    quantisation: str | None
    declared: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerFacts:
    """Where the residual stream runs.

    Attributes:
        container: Name of the module that holds the blocks.
        n_layers: Number of block calls.
        n_modules: Number of different modules among them.
        first: Name of the first block.
        last: Name of the last one.
        classes: Classes of the blocks.
        chained: Whether the input of every block is the output of the one before.
        start: Where the state before the first block is taken, in words.
        enters: Where the stream enters a block, in words.
        leaves: Where it leaves a block, in words.
        axes: The stream's axes in order: "texts", "tokens", "width".
        prefix: Virtual tokens in front of every text.
        repeat: How often the text stands on the axis of tokens: parallel streams.
        d_model: Numbers per token.
    """

    container: str
    n_layers: int
    n_modules: int
    first: str
    last: str
    classes: tuple[str, ...]
    chained: bool
    start: str
    enters: str
    leaves: str
    axes: tuple[str, ...]
    prefix: int
    repeat: int
    d_model: int


@dataclass(frozen=True)
class NormFacts:
    """What a norm does to a vector, by what it gives and not by its name.

    Attributes:
        module: Its name in the model.
        module_class: Its class.
        kind: "RMS", "layer" (centred), or "other".
        gain: How its weight `w` enters: "w", "1 + w", "none", or "other".
        shift: Whether it adds a vector.
    """

    module: str
    module_class: str
    kind: str
    gain: str
    shift: bool


@dataclass(frozen=True)
class HeadFacts:
    """The module that gives one number per token.

    Attributes:
        module: Its name in the model.
        module_class: Its class.
        tied_to: Names of other modules with the same weight.
        bias: Whether it adds a vector.
    """

    module: str
    module_class: str
    tied_to: tuple[str, ...]
    bias: bool


@dataclass(frozen=True)
class ReadoutFacts:
    """How states are read.

    Attributes:
        kind: "explicit" or "injected"; see `ReadoutInfo`.
        streamed: Whether the vocabulary is read in blocks, so that no row of logits
            is ever whole.
        reason: Why it is injected; None if it is explicit.
        steps: What happens to the last state before the head, in order.
        norm: The final norm, if a step is one.
        head: The head, if it was found.
        postprocess: What happens to logits after the head, in words.
        dtype: The dtype the model computes in.
        precision: The dtype of levels.
    """

    kind: str
    streamed: bool
    reason: str | None
    steps: tuple[str, ...]
    norm: NormFacts | None
    head: HeadFacts | None
    postprocess: str
    dtype: str
    precision: str


@dataclass(frozen=True)
class PartFacts:
    """One part of some blocks: attention, MLP, ….

    Attributes:
        name: What it is: "attention", "mlp", ….
        module: Name of the module that says so, within its block.
        norms: Where norms stand: "pre", "post", "sandwich" or "none".
        carry: Factor of the state before it; None if that is no number.
        scale: Factor of what it adds; None if that is no number.
        writer: Name of the linear module that writes its update, within its block.
        writer_reason: Why there is none.
        heads: Number of heads that can be separated.
        heads_reason: Why none can.
        neurons: Number of neurons that can be separated.
        neurons_reason: Why none can.
        experts: Number of experts a router chooses from.
    """

    name: str
    module: str | None
    norms: str
    carry: float | None
    scale: float | None
    writer: str | None
    writer_reason: str | None
    heads: int | None
    heads_reason: str | None
    neurons: int | None
    neurons_reason: str | None
    experts: int | None


@dataclass(frozen=True)
class BlockFacts:
    """Blocks that are built alike, and how they can be taken apart.

    Attributes:
        layers: Which blocks, counted from 1.
        kind: "sequential", "parallel", "single" or "none".
        basis: "additive", "scaled", or "not additive": what becomes of the state that
            a block is given.
        parts: Their parts in order.
        reason: Why they are not split; None where they are.
    """

    layers: tuple[int, ...]
    kind: str
    basis: str
    parts: tuple[PartFacts, ...]
    reason: str | None


@dataclass(frozen=True)
class Distance:
    """How far two readings of the same predictions are apart.

    Attributes:
        largest: Over all predictions, in the measure of the fidelity.
        mean: On average.
        probability: Largest difference of any probability; None where the logits are
            of no distribution.
    """

    largest: float
    mean: float
    probability: float | None


@dataclass(frozen=True)
class Fidelity:
    """The readout of last states beside the model's own logits.

    Attributes:
        text: The text they are of; None if it was made of arbitrary token ids.
        n_tokens: Its length.
        n_positions: Predictions that were compared: at every place of the text, or of
            beginnings of it if the model answers to whole texts alone.
        measure: What distances and the tolerance are: "total_variation" of two
            distributions, or the largest difference of a "logit" where the logits are
            of none.
        own: In the model's own dtype: what the verdict is about.
        precise: The same states read in the precision of levels.
        tolerance: Distance that counts as equal.
        noise_probability: Change of a probability that is rounding.
        noise_log_probability: The same of a log-probability, in nats.
        noise_logit: The same of a logit.
        power: Tolerances by which a wrong state misses.
    """

    text: str | None
    n_tokens: int
    n_positions: int
    measure: str
    own: Distance
    precise: Distance
    tolerance: float
    noise_probability: float
    noise_log_probability: float
    noise_logit: float
    power: float


@dataclass(frozen=True)
class PrecisionCost:
    """What computing in the stored dtype costs, on the same text as the fidelity.

    Attributes:
        dtype: The shortest dtype its weights are stored in.
        float32_model: Distance of its own predictions from those of the same weights
            run in float32 from the first layer on.
        not_measured: Why that is not known; None if it is.
    """

    dtype: str
    float32_model: Distance | None
    not_measured: str | None


@dataclass(frozen=True)
class MemoryEstimate:
    """Blocks chosen for a text of some length, and what that holds; an estimate.

    Bytes beyond the weights and the model's own activations.

    Attributes:
        n_tokens: Length of the text; every prediction within it is explained.
        n_points: States on the path of each: all layers and the embedding.
        rows_per_pass: Positions whose paths are read in one pass.
        n_passes: Passes over the vocabulary.
        block_width: Tokens of the vocabulary in one block of logits.
        n_blocks: Blocks in one pass.
        states_bytes: All states, kept.
        logits_bytes: The model's own logits, kept to verify by.
        tracing_bytes: The most that is held while the model runs, those included.
        reading_bytes: The most that is held while states are read, those included.
    """

    n_tokens: int
    n_points: int
    rows_per_pass: int
    n_passes: int
    block_width: int
    n_blocks: int
    states_bytes: int
    logits_bytes: int
    tracing_bytes: int
    reading_bytes: int

    @property
    def peak_bytes(self) -> int:
        """The most that is held at any time."""
        return max(self.tracing_bytes, self.reading_bytes)
