"""Corpora as they lie around; one bad line costs one line."""

import json

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from iglens.corpus.items import Broken, Columns, Item
from iglens.corpus.read import open_input
from iglens.data import prompts
from iglens.errors import ArgumentError, ArtifactError

ROWS = [
    {"prompt": "a b", "answer": "c", "n": "1"},
    {"prompt": "ü 日本", "answer": "d, e", "n": "2"},
    {"prompt": 'quote " and\nline', "answer": None, "n": None},
]


def read(path, **options):
    return list(open_input(str(path), **options).lines())


def write_jsonl(path):
    path.write_text("".join(json.dumps(row) + "\n\n" for row in ROWS))


def write_csv(path, delimiter=","):
    import csv

    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, ROWS[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)


def write_parquet(path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x.jsonl", write_jsonl),
        ("x.NDJSON", write_jsonl),
        ("x.csv", write_csv),
        ("x.tsv", lambda path: write_csv(path, "\t")),
        ("x.parquet", write_parquet),
        ("x", lambda path: datasets.Dataset.from_list(ROWS).save_to_disk(path)),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path, name, write):
    path = tmp_path / name
    write(path)
    assert read(path) == ROWS
    first = open_input(str(path)).fingerprint()
    assert first == open_input(str(path)).fingerprint()


def test_text_is_a_prompt_per_line(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes("one\r\n\n  two \n日本".encode())
    assert [line["prompt"] for line in read(path)] == ["one", "  two ", "日本"]


def test_the_fingerprint_is_of_the_content(tmp_path):
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    write_jsonl(one)
    write_jsonl(other)
    given = open_input(str(one)).fingerprint()
    assert given == open_input(str(other)).fingerprint()
    other.write_text(other.read_text() + '{"prompt": "x"}\n')
    assert given != open_input(str(other)).fingerprint()


def test_builtin_prompts():
    assert read("builtin") == prompts()


def test_bad_lines_cost_one_line_each(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n{"prompt\n[1]\n\xff\xfe\n{"prompt": "b"}')
    found = read(path)
    assert found[0] == {"prompt": "a"}
    assert found[-1] == {"prompt": "b"}
    reasons = [line.reason for line in found if isinstance(line, Broken)]
    assert [reason[:20] for reason in reasons] == [
        "Line 2 is no JSON: I",
        "Line 3 holds a list,",
        "Line 4 is no JSON: '",
    ]


def test_deep_json_is_a_bad_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("[" * 100_000 + '\n{"prompt": "a"}')
    found = read(path)
    assert isinstance(found[0], Broken)
    assert found[1] == {"prompt": "a"}


def test_ragged_csv_is_a_bad_line(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("prompt,answer\na,b\nc\nd,e,f\ng,h\n")
    found = read(path)
    assert [isinstance(line, Broken) for line in found] == [False, True, True, False]
    assert found[1].reason == "Line 3 has 1 cells, the header 2."


def test_splits(tmp_path):
    folder = tmp_path / "data"
    one = datasets.Dataset.from_list(ROWS[:1])
    other = datasets.Dataset.from_list(ROWS[1:])
    datasets.DatasetDict({"train": one, "test": other}).save_to_disk(folder)
    assert read(folder, split="test") == ROWS[1:]
    with pytest.raises(ArgumentError, match=r"splits train, test.*--split"):
        read(folder)
    with pytest.raises(ArgumentError, match="splits train, test"):
        read(folder, split="nix")


def test_what_is_no_input(tmp_path):
    with pytest.raises(ArgumentError, match="no file"):
        open_input(str(tmp_path / "nix.jsonl"))
    (tmp_path / "x.docx").write_text("x")
    with pytest.raises(ArgumentError, match=r"none of the files.*\.jsonl"):
        open_input(str(tmp_path / "x.docx"))
    with pytest.raises(ArgumentError, match="neither a file nor a dataset"):
        read(tmp_path)
    (tmp_path / "x.parquet").write_text("no parquet")
    with pytest.raises(ArtifactError, match="as Parquet"):
        read(tmp_path / "x.parquet")


def test_columns_have_usual_names():
    types = {"text": "string", "answer": "string", "n": "int"}
    found = Columns().found_in(types)
    assert found == Columns("text", None, "answer", None)
    item = Item.of(7, {"text": "a", "answer": "b", "n": [1]}, found)
    assert (item.id, item.prompt, item.answer) == ("7", "a", "b")
    assert item.metadata == {"answer": "b", "n": "[1]"}


def test_columns_that_are_not_there():
    with pytest.raises(ArgumentError, match=r"No column holds the prompt.*'n'"):
        Columns().found_in({"n": "int"})
    with pytest.raises(ArgumentError, match="no column 'nix'"):
        Columns(target="nix").found_in({"prompt": "string"})
    both = {"prompt": "string", "target": "string", "answer": "string"}
    with pytest.raises(ArgumentError, match="both a target"):
        Columns().found_in(both)
    assert Columns(answer="answer").found_in(both).target is None
    assert Columns(target="target").found_in(both).answer is None
