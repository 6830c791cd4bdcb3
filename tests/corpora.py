"""Corpora with everything in them that goes wrong, and stores read as bytes."""

import json
import random

BAD_IDS = ["0", "5", "no-prompt", "number", "no-answer", "ids"]
"""What the rows of `write_corpus` that are none call themselves."""


def write_corpus(path, n=36, seed=0):
    """JSONL with texts of 1 to 40 letters, and rows that go wrong."""
    rng, lines = random.Random(seed), []
    for index in range(n):
        text = "".join(rng.choice("bdfghjk") for _ in range(rng.randint(2, 40)))
        row = {
            "id": f"row-{index}",
            "prompt": f"b{text}",
            "answer": rng.choice(["b", "gk", "jhd"]),
            "length": len(text),
            "even": index % 2 == 0,
        }
        lines.append(json.dumps(row))
    bad = [
        "{no json",
        '["a", "list"]',
        '{"id": "no-prompt", "answer": "b"}',
        '{"id": "number", "prompt": 3, "answer": "b"}',
        '{"id": "no-answer", "prompt": "abc", "answer": ""}',
        '{"id": "ids", "prompt": [1, 99999], "answer": "b"}',
    ]
    for place, line in zip((0, 5, 6, 17, 30, len(lines)), bad, strict=True):
        lines.insert(place, line)
    path.write_text("\n".join(lines) + "\n")
    return path


def contents(folder):
    """Every file of a folder, by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def load(folder):
    """A model, loaded by whoever calls: workers import this by name."""
    import iglens

    return iglens.Decoder.from_pretrained(folder)
