"""A second device on a machine that has none: strict as a GPU, exact as the CPU.

Importing this makes "far" a device of this process, through PyTorch's hooks for
devices written in Python. Its numbers lie in CPU tensors behind every far tensor, and
every operation is the CPU's; but far and near tensors do not mix. It cannot be undone,
so tests import it in an interpreter of their own.
"""

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "far"

_VIEWS = (
    "_reshape_alias", "_unsafe_view", "as_strided", "diagonal", "expand", "permute",
    "select.int", "slice.Tensor", "split.Tensor", "split_with_sizes", "squeeze",
    "squeeze.dim", "squeeze.dims", "t", "transpose.int", "unbind.int", "unfold",
    "unsqueeze", "view",
)  # fmt: skip
"""Operations that PyTorch would do by strides alone, of which far tensors have none."""

_MIXED = {"aten::_to_copy", "aten::copy_", "aten::index"}
"""Operations that take tensors of two devices on a GPU too."""

_memory = {}


def _is_far(value):
    return isinstance(value, torch.Tensor) and value.device.type == NAME


def _near(value):
    """The CPU tensor behind a far one."""
    return _memory[value.untyped_storage()._cdata] if _is_far(value) else value


def _far(near):
    """A far tensor in front of a CPU tensor."""
    made = torch._C._acc.create_empty_tensor(tuple(near.shape), near.dtype)
    _memory[made.untyped_storage()._cdata] = near
    return made


def _run(op, *args, **kwargs):
    """An operation on far tensors, done on the near ones."""
    name = op._schema.name
    given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    if name == "aten::_copy_from":
        _near(args[1]).copy_(_near(args[0]))
        return args[1]
    if name in ("aten::view", "aten::_reshape_alias"):
        return _far(_near(args[0]).reshape(args[1]))
    if name == "aten::as_strided":
        assert _near(args[0]).is_contiguous(), "these strides are not the near ones"
    if name not in _MIXED and any(not _is_far(t) and t.dim() for t in given):
        raise RuntimeError(f"Expected all tensors to be on the same device ({name})")
    aim = kwargs.get("device")
    if aim is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    output = op(*tree_map(_near, args), **tree_map(_near, kwargs))
    known = {id(_near(tensor)): tensor for tensor in given}

    def placed(value):
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) not in known:
            stays = aim is not None and torch.device(aim).type == "cpu"
            return value if stays else _far(value)
        tensor = known[id(value)]
        if tensor.shape != value.shape:  # an empty result was given room
            tensor.data = _far(value)
        return tensor

    return tree_map(placed, output)


def _register():
    """Everything goes through `_run`, views included."""
    fallback = torch.library.Library("_", "IMPL")
    fallback.fallback(_run, "PrivateUse1")
    views = torch.library.Library("aten", "IMPL")
    for full_name in _VIEWS:
        name, _, overload = full_name.partition(".")
        op = getattr(getattr(torch.ops.aten, name), overload or "default")
        views.impl(full_name, lambda *a, op=op, **k: _run(op, *a, **k), "PrivateUse1")
    return fallback, views


_setup_privateuseone_for_python_backend(NAME)
_LIBRARIES = _register()  # kept alive
