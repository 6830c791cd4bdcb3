"""The examination says what is there: compared with what the families state by hand."""

import json
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import transformers as hf
from families import (
    CONTEXT,
    FAMILIES,
    NEOX_SIZES,
    SIZES,
    VOCAB,
    Handmade,
    build,
    left_as_it_was,
    part,
    randomise,
    tokenizer,
)
from jsonschema import Draft202012Validator
from torch import nn

import iglens
from iglens import ArgumentError, Declaration, Decoder, Examination, examine
from iglens.examining.examination import examine_refused
from iglens.examining.measure import PARTS, TEXT
from iglens.model.source import Source

SCHEMA = json.loads((files("iglens.data") / "doctor.schema.json").read_text())

NORM_KINDS = {
    "phi": ("layer", "w", True),
    "gpt2": ("layer", "w", True),
    "gpt2 untied": ("layer", "w", True),
    "neox": ("layer", "w", True),
    "neox sequential": ("layer", "w", True),
    "opt": ("layer", "w", True),
    "cohere": ("layer", "w", False),
    "gemma2": ("RMS", "1 + w", False),
    "gemma3": ("RMS", "1 + w", False),
    "gemma3 capped": ("RMS", "1 + w", False),
}
"""What is no plain RMS norm with gain w."""


@cache
def examined(name, dtype=torch.float32):
    return examine(build(name, dtype), tokenizer())


def valid(examination):
    document = json.loads(json.dumps(examination.to_json(), allow_nan=False))
    Draft202012Validator(SCHEMA).validate(document)
    return document


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_found_as_it_is(name):
    family, found = FAMILIES[name], examined(name)
    assert found.verdict == "exact"
    assert found.sentence.startswith("Exact: ")
    assert found.layers.container == family.blocks
    assert found.layers.n_layers == found.layers.n_modules == family.layers
    assert found.layers.first == f"{family.blocks}.0"
    assert found.layers.d_model == 32
    assert found.layers.axes == ("texts", "tokens", "width")
    assert found.readout.kind == "explicit"
    assert found.readout.streamed
    assert found.readout.reason is None
    assert found.readout.postprocess == family.postprocess
    assert found.readout.head.module == family.head
    assert bool(found.readout.head.tied_to) == family.tied
    assert found.fidelity.own.largest <= found.fidelity.tolerance
    assert found.batch_safe
    valid(found)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_final_norm_is_known_by_what_it_does(name):
    family, norm = FAMILIES[name], examined(name).readout.norm
    if name == "opt with a projection":
        assert norm is None
        assert examined(name).readout.steps == ("model.decoder.project_out (Linear)",)
        return
    assert norm.module == family.norm
    expected = NORM_KINDS.get(name, ("RMS", "w", False))
    assert (norm.kind, norm.gain, norm.shift) == expected


@pytest.mark.parametrize("name", ["phi", "gpt2", "llama"])
def test_a_bias_of_the_head_is_seen(name):
    head = part(build(name), FAMILIES[name].head)
    assert (
        examined(name).readout.head.bias == (head.bias is not None) == (name == "phi")
    )


def test_what_a_tied_head_is_tied_to_is_named():
    assert examined("llama tied").readout.head.tied_to == ("model.embed_tokens",)
    assert examined("gpt2").readout.head.tied_to == ("transformer.wte",)


@pytest.mark.parametrize("name", ["llama", "gemma2", "phi", "mixtral", "granite"])
def test_blocks_that_are_alike_are_told_once(name):
    found = examined(name)
    assert [group.layers for group in found.blocks] == [(1, 2, 3)]
    group = found.blocks[0]
    assert group.kind == ("parallel" if name == "phi" else "sequential")
    assert [p.name for p in group.parts] == ["attention", "mlp"]
    assert group.parts[0].heads == 4
    assert group.parts[0].norms == ("sandwich" if name == "gemma2" else "pre")
    expected = 0.6 if name == "granite" else 1.0
    assert group.parts[0].scale == pytest.approx(expected)
    assert "layers." not in (group.parts[0].writer or "")


def test_facts_of_the_model_are_those_of_its_objects():
    model, words = build("llama tied"), tokenizer(chat=True)
    found = examine(model, words).model
    assert found.architecture == "LlamaForCausalLM"
    assert found.n_parameters == model.num_parameters()
    assert found.dtypes == {"float32": found.n_parameters}
    buffers = sum(b.nbytes for b in model.buffers())
    assert found.n_bytes == 4 * found.n_parameters + buffers
    assert found.devices == {"cpu": found.n_bytes}
    assert found.n_logits == VOCAB
    assert found.tokenizer_size == len(words) <= VOCAB
    assert found.chat_template
    assert found.context == CONTEXT
    assert found.attention == "sdpa"
    assert found.quantisation is None
    assert found.declared == ()


def test_what_was_declared_is_told():
    declaration = Declaration(blocks="model.layers", causal=False)
    found = examine(build("llama"), declaration=declaration)
    assert found.model.declared == ("blocks=model.layers", "causal=False")
    assert found.fidelity.n_positions == PARTS
    assert found.fidelity.n_tokens > PARTS
    assert found.memory.n_tokens == CONTEXT
    assert found.memory.rows_per_pass == 1


def classifier(n_labels, dtype=torch.float32, **options):
    config = hf.LlamaConfig(**SIZES, num_labels=n_labels, **options)
    model = hf.LlamaForSequenceClassification(config)
    return randomise(model).to(dtype).eval()


def test_a_classifier_is_measured_on_beginnings_of_a_text():
    found = examine(classifier(3), tokenizer())
    assert found.verdict == "exact"
    assert found.model.n_logits == 3
    assert found.model.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert found.fidelity.measure == "total_variation"
    assert found.fidelity.n_positions == PARTS
    assert found.readout.head.module == "score"
    assert found.memory.logits_bytes == 3 * 4
    valid(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_reward_is_judged_by_its_logit(dtype):
    found = examine(classifier(1, dtype), tokenizer())
    assert found.verdict == "exact"
    assert "the model's own logits" in found.sentence
    assert found.fidelity.measure == "logit"
    assert found.fidelity.own.largest <= found.fidelity.tolerance
    assert found.fidelity.own.probability is None
    cost = found.precision.float32_model
    assert (cost is None) == (dtype == torch.float32)
    assert cost is None or (cost.largest > 0 and cost.probability is None)
    valid(found)


class Careless(hf.LlamaForSequenceClassification):
    """Reads the last token whether it is padding or not."""

    def forward(self, input_ids, attention_mask=None, use_cache=False):
        hidden = self.model(input_ids, attention_mask, use_cache=False)
        return {"logits": self.score(hidden.last_hidden_state)[:, -1]}


def test_texts_that_may_not_share_a_batch_are_told():
    found = examine(randomise(Careless(hf.LlamaConfig(**SIZES))))
    assert found.verdict == "exact"
    assert found.batch_safe is False
    assert "texts are run one by one" in str(found)


def test_a_decoder_and_its_model_are_examined_alike():
    model = build("qwen3")
    one, other = examine(Decoder(model)), examine(model)
    assert one == other
    assert isinstance(one, Examination)


def test_the_text_is_the_beginning_that_fits_the_context():
    found = examined("llama").fidelity
    assert found.text is not None
    assert TEXT.startswith(found.text)
    assert 1 < found.n_tokens <= CONTEXT
    assert found.n_positions == found.n_tokens - 1


def test_without_a_tokenizer_arbitrary_ids_are_measured():
    found = examine(build("llama"))
    assert found.verdict == "exact"
    assert found.model.tokenizer_size is None
    assert not found.model.chat_template
    assert found.fidelity.text is None
    assert found.fidelity.n_tokens > 8
    assert found.warnings == ()


def test_a_tokenizer_of_another_model_is_told():
    small = build("llama", vocab_size=11)
    found = examine(small, tokenizer())
    assert found.fidelity.text is None
    assert "do not belong together" in found.warnings[0]


def test_the_model_is_left_as_it_was():
    for dtype in (torch.float32, torch.bfloat16):
        model = build("llama tied", dtype).train()
        with left_as_it_was(model):
            examine(model, tokenizer())


def test_a_model_changed_after_verification_is_refused_with_the_reason():
    model = build("llama")
    decoder = Decoder(model, tokenizer())
    assert examine(decoder).verdict == "exact"
    handle = model.register_forward_hook(
        lambda module, args, output: output | {"logits": output["logits"] * 1.5}
    )
    try:
        found = examine(decoder)
    finally:
        handle.remove()
    assert found.verdict == "refused"
    assert "a logit scale is missing" in found.sentence
    assert found.fidelity.own.largest > found.fidelity.tolerance
    valid(found)


def test_a_check_without_power_is_not_called_exact():
    model = build("llama")
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        model.get_submodule(f"model.layers.2.{name}").weight.data.zero_()
    found = examine(model, tokenizer())
    assert found.verdict == "undecided"
    assert found.sentence.startswith("Undecided: ")
    assert not found.is_exact
    valid(found)


class Twice(Handmade):
    """The same blocks, run two times."""

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        for _ in range(2):
            hidden = self.body(hidden)
        return self.head(self.norm(hidden))


class TokensFirst(Handmade):
    """The stream has tokens on its first axis and texts on its second."""

    def forward(self, input_ids):
        hidden = self.embed(input_ids).transpose(0, 1)
        for block in self.body:
            hidden = block(hidden.transpose(0, 1)).transpose(0, 1).contiguous()
        return self.head(self.norm(hidden.transpose(0, 1)))


def test_looped_blocks_are_counted_as_calls():
    found = examine(Twice())
    assert (found.layers.n_layers, found.layers.n_modules) == (6, 3)
    assert found.layers.classes == ("Block",)
    assert found.model.id == "Twice"
    valid(found)


def test_a_stream_that_is_changed_between_blocks_is_not_called_chained():
    found = examine(TokensFirst())
    assert not found.layers.chained
    assert any("changes the stream" in warning for warning in found.warnings)


class ReadsMore(Handmade):
    """The logits also depend on the states before."""

    def forward(self, input_ids):
        hidden = self.body(self.embed(input_ids))
        return self.head(self.norm(hidden.cumsum(1)))


class Dropping(Handmade):
    """Two runs differ."""

    def forward(self, input_ids):
        hidden = self.norm(self.body(self.embed(input_ids)))
        return self.head(nn.functional.dropout(hidden, 0.5, training=True))


def bert():
    sizes = NEOX_SIZES | {"max_position_embeddings": CONTEXT}
    return randomise(hf.BertLMHeadModel(hf.BertConfig(**sizes, is_decoder=False)))


def with_nan():
    model = build("llama")
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = torch.nan
    return model


@pytest.mark.parametrize(
    ("make", "reason", "tried"),
    [
        (ReadsMore, "no per-position|per-position readout", {"body"}),
        (Dropping, "not deterministic", set()),
        (bert, "not causal", set()),
        (with_nan, "up_proj", set()),
        (lambda: nn.Linear(3, 3), "", set()),
    ],
    ids=["reads more", "draws lots", "sees later tokens", "NaN", "no language model"],
)
def test_a_refused_model_is_still_described(make, reason, tried):
    import re

    model = make()
    found = examine(model)
    assert found.verdict == "refused"
    assert found.sentence.startswith("Refused: ")
    assert re.search(reason, found.sentence)
    assert set(found.tried) == tried
    assert all(found.tried.values())
    assert found.model.architecture == type(model).__name__
    assert found.model.n_parameters == sum(p.numel() for p in model.parameters())
    assert found.layers is found.readout is found.memory is None
    valid(found)


def test_a_model_that_was_not_even_loaded_has_a_name_and_a_reason():
    error = iglens.UnsupportedModelError("it is an encoder-decoder.")
    found = examine_refused(error, Source(id="t5"))
    assert (found.name, found.model) == ("t5", None)
    assert found.sentence == "Refused: it is an encoder-decoder."
    valid(found)


def test_other_errors_are_not_taken_for_a_verdict():
    with pytest.raises(ArgumentError, match="at least 2"):
        examine(Decoder(build("llama")), n_tokens=1)
    with pytest.raises(ArgumentError, match="has its own"):
        examine(Decoder(build("llama")), tokenizer())


def test_a_readout_that_is_injected_says_why():
    class Mixed(Handmade):
        """A tail that is no chain: two modules read the same state."""

        def __init__(self):
            super().__init__()
            self.second = nn.Linear(16, 40)
            randomise(self)

        def forward(self, input_ids):
            hidden = self.norm(self.body(self.embed(input_ids)))
            return self.head(hidden) + self.second(hidden)

    found = examine(Mixed()).readout
    assert found.kind == "injected"
    assert not found.streamed
    assert "slower" in found.reason
    assert found.head is found.norm is None


class Transform(nn.Module):
    """A dense layer with a norm of its own, as BERT has before its head."""

    def __init__(self):
        super().__init__()
        self.dense, self.norm = nn.Linear(16, 16), nn.LayerNorm(16)

    def forward(self, hidden):
        return self.norm(torch.tanh(self.dense(hidden) / 100))


class Transformed(Handmade):
    """Something else than the final norm forgets the size, too."""

    def __init__(self):
        super().__init__()
        self.transform = Transform()
        randomise(self)

    def forward(self, input_ids):
        hidden = self.norm(self.body(self.embed(input_ids)))
        return self.head(self.transform(hidden))


def test_the_final_norm_is_the_first_behind_the_blocks():
    found = examine(Transformed()).readout
    assert found.kind == "explicit"
    assert found.steps == ("norm (LayerNorm)", "transform (Transform)")
    assert (found.norm.module, found.norm.kind) == ("norm", "layer")


class Short(Handmade):
    """Runs short texts only, and no configuration says so."""

    def forward(self, input_ids):
        if input_ids.shape[1] > 12:
            raise ValueError("too long for my table of positions")
        return super().forward(input_ids)


def test_a_text_that_is_too_long_without_notice_is_replaced_by_a_shorter_one():
    found = examine(Short())
    assert found.verdict == "exact"
    assert found.fidelity.n_tokens == 9
    assert "too long for my table" in found.warnings[0]


def test_a_model_that_no_longer_runs_is_refused():
    model = build("llama")
    decoder = Decoder(model, tokenizer())
    model.bfloat16()
    found = examine(decoder)
    assert found.verdict == "refused"
    assert "was verified in torch.float32" in found.sentence
    assert found.model.dtypes == {"bfloat16": found.model.n_parameters}
    valid(found)


def test_a_head_that_is_called_is_not_said_to_be_streamed():
    class Odd(nn.Linear):
        """A head of its own class."""

    model = build("llama")
    head = Odd(32, VOCAB, bias=False)
    head.weight = model.lm_head.weight
    model.lm_head = head
    found = examine(model).readout
    assert (found.kind, found.streamed) == ("explicit", False)
    assert found.head.module_class == "Odd"


def test_numbers_that_are_not_finite_become_null():
    found = examined("llama")
    odd = replace(found, fidelity=replace(found.fidelity, power=float("inf")))
    assert valid(odd)["fidelity"]["power"] is None


def test_the_document_names_every_field_once():
    document = valid(examined("gemma2", torch.bfloat16))
    assert document["schema"] == "iglens.doctor/1"
    assert set(document) == set(SCHEMA["properties"]) == set(SCHEMA["required"])
    for name in ("model", "layers", "readout", "fidelity", "precision", "memory"):
        entry = SCHEMA["properties"][name]["anyOf"][0]
        assert set(document[name]) == set(entry["properties"]) == set(entry["required"])


def test_every_field_is_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs/json.md").read_text()
    section = page.split("## iglens doctor")[1]
    names = {*SCHEMA["properties"]}
    for name in ("model", "layers", "readout", "fidelity", "precision", "memory"):
        names |= {*SCHEMA["properties"][name]["anyOf"][0]["properties"]}
    assert {name for name in names if f"`{name}`" not in section} == set()


def test_every_field_of_the_schema_has_a_description():
    def lacking(schema, name):
        for option in (schema, *schema.get("anyOf", ())):
            for field, entry in option.get("properties", {}).items():
                if not entry.get("description"):
                    yield f"{name}.{field}"
                yield from lacking(entry, f"{name}.{field}")
            if isinstance(option.get("items"), dict):
                yield from lacking(option["items"], f"{name}[]")

    assert not list(lacking(SCHEMA, "$"))


@pytest.mark.embedded
def test_the_embedded_model_is_exact(embedded):
    found = examine(embedded)
    assert found.verdict == "exact"
    assert found.model.id == "smollm2"
    assert found.model.note == "Q4_1 dequantised to float16"
    assert (found.layers.container, found.layers.n_layers) == ("model.layers", 30)
    assert found.readout.head.tied_to == ("model.embed_tokens",)
    assert found.fidelity.text == TEXT
    assert found.fidelity.power > 1000
    attention, mlp = found.blocks[0].parts
    assert (attention.heads, mlp.neurons) == (9, 1536)
    valid(found)
