"""A proof taken from memory equals one made anew, and is never taken from elsewhere."""

import json
import os
import shutil
from contextlib import contextmanager

import classifiers
import numpy as np
import pytest
import torch
from families import FAMILIES, build, fingerprint, left_as_it_was, some_ids

import iglens
from iglens import Decoder
from iglens.model import conditions
from iglens.model.declaration import Declaration
from iglens.model.loading.load import load_model
from iglens.model.runner import Runner

IDS = some_ids()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IGLENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "tiny-gemma2"
    build("gemma2").save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    """A folder of one's own to change."""
    return shutil.copytree(saved, tmp_path / "copied")


@pytest.fixture
def proved(saved):
    """A decoder of the saved model, whose proof is now remembered."""
    decoder = Decoder.from_pretrained(saved)
    assert not decoder.verified.remembered
    return decoder


def remembers(folder, **options):
    return Decoder.from_pretrained(folder, **options).verified.remembered


def explained(decoder):
    return iglens.explain(decoder, IDS, positions="all", max_new_tokens=0)


def the_note(cache):
    (file,) = (cache / "proofs").iterdir()
    return file


@contextmanager
def counted_passes(monkeypatch):
    """How often a model runs."""
    passes, own = [], Runner.__call__

    def counting(self, *args, **given):
        passes.append(1)
        return own(self, *args, **given)

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "__call__", counting)
        yield passes


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_remembered_equals_what_was_proved(name, tmp_path):
    build(name).save_pretrained(tmp_path / "model")
    anew, known = (Decoder.from_pretrained(tmp_path / "model") for _ in range(2))
    assert (anew.verified.remembered, known.verified.remembered) == (False, True)
    for fact in ("noise", "tolerance", "power", "notes", "doubt"):
        assert getattr(anew.verified, fact) == getattr(known.verified, fact), fact
    one, other = anew.verified.stream, known.verified.stream
    for fact in ("container", "names", "enter", "leave", "chained", "width", "prefix"):
        assert getattr(one, fact) == getattr(other, fact), fact
    assert anew.readout.kind == known.readout.kind
    assert anew.readout.postprocess == known.readout.postprocess
    first, second = explained(anew), explained(known)
    assert np.array_equal(first.levels, second.levels)
    assert np.array_equal(first.fidelity, second.fidelity)


@pytest.mark.parametrize("name", ["gemma2", "opt with a projection", "mixtral"])
def test_a_remembered_injected_readout_is_the_models_own(name, tmp_path):
    build(name).save_pretrained(tmp_path / "model")
    anew, known = (Decoder.from_pretrained(tmp_path / "model") for _ in range(2))
    states = anew.states([IDS])[0][-1]
    ours = known.verified.injected.logits(states)
    assert known.verified.remembered
    assert torch.equal(ours, anew.verified.injected.logits(states))


def test_a_model_that_was_proved_is_run_once_and_no_more(proved, saved, monkeypatch):
    with counted_passes(monkeypatch) as passes:
        assert remembers(saved)
    assert len(passes) == 1
    with counted_passes(monkeypatch) as passes:
        assert not remembers(saved, anew=True)
    assert len(passes) > 10


def test_the_models_own_text_is_checked_whatever_is_remembered(proved, saved):
    known = Decoder.from_pretrained(saved)
    assert known.verified.remembered
    with torch.no_grad():
        known.model.model.norm.weight.mul_(2)  # the stream no longer leads to ...
    own = known.model.lm_head.forward
    known.model.lm_head.forward = lambda states: own(states) * 2  # ... these logits
    with pytest.raises(iglens.IGLensError):
        explained(known)


def test_a_remembered_model_is_left_as_it_was(proved, saved):
    model, tokenizer, source = load_model(
        str(saved),
        revision=None,
        dtype=None,
        device=None,
        device_map=None,
        attn_implementation=None,
        trust_remote_code=False,
        quantization_config=None,
        accept_licence=False,
    )
    with left_as_it_was(model):
        decoder = Decoder(model, tokenizer, source=source, anew=False)
    assert decoder.verified.remembered
    assert fingerprint(model)["training", ""] is False


@pytest.mark.parametrize("size", [0, 1, 100, -2])
def test_a_note_that_is_cut_off_is_as_good_as_none(proved, saved, cache, size):
    whole = the_note(cache).read_bytes()
    the_note(cache).write_bytes(whole[:size])
    again = Decoder.from_pretrained(saved)
    assert not again.verified.remembered
    assert np.array_equal(explained(again).levels, explained(proved).levels)
    assert the_note(cache).read_bytes() == whole  # and it is mended
    assert remembers(saved)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"[]", b"7", b"null", b"{}", b"[" * 9**5]
)
def test_a_foreign_file_in_its_place_is_as_good_as_none(proved, saved, cache, content):
    the_note(cache).write_bytes(content)
    assert not remembers(saved)
    assert remembers(saved)


@pytest.mark.parametrize(
    ("fact", "edited"),
    [
        ("tolerance", {"total_variation": 1.0, "log_probability": 9.0, "logit": 9.0}),
        ("noise", {"probability": 0.5, "log_probability": 9.0, "logit": 9.0}),
        ("power", 1e9),
        ("notes", ["All is well."]),
    ],
)
def test_an_edited_note_is_as_good_as_none(proved, saved, cache, fact, edited):
    document = json.loads(the_note(cache).read_text())
    assert fact in document["fact"]
    document["fact"][fact] = edited
    the_note(cache).write_text(json.dumps(document))
    again = Decoder.from_pretrained(saved)
    assert not again.verified.remembered
    assert again.verified.tolerance == proved.verified.tolerance


def forged(cache, change):
    """A note that is whole, and wrong."""
    from iglens.model.loading import notes

    document = json.loads(the_note(cache).read_text())
    change(document["fact"])
    document["sha256"] = notes._digest(document["stamp"], document["fact"])
    the_note(cache).write_text(json.dumps(document))


def _no_norm(fact):
    fact["tail"]["before"] = []


def _no_cap(fact):
    fact["tail"]["after"] = []


def _other_order(fact):
    fact["names"] = fact["names"][::-1]


def _a_block_less(fact):
    fact["names"] = fact["names"][:-1]


def _no_such_block(fact):
    fact["names"] = ["model.blocks.0"]


def _other_axes(fact):
    axes = fact["axes"]
    axes["batch_axis"], axes["time_axis"] = axes["time_axis"], axes["batch_axis"]


def _no_such_operator(fact):
    fact["tail"]["after"][0]["operator"] = "no_such_operator"


def _no_tolerance(fact):
    del fact["tolerance"]


def _other_vocabulary(fact):
    fact["vocab_size"] += 1


def _other_kind(fact):
    fact["kind"] = "injected"


@pytest.mark.parametrize(
    "change",
    [
        _no_norm,
        _no_cap,
        _other_order,
        _a_block_less,
        _no_such_block,
        _other_axes,
        _no_such_operator,
        _no_tolerance,
        _other_vocabulary,
    ],
)
def test_a_note_that_does_not_hold_on_the_model_is_refused(
    proved, saved, cache, change
):
    forged(cache, change)
    again = Decoder.from_pretrained(saved)
    assert not again.verified.remembered
    assert np.array_equal(explained(again).levels, explained(proved).levels)


def test_a_forged_kind_is_slower_and_not_wrong(proved, saved, cache):
    forged(cache, _other_kind)
    again = Decoder.from_pretrained(saved)
    assert again.readout.kind == "injected"
    assert explained(again).levels == pytest.approx(explained(proved).levels, abs=1e-5)


def test_changed_weights_of_the_same_size_are_proved_anew(copied, tmp_path):
    assert not remembers(copied)
    assert remembers(copied)
    other = tmp_path / "other"
    build("gemma2", seed=1).save_pretrained(other)
    file = copied / "model.safetensors"
    size, time = file.stat().st_size, file.stat().st_mtime_ns
    file.write_bytes((other / "model.safetensors").read_bytes())
    assert file.stat().st_size == size
    os.utime(file, ns=(time + 1, time + 1))
    decoder = Decoder.from_pretrained(copied)
    assert not decoder.verified.remembered
    fresh = explained(Decoder(build("gemma2", seed=1)))
    assert np.array_equal(explained(decoder).levels, fresh.levels)


def test_a_changed_configuration_is_proved_anew(copied):
    assert not remembers(copied)
    config = json.loads((copied / "config.json").read_text())
    config["final_logit_softcapping"] = 4.0
    (copied / "config.json").write_text(json.dumps(config))
    decoder = Decoder.from_pretrained(copied)
    assert not decoder.verified.remembered
    assert decoder.readout.postprocess == "softcap 4"


@pytest.mark.parametrize("package", ["iglens", "torch", "transformers"])
def test_another_version_is_proved_anew(proved, saved, monkeypatch, package):
    now = conditions.versions()
    with monkeypatch.context() as patch:
        patch.setattr(conditions, "versions", lambda: {**now, package: "0.0.1"})
        assert not remembers(saved)
        assert remembers(saved)
    assert not remembers(saved)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_another_dtype_is_proved_anew(proved, saved, dtype):
    assert not remembers(saved, dtype=dtype)
    assert remembers(saved, dtype=dtype)
    assert remembers(saved)  # that of the first is still there


def test_another_attention_is_proved_anew(tmp_path):
    build("llama").save_pretrained(tmp_path / "model")
    for attention in ("sdpa", "eager"):
        chosen = {"attn_implementation": attention}
        assert not remembers(tmp_path / "model", **chosen)
        assert remembers(tmp_path / "model", **chosen)


def test_another_number_of_threads_is_proved_anew(proved, saved):
    torch.set_num_threads(2)
    try:
        assert not remembers(saved)
    finally:
        torch.set_num_threads(1)


def test_changed_code_is_proved_anew(proved, saved, monkeypatch, tmp_path):
    files = "\n".join(conditions._code(proved.model))
    for name in ("modeling_gemma2.py", "model/verify.py", "readout/linear.py"):
        assert name in files
    file = tmp_path / "code.py"
    file.write_text("")
    monkeypatch.setattr(conditions.inspect, "getsourcefile", lambda _: str(file))
    assert not remembers(saved)
    assert remembers(saved)
    os.utime(file, ns=(1, 1))
    assert not remembers(saved)


def test_a_cache_that_cannot_be_written_is_only_slower(saved, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IGLENS_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        assert not remembers(saved)


def test_a_user_without_a_home_is_only_slower(saved, monkeypatch):
    from iglens.errors import ModelLoadError
    from iglens.model.loading import notes

    def homeless():
        raise ModelLoadError("This user has no home folder.")

    monkeypatch.setattr(notes, "cache_root", homeless)
    for _ in range(2):
        assert not remembers(saved)


def test_nothing_is_left_beside_a_note(proved, cache):
    assert [file.suffix for file in (cache / "proofs").iterdir()] == [".json"]


def test_a_model_that_is_handed_over_is_proved_anew(proved):
    assert not Decoder(build("gemma2")).verified.remembered
    assert not Decoder(proved.model, source=proved._source).verified.remembered


def test_what_is_declared_is_proved_anew(proved, saved):
    assert not remembers(saved, declaration=Declaration(blocks="model.layers"))


def test_offloaded_weights_are_proved_anew(proved, saved, tmp_path):
    names = ("embed_tokens", "norm", "rotary_emb", "layers.0", "layers.2")
    where = {f"model.{name}": "cpu" for name in names}
    where |= {"lm_head": "cpu", "model.layers.1": "disk"}
    for _ in range(2):
        assert not remembers(saved, device_map=where, offload_folder=tmp_path / "off")


def test_a_classifier_is_proved_anew(tmp_path):
    classifiers.build("llama").save_pretrained(tmp_path / "model")
    for _ in range(2):
        assert not remembers(tmp_path / "model")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_adapter_is_proved_anew(tmp_path, saved):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["q_proj"], r=2)
    adapted = peft.get_peft_model(build("gemma2"), config)
    adapted.peft_config["default"].base_model_name_or_path = str(saved)
    adapted.save_pretrained(tmp_path / "adapter")
    for _ in range(2):
        assert not remembers(tmp_path / "adapter")


def _hooked(model):
    model.model.norm.register_forward_hook(lambda module, args, output: output)


def _replaced(model):
    own = model.lm_head.forward
    model.lm_head.forward = lambda states: own(states)


def _of_ones_own(model):
    class Norm(type(model.model.norm)):
        pass

    model.model.norm.__class__ = Norm


def _quantised(model):
    model.config.quantization_config = {"quant_method": "none"}


def _without_values(model):
    model.lm_head.to("meta")


def _of_another_class(model):
    class Weight(torch.nn.Parameter):
        pass

    model.model.norm.weight.__class__ = Weight


@pytest.mark.parametrize(
    "change",
    [_hooked, _replaced, _of_ones_own, _quantised, _without_values, _of_another_class],
)
def test_what_is_no_plain_model_of_transformers_has_no_conditions(proved, change):
    assert conditions.conditions(proved.model, proved._source) is not None
    change(proved.model)
    assert conditions.conditions(proved.model, proved._source) is None


def test_attention_of_ones_own_has_no_conditions(proved, monkeypatch):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def attend(*args, **given):
        return None

    name = "of my own"
    ALL_ATTENTION_FUNCTIONS.register(name, attend)
    try:
        proved.model.config._attn_implementation = name
        assert conditions.conditions(proved.model, proved._source) is None
    finally:
        del ALL_ATTENTION_FUNCTIONS._global_mapping[name]


def test_weights_of_no_known_file_have_no_conditions(proved):
    from dataclasses import replace

    unknown = replace(proved._source, weights_sha256=None)
    assert conditions.conditions(proved.model, unknown) is None
