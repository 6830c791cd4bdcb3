"""Folders that hold an adapter (LoRA and the like) instead of a whole model."""

import importlib.util
import json
from pathlib import Path

from ..errors import ModelLoadError

_FILE = "adapter_config.json"


def adapter_base(folder: Path) -> str | None:
    """The model that a folder's adapter changes, or None if it holds no adapter.

    Args:
        folder: Folder of a checkpoint.

    Raises:
        ModelLoadError: If it does not say which model that is, or if PEFT, with which
            Transformers loads adapters, is not installed.
    """
    if (folder / "config.json").is_file() or not (folder / _FILE).is_file():
        return None
    try:
        base = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        name = base["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelLoadError(
            f"{str(folder)!r} holds an adapter, but its {_FILE} does not say of which "
            f"model ({type(error).__name__}: {error})."
        ) from error
    if not isinstance(name, str) or not name:
        raise ModelLoadError(
            f"{str(folder)!r} holds an adapter, but the `base_model_name_or_path` of "
            f"its {_FILE} is {name!r}. Write the model's folder or hub id there."
        )
    if importlib.util.find_spec("peft") is None:
        raise ModelLoadError(
            f"{str(folder)!r} holds an adapter of {name!r}, which needs PEFT: "
            "`pip install peft`."
        )
    return name
