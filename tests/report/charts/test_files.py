"""Charts as files: vector, pixels and pages, without a browser or a network."""

import struct
import xml.etree.ElementTree as xml

import pytest
from factories import HOSTILE, make_attribution

from iglens.errors import OutputError
from iglens.report.charts.files import SCALE
from iglens.report.documents import DOCUMENTS, PICTURES, writers

BEGIN = {".svg": b"<svg", ".png": b"\x89PNG", ".pdf": b"%PDF"}


@pytest.mark.parametrize("extension", PICTURES)
def test_a_result_saves_itself_as_a_picture(tmp_path, extension):
    path = tmp_path / f"map{extension}"
    make_attribution(rows=2).save(path)
    assert path.read_bytes().startswith(BEGIN[extension])


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_text_in_an_svg(tmp_path, text):
    path = tmp_path / "map.svg"
    make_attribution(rows=2, texts=(text,)).save(path)
    tree = xml.fromstring(path.read_bytes())
    tags = {element.tag.rpartition("}")[2] for element in tree.iter()}
    assert tags <= {
        *("svg", "g", "path", "rect", "text", "tspan", "defs", "clipPath"),
        *("linearGradient", "stop", "line", "title"),
    }
    names = {name for element in tree.iter() for name in element.attrib}
    assert not [name for name in names if name.startswith("on") or "href" in name]


def test_a_png_has_pixels_enough_for_print(tmp_path):
    result = make_attribution(rows=2)
    result.save(tmp_path / "map.png")
    result.save(tmp_path / "map.svg")
    width = struct.unpack(">I", (tmp_path / "map.png").read_bytes()[16:20])[0]
    own = float(xml.parse(tmp_path / "map.svg").getroot().attrib["width"])
    assert width == pytest.approx(SCALE * own, abs=2)


def test_every_document_has_a_writer_and_every_picture_is_a_document():
    assert set(writers()) == set(DOCUMENTS)
    assert set(PICTURES) < set(DOCUMENTS)


def test_an_unknown_extension_names_those_there_are(tmp_path):
    with pytest.raises(OutputError, match=r"\.html, \.md, \.svg"):
        make_attribution().save(tmp_path / "map.gif")


def test_a_picture_that_cannot_be_drawn_leaves_no_file(tmp_path):
    from iglens.errors import ArgumentError

    with pytest.raises(ArgumentError, match="no rows"):
        make_attribution().select([]).save(tmp_path / "map.svg")
    assert not list(tmp_path.iterdir())
