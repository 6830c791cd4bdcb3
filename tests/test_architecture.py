"""Imports point one way: a room may import only from rooms of lower rank."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import iglens

RANKS = [
    {"errors", "stages"},
    {"depths"},
    {"records"},
    {"report", "storage", "data"},
    {"readout"},
    {"inside"},
    {"trace"},
    {"attribution"},
    {"model"},
    {"explaining", "examining"},
    {"gating"},
    {"methods"},
    {"auditing"},
    {"corpus"},
    {"serve"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
SOURCE = Path(iglens.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

UPWARD = {
    # convenience methods of the result, imported when called
    ("records/answer.py", "storage"),
    ("records/answer.py", "report"),
    ("records/ensemble.py", "storage"),
    ("records/ensemble.py", "report"),
    ("records/flow.py", "storage"),
    ("records/flow.py", "report"),
    ("records/interaction.py", "storage"),
    ("records/interaction.py", "report"),
    ("records/promotion.py", "storage"),
    ("records/promotion.py", "report"),
    ("records/attribution.py", "storage"),
    ("records/attribution.py", "report"),
    ("records/audit.py", "storage"),
    ("records/audit.py", "report"),
    ("records/comparison.py", "storage"),
    ("records/comparison.py", "report"),
    ("records/difference.py", "storage"),
    ("records/difference.py", "report"),
    ("records/effects.py", "storage"),
    ("records/effects.py", "report"),
    ("records/examination.py", "storage"),
    ("records/examination.py", "report"),
    ("records/replay.py", "storage"),
    ("records/replay.py", "report"),
    ("records/saving.py", "storage"),
    ("records/saving.py", "report"),
    ("records/summary.py", "storage"),
    ("records/summary.py", "report"),
    ("records/run_difference.py", "storage"),
    ("records/run_difference.py", "report"),
}
NO_TORCH = ("errors", "stages", "depths", "records", "storage", "report", "data")


def room(path):
    """The top-level room a file belongs to; None for the package's own files."""
    first = path.relative_to(SOURCE).parts[0]
    name = first.removesuffix(".py")
    return None if name in {"__init__", "__main__"} else name


def imports(path):
    """Rooms that a file imports, and whether only for type checkers."""
    package = path.relative_to(SOURCE).parts[:-1]
    tree = ast.parse(path.read_text())
    typing_only = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and node not in typing_only:
            base = package[: len(package) - node.level + 1]
            parts = (*base, *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                target = parts or (alias.name,)
                if target[0] in RANK:
                    yield target[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path):
    name = room(path)
    if name is None:
        return
    shown = str(path.relative_to(SOURCE))
    for other in set(imports(path)) - {name}:
        if (shown, other) not in UPWARD:
            assert RANK[other] < RANK[name], f"{shown} imports {other}"


def test_every_exception_to_the_ranks_is_used():
    found = {
        (str(path.relative_to(SOURCE)), other)
        for path in FILES
        if room(path)
        for other in imports(path)
        if RANK[other] > RANK[room(path)]
    }
    assert found == UPWARD


def test_every_room_has_a_rank():
    assert {room(path) for path in FILES} - {None} == set(RANK)


def test_only_the_model_room_imports_transformers():
    users = {
        room(path)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        and "transformers" in ast.unparse(node)
    }
    assert users == {"model"}


def test_only_the_command_line_prints():
    printing = {
        str(path.relative_to(SOURCE))
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    }
    assert {name for name in printing if not name.startswith("cli/")} == set()


@pytest.mark.parametrize("name", [*NO_TORCH, "cli.main"])
def test_torch_is_not_imported_with(name):
    code = f"import sys, iglens.{name}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_file_is_much_longer_than_a_person_wants_to_read():
    lengths = {str(p.relative_to(SOURCE)): p.read_text().count("\n") for p in FILES}
    assert {name: n for name, n in lengths.items() if n > 400} == {}
