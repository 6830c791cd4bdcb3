"""A GGUF file into a folder Transformers loads in a second.

This runs as a process of its own, `python -m iglens.model.loading.convert NAME GGUF
FOLDER`: reading GGUF is loud, takes memory twice, and leaves nothing of that behind.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import IGLensError, ModelLoadError
from .catalogue import EmbeddedModel, Probe, find
from .child import Progress, last_line, run

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_TOLERANCE = 2e-3  # of the probe; float32 on other processors differs by about 1e-6


def convert_in_child(
    model: EmbeddedModel, gguf: Path, folder: Path, progress: Progress
) -> None:
    """`convert`, in a process of its own.

    Raises:
        ModelLoadError: If it fails.
    """
    log = gguf.with_name("convert.log")
    env = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    module = [sys.executable, "-P", "-m", "iglens.model.loading.convert"]
    command = [*module, model.name, str(gguf), str(folder)]
    progress("converting", 0, None)
    status = run(
        command, log=log, env=env, tick=lambda: progress("converting", 0, None)
    )
    if status < 0:
        raise ModelLoadError(
            f"Converting `{model.name}` was stopped by signal {-status}, mostly for "
            "want of memory: 1.5 to 3 GB are needed. Close something and try again."
        )
    if status > 0:
        raise ModelLoadError(
            f"`{model.name}` could not be converted: {last_line(log).rstrip('.')}. "
            "Update transformers and gguf, or pass another model with `-m`."
        )


def convert(model: EmbeddedModel, gguf: Path, folder: Path) -> None:
    """Write the GGUF's model and tokenizer as safetensors in float16, and try them.

    Args:
        model: Entry of the catalogue.
        gguf: The weights.
        folder: Where to write; made if it is not there.

    Raises:
        ModelLoadError: If the result does not say what the model is known to say.
    """
    weights = _weights(gguf)
    tokenizer = _tokenizer(gguf, model.split_digits)
    tokenizer.model_max_length = weights.config.max_position_embeddings
    weights.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    check_probe(model.probe, folder)


def _weights(gguf: Path) -> "PreTrainedModel":
    """The GGUF's weights in a plain model.

    A model that came out of GGUF remembers it and refuses to be saved, so its
    weights move into a fresh one. Loading strictly means none is missing.
    """
    import torch
    import transformers
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"gguf_file": gguf.name, "dtype": torch.float16}
    packed = getattr(transformers, "GgufConfig", None)
    if packed is not None:  # some architectures would stay quantised
        options["quantization_config"] = packed(dequantize=True)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, **options)
    config = loaded.config
    vars(config).pop("quantization_config", None)
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float16)
    plain.load_state_dict(loaded.state_dict(), strict=True)
    plain.generation_config = loaded.generation_config
    return plain


def _tokenizer(gguf: Path, split_digits: bool) -> "PreTrainedTokenizerBase":
    """The GGUF's tokenizer, splitting text the way its merges were learned."""
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    if split_digits:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    return tokenizer


def check_probe(probe: Probe, folder: Path) -> None:
    """Load what was written, and compare one probability with the known one.

    Transformers warns about weights it does not find in a GGUF file and goes on with
    random ones; here that is an error.

    Raises:
        ModelLoadError: If they differ by more than rounding.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    (answer,) = tokenizer(probe.answer, add_special_tokens=False).input_ids
    with torch.no_grad():
        logits = model(**tokenizer(probe.prompt, return_tensors="pt")).logits
    found = logits[0, -1].softmax(-1)[answer].item()
    if not abs(found - probe.probability) < _TOLERANCE:
        raise ModelLoadError(
            f"{probe.prompt!r} goes on with {probe.answer!r} with probability "
            f"{found:.4f} instead of {probe.probability:.4f}, so the weights were "
            "read wrong."
        )


def main(name: str, gguf: str, folder: str) -> int:
    """Convert, and say in one line what went wrong."""
    try:
        convert(find(name), Path(gguf), Path(folder))
    except IGLensError as error:
        sys.stderr.write(f"\n{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
