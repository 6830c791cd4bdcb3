"""Runs made of chosen numbers: stores without a model, and their rows in memory."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas
import pyarrow

from iglens.corpus.explainer import Failure, ShardContent
from iglens.corpus.rows import table
from iglens.corpus.store import Store
from iglens.records import block_segment
from iglens.records.segment import part_segment

SHARD = 7
"""Rows of the input per shard."""


def blocks(n):
    """A path through whole blocks."""
    return [block_segment(at, at + 1, ()) for at in range(n)]


def sublayers(n):
    """A path through attention and MLP."""
    return [
        part_segment(at, part, None, f"block {at}")
        for at in range(1, n + 1)
        for part in ("attention", "mlp")
    ]


@dataclass
class Made:
    """What a store is made of."""

    rows: list[dict[str, Any]]
    segments: list[Any]
    types: dict[str, str] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    n_items: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def write(self, folder, *, shards=None):
        """The store; only some of its shards, if they are named."""
        n_items = self.n_items or max(row["index"] for row in self.rows) + 1
        n_shards = -(-n_items // SHARD)
        store = Store.open(folder, self._settings(n_items, n_shards))
        schema = table([], self.types, "", inside=False).schema
        for number in range(n_shards) if shards is None else shards:
            here = range(number * SHARD, min(n_items, (number + 1) * SHARD))
            rows = [row for row in self.rows if row["index"] in here]
            found = pyarrow.Table.from_pylist(rows, schema=schema)
            segments = [asdict(s) for s in self.segments] if rows else None
            failed = [f for f in self.failures if f.index in here]
            store.write(number, ShardContent(found, segments, failed, len(here)))
        return store

    def _settings(self, n_items, n_shards):
        n_layers = max((s.layer for s in self.segments), default=0)
        usual = {
            "model": {"id": "made up", "n_layers": n_layers, "vocab_size": 97},
            "versions": {},
            "input": {"name": "rows", "fingerprint": "sha256:0", "n_lines": n_items},
            "selection": {"limit": None, "shard_rows": SHARD},
            "question": {},
            "reading": {"unit": "probability", "baseline": ["embedding"], "by": "layer"}
            | {"lens": "logit", "estimator": "observed"},
            "null": {"of": "none", "seed": 0},
            "settings_sha256": "0" * 64,
            "n_rows": n_items,
            "n_shards": n_shards,
        }
        return usual | self.settings

    @property
    def frame(self):
        """All rows at once."""
        return pandas.DataFrame(self.rows)


def made_up(seed=0, n_prompts=30, segments=None, *, most=5, **settings):
    """Random rows: up to `most` per prompt, alike within a prompt."""
    rng = np.random.default_rng(seed)
    segments = segments or blocks(4)
    rows = []
    for index in range(n_prompts):
        own = rng.normal(0, 0.1, len(segments))
        for offset in range(rng.integers(1, most + 1)):
            credits = own + rng.normal(0, 0.05, len(segments))
            rows.append(row(rng, index, offset, credits, segments))
    types = {"relation": "string", "size": "float", "none": "string"}
    return Made(rows, segments, types, settings=settings)


def row(rng, index, offset, credits, segments):
    """One explained token."""
    levels = np.concatenate([[0.0], np.cumsum(credits)])
    layers = [0, *(s.layer for s in segments)]
    depths = {
        name: None if rng.random() < 0.2 else int(rng.choice(layers))
        for name in ("onset_mass", "onset_net", "commit", "prediction_depth")
    }
    return {
        "key": f"{index}-{offset}",
        "content": f"{index * 100 + offset:032x}",
        "index": index,
        "id": f"row-{index}",
        "prompt": "p" * (1 + index),
        "prompt_tokens": 1 + index,
        "position": 1 + index + offset,
        "offset": offset,
        "target": f" t{rng.integers(40)}",
        "target_ids": [3],
        "token_class": str(rng.choice(["word", "number", "other"])),
        "correct": [True, False, None][rng.integers(3)],
        "unit": "probability",
        "baseline": 0.0,
        "final": float(levels[-1]),
        "model_value": float(levels[-1]),
        "fidelity": float(rng.random() * 1e-6),
        "precision_gap": 0.0,
        "completeness": 0.0,
        "levels": levels.tolist(),
        "credits": credits.tolist(),
        **depths,
        "churn": None if rng.random() < 0.1 else 1 + float(rng.exponential()),
        "overshoot": float(rng.choice([0.0, rng.random()])),
        "flags": ["high_baseline"] if rng.random() < 0.1 else [],
        "relation": ["capital", "opposite", None][index % 3],
        "size": float(rng.random()),
        "none": None,
    }
