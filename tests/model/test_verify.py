import copy

import pytest
import torch
import transformers as hf
from families import (
    CONTEXT,
    FAMILIES,
    NEOX_SIZES,
    SIZES,
    Block,
    Handmade,
    build,
    full_logits,
    left_as_it_was,
    randomise,
    some_ids,
)
from isolated import run_python
from torch import nn

from iglens import (
    Decoder,
    FidelityError,
    NonFiniteError,
    UnsupportedModelError,
    explain,
)
from iglens.model.discover import arbitrary_tokens
from iglens.model.noise import measure_noise
from iglens.model.replaced import last_output_replaced
from iglens.model.runner import Runner
from iglens.model.verify import verify

IDS = some_ids()
EVERY = {"positions": "all", "max_new_tokens": 0}


class Dropping(Handmade):
    def forward(self, input_ids):
        hidden = self.norm(self.body(self.embed(input_ids)))
        return self.head(nn.functional.dropout(hidden, 0.5, training=True))


class NoDropping(Handmade):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.9)

    def forward(self, input_ids):
        hidden = self.norm(self.body(self.embed(input_ids)))
        return self.head(self.dropout(hidden))


def test_a_model_that_draws_lots_is_refused():
    with pytest.raises(UnsupportedModelError, match=r"not deterministic .* differ by"):
        Decoder(Dropping())
    model = NoDropping().train()
    assert Decoder(model).readout.kind == "explicit"
    assert model.training


def test_dropout_of_a_transformers_model_in_training_is_off():
    model = build("opt", dropout=0.5).train()
    explain(Decoder(model), IDS, **EVERY)
    assert model.training
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("weights", ["large", "as initialised"])
@pytest.mark.parametrize("config", ["bert", "roberta"])
def test_a_model_that_sees_later_tokens_is_refused(config, weights):
    kinds = {
        "bert": (hf.BertConfig, hf.BertLMHeadModel, CONTEXT),
        "roberta": (hf.RobertaConfig, hf.RobertaForCausalLM, CONTEXT + 2),
    }
    kind, model_class, context = kinds[config]
    sizes = NEOX_SIZES | {"max_position_embeddings": context}

    def make(is_decoder):
        torch.manual_seed(0)
        model = model_class(kind(**sizes, is_decoder=is_decoder))
        return randomise(model) if weights == "large" else model

    with pytest.raises(UnsupportedModelError, match="not causal: changing the last"):
        Decoder(make(False))
    decoder = Decoder(make(True))
    assert explain(decoder, IDS, **EVERY).fidelity.max() < 1e-5


class ReadsMore(Handmade):
    """The logits also depend on the states before (causally)."""

    def forward(self, input_ids):
        hidden = self.body(self.embed(input_ids))
        return self.head(self.norm(hidden.cumsum(1)))


class ReadsTheFirst(Handmade):
    """The logits also depend on what the first block gave."""

    def forward(self, input_ids):
        first = self.body[0](self.embed(input_ids))
        hidden = self.body[2](self.body[1](first))
        return self.head(self.norm(hidden + first))


class ReadsTheToken(Handmade):
    """The logits also depend on the token itself."""

    def forward(self, input_ids):
        embedded = self.embed(input_ids)
        return self.head(self.norm(self.body(embedded) + embedded))


class ReadsTheLength(Handmade):
    """The temperature grows with the position."""

    def forward(self, input_ids):
        hidden = self.norm(self.body(self.embed(input_ids)))
        places = torch.arange(1, input_ids.shape[1] + 1)[:, None]
        return self.head(hidden) / places


@pytest.mark.parametrize(
    "kind", [ReadsMore, ReadsTheFirst, ReadsTheToken, ReadsTheLength]
)
def test_a_tail_that_reads_more_than_one_vector_is_refused(kind):
    model = kind()
    with left_as_it_was(model), pytest.raises(UnsupportedModelError) as caught:
        Decoder(model)
    message = str(caught.value)
    assert f"{kind.__name__}: no stack of layers has a per-position readout" in message
    assert "body: " in message
    assert "total variation" in message


class ReadsAConstant(Handmade):
    """On the tokens it is verified on, reading the last state alone is right."""

    def forward(self, input_ids):
        hidden = self.body(self.embed(input_ids))
        spread = (hidden - hidden.detach()).sum()
        return self.head(self.norm(hidden)) + spread


def test_a_tail_that_seems_to_read_more_but_does_not_is_taken():
    assert Decoder(ReadsAConstant()).n_layers == 3


class OnlyRandomVectorsTell(Handmade):
    """Every true last state has a first number below 1e6; others are read otherwise."""

    def forward(self, input_ids):
        hidden = self.body(self.embed(input_ids))
        odd = hidden[..., :1].abs() < self.limit
        mean = hidden.mean(1, keepdim=True)
        return self.head(self.norm(torch.where(odd, hidden + mean, hidden)))


def test_random_vectors_catch_what_the_last_states_do_not():
    model = OnlyRandomVectorsTell()
    with torch.no_grad():
        ids = arbitrary_tokens(model, (3, 11))
        last = model.body(model.embed(ids))
    model.limit = float(last[..., 0].abs().min()) * 0.99
    with pytest.raises(UnsupportedModelError, match="a random one misses"):
        Decoder(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value):
    model = build("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = value
    with pytest.raises(NonFiniteError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        Decoder(model)


def test_a_model_that_overflows_is_told_from_one_with_bad_weights():
    model = build("llama", torch.float16)
    with torch.no_grad():
        model.model.norm.weight.fill_(6e4)
        model.lm_head.weight.fill_(6e4)
    with pytest.raises(NonFiniteError, match="its weights are finite, so it overflows"):
        Decoder(model)


def test_tokens_that_are_switched_off_are_no_overflow():
    model = Masked()
    result = explain(Decoder(model), [3, 17, 5], **EVERY)
    assert result.fidelity.max() < 1e-5


class Masked(Handmade):
    """Some tokens never come: their logits are minus infinity."""

    def forward(self, input_ids):
        logits = super().forward(input_ids)
        return logits.masked_fill(torch.arange(40) > 35, -torch.inf)


WRONG_KINDS = {
    "T5ForConditionalGeneration is an encoder-decoder": lambda: (
        hf.T5ForConditionalGeneration(
            hf.T5Config(
                d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2, vocab_size=50
            )
        )
    ),
    "LlamaForTokenClassification has no next-token": lambda: (
        hf.LlamaForTokenClassification(hf.LlamaConfig(**SIZES))
    ),
    "LlamaForQuestionAnswering has no next-token": lambda: hf.LlamaForQuestionAnswering(
        hf.LlamaConfig(**SIZES)
    ),
    "LlamaModel gives no logits": lambda: hf.LlamaModel(hf.LlamaConfig(**SIZES)),
}


@pytest.mark.parametrize("reason", WRONG_KINDS)
def test_other_kinds_of_models_are_refused_with_their_kind(reason):
    with pytest.raises(UnsupportedModelError, match=reason):
        Decoder(WRONG_KINDS[reason]())


class LastOnly(Handmade):
    def forward(self, input_ids):
        return super().forward(input_ids)[:, -1:]


class Short(Handmade):
    def __init__(self):
        super().__init__()
        self.place = nn.Embedding(8, 16)

    def forward(self, input_ids):
        place = self.place(torch.arange(input_ids.shape[1]))
        return self.head(self.norm(self.body(self.embed(input_ids) + place)))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (LastOnly, "gives logits for 1 of 9 tokens"),
        (Short, "does not run on these token ids alone .IndexError"),
    ],
)
def test_models_that_cannot_be_verified_say_why(kind, reason):
    with pytest.raises(UnsupportedModelError, match=reason):
        Decoder(kind())


def replaced_head(model):
    torch.manual_seed(0)
    model.lm_head = nn.Linear(32, 97, bias=False)


def no_norm(model):
    model.model.norm = nn.Identity()


def no_cap(model):
    model.config.final_logit_softcapping = None


def other_scale(model):
    model.logit_scale = 1.0


def fewer_blocks(model):
    model.model.layers = model.model.layers[:2]


def one_more_block(model):
    model.model.layers.append(copy.deepcopy(model.model.layers[0]))
    model.model.layers[3].self_attn.layer_idx = 3
    model.config.num_hidden_layers = 4


MUTANTS = [
    ("llama", replaced_head, FidelityError, "total variation"),
    ("llama", no_norm, FidelityError, "already carries the final norm"),
    ("gemma2", no_cap, FidelityError, "total variation"),
    ("cohere", other_scale, FidelityError, "differ by a factor of 3.33333"),
    ("llama", fewer_blocks, UnsupportedModelError, "its blocks are others"),
    ("llama", one_more_block, FidelityError, "total variation"),
    ("llama", nn.Module.half, UnsupportedModelError, "now runs in torch.float16"),
]


@pytest.mark.parametrize(("name", "mutate", "error", "reason"), MUTANTS)
def test_a_model_that_changed_after_loading_is_refused(name, mutate, error, reason):
    model = build(name)
    decoder = Decoder(model)
    explain(decoder, IDS, **EVERY)
    mutate(model)
    with pytest.raises(error, match=reason):
        explain(decoder, IDS, **EVERY)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_wrong_state_misses_by_far(name):
    verified = verify(Runner(build(name)))
    assert verified.power > 1000


class Idle(Block):
    def forward(self, hidden):
        return hidden + super().forward(hidden) * 1e-9


def test_where_a_wrong_state_is_as_good_the_check_says_it_cannot_tell():
    model = Handmade()
    model.body = nn.Sequential(*(Idle() for _ in range(3)))
    randomise(model)
    with torch.no_grad():
        model.embed.weight.fill_(0.3)
        for block in model.body:
            block.mix.weight.fill_(0.0)
    result = explain(Decoder(model), [3, 4, 5], **EVERY)
    assert any("cannot tell" in text for text in result.warnings)
    result = explain(Decoder(Handmade()), [3, 4, 5], **EVERY)
    assert not any("cannot tell" in text for text in result.warnings)


def test_noise_grows_with_the_coarseness_of_the_dtype():
    def noise(dtype):
        runner = Runner(build("llama", dtype))
        ids = arbitrary_tokens(runner.model, (1, 9))
        return measure_noise(runner, ids, runner(ids)[0])

    double, single, half = map(noise, (torch.float64, torch.float32, torch.bfloat16))
    assert 0 < double.probability < 1e-10 < single.probability < 1e-5
    assert 1e-3 < half.probability < 0.2
    assert double.log_probability < single.log_probability < half.log_probability


def test_the_replaced_output_is_that_of_the_last_call_alone():
    model = build("gpt2")
    stream = verify(Runner(model)).stream
    before = full_logits(model, IDS)
    vectors = torch.ones(len(IDS), 32)
    with left_as_it_was(model), last_output_replaced(stream, vectors):
        replaced = full_logits(model, IDS)
    with torch.no_grad():
        expected = model.lm_head(model.transformer.ln_f(vectors))
    torch.testing.assert_close(replaced, expected)
    assert torch.equal(full_logits(model, IDS), before)


@pytest.mark.slow
def test_something_that_is_no_model_is_refused():
    run_python(
        "from iglens import Decoder, ArgumentTypeError\n"
        "try:\n"
        "    Decoder('smollm2')\n"
        "except ArgumentTypeError as error:\n"
        "    assert 'from_pretrained' in str(error)\n"
        "else:\n"
        "    raise SystemExit(1)\n"
    )
