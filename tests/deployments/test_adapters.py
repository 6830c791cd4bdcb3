"""PEFT: adapters beside the weights, merged into them, and virtual tokens in front."""

import json
import shutil

import numpy as np
import peft
import pytest
import torch
import transformers as hf
from deployed import EVERY, IDS, assert_exact
from families import FAMILIES, TEXT, build, full_logits, part, tokenizer

from iglens import Decoder, FidelityError, ModelLoadError, explain
from iglens.readout import CalledReadout, LinearReadout

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:fan_in_fan_out is set to False:UserWarning",
    "ignore:Setting `save_embedding_layers` to `True`:UserWarning",
    "ignore:Position ids are not supported for parameter efficient:UserWarning",
    "ignore:Could not find a config file in:UserWarning",
)

TARGETS = {
    "llama": ["q_proj", "v_proj", "down_proj"],
    "gpt2": ["c_attn", "c_proj"],
    "gemma2": ["q_proj", "o_proj"],
}


def adapted(model, targets, seed=0):
    """LoRA with random weights on both sides, so that it changes something."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=targets,
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    return peft.get_peft_model(model, config).eval()


def blocks_of(model, name):
    inner = model.get_base_model() if isinstance(model, peft.PeftModel) else model
    return part(inner, FAMILIES[name].blocks)


def differs(model, name):
    own, base = (full_logits(m, IDS).softmax(-1) for m in (model, build(name)))
    return float((own - base).abs().max()) > 1e-3


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("name", TARGETS)
def test_lora_is_explained_as_it_runs(name, merged):
    model = adapted(build(name), TARGETS[name])
    beside = explain(Decoder(model), IDS, **EVERY)
    if merged:
        model = model.merge_and_unload()
    assert differs(model, name)
    decoder = Decoder(model, tokenizer())
    assert isinstance(decoder.readout, LinearReadout)
    result = assert_exact(decoder, blocks_of(model, name))
    np.testing.assert_allclose(result.levels, beside.levels, atol=1e-5)
    text = decoder.encode(TEXT)
    greedy = int(full_logits(model, text)[-1].argmax())
    assert decoder.generate(text, 1) == [greedy]


def test_an_adapter_that_is_switched_off_explains_the_model_below():
    model = adapted(build("llama"), TARGETS["llama"])
    decoder = Decoder(model)
    with model.disable_adapter():
        below = explain(decoder, IDS, **EVERY)
    expected = explain(Decoder(build("llama")), IDS, **EVERY)
    np.testing.assert_allclose(below.levels, expected.levels, atol=1e-6)
    above = explain(decoder, IDS, **EVERY)
    assert np.abs(above.levels - below.levels).max() > 1e-3


def test_lora_on_the_head_is_called_not_read_until_it_is_merged():
    model = adapted(build("llama"), ["q_proj", "lm_head"])
    decoder = Decoder(model)
    assert isinstance(decoder.readout, CalledReadout)
    assert decoder.readout.kind == "explicit"
    assert_exact(decoder, blocks_of(model, "llama"))
    base = model.get_base_model().lm_head.base_layer.weight
    merged = model.merge_and_unload()
    assert not torch.equal(merged.lm_head.weight, build("llama").lm_head.weight)
    assert base is merged.lm_head.weight
    decoder = Decoder(merged)
    assert isinstance(decoder.readout, LinearReadout)
    assert_exact(decoder, merged.model.layers)


def test_a_head_that_gets_an_adapter_after_loading_is_refused():
    model = build("llama")
    decoder = Decoder(model)
    explain(decoder, IDS, **EVERY)
    adapted(model, ["lm_head"])
    with pytest.raises(FidelityError, match="total variation"):
        explain(decoder, IDS, **EVERY)


def test_a_trained_copy_of_the_head_is_read_as_it_runs():
    """`modules_to_save` keeps a whole second head beside the first."""
    config = peft.LoraConfig(
        target_modules=["q_proj"],
        modules_to_save=["lm_head"],
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(build("llama"), config).eval()
    copy = model.get_base_model().lm_head.modules_to_save["default"]
    torch.nn.init.normal_(copy.weight, std=0.3)
    decoder = Decoder(model)
    assert decoder.readout.kind == "explicit"
    assert_exact(decoder, blocks_of(model, "llama"))


KINDS = {
    "ia3": lambda: peft.IA3Config(
        target_modules=["k_proj", "v_proj", "down_proj"],
        feedforward_modules=["down_proj"],
        init_ia3_weights=False,
        task_type="CAUSAL_LM",
    ),
    "prefix tuning": lambda: peft.PrefixTuningConfig(
        num_virtual_tokens=4, task_type="CAUSAL_LM"
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_adapters_are_explained_as_they_run(kind):
    torch.manual_seed(0)
    model = peft.get_peft_model(build("llama"), KINDS[kind]()).eval()
    assert differs(model, "llama")
    decoder = Decoder(model)
    assert isinstance(decoder.readout, LinearReadout)
    assert_exact(decoder, blocks_of(model, "llama"))


VIRTUAL = {
    "prompt tuning": lambda: peft.PromptTuningConfig(
        num_virtual_tokens=4, task_type="CAUSAL_LM"
    ),
    "p-tuning": lambda: peft.PromptEncoderConfig(
        num_virtual_tokens=3, encoder_hidden_size=16, task_type="CAUSAL_LM"
    ),
}


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", VIRTUAL)
def test_virtual_tokens_stand_in_front_and_are_not_counted(kind, name):
    torch.manual_seed(0)
    model = peft.get_peft_model(build(name), VIRTUAL[kind]()).eval()
    prefix = model.peft_config["default"].num_virtual_tokens
    own = full_logits(model, IDS)
    assert len(own) == prefix + len(IDS)
    decoder = Decoder(model, tokenizer())
    assert decoder.verified.stream.prefix == prefix
    assert isinstance(decoder.readout, LinearReadout)
    result = assert_exact(decoder, blocks_of(model, name))
    own = own[prefix:].double().softmax(-1)[range(8), IDS[1:]].numpy()
    np.testing.assert_allclose(result.final, own, atol=1e-6)
    without = explain(Decoder(build(name)), IDS, **EVERY)
    assert np.abs(result.final - without.final).max() > 1e-3
    assert result.token_ids.tolist() == IDS


def test_virtual_tokens_are_there_when_the_model_goes_on():
    torch.manual_seed(0)
    model = peft.get_peft_model(build("llama"), VIRTUAL["prompt tuning"]()).eval()
    decoder = Decoder(model, tokenizer())
    prompt = decoder.encode(TEXT)
    said = decoder.generate(prompt, 3)
    for place, token in enumerate(said):
        text = prompt + said[:place]
        assert int(full_logits(model, text)[-1].argmax()) == token
    assert explain(decoder, TEXT, max_new_tokens=3).targets[0].ids == (said[0],)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model with its tokenizer, and an adapter of it, as PEFT saves them."""
    base = tmp_path_factory.mktemp("base") / "tiny-llama"
    build("llama").save_pretrained(base)
    tokenizer().save_pretrained(base)
    folder = tmp_path_factory.mktemp("adapter") / "tiny-lora"
    loaded = hf.AutoModelForCausalLM.from_pretrained(base)
    adapted(loaded, ["q_proj", "down_proj"]).save_pretrained(folder)
    assert not (folder / "config.json").exists()
    return base, folder


def test_a_folder_with_an_adapter_is_loaded_with_its_model(folders):
    base, folder = folders
    decoder = Decoder.from_pretrained(folder)
    result = assert_exact(decoder, decoder.model.model.layers)
    own = adapted(build("llama"), ["q_proj", "down_proj"])
    expected = explain(Decoder(own), IDS, **EVERY)
    np.testing.assert_allclose(result.levels, expected.levels, atol=1e-6)
    assert decoder.encode(TEXT) == tokenizer().encode(TEXT)
    assert decoder.info.path == str(folder)
    assert decoder.info.note == f"an adapter of {base}"
    assert result.warnings == ()


def test_the_hash_of_an_adapter_is_that_of_it_and_of_its_model(folders, tmp_path):
    base, folder = folders
    own = Decoder.from_pretrained(folder).info.weights_sha256
    other_base = shutil.copytree(base, tmp_path / "base")
    build("llama", seed=1).save_pretrained(other_base)
    moved = shutil.copytree(folder, tmp_path / "adapter")
    change_adapter(moved, base_model_name_or_path=str(other_base))
    hashes = {
        Decoder.from_pretrained(place).info.weights_sha256
        for place in (base, other_base, moved)
    }
    assert len({own, *hashes, None}) == 5


def change_adapter(folder, **changes):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"base_model_name_or_path": None}, "holds an adapter, but .* is None"),
        ({"base_model_name_or_path": "/no/such/model"}, "could not be loaded|no model"),
        ({"peft_type": "ZORG"}, "could not be loaded"),
    ],
)
def test_an_adapter_without_its_model_is_one_line(folders, tmp_path, change, reason):
    copied = shutil.copytree(folders[1], tmp_path / "adapter")
    change_adapter(copied, **change)
    with pytest.raises(ModelLoadError, match=reason) as caught:
        Decoder.from_pretrained(copied)
    assert "\n" not in str(caught.value)


def test_a_broken_adapter_config_is_one_line(folders, tmp_path):
    copied = shutil.copytree(folders[1], tmp_path / "adapter")
    (copied / "adapter_config.json").write_text("[")
    with pytest.raises(ModelLoadError, match="does not say of which model"):
        Decoder.from_pretrained(copied)


def test_an_adapter_needs_peft_and_says_so(folders, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "peft" else found(name, *rest),
    )
    with pytest.raises(ModelLoadError, match="needs PEFT: `pip install peft`"):
        Decoder.from_pretrained(folders[1])
