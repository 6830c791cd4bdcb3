"""A tiny model with a tokenizer, and a corpus for it."""

import corpora
import families
import pytest

import iglens


@pytest.fixture(scope="session")
def tiny():
    return iglens.Decoder(families.build("llama"), families.tokenizer())


@pytest.fixture
def corpus(tmp_path):
    """42 rows of very different lengths, six of which are none."""
    return corpora.write_corpus(tmp_path / "corpus.jsonl")
