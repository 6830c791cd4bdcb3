import pytest
import torch
from toys import make_head, normal

from iglens.errors import ArgumentError, NonFiniteError
from iglens.readout import CalledReadout, LinearReadout
from iglens.readout.lens import AffineLens, LogitLens
from iglens.readout.unembedding import unembedding_sha256

D, LAYERS = 7, 4


def make_lens(layers=(0, 1, 2, 3), dtype=torch.float32, seed=0):
    weight = normal(len(layers), D, D, seed=seed, dtype=dtype)
    bias = normal(len(layers), D, seed=seed + 1, dtype=dtype)
    return AffineLens("test", LAYERS, layers, weight, bias)


def states(points, rows=3, dtype=torch.float32):
    return normal(points, rows, D, seed=5, dtype=dtype)


def test_a_translator_adds_its_matrix_times_the_state_and_its_bias():
    lens, h = make_lens(), states(2, dtype=torch.float64)
    for layer in range(LAYERS):
        a, b = lens.weight[layer].double(), lens.bias[layer].double()
        slow = torch.stack([torch.stack([v + a @ v + b for v in p]) for p in h])
        torch.testing.assert_close(lens.translate(h, [layer, layer]), slow)


def test_the_last_translator_is_exactly_the_identity():
    lens, h = make_lens(), states(1)
    assert torch.equal(lens.translate(h, [LAYERS]), h)
    assert torch.equal(lens.carry(h, [LAYERS]), h)
    assert not torch.equal(lens.translate(h, [LAYERS - 1]), h)


def test_translators_are_taken_by_their_layer_in_any_order():
    lens, h = make_lens(), states(3)
    mixed = lens.translate(h, [3, 0, 3])
    for point, layer in enumerate([3, 0, 3]):
        alone = lens.translate(h[point : point + 1], [layer])[0]
        torch.testing.assert_close(mixed[point], alone)


def test_a_change_is_carried_without_the_bias():
    lens = make_lens(dtype=torch.float64)
    h, u = states(2, dtype=torch.float64), normal(2, 3, D, seed=9)
    expected = lens.translate(h + u, [1, 2]) - lens.translate(h, [1, 2])
    torch.testing.assert_close(lens.carry(u, [1, 2]), expected)


def test_the_states_that_are_given_stay_as_they_are():
    for lens in (make_lens(), LogitLens()):
        h = states(1)
        before = h.clone()
        lens.translate(h, [0])
        lens.carry(h, [0])
        assert torch.equal(h, before)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_translated_states_have_at_least_single_precision(given, expected):
    for lens in (make_lens(), LogitLens()):
        assert lens.translate(states(1, dtype=given), [0]).dtype == expected
        assert lens.translate(states(1, dtype=given), [LAYERS]).dtype == expected


def test_the_logit_lens_changes_nothing():
    h = states(2)
    assert torch.equal(LogitLens().translate(h, [0, 3]), h)
    assert torch.equal(LogitLens().carry(h, [0, 3]), h)


def test_a_layer_without_a_translator_is_refused_by_name():
    lens = make_lens(layers=(0, 2))
    lens.translate(states(3), [0, 2, LAYERS])
    with pytest.raises(ArgumentError, match=r"no translator for layer 1; it has 0, 2"):
        lens.translate(states(1), [1])


def test_another_width_is_another_model():
    with pytest.raises(ArgumentError, match="width 7, and these have 8"):
        make_lens().translate(torch.zeros(1, 1, 8), [0])


@pytest.mark.parametrize("lens", [make_lens(), LogitLens()])
def test_every_point_needs_a_translator(lens):
    with pytest.raises(ArgumentError, match="2 translators for 1 points"):
        lens.translate(states(1), [0, 1])


@pytest.mark.parametrize("layers", [(1, 0), (0, 0), (0, LAYERS), (-1, 0)])
def test_layers_out_of_order_or_range_are_refused(layers):
    with pytest.raises(ArgumentError, match="must be ascending"):
        make_lens(layers=layers)


def test_as_many_translators_as_layers_are_needed():
    with pytest.raises(
        ArgumentError, match="names 2 translators, but `weight` holds 1"
    ):
        AffineLens("x", 2, (0, 1), torch.zeros(1, D, D), torch.zeros(1, D))


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_translator_that_is_not_finite_is_refused_by_layer(part):
    lens = make_lens()
    getattr(lens, part)[2].view(-1)[3] = torch.nan
    with pytest.raises(NonFiniteError, match="layer 2"):
        AffineLens("x", LAYERS, lens.layers, lens.weight, lens.bias)


def test_the_hash_of_a_head_is_that_of_its_float32_bytes():
    import hashlib
    import struct

    head = make_head(vocab=11, d_model=3)
    numbers = [*head.unembed.flatten().tolist(), *head.bias.tolist()]
    expected = hashlib.sha256(struct.pack(f"<{len(numbers)}f", *numbers)).hexdigest()
    assert unembedding_sha256(head.readout) == expected


def test_the_hash_of_a_head_does_not_depend_on_the_dtype_that_holds_it():
    head = make_head(vocab=5000, dtype=torch.bfloat16)
    wide = head.but(unembed=head.unembed.float(), bias=head.bias.double())
    assert unembedding_sha256(head.readout) == unembedding_sha256(wide.readout)


@pytest.mark.parametrize("part", ["unembed", "bias"])
def test_one_other_number_is_another_head(part):
    head = make_head(vocab=5000)
    changed = getattr(head, part).clone()
    changed.view(-1)[-1] += 1e-3
    other = head.but(**{part: changed})
    assert unembedding_sha256(head.readout) != unembedding_sha256(other.readout)


def test_a_bias_is_part_of_the_head():
    head = make_head(bias=False)
    assert isinstance(head.readout, LinearReadout)
    with_bias = head.but(bias=torch.zeros(97))
    assert unembedding_sha256(head.readout) != unembedding_sha256(with_bias.readout)


def test_a_head_that_is_called_has_no_hash():
    readout = CalledReadout(lambda h: h, 3, 3, torch.float32, torch.float32)
    assert unembedding_sha256(readout) is None
