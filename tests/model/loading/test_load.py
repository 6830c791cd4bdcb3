import json
import shutil

import pytest
import torch
from families import TEXT, build, some_ids, tokenizer
from safetensors.torch import load_file, save_file

from iglens import (
    ArgumentError,
    ArgumentTypeError,
    Decoder,
    ModelLoadError,
    NonFiniteError,
    UnsupportedModelError,
    explain,
)
from iglens.model.weights import weights_sha256

IDS = some_ids()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Hashes of these short-lived files belong in no user's cache."""
    monkeypatch.setenv("IGLENS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "tiny-llama"
    build("llama").save_pretrained(folder)
    tokenizer(chat=True).save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    """A folder of one's own to damage."""
    return shutil.copytree(saved, tmp_path / "copied")


def test_a_folder_gives_the_model_that_was_saved(saved):
    decoder = Decoder.from_pretrained(saved)
    own = build("llama")
    for name, weight in decoder.model.state_dict().items():
        assert torch.equal(weight, own.state_dict()[name]), name
    assert decoder.encode(TEXT) == tokenizer().encode(TEXT)
    assert decoder.info.path == str(saved)
    assert decoder.info.weights_sha256 == weights_sha256(saved)
    assert decoder.info.dtype == "float32"
    assert decoder.info.note is None


def test_a_folder_may_be_named_as_text_or_path(saved):
    by_text, by_path = map(Decoder.from_pretrained, (str(saved), saved))
    assert by_text.info == by_path.info


def test_weights_keep_the_dtype_they_are_stored_in(tmp_path, saved):
    build("llama", torch.bfloat16).save_pretrained(tmp_path / "half")
    assert Decoder.from_pretrained(tmp_path / "half").info.dtype == "bfloat16"
    single = Decoder.from_pretrained(tmp_path / "half", dtype="float32")
    assert single.info.dtype == "float32"


@pytest.mark.parametrize("dtype", ["float64", "torch.float64", torch.float64])
def test_a_dtype_is_named_or_given(saved, dtype):
    assert Decoder.from_pretrained(saved, dtype=dtype).info.dtype == "float64"


@pytest.mark.parametrize("dtype", ["float31", "int64", "nn", ""])
def test_an_unknown_dtype_lists_the_known_ones(saved, dtype):
    with pytest.raises(ArgumentError, match=r"`dtype` is .*float32, float64"):
        Decoder.from_pretrained(saved, dtype=dtype)


def test_the_attention_implementation_is_the_one_asked_for(saved):
    decoder = Decoder.from_pretrained(saved, attn_implementation="eager")
    assert decoder.provenance().settings["attn_implementation"] == "eager"


def test_a_device_map_works_and_excludes_a_device(saved):
    decoder = Decoder.from_pretrained(saved, device_map="cpu")
    result = explain(decoder, IDS, positions="all", max_new_tokens=0)
    assert result.fidelity.max() < 1e-5
    with pytest.raises(ArgumentError, match="`device` and `device_map` exclude"):
        Decoder.from_pretrained(saved, device="cpu", device_map="cpu")


def test_offloaded_weights_are_called_not_read(saved, tmp_path):
    """Accelerate keeps them elsewhere and patches the forward of their modules."""
    from accelerate import cpu_offload

    model = build("llama")
    cpu_offload(model, execution_device=torch.device("cpu"))
    decoder = Decoder(model)
    result = explain(decoder, IDS, positions="all", max_new_tokens=0)
    whole = Decoder(build("llama"))
    expected = explain(whole, IDS, positions="all", max_new_tokens=0)
    assert result.final == pytest.approx(expected.final, abs=1e-6)
    assert decoder.model.lm_head.weight.device.type == "meta"


def test_a_folder_without_a_tokenizer_works_on_ids(copied):
    for file in [*copied.glob("*token*"), *copied.glob("chat_template*")]:
        file.unlink()
    decoder = Decoder.from_pretrained(copied)
    assert decoder.tokenizer is None
    assert explain(decoder, IDS, target=5).n_rows == 1
    with pytest.raises(ArgumentTypeError, match="no tokenizer"):
        explain(decoder, TEXT)


@pytest.mark.parametrize("content", ["{", '{"version": "1.0"}', "[]"])
def test_a_broken_tokenizer_is_not_taken_for_a_missing_one(copied, content):
    (copied / "tokenizer.json").write_text(content)
    with pytest.raises(ModelLoadError, match=r"The tokenizer of .* could not be read"):
        Decoder.from_pretrained(copied)


def set_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def set_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def one_line(folder, error, reason, **options):
    """Loading fails with one line that names the folder."""
    with pytest.raises(error, match=reason) as caught:
        Decoder.from_pretrained(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    assert len(message) < 700


@pytest.mark.parametrize(
    "missing", ["lm_head.weight", "model.layers.1.mlp.up_proj.weight"]
)
def test_a_checkpoint_that_lacks_weights_is_refused_with_their_names(copied, missing):
    set_weights(copied, lambda weights: weights.pop(missing))
    one_line(copied, ModelLoadError, f"lacks 1 weights .*{missing}.*random")


def test_weights_that_the_config_has_no_place_for_are_named_in_every_result(copied):
    """A config that says fewer layers than the file has is another model."""
    set_config(copied, num_hidden_layers=2)
    decoder = Decoder.from_pretrained(copied)
    assert decoder.n_layers == 2
    result = explain(decoder, IDS, positions="all", max_new_tokens=0)
    (warning,) = result.warnings
    assert "holds 9 weights that the model does not use" in warning
    assert "model.layers.2.input_layernorm.weight" in warning
    assert str(copied) in warning
    whole = build("llama")
    whole.model.layers = whole.model.layers[:2]
    expected = explain(Decoder(whole), IDS, positions="all", max_new_tokens=0)
    assert result.levels == pytest.approx(expected.levels, abs=1e-6)


def test_a_weight_too_many_is_named_and_a_whole_checkpoint_warns_of_nothing(copied):
    whole = Decoder.from_pretrained(copied)
    assert whole.trace(IDS, [3]).warnings == ()
    set_weights(copied, lambda weights: weights.update(zorg=torch.ones(3)))
    (warning,) = Decoder.from_pretrained(copied).trace(IDS, [3]).warnings
    assert "holds 1 weights that the model does not use (zorg)" in warning


def sharded(folder):
    build("llama").save_pretrained(folder, max_shard_size="50KB")
    return sorted(folder.glob("*.safetensors"))


def without_a_shard(shards):
    shards[1].unlink()


def half_a_shard(shards):
    shards[1].write_bytes(shards[1].read_bytes()[: shards[1].stat().st_size // 2])


def an_emptied_shard(shards):
    kept = load_file(shards[1])
    kept.popitem()
    save_file(kept, shards[1], metadata={"format": "pt"})


def an_index_of_another_shard(shards):
    index = shards[0].parent / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("00002-of", "00099-of"))


def a_broken_index(shards):
    (shards[0].parent / "model.safetensors.index.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (without_a_shard, "could not be loaded: .*00002-of"),
        (half_a_shard, "could not be loaded: SafetensorError"),
        (an_emptied_shard, "lacks 1 weights .*random"),
        (an_index_of_another_shard, "could not be loaded: .*00099-of"),
        (a_broken_index, "could not be loaded: JSONDecodeError"),
    ],
)
def test_shards_that_do_not_make_one_model_are_refused(tmp_path, damage, reason):
    folder = tmp_path / "shards"
    damage(sharded(folder))
    one_line(folder, ModelLoadError, reason)


def test_a_tied_head_is_not_missing(tmp_path):
    build("qwen3").save_pretrained(tmp_path / "tied")
    names = load_file(tmp_path / "tied" / "model.safetensors").keys()
    assert "lm_head.weight" not in names
    assert Decoder.from_pretrained(tmp_path / "tied").n_layers == 3


def test_nan_weights_are_named(copied):
    name = "model.layers.2.self_attn.o_proj.weight"
    set_weights(copied, lambda weights: weights[name].fill_(float("nan")))
    with pytest.raises(NonFiniteError, match=name.replace(".", r"\.")):
        Decoder.from_pretrained(copied)


@pytest.mark.parametrize("content", [b"", b"x" * 100, None])
def test_damaged_weights_are_refused(copied, content):
    file = copied / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    one_line(copied, ModelLoadError, "could not be loaded: SafetensorError")


def test_a_folder_without_weights_or_config_says_what_it_lacks(copied, tmp_path):
    (copied / "model.safetensors").unlink()
    one_line(copied, ModelLoadError, "no file named model.safetensors")
    (copied / "config.json").unlink()
    one_line(copied, ModelLoadError, "has no config.json")


@pytest.mark.parametrize("content", ["{", "[]", "{}", ""])
def test_a_broken_config_is_refused(copied, content):
    (copied / "config.json").write_text(content)
    one_line(copied, ModelLoadError, "could not be loaded")


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"hidden_size": 64}, ModelLoadError, "could not be loaded"),
        ({"hidden_size": "many"}, ModelLoadError, "expected int, got str"),
        ({"num_hidden_layers": 4}, ModelLoadError, "lacks 9 weights"),
        ({"model_type": "zorg"}, ModelLoadError, "does not recognize"),
        (
            {"architectures": ["LlamaForSequenceClassification"]},
            ModelLoadError,
            "lacks 1 weights of the model .score.weight.; they would be random",
        ),
        (
            {"architectures": ["LlamaForTokenClassification"]},
            UnsupportedModelError,
            "is a LlamaForTokenClassification: it has no next-token",
        ),
        (
            {"architectures": ["LlamaForQuestionAnswering"]},
            UnsupportedModelError,
            "is a LlamaForQuestionAnswering",
        ),
        (
            {"model_type": "t5", "is_encoder_decoder": True},
            UnsupportedModelError,
            "is an encoder-decoder",
        ),
        ({"model_type": "vit"}, UnsupportedModelError, "is no causal language model"),
    ],
)
def test_a_config_of_something_else_is_refused(copied, changes, error, reason):
    set_config(copied, **changes)
    one_line(copied, error, reason)


LOUD = "raise SystemExit('this code ran')"


def remote_config(folder):
    set_config(folder, model_type="zorg", auto_map={"AutoConfig": "code.Config"})


def remote_tokenizer(folder):
    file = folder / "tokenizer_config.json"
    map_ = {"auto_map": {"AutoTokenizer": ["code.Tok", None]}}
    content = json.loads(file.read_text()) | map_ | {"tokenizer_class": "Zorg"}
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("change", [remote_config, remote_tokenizer])
def test_code_that_comes_with_a_checkpoint_does_not_run_unasked(copied, change):
    (copied / "code.py").write_text(LOUD)
    change(copied)
    one_line(copied, ModelLoadError, "code of its own.*trust_remote_code=True")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nobody/has-this-model", "There is no model 'nobody/has-this-model' here"),
        ("no-such-model", "cannot be reached. `iglens models` lists"),
        ("./no/such/folder", "no model folder or GGUF file at './no/such/folder'"),
        ("/no/such/file.gguf", "no model folder or GGUF file"),
        ("a b?", "There is no model 'a b\\?' here"),
        ("", "holds no model"),
    ],
)
def test_an_unknown_name_is_one_line(name, reason):
    with pytest.raises(ModelLoadError, match=reason) as caught:
        Decoder.from_pretrained(name)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_model_is_refused(saved, tmp_path):
    one_line(saved / "config.json", ModelLoadError, "no model folder or GGUF file")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    one_line(tmp_path / "bad.gguf", ModelLoadError, "could not be loaded")


@pytest.mark.parametrize("device", ["zorg", "meta:zorg"])
def test_an_unknown_device_is_one_line(saved, device):
    with pytest.raises(ModelLoadError, match="could not be loaded: RuntimeError"):
        Decoder.from_pretrained(saved, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_one_line(saved):
    with pytest.raises(ModelLoadError, match=r"could not be loaded: .*CUDA"):
        Decoder.from_pretrained(saved, device="cuda")


def test_an_attention_that_is_unknown_is_one_line(saved):
    one_line(saved, ModelLoadError, "attn_implementation", attn_implementation="zorg")


def test_terms_of_an_embedded_model_are_asked_for():
    with pytest.raises(ArgumentError, match="Gemma Terms of Use"):
        Decoder.from_pretrained("gemma3-270m")


def test_the_hash_follows_the_file(copied):
    before = Decoder.from_pretrained(copied).info.weights_sha256
    set_weights(copied, lambda weights: weights["lm_head.weight"].mul_(2))
    after = Decoder.from_pretrained(copied).info.weights_sha256
    assert before != after == weights_sha256(copied)


def test_shards_are_loaded_and_hashed_together(tmp_path):
    build("llama").save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert len([*(tmp_path / "many").glob("*.safetensors")]) > 1
    decoder = Decoder.from_pretrained(tmp_path / "many")
    assert decoder.info.weights_sha256 == weights_sha256(tmp_path / "many")


def test_loading_says_nothing_on_standard_output(saved, capfd):
    Decoder.from_pretrained(saved)
    assert capfd.readouterr().out == ""
