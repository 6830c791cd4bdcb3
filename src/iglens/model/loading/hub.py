"""Causal language models that are already in the local Hugging Face cache."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_WEIGHTS = (".safetensors", ".bin")
_CAUSAL = ("ForCausalLM", "LMHeadModel")


@dataclass(frozen=True)
class HubModel:
    """A model of the hub that needs no network any more.

    Attributes:
        name: Its hub id.
        path: Folder of the newest snapshot.
        bytes: What its repository takes on the disk.
    """

    name: str
    path: Path
    bytes: int


def cached_models(cache: Path | None = None) -> list[HubModel]:
    """The causal language models in the hub's cache, by name.

    Args:
        cache: The cache's folder; the user's own by default.
    """
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repos = scan_cache_dir(cache).repos
    except CacheNotFound:
        return []
    found = []
    for repo in repos:
        revisions = sorted(repo.revisions, key=lambda one: one.last_modified)
        if repo.repo_type == "model" and revisions:
            files = {file.file_name: file.file_path for file in revisions[-1].files}
            if _is_causal(files.get("config.json")) and _has_weights(files):
                path = Path(revisions[-1].snapshot_path)
                found.append(HubModel(repo.repo_id, path, repo.size_on_disk))
    return sorted(found, key=lambda one: one.name.lower())


def _has_weights(names: Iterable[str]) -> bool:
    return any(name.endswith(_WEIGHTS) for name in names)


def _is_causal(config: Path | None) -> bool:
    """Whether a configuration's architecture ends like one that predicts tokens."""
    if config is None:
        return False
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
        causal = any(name.endswith(_CAUSAL) for name in content["architectures"])
        return causal and not content.get("is_encoder_decoder", False)
    except (OSError, ValueError, KeyError, TypeError):
        return False
