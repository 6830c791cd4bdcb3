import sys

import pytest

from iglens import ArgumentError, ArtifactError
from iglens.explaining.lenses.dataset import dataset_texts, parse_dataset


@pytest.mark.parametrize(
    ("named", "parts"),
    [
        ("books", ("books", "train", "text")),
        ("org/books:test", ("org/books", "test", "text")),
        ("./books:test[50%]", ("./books", "test[50%]", "text")),
        ("books:validation:body", ("books", "validation", "body")),
        (r"C:\books:test", (r"C:\books", "test", "text")),
        ("D:/books", ("D:/books", "train", "text")),
    ],
)
def test_a_dataset_is_named_by_up_to_three_parts(named, parts):
    assert parse_dataset(named) == parts


@pytest.mark.parametrize("named", ["", "a:", "a::b", ":a", "a:b:c:d"])
def test_a_dataset_with_other_parts_is_refused(named):
    with pytest.raises(ArgumentError, match="write NAME, NAME:split"):
        parse_dataset(named)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if it were not there
    with pytest.raises(
        ArgumentError, match=r"`pip install 'iglens\[data\]'`, or .* `--text`"
    ):
        dataset_texts("books")


@pytest.fixture
def folder(tmp_path):
    pytest.importorskip("datasets", reason="an optional package")
    (tmp_path / "books").mkdir()
    lines = '{"text": "one", "body": "eins"}\n{"text": "two", "body": "zwei"}\n'
    (tmp_path / "books" / "train.jsonl").write_text(lines)
    return tmp_path / "books"


def test_a_local_folder_is_read(folder):
    assert list(dataset_texts(f"{folder}")) == ["one", "two"]
    assert list(dataset_texts(f"{folder}:train:body")) == ["eins", "zwei"]


def test_a_dataset_saved_to_disk_is_read(folder, tmp_path):
    import datasets

    made = datasets.Dataset.from_dict({"text": ["three", "four"]})
    made.save_to_disk(tmp_path / "saved")
    assert list(dataset_texts(f"{tmp_path / 'saved'}")) == ["three", "four"]
    both = datasets.DatasetDict({"train": made, "test": made.select([1])})
    both.save_to_disk(tmp_path / "dict")
    assert list(dataset_texts(f"{tmp_path / 'dict'}:test")) == ["four"]


def test_what_a_dataset_does_not_have_is_named(folder):
    with pytest.raises(ArtifactError, match=r"no column 'title' .* columns text, body"):
        dataset_texts(f"{folder}:train:title")
    with pytest.raises(ArtifactError, match="split 'test', cannot be read"):
        dataset_texts(f"{folder}:test")
    with pytest.raises(ArtifactError, match="cannot be read"):
        dataset_texts(f"{folder}/none")
