import json
import math

import pytest
import torch
from families import build, some_ids
from safetensors.torch import load_file, save_file
from toys import normal

from iglens import (
    ArgumentError,
    ArtifactError,
    Decoder,
    LogitLens,
    OutputError,
    fit_lens,
    load_lens,
)
from iglens.explaining.lenses.cache import cached_lens, lens_path
from iglens.explaining.lenses.file import read_lens_file
from iglens.model.loading.load import Source
from iglens.readout import CalledReadout
from iglens.readout.lens import AffineLens, LensInfo
from iglens.readout.unembedding import unembedding_sha256

TEXTS = [some_ids(20, seed) for seed in range(12)]


def named(name="llama", weights=None, dtype=torch.float32, **changes):
    """A decoder that knows what it was loaded from."""
    model = build(name, dtype, **changes)
    return Decoder(model, source=Source(id=f"org/{name}", weights_sha256=weights))


@pytest.fixture(scope="module")
def decoder():
    return named(weights="a" * 64)


@pytest.fixture(scope="module")
def lens(decoder):
    return fit_lens(decoder, TEXTS, layers="0,2")


@pytest.fixture
def path(lens, tmp_path):
    lens.save(tmp_path / "a.lens")
    return tmp_path / "a.lens"


def altered(path, tensors=None, **header):
    """The file with other tensors, or other fields in its header."""
    metadata, arrays = read_header(path), load_file(path)
    kept = {k: v for k, v in (arrays | (tensors or {})).items() if v is not None}
    fields = {k: v for k, v in (metadata | header).items() if v != "remove"}
    save_file(kept, path, {"iglens": json.dumps(fields)})
    return path


def read_header(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["iglens"])


def test_a_saved_lens_is_the_same_when_it_is_loaded(decoder, lens, path):
    found = load_lens(decoder, path)
    assert torch.equal(found.weight, lens.weight)
    assert torch.equal(found.bias, lens.bias)
    assert (found.name, found.n_layers, found.layers) == ("ridge", 3, (0, 2))
    assert found.info == lens.info
    assert found.notes == ()
    assert load_lens(decoder, str(path)).info == lens.info


def test_the_file_says_what_the_lens_is_of(decoder, path):
    header = read_header(path)
    assert header["schema"] == "iglens.lens/1"
    assert (header["d_model"], header["n_layers"]) == (32, 3)
    assert header["model"]["id"] == "org/llama"
    assert header["model"]["vocab_size"] == 97
    assert header["model"]["weights_sha256"] == "a" * 64
    assert header["unembed_sha256"] == unembedding_sha256(decoder.readout)
    assert header["method"] == "ridge"
    assert header["settings"]["documents"] == 11
    assert set(header["versions"]) >= {"iglens", "torch"}


def test_a_lens_of_float64_stays_one(decoder, lens, tmp_path):
    wide = AffineLens(
        "x", 3, lens.layers, lens.weight.double() / 3, lens.bias.double(), lens.info
    )
    wide.save(tmp_path / "b")
    assert torch.equal(load_lens(decoder, tmp_path / "b").weight, wide.weight)


def test_a_lens_in_half_precision_is_saved_in_single(decoder, lens, tmp_path):
    half = lens.weight.bfloat16(), lens.bias.bfloat16()
    AffineLens("x", 3, lens.layers, *half, lens.info).save(tmp_path / "b")
    found = load_lens(decoder, tmp_path / "b")
    assert torch.equal(found.weight, half[0].float())


def test_logit_is_the_lens_that_changes_nothing(decoder):
    assert isinstance(load_lens(decoder, "logit"), LogitLens)


def test_a_lens_nobody_knows_the_origin_of_is_not_saved(lens, tmp_path):
    with pytest.raises(ArgumentError, match="has no `info`"):
        AffineLens("x", 3, lens.layers, lens.weight, lens.bias).save(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_lens_that_cannot_be_written_leaves_what_was_there(lens, path, monkeypatch):
    import iglens.storage.lens_form as form

    before = path.read_bytes()

    def interrupted(*args):
        args[1].write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(form, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lens.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    with pytest.raises(OutputError, match="no folder"):
        lens.save(path.parent / "none" / "a")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"num_hidden_layers": 4}, "which has 3 layers; org/llama has 4"),
        ({"hidden_size": 48}, "which has 32 dimensions; org/llama has 48"),
        ({"vocab_size": 98}, "which has 97 tokens; org/llama has 98"),
        ({"seed": 3}, "the unembedding of org/llama in float32 is another"),
    ],
)
def test_a_lens_of_another_model_is_refused(path, other, message):
    with pytest.raises(ArtifactError, match=message) as caught:
        load_lens(named(weights="b" * 64, **other), path)
    assert "a.lens is a lens of org/llama" in str(caught.value)
    assert str(caught.value).count(". ") <= 1


def test_the_same_weight_files_in_another_dtype_are_the_same_model(decoder, path):
    other = named(weights="a" * 64, dtype=torch.bfloat16)
    assert unembedding_sha256(other.readout) != unembedding_sha256(decoder.readout)
    assert load_lens(other, path).notes == ()


def test_other_weights_under_the_same_unembedding_are_noted(path):
    model = build("llama")
    model.model.layers[0].mlp.down_proj.weight.data *= 1.1
    tuned = Decoder(model, source=Source(id="org/tuned", weights_sha256="c" * 64))
    (note,) = load_lens(tuned, path).notes
    assert "fitted on org/llama, whose unembedding is that of org/tuned" in note


def test_without_known_weight_files_the_unembedding_decides(path):
    assert load_lens(named(), path).notes == ()
    with pytest.raises(ArtifactError, match="is another"):
        load_lens(named(seed=3), path)


def test_a_called_head_is_told_by_its_weight_files_only(path):
    quantised = named(weights="a" * 64)
    readout = CalledReadout(lambda h: h, 32, 97, torch.float32, torch.float32)
    object.__setattr__(quantised.verified, "readout", readout)
    assert load_lens(quantised, path).layers == (0, 2)
    unknown = named(weights="d" * 64)
    object.__setattr__(unknown.verified, "readout", readout)
    with pytest.raises(ArtifactError, match="no telling whether"):
        load_lens(unknown, path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"schema": "iglens.lens/2"}, "`schema` is 'iglens.lens/2'"),
        ({"schema": "iglens.attribution/1"}, "reads lenses of 'iglens.lens/1'"),
        ({"method": "remove"}, "`method` is missing"),
        ({"n_layers": "3"}, "`n_layers` is text, not an integer"),
        ({"d_model": 31}, "`weight` is float32 of shape"),
        ({"n_layers": 2}, "must be ascending, in 0 to 1"),
        ({"model": {}}, "`model.id` is missing"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(path, header, message):
    with pytest.raises(ArtifactError, match="a.lens cannot be read: .*" + message):
        read_lens_file(altered(path, **header))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"bias": None}, "the array `bias` is missing"),
        ({"bias": torch.zeros(3, 32)}, r"`bias` is float32 of shape \(3, 32\)"),
        ({"bias": torch.zeros(2, 32).int()}, "`bias` is int32"),
        ({"layers": torch.tensor([2, 0])}, "must be ascending"),
        ({"bias": torch.full((2, 32), math.nan)}, "layer 0 is not finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(path, tensors, message):
    with pytest.raises(ArtifactError, match="a.lens cannot be read: .*" + message):
        read_lens_file(altered(path, tensors))


def test_files_that_are_no_lens_are_refused(decoder, path, tmp_path):
    other = tmp_path / "other"
    with pytest.raises(ArtifactError, match="other cannot be read: no such file"):
        load_lens(decoder, other)
    other.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ArtifactError, match="not whole"):
        load_lens(decoder, other)
    other.write_text("{}")
    with pytest.raises(ArtifactError, match="not whole or not safetensors"):
        load_lens(decoder, other)
    save_file({"x": torch.zeros(1)}, other)
    with pytest.raises(ArtifactError, match="not a lens of iglens"):
        load_lens(decoder, other)
    save_file({"x": torch.zeros(1)}, other, {"iglens": "{"})
    with pytest.raises(ArtifactError, match="is not JSON"):
        load_lens(decoder, other)
    with pytest.raises(ArtifactError, match="holds no lens"):
        load_lens(decoder, tmp_path)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IGLENS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "lenses").mkdir(parents=True)


@pytest.mark.usefixtures("cache")
def test_auto_takes_the_lens_of_this_model_and_says_so(decoder, lens):
    lens.save(lens_path(decoder))
    found = load_lens(decoder, "auto")
    assert torch.equal(found.weight, lens.weight)
    assert found.notes == (f"The lens was taken from the cache: {lens_path(decoder)}.",)


@pytest.mark.usefixtures("cache")
def test_auto_without_a_lens_says_how_to_fit_one(decoder, lens):
    with pytest.raises(ArgumentError, match="`iglens lens fit org/llama`"):
        load_lens(decoder, "auto")
    lens.save(lens_path(named(weights="e" * 64, seed=4)))
    with pytest.raises(ArgumentError, match="No lens of org/llama"):
        load_lens(decoder, "auto")


@pytest.mark.usefixtures("cache")
def test_auto_prefers_the_model_s_own_lens_to_one_under_the_same_head(decoder, lens):
    import os

    tuned = named(weights="f" * 64)
    other = AffineLens("b", 3, lens.layers, 2 * lens.weight, lens.bias, lens.info)
    other.save(lens_path(decoder))
    assert cached_lens(tuned) == lens_path(decoder)
    assert len(load_lens(tuned, "auto").notes) == 2  # where from, and of what
    lens.save(lens_path(tuned))
    os.utime(lens_path(tuned), (1, 1))  # older, and yet
    assert torch.equal(load_lens(tuned, "auto").weight, lens.weight)
    half = named(weights="a" * 64, dtype=torch.bfloat16)
    assert cached_lens(half) == lens_path(decoder)


@pytest.mark.usefixtures("cache")
def test_a_model_that_nothing_tells_from_others_has_no_place_in_the_cache():
    other = named()
    readout = CalledReadout(lambda h: h, 32, 97, torch.float32, torch.float32)
    object.__setattr__(other.verified, "readout", readout)
    with pytest.raises(ArgumentError, match="cannot be found again"):
        lens_path(other)


def test_a_lens_made_by_hand_can_be_saved_with_its_origin(decoder, tmp_path):
    info = LensInfo(decoder.info, unembedding_sha256(decoder.readout), "by hand")
    weight = normal(1, 32, 32, dtype=torch.float32)
    AffineLens("mine", 3, (1,), weight, torch.zeros(1, 32), info).save(tmp_path / "x")
    found = load_lens(decoder, tmp_path / "x")
    assert (found.name, found.info) == ("mine", info)
