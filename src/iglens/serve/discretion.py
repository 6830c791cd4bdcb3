"""What of a result stays on this machine: the names of its folders."""

from dataclasses import replace

from ..records import Attribution


def public_name(name: str) -> str:
    """The name of a model; of a local folder or file its last part.

    Example:
        >>> public_name("org/model"), public_name("/home/me/model")
        ('org/model', 'model')
    """
    local = name.startswith(("/", "~", ".")) or "\\" in name or name.count("/") > 1
    return name.replace("\\", "/").rstrip("/").split("/")[-1] if local else name


def without_folders(result: Attribution) -> Attribution:
    """The result without the places of its files, which are nobody's business."""
    origin = result.provenance
    model = replace(origin.model, id=public_name(origin.model.id), path=None)
    return replace(result, provenance=replace(origin, model=model))
