import contextlib
import json
from dataclasses import replace
from typing import get_args, get_type_hints

import numpy as np
import pytest
from factories import assert_same, make_attribution, recipes
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from iglens.errors import ArtifactError
from iglens.records import Attribution
from iglens.storage.safetensors_form import from_safetensors_bytes, safetensors_bytes
from iglens.storage.shapes import ARRAYS

WRITTEN = safetensors_bytes(make_attribution(top=2))


def rewritten(change):
    """The file after a change of its tensors and its metadata, in place."""
    length = int.from_bytes(WRITTEN[:8], "little")
    header = json.loads(WRITTEN[8 : 8 + length])
    metadata = json.loads(header["__metadata__"]["iglens"])
    tensors = load(WRITTEN)
    change(tensors, metadata)
    return save(tensors, {"iglens": json.dumps(metadata)})


@given(recipe=recipes())
@settings(deadline=None)
def test_reading_back_gives_every_bit(recipe):
    result = make_attribution(**recipe)
    found = from_safetensors_bytes(safetensors_bytes(result))
    assert_same(found, result)
    for name in ARRAYS:
        assert getattr(found, name).tobytes() == getattr(result, name).tobytes()


@given(recipe=recipes())
@settings(deadline=None)
def test_writing_what_was_read_gives_the_same_bytes(recipe):
    written = safetensors_bytes(make_attribution(**recipe))
    assert safetensors_bytes(from_safetensors_bytes(written)) == written


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_precision_of_every_array_is_kept(dtype):
    result = make_attribution(top=2)
    result = replace(
        result,
        levels=result.levels.astype(dtype),
        token_ids=result.token_ids.astype(np.int32),
    )
    assert_same(from_safetensors_bytes(safetensors_bytes(result)), result)


def test_memory_order_does_not_matter():
    result = make_attribution(top=2)
    strided = replace(
        result,
        levels=np.asfortranarray(result.levels),
        credits=np.repeat(result.credits, 2, axis=1)[:, ::2],
        top_ids=result.top_ids.transpose(2, 1, 0).copy().transpose(2, 1, 0),
    )
    assert safetensors_bytes(strided) == safetensors_bytes(result)


def test_lone_numbers_may_be_infinite_or_nan():
    result = make_attribution()
    readout = replace(result.readout, power=np.inf, tolerance=-0.0)
    result = replace(result, readout=readout)
    found = from_safetensors_bytes(safetensors_bytes(result))
    assert found.readout == readout


def test_no_row_and_half_characters_come_back():
    result = make_attribution(texts=("\ud800\x00",), top=1)
    assert_same(from_safetensors_bytes(safetensors_bytes(result)), result)
    nothing = result.select([])
    assert_same(from_safetensors_bytes(safetensors_bytes(nothing)), nothing)


def test_coarse_and_selected_results_come_back():
    result = make_attribution(top=2, rows=3, n_layers=9).coarsen([3, 4]).select([2, 0])
    assert_same(from_safetensors_bytes(safetensors_bytes(result)), result)


def test_the_table_of_shapes_agrees_with_the_record():
    hints = get_type_hints(Attribution)
    shaped = {
        name: tuple(hint.dim_str.split())
        for name, hint in hints.items()
        if not get_args(hint) and hasattr(hint, "dim_str")
    }
    assert shaped == {name: axes for name, (_, axes) in ARRAYS.items()}


def test_fields_of_later_versions_are_ignored():
    def change(tensors, metadata):
        tensors["later"] = np.zeros(3)
        metadata["later"] = {"a": 1}

    found = from_safetensors_bytes(rewritten(change))
    assert_same(found, from_safetensors_bytes(WRITTEN))


@pytest.mark.parametrize("name", [*sorted(set(ARRAYS) - {"pruned"}), "readout.power"])
def test_a_missing_array_is_named(name):
    with pytest.raises(ArtifactError, match=rf"the array `{name}` is missing"):
        from_safetensors_bytes(rewritten(lambda tensors, _: tensors.pop(name)))


@pytest.mark.parametrize("name", ["schema", "target", "segments", "vocabulary", "lens"])
def test_a_missing_word_is_named(name):
    with pytest.raises(ArtifactError, match=rf"`{name}`"):
        from_safetensors_bytes(rewritten(lambda _, metadata: metadata.pop(name)))


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_of_another_shape_is_named(name):
    def change(tensors, _):
        tensors[name] = tensors[name][1:]

    with pytest.raises(ArtifactError, match=rf"`{name}` has shape|tokens"):
        from_safetensors_bytes(rewritten(change))


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_with_an_axis_too_many_is_named(name):
    def change(tensors, _):
        tensors[name] = tensors[name][None]

    with pytest.raises(ArtifactError, match=rf"`{name}` has shape"):
        from_safetensors_bytes(rewritten(change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: t.update(levels=t["rank"]), "`levels` holds int64"),
        (lambda t, m: t.update(rank=t["levels"]), "`rank` holds float64"),
        (
            lambda t, m: t.update({"readout.power": np.zeros(2)}),
            "`readout.power` is not one",
        ),
        (lambda t, m: m.update(schema="iglens.attribution/7"), "attribution/7'"),
        (lambda t, m: m.update(segments=[]), "`segments` is empty"),
        (lambda t, m: m.update(token_texts=["a"] * 99), "`token_ids` has shape"),
        (lambda t, m: m.update(vocabulary={"x": "a"}), "'x', which is no token id"),
        (lambda t, m: m["target"][0].update(ids=[]), "holds no token"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ArtifactError, match=message):
        from_safetensors_bytes(rewritten(change))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "not a result of iglens"),
        ({"format": "pt"}, "not a result of iglens"),
        ({"iglens": "{"}, "metadata is not JSON"),
        ({"iglens": "[" * 100_000}, "metadata is not JSON"),
        ({"iglens": "[]"}, "metadata is not an object"),
        ({"iglens": "{}"}, "no `schema`"),
    ],
)
def test_someone_elses_safetensors_are_refused(metadata, message):
    with pytest.raises(ArtifactError, match=message):
        from_safetensors_bytes(save({"weight": np.zeros((2, 2))}, metadata))


@pytest.mark.parametrize("length", [0, 7, 8, 100, len(WRITTEN) // 2, len(WRITTEN) - 1])
def test_a_truncated_file_is_refused(length):
    with pytest.raises(ArtifactError, match="not whole or not safetensors"):
        from_safetensors_bytes(WRITTEN[:length])


@given(data=st.binary(max_size=200))
@settings(deadline=None)
def test_random_bytes_are_refused(data):
    with pytest.raises(ArtifactError):
        from_safetensors_bytes(data)


@given(place=st.integers(0, len(WRITTEN) - 1), value=st.integers(0, 255))
@settings(deadline=None)
def test_a_flipped_byte_never_escapes_as_another_error(place, value):
    damaged = bytearray(WRITTEN)
    damaged[place] = value
    with contextlib.suppress(ArtifactError):
        from_safetensors_bytes(bytes(damaged))
