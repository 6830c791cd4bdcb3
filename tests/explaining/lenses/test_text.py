import json

import pytest
from families import CONTEXT, TEXT, VOCAB, Handmade, build, some_ids, tokenizer

from iglens import ArgumentError, ArtifactError, Decoder, UnsupportedModelError
from iglens.explaining.lenses.parts import gather
from iglens.explaining.lenses.text import Corpus, documents_in, encoded, generated


@pytest.fixture(scope="module")
def decoder():
    model = build("llama")
    model.generation_config.eos_token_id = None
    return Decoder(model, tokenizer())


def corpus(*lengths):
    """Documents of one piece each, no two alike."""
    return Corpus(tuple((tuple(some_ids(n, seed=n)),) for n in lengths), "test")


def test_the_first_token_of_a_piece_is_not_counted():
    assert corpus(4, 2, 9).tokens == 3 + 1 + 8


def test_whole_documents_are_held_out():
    whole = corpus(*range(3, 23))
    rest, apart = whole.split(0.1, seed=5)
    assert len(apart.documents) == 2
    assert set(rest.documents) | set(apart.documents) == set(whole.documents)
    assert not set(rest.documents) & set(apart.documents)
    assert whole.split(0.1, seed=5) == (rest, apart)
    assert any(whole.split(0.1, seed)[1] != apart for seed in range(4))


def test_at_least_one_document_is_held_out_and_one_is_kept():
    rest, apart = corpus(3, 4).split(0.01, 0)
    assert (len(rest.documents), len(apart.documents)) == (1, 1)
    with pytest.raises(ArgumentError, match=r"holds 1 document\(s\).* blank lines"):
        corpus(3).split(0.1, 0)


def test_the_hash_of_a_text_is_that_of_its_tokens_and_cuts():
    one = Corpus((((1, 2, 3),),), "a")
    assert one.sha256 == Corpus((((1, 2, 3),),), "b").sha256
    for other in (((1, 2), (3,)),), (((1, 2, 4),),), (((12, 3),),):
        assert Corpus(other, "a").sha256 != one.sha256


def test_long_texts_are_cut_into_pieces_that_stay_one_document(decoder):
    ids = some_ids(2 * CONTEXT + 5)
    found = encoded(decoder, [ids, ids[:7]], 10**6, "test")
    assert found.documents == (
        (
            tuple(ids[:CONTEXT]),
            tuple(ids[CONTEXT : 2 * CONTEXT]),
            tuple(ids[2 * CONTEXT :]),
        ),
        (tuple(ids[:7]),),
    )


def test_texts_are_read_no_further_than_needed(decoder):
    def texts():
        yield TEXT
        yield TEXT
        raise AssertionError("read too far")

    found = encoded(decoder, texts(), 2, "test")
    assert len(found.documents) == 1
    assert found.documents[0][0] == tuple(decoder.encode(TEXT))


def test_texts_without_a_state_to_learn_from_are_left_out(decoder):
    assert encoded(decoder, ["", [5], [5, 6]], 100, "test").documents == (((5, 6),),)


def test_generated_text_is_what_the_model_says_after_beginnings(decoder):
    found = generated(decoder, 300, seed=3)
    assert found.tokens >= 300
    assert found.source == "self-generated, seed 3"
    assert {len(piece) for piece in found.pieces} == {CONTEXT}
    assert len({piece[:3] for piece in found.pieces}) > 1  # several beginnings
    assert generated(decoder, 300, seed=3) == found
    assert generated(decoder, 300, seed=4).pieces[0] != found.pieces[0]


def test_generated_documents_differ_also_beyond_one_batch(decoder):
    tokens = 70 * (CONTEXT - 1)
    found = generated(decoder, tokens, seed=0)
    assert len(set(found.pieces)) == len(found.pieces) == 70


def test_a_generated_document_ends_with_its_end_of_text():
    model = build("llama")
    model.generation_config.eos_token_id = list(range(40))  # most texts end soon
    model.generation_config.pad_token_id = 0
    found = generated(Decoder(model, tokenizer()), 200, seed=0)
    for piece in found.pieces:
        ends = [at for at, token in enumerate(piece) if token < 40 and at > 2]
        assert ends in ([], [len(piece) - 1])
    assert min(len(piece) for piece in found.pieces) < 20


def test_without_a_tokenizer_beginnings_are_tokens_of_the_vocabulary():
    model = build("llama")
    model.generation_config.eos_token_id = None
    found = generated(Decoder(model), 200, seed=0)
    assert all(0 <= token < VOCAB for piece in found.pieces for token in piece)
    assert len({piece[:3] for piece in found.pieces}) > 1


def test_a_model_that_cannot_generate_says_so():
    with pytest.raises(UnsupportedModelError, match="cannot generate"):
        generated(Decoder(Handmade()), 10, seed=0)


def test_documents_of_a_text_stand_between_blank_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\ufeffone\ntwo\n\n \t\nthree\n\n\n", encoding="utf-8")
    assert [text.strip() for text in documents_in(path)] == ["one\ntwo", "three"]


def test_documents_of_json_lines_are_their_texts(tmp_path):
    path = tmp_path / "a.jsonl"
    texts = ["one\n\nstill one", "two \u2028 too"]
    path.write_text("\n".join(json.dumps({"text": t, "n": 1}) for t in texts) + "\n\n")
    assert list(documents_in(path)) == texts


@pytest.mark.parametrize("line", ['{"txt": "x"}', '"x"', "[1]", '{"text": 3}', "{"])
def test_a_line_without_a_text_is_named(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(ArtifactError, match="ine 2 of"):
        list(documents_in(path))


def test_a_file_that_cannot_be_read_is_refused_at_once(tmp_path):
    with pytest.raises(ArtifactError, match=r"none.txt cannot be read: no such file"):
        documents_in(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(ArtifactError, match=r"latin.txt cannot be read: .*utf-8"):
        documents_in(tmp_path / "latin.txt")


def test_the_text_of_a_fit_comes_in_three_parts(decoder):
    texts = [some_ids(9, seed) for seed in range(40)]
    parts = gather(decoder, texts, tokens=8 * 40)
    sizes = [len(c.documents) for c in (parts.fit, parts.choice, parts.held_out)]
    assert sizes == [32, 4, 4]
    every = parts.learned.documents + parts.held_out.documents
    assert sorted(every) == sorted((tuple(ids),) for ids in texts)
    assert parts.settings["tokens"] == 36 * 8
    assert parts.settings["held_out_documents"] == 4


def test_too_little_text_says_how_much_is_needed(decoder):
    texts = [some_ids(9, seed) for seed in range(5)]  # one is held out
    with pytest.raises(ArgumentError, match=r"leave 32 to fit on.* 32 .* 256 are a"):
        gather(decoder, texts)
    with pytest.raises(ArgumentError, match=r"8 tokens in 1 .*leave 8 to fit on"):
        gather(decoder, texts[:1])
    assert gather(decoder, [*texts, some_ids(30)]).learned.tokens > 32


def test_the_default_is_eight_tokens_per_dimension_or_a_few_thousand(decoder):
    wanted = []
    gather(decoder, progress=lambda stage, done, total: wanted.append(total))
    assert set(wanted) == {4096}
    assert decoder.readout.d_model == 32
