"""Folders that hold an adapter (LoRA and the like) instead of a whole model."""

import importlib.util
import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ..errors import ModelLoadError

_FILE, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


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


def adapter_task(folder: Path) -> str | None:
    """What a folder's adapter was trained for, in PEFT's words, if it says so."""
    task = _config(folder).get("task_type")
    return task if isinstance(task, str) else None


def adapter_labels(folder: Path) -> int | None:
    """Labels of the head that comes with a folder's adapter, if one does.

    Neither the adapter's configuration nor its model's says how many there are.
    """
    saved = _config(folder).get("modules_to_save")
    if not isinstance(saved, list) or not (folder / _WEIGHTS).is_file():
        return None
    with safe_open(folder / _WEIGHTS, framework="numpy") as weights:
        for name in weights.keys():  # noqa: SIM118 (it is no mapping)
            *_, module, kind = name.split(".")
            if module in saved and kind == "weight":
                return int(weights.get_slice(name).get_shape()[0])
    return None


def _config(folder: Path) -> dict[str, Any]:
    """An adapter's configuration, which was read before; empty without one."""
    file = folder / _FILE
    read = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return read if isinstance(read, dict) else {}
