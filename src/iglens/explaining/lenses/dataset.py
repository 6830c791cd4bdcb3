"""Documents of a dataset, through the `datasets` package if it is installed."""

import re
from collections.abc import Iterator
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

from ...errors import ArgumentError, ArtifactError


def dataset_texts(named: str) -> Iterator[str]:
    """Texts of `NAME[:split[:column]]`, read as they are asked for.

    Args:
        named: Hub id or local folder, its split ("train" if not named), and the column
            of texts ("text" if not named).

    Raises:
        ArgumentError: If `datasets` is not installed, or the name has other parts.
        ArtifactError: If there is no such dataset or split, or no such column.
    """
    name, split, column = parse_dataset(named)
    try:
        datasets: Any = import_module("datasets")
    except ImportError as error:
        raise ArgumentError(
            "`--dataset` needs the package `datasets`: `pip install 'iglens[data]'`, "
            "or give the text as a file with `--text`."
        ) from error
    folder = Path(name).expanduser()
    try:
        if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
            stored: Any = datasets.load_from_disk(str(folder))
            rows = stored[split] if isinstance(stored, dict) else stored
        else:
            path = str(folder) if folder.exists() else name
            rows = datasets.load_dataset(path, split=split, streaming=True)
        entries = iter(rows)
        first = next(entries, None)
    except Exception as error:  # readers of datasets raise any kind
        text = " ".join(str(error).split())[:300]
        raise ArtifactError(
            f"The dataset {name!r}, split {split!r}, cannot be read: {text}"
        ) from error
    if first is None or not isinstance(first.get(column), str):
        found = "no rows" if first is None else f"the columns {', '.join(first)}"
        raise ArtifactError(
            f"The dataset {name!r} has no column {column!r} of text but {found}; name "
            "one as NAME:split:column."
        )
    return (str(row[column]) for row in chain([first], entries))


def parse_dataset(named: str) -> tuple[str, str, str]:
    r"""Name, split and column.

    Raises:
        ArgumentError: If there are more parts, or one is empty.

    Example:
        >>> parse_dataset("org/books:test"), parse_dataset(r"C:\books")
        (('org/books', 'test', 'text'), ('C:\\books', 'train', 'text'))
    """
    drive = named[:2] if re.match(r"[A-Za-z]:[\\/]", named) else ""
    first, *more = named[len(drive) :].split(":")
    if len(more) > 2 or not all([first, *more]):
        raise ArgumentError(
            f"`--dataset` is {named!r}; write NAME, NAME:split or NAME:split:column."
        )
    split, column = [*more, *("train", "text")[len(more) :]]
    return drive + first, split, column
