import json
import math

import pytest
import torch
from families import build, some_ids
from safetensors import safe_open
from safetensors.torch import load_file
from toys import make_head, normal

from iglens import (
    ArgumentError,
    ArtifactError,
    Decoder,
    NonFiniteError,
    Polish,
    UnsupportedModelError,
    fit_lens,
)
from iglens.explaining.lenses import checkpoint
from iglens.explaining.lenses.evaluate import evaluate_on
from iglens.explaining.lenses.fit import fit
from iglens.explaining.lenses.gradient import divergence_gradient
from iglens.explaining.lenses.polish import Polisher, schedule
from iglens.model.loading.child import silent
from iglens.readout import CalledReadout
from iglens.readout.lens import AffineLens

TEXTS = [some_ids(20, seed) for seed in range(12)]
RECIPE = Polish(steps=6, tokens=50)


@pytest.fixture(scope="module", params=["llama", "gemma2", "gpt2"])
def decoder(request):
    return Decoder(build(request.param))


@pytest.fixture(scope="module")
def llama():
    return Decoder(build("llama"))


def slow_divergence(head, states, final):
    z = head.post(head.norm(states) @ head.unembed.double().T + head.bias.double())
    return (final.exp() * (final - z.log_softmax(-1))).sum()


@pytest.mark.parametrize("post", ["identity", "soft-cap", "scale"])
@pytest.mark.parametrize("norm", ["rms", "layer", "none"])
def test_the_gradient_is_that_of_full_rows_of_logits(norm, post):
    head = make_head(vocab=20_000, norm=norm, post=post, dtype=torch.float64)
    states = normal(5, 12).requires_grad_()
    final = normal(5, 20_000, seed=1).log_softmax(-1)
    total = slow_divergence(head, states, final)
    (expected,) = torch.autograd.grad(total, states)
    loss, gradient = divergence_gradient(head.readout, states.detach(), final)
    assert loss == pytest.approx(float(total.detach()), rel=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_impossible_tokens_change_neither_loss_nor_gradient():
    head = make_head(vocab=40, dtype=torch.float64)
    final = normal(5, 40, seed=1)
    final[:, 7] = -torch.inf
    loss, gradient = divergence_gradient(
        head.readout, normal(5, 12), final.log_softmax(-1)
    )
    assert math.isfinite(loss)
    assert bool(torch.isfinite(gradient).all())


def manual(decoder, lens, recipe, pieces):
    """The recipe with torch's own optimiser and autograd through whole logits."""
    readout = decoder.readout
    weight = lens.weight.clone().requires_grad_()
    bias = lens.bias.clone().requires_grad_()
    lr = recipe.rate * (1 - recipe.momentum)
    sgd = torch.optim.SGD(
        [weight, bias],
        lr=lr,
        momentum=recipe.momentum,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )
    line = torch.optim.lr_scheduler.LambdaLR(sgd, lambda n: 1 - n / recipe.steps)
    unembed, offset = readout.weights()

    def read(h):
        z = readout.norm(h, torch.float32) @ unembed.T
        return readout.post(z if offset is None else z + offset).log_softmax(-1)

    for step, taken in enumerate(schedule([len(p) for p in pieces], recipe)):
        every = [decoder.states([pieces[i]])[0][:, 1:] for i in taken]
        rows = torch.cat(every, 1)
        order = torch.randperm(
            rows.shape[1],
            generator=torch.Generator().manual_seed(recipe.seed * 1_000_003 + step),
        )
        rows = rows[:, order[: recipe.tokens].sort().values]
        final = read(rows[-1]).detach()
        loss = 0.0
        for at, layer in enumerate(lens.layers):
            h = rows[layer]
            q = read(h + h @ weight[at].T + bias[at])
            loss = loss + (final.exp() * (final - q)).sum(-1).mean()
        sgd.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([weight, bias], recipe.clip)
        sgd.step()
        line.step()
    return weight.detach(), bias.detach()


@pytest.mark.parametrize("recipe", [RECIPE, Polish(5, 30, 0.3, 0.5, 0.1, 1e3, 4)])
def test_polishing_is_the_recipe_of_torch_s_optimiser(decoder, recipe):
    done = fit(decoder, TEXTS, ridge=1.0, layers="0,2", polish=recipe)
    start = fit(decoder, TEXTS, ridge=1.0, layers="0,2")
    weight, bias = manual(decoder, start.lens, recipe, start.parts.learned.pieces)
    assert not torch.allclose(weight, start.lens.weight, atol=1e-3)
    torch.testing.assert_close(done.lens.weight, weight, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(done.lens.bias, bias, rtol=1e-3, atol=1e-5)


def test_polishing_brings_the_lens_closer(llama):
    texts = [some_ids(60, seed) for seed in range(20)]
    start = fit(llama, texts, ridge=1.0)
    done = fit(llama, texts, ridge=1.0, polish=Polish(steps=60, tokens=200))
    before = evaluate_on(llama, start.lens, start.parts.held_out, tokens=100)
    after = evaluate_on(llama, done.lens, done.parts.held_out, tokens=100)
    assert (after.fitted.kl_bits < 0.9 * before.fitted.kl_bits).all()
    assert done.lens.name == "polished"
    assert done.lens.info.method == "ridge, polished"
    assert done.lens.info.settings["polish"]["steps"] == 60
    assert done.lens.info.settings["ridge"] == 1.0


@pytest.fixture
def every_step(monkeypatch):
    """Checkpoints after every step."""
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)


class Killed(BaseException):
    """Ctrl-C, out of memory, a lost machine."""


def killed_after(steps):
    def progress(stage, done, total):
        if stage == "polishing" and done > steps:
            raise Killed

    return progress


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("texts", [TEXTS, None])
def test_a_killed_polish_goes_on_to_the_same_lens(llama, tmp_path, texts):
    call = {"texts": texts, "tokens": 240, "seed": 3, "polish": RECIPE}
    whole = fit_lens(llama, **call)
    path = tmp_path / "state"
    for steps in (0, 1, 4):
        with pytest.raises(Killed):
            fit_lens(llama, **call, checkpoint=path, progress=killed_after(steps))
    stages = []
    found = fit_lens(
        llama, **call, checkpoint=path, progress=lambda *told: stages.append(told)
    )
    assert [told for told in stages if told[0] == "polishing"] == [
        ("polishing", 5, 6),
        ("polishing", 6, 6),
    ]
    assert not {"solving", "generating text"} & {stage for stage, *_ in stages}
    assert torch.equal(found.weight, whole.weight)
    assert torch.equal(found.bias, whole.bias)
    assert found.layers == whole.layers
    assert found.info.settings == whole.info.settings


@pytest.mark.usefixtures("every_step")
def test_a_finished_polish_is_not_done_again(llama, tmp_path):
    call = {"texts": TEXTS, "polish": RECIPE, "checkpoint": tmp_path / "state"}
    first, stages = fit_lens(llama, **call), []
    again = fit_lens(llama, **call, progress=lambda *told: stages.append(told[0]))
    assert torch.equal(first.weight, again.weight)
    assert "polishing" not in stages


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"ridge": 0.5}, "ridge"),
        ({"layers": "0"}, "layers"),
        ({"seed": 9}, "text"),
        ({"texts": TEXTS[1:]}, "text"),
        ({"polish": Polish(steps=7, tokens=50)}, "polish"),
    ],
)
def test_the_checkpoint_of_another_call_is_refused(llama, tmp_path, change, name):
    call = {"texts": TEXTS, "polish": RECIPE, "checkpoint": tmp_path / "state"}
    fit_lens(llama, **call)
    with pytest.raises(ArtifactError, match=f"checkpoint of another fit: `{name}` was"):
        fit_lens(llama, **call | change)


def test_a_checkpoint_of_another_model_is_refused(llama, tmp_path, every_step):
    call = {"texts": TEXTS, "polish": RECIPE, "checkpoint": tmp_path / "state"}
    fit_lens(llama, **call)
    other = Decoder(build("llama", seed=5))
    with pytest.raises(ArtifactError, match="another fit: `unembed_sha256` was"):
        fit_lens(other, **call)


@pytest.mark.parametrize("content", [b"", b"junk" * 99, b"cut"])
def test_a_damaged_checkpoint_is_refused(llama, tmp_path, every_step, content):
    path = tmp_path / "state"
    call = {"texts": TEXTS, "polish": RECIPE, "checkpoint": path}
    if content == b"cut":
        fit_lens(llama, **call)
        content = path.read_bytes()[:-100]
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="Remove it to start anew"):
        fit_lens(llama, **call)
    assert path.read_bytes() == content


def test_a_checkpoint_is_written_now_and_then_only(llama, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    seen = []

    def progress(stage, done, total):
        if stage == "polishing":
            now[0] += 25.0
            if path.exists():
                with safe_open(path, framework="pt") as file:
                    seen.append(json.loads(file.metadata()["iglens"])["step"])

    path = tmp_path / "state"
    fit_lens(llama, TEXTS, polish=RECIPE, checkpoint=path, progress=progress)
    assert seen == [3, 3, 3]  # after steps 4, 5 and 6; 6 is written when they are over
    assert set(load_file(path)) == {
        "weight",
        "bias",
        "velocity_weight",
        "velocity_bias",
    }


def test_no_half_checkpoint_is_left_behind(llama, tmp_path, every_step, monkeypatch):
    def broken(*args):
        raise Killed

    monkeypatch.setattr(checkpoint, "save_file", broken)
    with pytest.raises(Killed):
        fit_lens(llama, TEXTS, polish=RECIPE, checkpoint=tmp_path / "state")
    assert list(tmp_path.iterdir()) == []


def test_every_piece_is_read_once_before_any_is_read_again():
    plan = schedule([11] * 7, Polish(steps=14, tokens=5))
    flat = [index for step in plan for index in step]
    assert len(flat) == 14
    assert sorted(flat[:7]) == sorted(flat[7:]) == list(range(7))
    assert flat[:7] != flat[7:]


def test_a_step_takes_pieces_until_it_has_its_tokens():
    for step in schedule([11, 5, 31], Polish(steps=9, tokens=25)):
        sizes = [[10, 4, 30][index] for index in step]
        assert sum(sizes) >= 25 > sum(sizes[:-1])


def test_a_head_that_is_called_cannot_be_polished_and_says_so_at_once(llama):
    other = Decoder(build("llama"))
    readout = CalledReadout(lambda h: h, 32, 97, torch.float32, torch.float32)
    object.__setattr__(other.verified, "readout", readout)
    with pytest.raises(UnsupportedModelError, match="cannot be read as a matrix"):
        fit_lens(other, TEXTS, polish=RECIPE, progress=killed_after(-1))


def test_a_norm_without_a_derivative_says_so():
    head = make_head()
    broken = head.but(norm=lambda h: head.norm(h).detach())
    with pytest.raises(UnsupportedModelError, match="has no derivative"):
        divergence_gradient(
            broken.readout, normal(2, 12, dtype=torch.float32), torch.zeros(2, 97)
        )


def test_a_polish_that_diverges_says_at_which_step(llama):
    lens = fit_lens(llama, TEXTS)
    weight = lens.weight / lens.weight.abs().max() * 3e38
    huge = AffineLens("x", 3, lens.layers, weight, lens.bias)
    with pytest.raises(NonFiniteError, match="diverged at step 1"):
        Polisher(llama, huge, RECIPE).run([tuple(t) for t in TEXTS], silent)


@pytest.mark.parametrize("name", ["steps", "tokens"])
def test_a_recipe_needs_at_least_one_of_each(name):
    with pytest.raises(ArgumentError, match=f"`{name}`"):
        Polish(**{name: 0})
