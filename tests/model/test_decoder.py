from datetime import datetime

import pytest
import torch
from families import (
    CONTEXT,
    TEXT,
    VOCAB,
    Handmade,
    build,
    full_logits,
    some_ids,
    states_by_hooks,
    tokenizer,
)

import iglens
from iglens import ArgumentError, Decoder, TargetError, Trace

IDS = some_ids()


@pytest.fixture(scope="module")
def decoder():
    return Decoder(build("llama"), tokenizer())


def test_a_decoder_has_the_objects_it_was_given(decoder):
    model, own = build("gpt2"), tokenizer()
    made = Decoder(model, own)
    assert made.model is model
    assert made.tokenizer is own
    assert Decoder(model).tokenizer is None
    assert repr(made) == "Decoder('GPT2LMHeadModel', n_layers=3, readout='explicit')"


def test_the_context_is_that_of_the_configuration(decoder):
    assert decoder.context == CONTEXT
    assert Decoder(build("gpt2")).context == CONTEXT
    assert Decoder(Handmade()).context is None


def test_a_long_text_is_encoded_in_pieces(decoder):
    ids = some_ids(CONTEXT + 9)
    pieces = decoder.encode_pieces(ids, CONTEXT)
    assert pieces == [ids[:CONTEXT], ids[CONTEXT:]]
    pieces = decoder.encode_pieces(TEXT * 30, 16)
    joined = [token for piece in pieces for token in piece]
    assert joined == tokenizer()(TEXT * 30)["input_ids"]
    with pytest.raises(ArgumentError, match="empty"):
        decoder.encode_pieces("", 16)


def test_a_trace_holds_what_attribution_needs(decoder):
    trace = decoder.trace(IDS, [7, 2, 9], prompt="a prompt", settings={"chat": False})
    assert isinstance(trace, Trace)
    assert trace.positions.tolist() == [2, 7, 9]
    assert trace.token_ids.tolist() == IDS
    assert trace.token_texts == tuple(decoder.token_text(i) for i in IDS)
    assert trace.layers == (0, 1, 2, 3)
    assert trace.n_layers == 3
    expected = states_by_hooks(decoder.model, "llama", IDS)
    assert torch.equal(trace.states, expected[:, [1, 6, 8]])
    own = full_logits(decoder.model, IDS)[[1, 6, 8]]
    torch.testing.assert_close(trace.logits, own, rtol=1e-5, atol=1e-5)
    assert trace.readout is decoder.readout
    assert trace.modules == tuple(f"model.layers.{i}" for i in range(3))
    assert trace.provenance.prompt == "a prompt"
    assert trace.warnings == ()


def test_a_repeated_position_is_one_row(decoder):
    assert decoder.trace(IDS, [3, 3, 2]).positions.tolist() == [2, 3]


def test_the_ends_are_always_on_the_path(decoder):
    assert decoder.trace(IDS, [3], layers=[2]).layers == (0, 2, 3)
    assert decoder.trace(IDS, [3], layers=[]).layers == (0, 3)
    assert decoder.trace(IDS, [3], layers=[3, 1, 1]).layers == (0, 1, 3)


@pytest.mark.parametrize("bad", [[0], [10], [-1], [3, 99]])
def test_a_position_that_nothing_predicts_is_refused(decoder, bad):
    with pytest.raises(ArgumentError, match=r"`positions` names .* 1 .* to 9"):
        decoder.trace(IDS, bad)


def test_no_position_at_all_is_refused(decoder):
    with pytest.raises(ArgumentError, match="`positions` is empty"):
        decoder.trace(IDS, [])


@pytest.mark.parametrize("bad", [[4], [-1], [1, 99]])
def test_a_layer_that_is_not_there_is_refused(decoder, bad):
    with pytest.raises(ArgumentError, match="can stop at layers 1 to 3"):
        decoder.trace(IDS, [3], layers=bad)


def test_a_text_that_fills_the_context_is_taken_and_one_more_token_is_not(decoder):
    trace = decoder.trace([5] * CONTEXT, [CONTEXT])
    assert trace.positions.tolist() == [CONTEXT]
    with pytest.raises(ArgumentError, match=f"needs {CONTEXT + 1} tokens"):
        decoder.trace([5] * (CONTEXT + 1), [3])


def test_provenance_is_what_a_rerun_needs(decoder):
    provenance = decoder.provenance("a prompt", {"chat": True})
    info = provenance.model
    assert (info.id, info.architecture) == ("LlamaForCausalLM", "LlamaForCausalLM")
    assert (info.n_layers, info.vocab_size, info.dtype) == (3, VOCAB, "float32")
    assert (info.path, info.revision, info.weights_sha256) == (None, None, None)
    assert provenance.versions.keys() == {"iglens", "torch", "transformers"}
    assert provenance.versions["iglens"] == iglens.__version__
    assert provenance.settings == {"attn_implementation": "sdpa", "chat": True}
    assert datetime.fromisoformat(provenance.created).utcoffset().total_seconds() == 0


def test_notes_of_the_model_become_warnings_of_the_trace():
    model = build("llama")
    model.lm_head.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    trace = Decoder(model).trace(IDS, [3])
    assert trace.readout.kind == "injected"
    assert any("model's own forward" in text for text in trace.warnings)


def test_encoding_generating_and_naming_work_together(decoder):
    ids = decoder.encode(TEXT)
    assert decoder.tokenizer.decode(ids) == TEXT
    said = decoder.generate(ids, 3)
    assert said[0] == int(full_logits(decoder.model, ids)[-1].argmax())
    assert decoder.token_text(ids[1]) == " capital"
    assert decoder.target(" Paris", ids).text == " Paris"
    assert decoder.encode_answer(ids, " Paris of") == decoder.encode(" Paris of")
    with pytest.raises(TargetError):
        decoder.target("capital of", ids)


def test_patched_states_are_read_like_others(decoder):
    trace = decoder.trace(IDS, [3, 5])
    patched = trace.with_states(trace.states * 1.0, trace.logits)
    result = iglens.attribute(patched)
    assert result.levels.tolist() == iglens.attribute(trace).levels.tolist()
    with pytest.raises(ArgumentError, match="`states` has shape"):
        trace.with_states(trace.states[:, :1])
    with pytest.raises(ArgumentError, match="Position 4 was not traced"):
        trace.row_of(4)
    assert trace.row_of(5) == 1


def test_two_decoders_of_one_model_agree(decoder):
    again = Decoder(decoder.model)
    one, other = (d.trace(IDS, [3, 8]) for d in (decoder, again))
    assert torch.equal(one.states, other.states)
    assert one.tolerance == other.tolerance
    assert one.noise == other.noise
