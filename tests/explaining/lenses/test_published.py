"""Folders as the tuned-lens package 0.2.0 writes them, and its own hashes."""

import json

import numpy as np
import pytest
import torch
from families import build, full_logits, part, some_ids, states_by_hooks
from toys import normal

from iglens import ArtifactError, Decoder, load_lens
from iglens.explaining.lenses.published import published_hash
from iglens.model.loading.load import Source
from iglens.readout import CalledReadout

IDS = some_ids(12)


@pytest.fixture(scope="module")
def decoder():
    return Decoder(build("llama"), source=Source(id="org/Tiny-Llama"))


def write(folder, model, *, bias=True, dtype=torch.float32, **changes):
    """`{i}.weight` and `{i}.bias` of a list of linear layers, and a configuration."""
    folder.mkdir()
    layers = torch.nn.ModuleList([torch.nn.Linear(32, 32, bias=bias) for _ in range(3)])
    for at, layer in enumerate(layers):
        layer.weight.data = 0.1 * normal(32, 32, seed=at)
        if bias:
            layer.bias.data = normal(32, seed=at + 50)
    layers.to(dtype)
    torch.save(layers.state_dict(), folder / "params.pt")
    config = {
        "base_model_name_or_path": "elsewhere/other-name",
        "d_model": 32,
        "num_hidden_layers": 3,
        "bias": bias,
        "base_model_revision": None,
        "unembed_hash": published_hash(model.lm_head.weight.detach()),
        "lens_type": "linear_tuned_lens",
    }
    kept = {k: v for k, v in (config | changes).items() if v != "remove"}
    (folder / "config.json").write_text(json.dumps(kept))
    return layers


@pytest.mark.parametrize("bias", [True, False])
def test_a_published_lens_reads_what_its_own_package_would(decoder, tmp_path, bias):
    layers = write(tmp_path / "lens", decoder.model, bias=bias)
    lens = load_lens(decoder, tmp_path / "lens")
    assert lens.notes == ()
    states = states_by_hooks(decoder.model, "llama", IDS)
    translated = lens.translate(states, range(4))
    head, norm = decoder.model.lm_head, part(decoder.model, "model.norm")
    with torch.no_grad():
        for layer in range(3):
            theirs = head(norm(states[layer] + layers[layer](states[layer])))
            ours = head(norm(translated[layer]))
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        own = full_logits(decoder.model, IDS)
        torch.testing.assert_close(head(norm(translated[3])), own)


def test_what_a_published_lens_is_of_is_kept(decoder, tmp_path):
    write(tmp_path / "lens", decoder.model, base_model_revision="abc")
    lens = load_lens(decoder, tmp_path / "lens")
    assert (lens.name, lens.info.method) == ("tuned-lens", "tuned-lens")
    assert lens.info.model.id == "elsewhere/other-name"
    assert lens.info.model.revision == "abc"
    lens.save(tmp_path / "ours")
    again = load_lens(decoder, tmp_path / "ours")
    assert torch.equal(again.weight, lens.weight)
    assert again.info == lens.info


def test_half_precision_becomes_single(decoder, tmp_path):
    layers = write(tmp_path / "lens", decoder.model, dtype=torch.float16)
    lens = load_lens(decoder, tmp_path / "lens")
    assert lens.weight.dtype == lens.bias.dtype == torch.float32
    assert torch.equal(lens.weight[1], layers[1].weight.detach().float())


# what tuned_lens.utils.tensor_hash of tuned-lens 0.2.0 gives, by its parts
SMALL = "37df3baeba4e83af4b61d86a317b12faf81968590ac11f79265d1177c0331946"
WIDE = "181a5ad807c0c108117c67a408456d10097013915dc429f17ef12d9b87df6c85"
HALF = "bfc8cdd69819147aeefeef8d65e55ff412fb791970d22852ec43de7bf83d9779"


@pytest.mark.parametrize(
    ("scale", "dtype", "digest"),
    [
        (3.0, "float32", WIDE),
        (3.0, "float16", HALF),
        (0.02, "float32", SMALL),
        (0.02, "float16", SMALL),
    ],
)
def test_the_hash_of_an_unembedding_is_that_of_the_package(scale, dtype, digest):
    matrix = np.sin(np.arange(1500).reshape(50, 30) * 0.7) * scale
    tensor = torch.from_numpy(matrix.astype(dtype))
    assert published_hash(tensor) == digest
    with np.printoptions(threshold=5, precision=3, linewidth=200):  # a user's own
        assert published_hash(tensor) == digest


def test_a_lens_of_the_model_in_half_precision_is_told_by_its_hash(tmp_path):
    model = build("llama")
    wave = (torch.arange(97 * 32).view(97, 32) * 0.7).sin()
    sizes = (wave * size for size in range(1, 100))
    printed_apart = (w for w in sizes if published_hash(w) != published_hash(w.half()))
    model.lm_head.weight.data = unembed = next(printed_apart)
    digests = published_hash(unembed), published_hash(unembed.half())
    decoder = Decoder(model)
    for digest in digests:
        write(tmp_path / digest, model, unembed_hash=digest)
        assert load_lens(decoder, tmp_path / digest).notes == ()


@pytest.mark.parametrize("digest", ["0" * 64, None, "remove"])
def test_the_same_name_without_the_same_hash_is_noted(decoder, tmp_path, digest):
    write(
        tmp_path / "lens",
        decoder.model,
        base_model_name_or_path="mirror/tiny-llama/",
        unembed_hash=digest,
    )
    (note,) = load_lens(decoder, tmp_path / "lens").notes
    assert "could not be confirmed" in note


def test_another_name_and_another_hash_are_another_model(decoder, tmp_path):
    write(tmp_path / "lens", decoder.model, unembed_hash="0" * 64)
    with pytest.raises(ArtifactError, match="neither the name nor the unembedding"):
        load_lens(decoder, tmp_path / "lens")


def test_a_head_that_is_called_is_told_by_name(tmp_path):
    other = Decoder(build("llama"), source=Source(id="org/tiny"))
    readout = CalledReadout(lambda h: h, 32, 97, torch.float32, torch.float32)
    object.__setattr__(other.verified, "readout", readout)
    write(tmp_path / "lens", other.model)
    with pytest.raises(ArtifactError, match="neither the name"):
        load_lens(other, tmp_path / "lens")
    write(tmp_path / "named", other.model, base_model_name_or_path="tiny")
    assert "could not be confirmed" in load_lens(other, tmp_path / "named").notes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 48}, "with `d_model` 48, and org/Tiny-Llama has 32"),
        ({"num_hidden_layers": 2}, "with `num_hidden_layers` 2, and .* has 3"),
        ({"num_hidden_layers": "remove"}, "`num_hidden_layers` is missing"),
        ({"base_model_name_or_path": "remove"}, "`base_model_name_or_path` is missing"),
        ({"lens_type": "mlp"}, "`lens_type` is 'mlp'"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    decoder, tmp_path, changes, message
):
    write(tmp_path / "lens", decoder.model, **changes)
    with pytest.raises(ArtifactError, match="lens cannot be used as a lens: " + ".*"):
        load_lens(decoder, tmp_path / "lens")
    with pytest.raises(ArtifactError, match=message):
        load_lens(decoder, tmp_path / "lens")


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"0.weight": torch.zeros(32, 32)}, "`1.weight` in its params.pt is missing"),
        ({"0.weight": torch.zeros(3, 3)}, r"not a tensor of shape \(32, 32\)"),
        ([torch.zeros(2)], "no tensors by name"),
        ({"0.weight": Evil()}, "cannot be read"),
        (b"junk", "cannot be read"),
        (b"", "cannot be read"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(
    decoder, tmp_path, capsys, params, message
):
    write(tmp_path / "lens", decoder.model)
    path = tmp_path / "lens" / "params.pt"
    if isinstance(params, bytes):
        path.write_bytes(params)
    else:
        torch.save(params, path)
    with pytest.raises(ArtifactError, match=message):
        load_lens(decoder, tmp_path / "lens")
    assert capsys.readouterr().out == ""  # nothing in the file was run


def test_translators_that_are_not_finite_are_refused(decoder, tmp_path):
    write(tmp_path / "lens", decoder.model)
    path = tmp_path / "lens" / "params.pt"
    state = torch.load(path, weights_only=True)
    state["2.bias"][5] = torch.nan
    torch.save(state, path)
    with pytest.raises(ArtifactError, match="layer 2 is not finite"):
        load_lens(decoder, tmp_path / "lens")


@pytest.mark.parametrize("text", ["[1]", "{", ""])
def test_a_configuration_that_is_no_object_is_refused(decoder, tmp_path, text):
    write(tmp_path / "lens", decoder.model)
    (tmp_path / "lens" / "config.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"its config\.json is no"):
        load_lens(decoder, tmp_path / "lens")
