"""Weights that lie elsewhere: on the disk, or in memory until a module is called."""

import numpy as np
import pyarrow
import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from corpora import write_corpus
from deployed import EVERY, IDS, assert_exact
from families import build, part, tokenizer
from safetensors.torch import load_file, save_file

from iglens import (
    ArgumentError,
    Decoder,
    ModelLoadError,
    UnsupportedModelError,
    explain,
)
from iglens.corpus import Selection, Store, run
from iglens.model.weights import weights_sha256
from iglens.readout import CalledReadout, LinearReadout

CPU = torch.device("cpu")

MAPS = {
    "half of the blocks and the head": ("model.layers.1", "model.layers.2", "lm_head"),
    "the head alone": ("lm_head",),
    "the norm alone": ("model.norm",),
    "everything": (
        "model.embed_tokens", "model.layers.0", "model.layers.1", "model.layers.2",
        "model.norm", "model.rotary_emb", "lm_head",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "tiny-llama"
    build("llama").save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plain():
    return explain(Decoder(build("llama")), IDS, **EVERY)


def device_map(on_disk):
    names = MAPS["everything"]
    return {name: "disk" if name in on_disk else "cpu" for name in names}


def assert_as_plain(decoder, plain):
    result = assert_exact(decoder, part(decoder.model, "model.layers"))
    assert result.levels == pytest.approx(plain.levels, abs=1e-6)
    assert result.rank.tolist() == plain.rank.tolist()
    assert result.lens_kl == pytest.approx(plain.lens_kl, abs=1e-4)


@pytest.mark.parametrize("on_disk", MAPS)
def test_what_lies_on_the_disk_is_read_like_the_rest(saved, plain, tmp_path, on_disk):
    decoder = Decoder.from_pretrained(
        saved, device_map=device_map(MAPS[on_disk]), offload_folder=tmp_path
    )
    head = decoder.model.lm_head
    offloaded = "lm_head" in MAPS[on_disk]
    assert (head.weight.device.type == "meta") == offloaded
    assert isinstance(decoder.readout, CalledReadout)  # accelerate patches its forward
    assert decoder.readout.kind == "explicit"
    assert_as_plain(decoder, plain)
    assert (head.weight.device.type == "meta") == offloaded
    said = decoder.generate(IDS, 3)
    assert said == Decoder(build("llama")).generate(IDS, 3)


def test_an_automatic_map_fills_what_it_may_and_leaves_the_rest_on_the_disk(
    saved, plain, tmp_path
):
    decoder = Decoder.from_pretrained(
        saved,
        device_map="auto",
        max_memory={"cpu": "60KB"},
        offload_folder=tmp_path,
    )
    places = set(decoder.model.hf_device_map.values())
    assert places == {"cpu", "disk"}
    assert_as_plain(decoder, plain)


def test_where_everything_fits_the_head_stays_a_matrix(saved):
    decoder = Decoder.from_pretrained(
        saved, device_map="auto", max_memory={"cpu": "1GB"}
    )
    assert isinstance(decoder.readout, LinearReadout)


@pytest.mark.parametrize("option", ["max_memory", "offload_folder"])
def test_options_of_a_device_map_need_one(saved, option, tmp_path):
    value = {"cpu": "1GB"} if option == "max_memory" else tmp_path
    with pytest.raises(ArgumentError, match="they need `device_map`, such as 'auto'"):
        Decoder.from_pretrained(saved, **{option: value})


def to_the_disk(model, folder):
    disk_offload(model, str(folder), execution_device=CPU)


def to_memory(model, folder):
    cpu_offload(model, execution_device=CPU)


def dispatched(model, folder):
    dispatch_model(
        model,
        device_map(MAPS["half of the blocks and the head"]),
        main_device="cpu",
        offload_dir=str(folder),
    )


@pytest.mark.parametrize("offload", [to_the_disk, to_memory, dispatched])
def test_a_model_that_accelerate_has_offloaded_is_read_as_it_is(
    plain, tmp_path, offload
):
    model = build("llama")
    offload(model, tmp_path)
    forward = model.lm_head.forward
    decoder = Decoder(model)
    assert_as_plain(decoder, plain)
    assert model.lm_head.weight.device.type == "meta"
    assert model.lm_head.forward is forward


def test_an_offloaded_head_that_is_tied_is_not_read_as_a_matrix(tmp_path):
    model = build("llama tied")
    names = device_map(["model.layers.1"])
    dispatch_model(model, names, main_device="cpu", offload_dir=str(tmp_path))
    decoder = Decoder(model)
    assert decoder.readout.kind == "explicit"
    result = assert_exact(decoder, model.model.layers)
    expected = explain(Decoder(build("llama tied")), IDS, **EVERY)
    assert result.levels == pytest.approx(expected.levels, abs=1e-6)


def test_a_decoder_notices_that_its_model_was_offloaded_later(tmp_path):
    model = build("llama")
    decoder = Decoder(model)
    explain(decoder, IDS, **EVERY)
    disk_offload(model, str(tmp_path), execution_device=CPU)
    with pytest.raises(UnsupportedModelError, match="Make a new `Decoder`"):
        explain(decoder, IDS, **EVERY)
    assert_exact(Decoder(model), model.model.layers)


def test_many_shards_are_one_model_with_one_hash(tmp_path, plain):
    folder = tmp_path / "shards"
    build("llama").save_pretrained(folder, max_shard_size="50KB")
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 2
    decoder = Decoder.from_pretrained(folder)
    assert_as_plain(decoder, plain)
    before = decoder.info.weights_sha256
    assert before == weights_sha256(folder)
    swapped = load_file(shards[-1])
    name = next(iter(swapped))
    swapped[name] += 1
    save_file(swapped, shards[-1], metadata={"format": "pt"})
    assert Decoder.from_pretrained(folder).info.weights_sha256 != before


def test_shards_may_lie_on_the_disk_too(tmp_path, plain):
    folder = tmp_path / "shards"
    build("llama").save_pretrained(folder, max_shard_size="50KB")
    decoder = Decoder.from_pretrained(
        folder, device_map=device_map(MAPS["everything"]), offload_folder=tmp_path
    )
    assert_as_plain(decoder, plain)


def test_other_files_than_safetensors_need_a_folder_to_be_offloaded_to(tmp_path, plain):
    model = build("llama")
    model.config.save_pretrained(tmp_path / "old")
    torch.save(model.state_dict(), tmp_path / "old" / "pytorch_model.bin")
    where = device_map(MAPS["half of the blocks and the head"])
    with pytest.raises(ModelLoadError, match="provide an `offload_folder`"):
        Decoder.from_pretrained(tmp_path / "old", device_map=where)
    decoder = Decoder.from_pretrained(
        tmp_path / "old", device_map=where, offload_folder=tmp_path / "off"
    )
    assert any((tmp_path / "off").iterdir())
    assert_as_plain(decoder, plain)
    assert decoder.info.weights_sha256 == weights_sha256(tmp_path / "old")


@pytest.mark.parametrize("where", ["zorg", {"": "zorg"}, {"model": "cpu:zorg"}])
def test_a_map_to_a_device_that_is_not_there_is_one_line(saved, where):
    with pytest.raises(ModelLoadError, match="could not be loaded") as caught:
        Decoder.from_pretrained(saved, device_map=where)
    assert "\n" not in str(caught.value)


def test_offloading_leaves_hooks_and_forwards_as_they_were(tmp_path):
    model = build("llama")
    disk_offload(model, str(tmp_path), execution_device=CPU)
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    explain(Decoder(model), IDS, **EVERY)
    for name, module in model.named_modules():
        assert module.__dict__.keys() == before[name].keys()
        assert module.__dict__.get("forward") is before[name].get("forward"), name
        assert module.__dict__.get("_hf_hook") is before[name].get("_hf_hook"), name


def test_a_corpus_on_a_model_that_does_not_fit(saved, tmp_path):
    """Rows of a run with most weights on the disk are those of a run in memory."""
    corpus = write_corpus(tmp_path / "corpus.jsonl", n=12)
    offloaded = Decoder.from_pretrained(
        saved,
        device_map="auto",
        max_memory={"cpu": "60KB"},
        offload_folder=tmp_path / "weights",
    )
    assert "disk" in offloaded.model.hf_device_map.values()
    found = {}
    for name, decoder in {
        "memory": Decoder.from_pretrained(saved),
        "disk": offloaded,
    }.items():
        run(decoder, corpus, tmp_path / name, selection=Selection(shard_rows=5))
        batches = Store.load(tmp_path / name).batches()
        found[name] = pyarrow.Table.from_batches(batches).to_pandas()
    memory, disk = found["memory"], found["disk"]
    assert len(memory) > 10
    assert disk["id"].tolist() == memory["id"].tolist()
    levels = [np.stack(each["levels"]) for each in (disk, memory)]
    np.testing.assert_allclose(*levels, atol=1e-6)
