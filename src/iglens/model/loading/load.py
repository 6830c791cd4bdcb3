"""Loading a model by name: hub id, folder, GGUF file, or an embedded one.

Whatever goes wrong inside Transformers ends in one `ModelLoadError` with one sentence.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from ...errors import ArgumentError, IGLensError, ModelLoadError
from ...stages import stage
from ..adapter import adapter_base, adapter_labels, adapter_task
from ..kinds import loader_of
from ..source import Source
from ..weights import joined_sha256, weights_sha256
from . import embedded

_CONFIGS = ("config.json", "adapter_config.json")

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


@stage("load")
def load_model(
    name: str,
    *,
    revision: str | None,
    dtype: str | torch.dtype | None,
    device: str | torch.device | None,
    device_map: Any,
    attn_implementation: str | None,
    trust_remote_code: bool,
    quantization_config: Any,
    accept_licence: bool,
    max_memory: Mapping[int | str, int | str] | None = None,
    offload_folder: str | Path | None = None,
    progress: embedded.Progress | None = None,
) -> tuple[Any, PreTrainedTokenizerBase | None, Source]:
    """Model, tokenizer and source; arguments as in `Decoder.from_pretrained`.

    Raises:
        ModelLoadError: If the model cannot be found, fetched or read, or its
            checkpoint lacks weights.
        UnsupportedModelError: If it is no decoder-only language model, and no
            classifier built on one.
        ArgumentError: If the arguments contradict each other.
    """
    _check_places(device, device_map, max_memory, offload_folder)
    place, files, note = _locate(name, accept_licence, progress)
    if dtype is None:
        dtype = torch.float32 if note is not None else "auto"
    common = {
        "revision": revision or "main",
        "trust_remote_code": trust_remote_code,
        **files,
    }
    given: dict[str, Any] = {
        "dtype": _dtype(dtype),
        "device_map": device_map,
        "max_memory": None if max_memory is None else dict(max_memory),
        "offload_folder": offload_folder,
        "attn_implementation": attn_implementation,
        "quantization_config": quantization_config,
    }
    device = device or _default_device()
    with _one_sentence(name):
        base = adapter_base(Path(place))
        config = AutoConfig.from_pretrained(base or place, **common)
        task = None if base is None else adapter_task(Path(place))
        loader = loader_of(name, config, task)
        if loader is AutoModelForSequenceClassification and base is not None:
            given["num_labels"] = adapter_labels(Path(place))
        quantised = quantization_config or getattr(config, "quantization_config", None)
        if quantised is not None and device_map is None:
            given["device_map"] = {"": device}  # such weights may not be moved later
        model, info = _loaded(loader, place, **common, **given)
        _refuse_missing_weights(name, info)
        if given["device_map"] is None:
            model = model.to(device)
        folder, below = _folder(place, config), base and _folder(base, config)
        tokenizer = _tokenizer(place, folder, common)
        if tokenizer is None and base is not None:
            tokenizer = _tokenizer(base, below or None, common)
    source = Source(
        id=name,
        path=None if folder is None else str(folder.resolve()),
        revision=getattr(config, "_commit_hash", None),
        weights_sha256=_digest(folder, files, below or None),
        note=note or _note(model, files, base),
        warnings=_unused_weights(name, info),
    )
    return model, tokenizer, source


def _check_places(
    device: object, device_map: object, max_memory: object, offload_folder: object
) -> None:
    """Refuse arguments about places that contradict each other."""
    if device is not None and device_map is not None:
        raise ArgumentError("`device` and `device_map` exclude each other; pass one.")
    if device_map is None and not (max_memory is None and offload_folder is None):
        raise ArgumentError(
            "`max_memory` and `offload_folder` say how to spread a model out: they "
            "need `device_map`, such as 'auto'."
        )


def _loaded(loader: Any, place: str, **options: Any) -> tuple[Any, dict[str, Any]]:
    """The model, and what Transformers says of the weights it found."""
    given = {key: value for key, value in options.items() if value is not None}
    loaded: Any = loader.from_pretrained(place, output_loading_info=True, **given)
    return loaded


def _locate(
    name: str, accept_licence: bool, progress: embedded.Progress | None
) -> tuple[str, dict[str, str], str | None]:
    """What to hand to Transformers, which file in it, and a note on the weights."""
    if embedded.is_embedded(name):
        folder = embedded.ensure(name, accept_licence=accept_licence, progress=progress)
        manifest = embedded.manifest(folder) or {}
        return str(folder), {}, str(manifest.get("note", ""))
    path = Path(name).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return str(path.parent), {"gguf_file": path.name}, None
    if path.is_dir():
        if not any((path / file).is_file() for file in _CONFIGS):
            raise ModelLoadError(
                f"The folder {name!r} holds no model: it has no config.json."
            )
        return str(path), {}, None
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelLoadError(f"There is no model folder or GGUF file at {name!r}.")
    return name, {}, None


def _refuse_missing_weights(name: str, info: dict[str, Any]) -> None:
    """Weights that the checkpoint lacks would be random numbers."""
    if missing := sorted(info.get("missing_keys") or ()):
        raise ModelLoadError(
            f"The checkpoint of {name!r} lacks {len(missing)} weights of the model "
            f"({', '.join(missing[:3])}); they would be random."
        )


def _unused_weights(name: str, info: dict[str, Any]) -> tuple[str, ...]:
    """A warning if the checkpoint holds weights that the model has no place for."""
    unused = sorted(info.get("unexpected_keys") or ())
    if not unused:
        return ()
    return (
        f"The checkpoint of {name!r} holds {len(unused)} weights that the model does "
        f"not use ({', '.join(unused[:3])}): what is explained is the model that its "
        "config describes.",
    )


def _note(model: Any, files: dict[str, str], base: str | None) -> str | None:
    """How the weights differ from what they were trained as."""
    facts = [] if base is None else [f"an adapter of {base}"]
    quantised: Any = getattr(model.config, "quantization_config", None)
    if files:
        facts.append("dequantised from GGUF")
    elif quantised is not None:
        named = quantised if isinstance(quantised, dict) else vars(quantised)
        method = getattr(named.get("quant_method"), "value", named.get("quant_method"))
        facts.append(f"quantised ({method})")
    return ", ".join(facts) or None


def _tokenizer(
    place: str, folder: Path | None, common: dict[str, Any]
) -> PreTrainedTokenizerBase | None:
    """The tokenizer, or None where the checkpoint has none."""
    try:
        return AutoTokenizer.from_pretrained(place, **common)
    except Exception as error:  # the same kinds whether it is missing or broken
        if "trust_remote_code" in str(error):
            raise
        files = [] if folder is None else [folder / name for name in _TOKENIZER_FILES]
        if "gguf_file" in common or any(file.exists() for file in files):
            raise ModelLoadError(
                f"The tokenizer of {place!r} could not be read: {_short(error)}"
            ) from error
        return None


def _folder(place: str, config: Any) -> Path | None:
    """The local folder of a checkpoint, if it can be told."""
    if Path(place).exists():
        return Path(place)
    from huggingface_hub import try_to_load_from_cache

    revision = getattr(config, "_commit_hash", None)
    found = try_to_load_from_cache(place, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def _digest(
    folder: Path | None, files: dict[str, str], base: Path | None
) -> str | None:
    """Hash of the weights; of an adapter's and its model's if there are two."""
    if folder is None:
        return None
    digest = weights_sha256(folder / files.get("gguf_file", ""))
    below = None if base is None else weights_sha256(base)
    return digest if digest is None or below is None else joined_sha256(digest, below)


def _dtype(dtype: str | torch.dtype) -> str | torch.dtype:
    """A dtype by its name."""
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    found = getattr(torch, dtype.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ArgumentError(
            f"`dtype` is {dtype!r}; use auto, float32, float64, bfloat16 or float16."
        )
    return found


def _default_device() -> torch.device:
    """A GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def _one_sentence(name: str) -> Iterator[None]:
    """Turn what Transformers raises into one sentence that helps."""
    try:
        yield
    except IGLensError:
        raise
    except Exception as error:  # readers of weights and tokenizers raise any kind
        raise ModelLoadError(_explain(name, error)) from error


def _explain(name: str, error: Exception) -> str:
    """One sentence on why a model did not load."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return (
            f"{name!r} comes with code of its own. Read it, and if you trust it, pass "
            "`trust_remote_code=True` (--trust-remote-code)."
        )
    if isinstance(error, OSError) and not Path(name).expanduser().exists():
        return (
            f"There is no model {name!r} here, and it could not be fetched: no folder "
            "or cached model has this name, and the hub has none, needs a login for "
            "it, or cannot be reached. `iglens models` lists what is here."
        )
    return f"{name!r} could not be loaded: {_short(error)}"


def _short(error: Exception) -> str:
    """Kind and text of an error in one line."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else text[:299] + "…"
    return f"{type(error).__name__}: {text}"
