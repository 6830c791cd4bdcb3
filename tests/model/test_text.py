import json

import pytest
import tokenizers
import torch
import transformers as hf
from families import CONTEXT, TEXT, VOCAB, build, tokenizer
from isolated import run_python

from iglens import ArgumentError, ArgumentTypeError, Decoder, TargetError, explain
from iglens.model.text import TextCodec

PLAIN = TextCodec(tokenizer(), VOCAB)
WITH_BOS = TextCodec(tokenizer(bos=True), VOCAB)
CHATTY = TextCodec(tokenizer(chat=True), VOCAB)
IDS_ONLY = TextCodec(None, VOCAB)


def token(text):
    return PLAIN.tokenizer.convert_tokens_to_ids(text.replace(" ", "Ġ"))


def test_the_test_tokenizer_is_what_the_tests_think():
    assert [PLAIN.show(i) for i in PLAIN.encode(TEXT)] == [
        "The",
        " capital",
        " of",
        " France",
        " is",
    ]
    assert PLAIN.tokenizer.decode(PLAIN.encode(TEXT)) == TEXT
    assert WITH_BOS.encode(TEXT) == [1, *PLAIN.encode(TEXT)]


def test_nothing_is_added_that_the_tokenizer_does_not_add():
    assert 1 not in PLAIN.encode(TEXT)
    assert WITH_BOS.encode(TEXT)[0] == 1
    assert WITH_BOS.encode(TEXT, special_tokens=False) == PLAIN.encode(TEXT)


def test_ids_pass_as_they_are():
    for codec in (PLAIN, WITH_BOS, IDS_ONLY):
        assert codec.encode([5, 0, VOCAB - 1]) == [5, 0, VOCAB - 1]
        assert codec.encode((5,)) == [5]


@pytest.mark.parametrize("prompt", ["", [], ()])
def test_an_empty_prompt_is_refused(prompt):
    with pytest.raises(ArgumentError, match="`prompt` is empty"):
        PLAIN.encode(prompt)
    with pytest.raises(ArgumentError, match="`prompt` is empty"):
        CHATTY.encode_chat("")


@pytest.mark.parametrize("bad", [-1, VOCAB, 10**12])
def test_an_id_outside_the_vocabulary_is_refused(bad):
    with pytest.raises(ArgumentError, match=rf"`prompt` holds token id {bad}; .*97"):
        IDS_ONLY.encode([3, bad])
    with pytest.raises(ArgumentError, match=rf"`answer` holds token id {bad}"):
        IDS_ONLY.encode_answer([3], [bad])
    with pytest.raises(ArgumentError, match=rf"`target` holds token id {bad}"):
        IDS_ONLY.target(bad)


def test_a_bool_is_no_token_id():
    with pytest.raises(ArgumentTypeError, match="`prompt` holds True"):
        IDS_ONLY.encode([3, True])
    with pytest.raises(ArgumentTypeError, match="`answer` holds False"):
        IDS_ONLY.encode_answer([3], [False])
    with pytest.raises(ArgumentTypeError, match="`target` holds True"):
        IDS_ONLY.target(True)


@pytest.mark.slow
def test_other_kinds_of_prompts_are_refused_in_a_sentence():
    """Without the type checks of the test run, as a user has it."""
    run_python(
        "import numpy, torch\n"
        "from iglens import ArgumentTypeError\n"
        "from iglens.model.text import TextCodec\n"
        "codec = TextCodec(None, 97)\n"
        "cases = {\n"
        "    'holds \\'a\\'': ['a', 'b'], 'holds 1.5': [1.5], 'holds [5]': [[5]],\n"
        "    'is a int': 5, 'is a NoneType': None, 'is a bytes': b'abc',\n"
        "    'is a Tensor': torch.tensor([5, 6]), 'is a ndarray': numpy.array([5]),\n"
        "}\n"
        "for reason, prompt in cases.items():\n"
        "    try:\n"
        "        codec.encode(prompt)\n"
        "    except ArgumentTypeError as error:\n"
        "        assert reason in str(error), (reason, str(error))\n"
        "    else:\n"
        "        raise AssertionError(reason)\n"
    )


def test_without_a_tokenizer_text_is_refused_with_what_it_was_needed_for():
    with pytest.raises(ArgumentTypeError, match="no tokenizer, which text needs"):
        IDS_ONLY.encode(TEXT)
    with pytest.raises(ArgumentTypeError, match="a target given as text"):
        IDS_ONLY.target(" Paris")
    with pytest.raises(ArgumentTypeError, match="an answer given as text"):
        IDS_ONLY.encode_answer([3], " Paris")
    with pytest.raises(ArgumentTypeError, match="a chat template"):
        IDS_ONLY.encode_chat("Hi")
    assert IDS_ONLY.show(7) == "<7>"
    assert IDS_ONLY.target(7).text == "<7>"
    assert not IDS_ONLY.doubled_bos([1, 1])


def test_a_tokenizer_of_another_model_is_noticed():
    codec = TextCodec(tokenizer(chat=True), 40)
    with pytest.raises(ArgumentError, match="do not belong together"):
        codec.encode(TEXT)
    with pytest.raises(ArgumentError, match="do not belong together"):
        codec.encode_chat(TEXT)
    with pytest.raises(ArgumentError, match="do not belong together"):
        codec.encode_answer([5], " Paris")
    assert len(codec.encode("a b")) == len(codec.encode_answer([5], "a b")) == 3


def test_a_token_is_found_by_its_text_or_its_name():
    assert PLAIN.target(" Paris").ids == (token(" Paris"),)
    assert PLAIN.target(" Paris").text == " Paris"
    assert PLAIN.target("Paris").ids == (token("Paris"),)
    assert PLAIN.target("<|im_end|>").ids == (4,)
    assert PLAIN.target("</s>").ids == (2,)
    assert PLAIN.target("Ġcapital").ids == (token(" capital"),)
    assert WITH_BOS.target(" Paris").ids == (token(" Paris"),)


def test_a_token_is_found_by_its_id():
    target = PLAIN.target(token(" Paris"))
    assert (target.ids, target.text, target.kind) == (
        (token(" Paris"),),
        " Paris",
        "token",
    )


def test_bars_make_a_set_in_the_order_given():
    target = PLAIN.target(" Rome| Paris")
    assert target.ids == (token(" Rome"), token(" Paris"))
    assert (target.kind, target.text) == ("set", " Rome| Paris")
    with pytest.raises(ArgumentError, match="names a token twice"):
        PLAIN.target(" Rome| Rome")


def test_a_bar_that_is_a_token_is_one_and_can_be_escaped():
    assert PLAIN.target("|").ids == (token("|"),)
    assert PLAIN.target(" |").ids == (token(" |"),)
    assert PLAIN.target(r"\|").ids == (token("|"),)
    assert PLAIN.target(r" Paris|\|").ids == (token(" Paris"), token("|"))
    assert PLAIN.target(r" Paris| \|").text == " Paris| |"
    assert PLAIN.target("\\").ids == (token("\\"),)


@pytest.mark.parametrize("text", ["", " Paris|", "| Paris", "||"])
def test_an_empty_piece_is_refused(text):
    with pytest.raises(TargetError, match="empty piece"):
        PLAIN.target(text)


def test_a_target_of_several_tokens_lists_them_and_says_what_to_do():
    with pytest.raises(TargetError) as caught:
        PLAIN.target(" Paris of")
    message = str(caught.value)
    assert "' Paris of' is not one token but 2: [' Paris', ' of']" in message
    assert "`answer`" in message
    assert "`|` to a set" in message
    assert "Did you mean" not in message


def test_a_missing_space_in_front_is_proposed():
    with pytest.raises(TargetError, match="Did you mean ' France', with its leading"):
        TextCodec(without_bare_france(), VOCAB).target("France")


def without_bare_france():
    """A tokenizer that knows " France" but not "France"."""
    made = tokenizer()
    state = json.loads(made.backend_tokenizer.to_str())
    vocab, merges = state["model"]["vocab"], state["model"]["merges"]
    gone = vocab.pop("France")
    vocab["ĠFran"] = gone
    merges[merges.index(["Fran", "ce"])] = ["Ġ", "Fran"]
    merges[merges.index(["Ġ", "France"])] = ["ĠFran", "ce"]
    made._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(state))
    return made


def test_what_the_tokenizer_does_not_know_is_no_target():
    with pytest.raises(TargetError, match=r"'Q' is no token .* makes '<unk>' of it"):
        PLAIN.target("Q")
    with pytest.raises(TargetError, match="'Q' is no token"):
        PLAIN.target(" Paris|Q")
    assert PLAIN.target("<unk>").ids == (0,)


def test_a_token_the_model_has_no_logit_for_is_no_target():
    with pytest.raises(TargetError):
        TextCodec(tokenizer(), 40).target(" Paris")


def test_an_answer_continues_the_prompt():
    prompt = PLAIN.encode(TEXT)
    assert PLAIN.encode_answer(prompt, " Paris") == [token(" Paris")]
    assert PLAIN.encode_answer(prompt, " Paris of") == [token(" Paris"), token(" of")]
    with_bos = WITH_BOS.encode(TEXT)
    assert WITH_BOS.encode_answer(with_bos, " Paris") == [token(" Paris")]


def test_an_answer_that_would_merge_with_the_prompt_is_refused():
    prompt = PLAIN.encode("The Pari")
    for answer in ("s", "s of", "s of of of"):
        with pytest.raises(ArgumentError, match="does not continue the prompt's tok"):
            PLAIN.encode_answer(prompt, answer)
    with pytest.raises(ArgumentError, match=r"\[' Paris'.* token ids\.") as caught:
        PLAIN.encode_answer(prompt, "s of")
    assert "ends in [' ', 'Pari']" in str(caught.value)


def test_a_space_at_the_end_of_the_prompt_belongs_to_the_answer():
    prompt = PLAIN.encode("The ")
    with pytest.raises(ArgumentError, match="as in ' Paris'"):
        PLAIN.encode_answer(prompt, "Paris")


def test_an_answer_in_ids_is_taken_as_it_is():
    assert IDS_ONLY.encode_answer([3], [5, 6]) == [5, 6]
    for empty in ("", [], ()):
        with pytest.raises(ArgumentError, match="`answer` is empty"):
            PLAIN.encode_answer([3], empty)


def test_a_chat_goes_through_the_template_and_nothing_is_added_twice():
    codec = TextCodec(tokenizer(chat=True, bos=True), VOCAB)
    ids = codec.encode_chat("is")
    shown = codec.tokenizer.decode(ids)
    assert shown == "<|im_start|>user:is<|im_end|><|im_start|>assistant:"
    messages = [{"role": "user", "content": "is"}]
    assert codec.encode_chat(messages) == ids
    with_system = codec.tokenizer.decode(codec.encode_chat("is", "of"))
    assert with_system.startswith("<|im_start|>system:of<|im_end|><|im_start|>user:is")


def test_a_tokenizer_without_a_template_says_so():
    with pytest.raises(ArgumentError, match="has no chat template"):
        PLAIN.encode_chat("is")


def test_a_template_that_refuses_is_quoted():
    with pytest.raises(ArgumentError, match="refuses these messages: no tools"):
        CHATTY.encode_chat([{"role": "tool", "content": "is"}])


def test_messages_need_chat_and_chat_needs_messages():
    with pytest.raises(ArgumentTypeError, match="pass `chat=True`"):
        CHATTY.encode([{"role": "user", "content": "is"}])
    with pytest.raises(ArgumentTypeError, match=r"`prompt` holds 5; with `chat`"):
        CHATTY.encode_chat([5, 6])


def test_a_beginning_of_text_that_stands_twice_is_noticed():
    assert WITH_BOS.doubled_bos(WITH_BOS.encode("<s>" + TEXT))
    assert not WITH_BOS.doubled_bos(WITH_BOS.encode(TEXT))
    assert not WITH_BOS.doubled_bos([1])
    assert not WITH_BOS.doubled_bos(WITH_BOS.encode("<s>" + TEXT, special_tokens=False))


def test_a_doubled_beginning_is_a_warning_of_the_result():
    decoder = Decoder(build("llama"), tokenizer(bos=True))
    doubled = explain(decoder, "<s>" + TEXT, target=" Paris")
    assert any("token twice" in text for text in doubled.warnings)
    once = explain(decoder, TEXT, target=" Paris")
    assert not any("token twice" in text for text in once.warnings)


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers():
    decoder = Decoder(build("llama"), tokenizer())
    fits = "is" * CONTEXT
    assert len(decoder.encode(fits)) == CONTEXT
    with pytest.raises(ArgumentError, match=f"{CONTEXT + 1} tokens.*of {CONTEXT}"):
        decoder.encode(fits + "is")
    with pytest.raises(ArgumentError, match=f"{CONTEXT + 3} tokens.*of {CONTEXT}"):
        decoder.generate([5] * CONTEXT, 3)


def test_a_system_message_needs_chat():
    decoder = Decoder(build("llama"), tokenizer(chat=True))
    with pytest.raises(ArgumentError, match="`system` needs `chat=True`"):
        decoder.encode(TEXT, system="of")
    assert decoder.encode(TEXT, system="of", chat=True)[0] == 3


def padded(size, name="llama"):
    """A model whose head has another number of rows than the tokenizer has tokens."""
    return Decoder(build(name, vocab_size=size), tokenizer())


def test_ids_without_text_are_shown_by_their_number_and_explained_like_others():
    known = len(tokenizer())
    decoder = padded(known + 23)
    assert decoder.token_text(known - 1) == tokenizer().decode([known - 1])
    assert decoder.token_text(known) == f"<{known}>"
    with torch.no_grad():
        decoder.model.lm_head.weight[known + 5] *= 9  # it is said first
    texts = {f"<{known + i}>" for i in range(23)}
    result = explain(decoder, TEXT, target=known + 5)
    assert result.targets[0].text == f"<{known + 5}>"
    assert texts & set(result.vocabulary.values())
    result = explain(decoder, [3, known + 1, 5], positions="all", max_new_tokens=0)
    assert result.token_texts[1] == f"<{known + 1}>"
    assert "<" in str(result)
    said = decoder.generate(decoder.encode(TEXT), 3)
    again = explain(decoder, TEXT, max_new_tokens=3)
    assert [target.ids[0] for target in again.targets] == said


def test_an_answer_behind_ids_without_text_is_tokenised_alone():
    decoder = padded(len(tokenizer()) + 9)
    prompt = [*decoder.encode("The"), len(tokenizer()) + 2]
    assert decoder.encode_answer(prompt, " capital of") == decoder.encode(" capital of")
    assert decoder.target(" Paris", prompt).text == " Paris"


def test_a_head_with_fewer_rows_than_the_tokenizer_has_tokens_says_so():
    decoder = padded(len(tokenizer()) - 4)
    text = tokenizer().decode([len(tokenizer()) - 1])
    with pytest.raises(ArgumentError, match="they do not belong together"):
        decoder.encode(text)
    with pytest.raises(TargetError, match="is no token of this model"):
        decoder.target(text)
    ids = decoder.encode("a")
    assert explain(decoder, ids, target="b").n_rows == 1


class InPython(hf.PreTrainedTokenizer):
    """A tokenizer written in Python: an unknown id raises."""

    vocab_size = 3

    def get_vocab(self):
        return {"a": 0, "b": 1, "c": 2}

    def _convert_id_to_token(self, index):
        return "abc"[index]


def test_tokenizers_that_raise_for_unknown_ids_are_asked_carefully():
    codec = TextCodec(InPython(), 10)
    assert [codec.show(token) for token in (0, 2, 3, 9)] == ["a", "c", "<3>", "<9>"]
