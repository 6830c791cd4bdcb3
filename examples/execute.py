"""The tutorial notebooks, run again: what they show is what their code gives.

    python examples/execute.py                   run all, and store what comes out
    python examples/execute.py first_map.ipynb   only this one
    python examples/execute.py --check …         exit 1 if anything stored is stale

Charts are stored twice: as Vega-Lite, which a notebook draws itself, and as PNG for
code hosts and papers, which draw nothing. What libraries say on stderr is not stored.
Two runs are the same if their words are, and their numbers but for the last digit
and for what is rounding anyway.
"""

import json
import os
import re
import sys
from base64 import b64encode
from collections.abc import Iterator
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
NOTEBOOKS = ("first_map.ipynb", "below_the_layer.ipynb")

VEGA_LITE = "application/vnd.vegalite.v6+json"

START = f"""
import altair
altair.renderers.register("stored", lambda spec: {{"{VEGA_LITE}": spec}})
altair.renderers.enable("stored");
"""
"""Runs before the first cell, so that charts come as specifications.

Altair's own renderer of that kind has a name for them that no notebook may hold.
"""

SCALE = 1.5
"""Pixels of a stored PNG per pixel of the chart."""

COLOURS = 128
"""Colours of a stored PNG."""

ROUNDING = 1e-4
"""Numbers below it are not compared: errors of rounding differ between machines."""

SAME = 1e-4
"""Numbers in charts may differ by this, and by this share of their size."""

_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of a run of its own, in an empty folder.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    fresh = nbformat.reads(json.dumps(notebook), as_version=4)
    fresh.cells.insert(0, nbformat.v4.new_code_cell(START))
    with TemporaryDirectory() as folder:
        place = {"metadata": {"path": folder}}
        NotebookClient(fresh, timeout=600, resources=place).execute()
    del fresh.cells[0]
    for cell in fresh.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.execution_count -= 1
            cell.outputs = [stored(one) for one in cell.outputs if kept(one)]
    fresh.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    return json.loads(nbformat.writes(fresh))


def kept(output: dict[str, Any]) -> bool:
    """Whether an output belongs to the notebook; progress and notices do not."""
    return output.get("name") != "stderr"


def stored(output: dict[str, Any]) -> dict[str, Any]:
    """The output as it is kept: charts also as PNG, and in words where it is dark."""
    if "execution_count" in output:
        output["execution_count"] -= 1
    if VEGA_LITE not in output.get("data", {}):
        return output
    spec = named_in_order(output["data"][VEGA_LITE])
    words = spec["description"]
    output["data"] = {
        VEGA_LITE: spec,
        "image/png": b64encode(drawn(spec)).decode(),
        "text/plain": words,
    }
    output["metadata"] = {"image/png": {"alt": words}}
    return output


def named_in_order(spec: dict[str, Any]) -> dict[str, Any]:
    """The chart with its data sets numbered instead of named by their hashes."""
    text, names = json.dumps(spec), list(spec.get("datasets", {}))
    for number, name in enumerate(sorted(names, key=text.index)):
        text = text.replace(name, f"data-{number}")
    return json.loads(text)


def drawn(spec: dict[str, Any]) -> bytes:
    """The chart as PNG, an eighth as large as it is drawn."""
    import altair
    import vl_convert
    from PIL import Image

    version = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    large = vl_convert.vegalite_to_png(
        spec, vl_version=version, scale=SCALE, allowed_base_urls=[]
    )
    small, image = BytesIO(), Image.open(BytesIO(large)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def differences(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Where two runs of one notebook differ, in one line each."""
    codes = [
        [cell for cell in side["cells"] if cell["cell_type"] == "code"]
        for side in (old, new)
    ]
    for number, (one, other) in enumerate(zip_longest(*codes, fillvalue={}), 1):
        if one.get("source") != other.get("source"):
            yield f"cell {number}: other code"
        pairs = zip_longest(one.get("outputs", []), other.get("outputs", []))
        for a, b in pairs:
            shown, fresh = ({} if side is None else texts(side) for side in (a, b))
            if shown.keys() != fresh.keys():
                yield f"cell {number}: {[*shown]} stored, {[*fresh]} now"
            for kind in shown.keys() & fresh.keys():
                if not same(shown[kind], fresh[kind]):
                    yield f"cell {number}: {kind} is stale"


def texts(output: dict[str, Any]) -> dict[str, Any]:
    """What of an output is compared, by its kind: everything but pixels and colours."""
    data = output.get("data") or {
        output["output_type"]: output.get("text", output.get("evalue"))
    }
    found = {}
    for kind, value in data.items():
        if kind == "image/png":
            found[kind] = bool(value)
            continue
        whole = "".join(value) if isinstance(value, list) else value
        if kind == "text/html":
            whole = re.sub(r' style="[^"]*"', "", whole)
        found[kind] = whole
    return found


def same(a: Any, b: Any) -> bool:
    """Whether two values say the same, whatever machine they are from."""
    match a, b:
        case str(), str():
            return a == b or {a, b} == {"adds", "takes"} or same_text(a, b)
        case dict(), dict():
            return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        case list(), list():
            return len(a) == len(b) and all(map(same, a, b))
        case (float(), float() | int()) | (int(), float()):
            return abs(a - b) <= SAME * max(1.0, abs(a))
        case _:
            return bool(a == b)


def same_text(a: str, b: str) -> bool:
    """Whether two texts have the same words, and the same numbers or nearly so."""
    if _NUMBER.split(a) != _NUMBER.split(b):
        return False
    return all(map(same_number, _NUMBER.findall(a), _NUMBER.findall(b)))


def same_number(a: str, b: str) -> bool:
    """Whether two numbers differ by one in the last digit, or as numbers in charts."""
    x, y = (float(text.replace(",", "")) for text in (a, b))
    if max(abs(x), abs(y)) < ROUNDING:
        return True
    steps = [last_digit(text) for text in (a, b)]
    return x == y if None in steps else abs(x - y) <= max(1.01 * max(steps), SAME)


def last_digit(text: str) -> float | None:
    """What one in the last digit of a number is worth; None for a whole number."""
    digits, _, power = text.partition("e")
    _, point, behind = digits.partition(".")
    if not point and not power:
        return None
    return 10.0 ** (int(power or 0) - len(behind))


def main() -> None:
    """Run what is named, or all, and store it; or say what is stale."""
    names = [word for word in sys.argv[1:] if not word.startswith("-")]
    stale = []
    for name in names or NOTEBOOKS:
        path = HERE / Path(name).name
        old = json.loads(path.read_text(encoding="utf-8"))
        new = executed(old)
        if "--check" in sys.argv:
            stale += [f"{name}, {line}" for line in differences(old, new)]
        else:
            text = json.dumps(new, ensure_ascii=False, indent=1, sort_keys=True)
            path.write_text(text + "\n", encoding="utf-8")
    sys.exit("\n".join(stale) if stale else 0)


if __name__ == "__main__":
    main()
