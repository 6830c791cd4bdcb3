"""Charts as SVG, PNG and PDF, made without a browser and without the network.

An SVG keeps its texts as texts: whoever opens it needs the letters. PNG and PDF are
set in the typefaces of this machine, and letters that none of them has appear as empty
boxes; a chart's own words are in Latin, so that this only touches tokens.
"""

from .theme import Chart

SCALE = 2.0
"""Pixels of a PNG per pixel of the chart."""


def picture_bytes(chart: Chart, extension: str) -> bytes:
    """The chart as a file.

    Args:
        chart: What to draw.
        extension: ".svg", ".png" or ".pdf".
    """
    import altair
    import vl_convert

    spec = chart.to_dict(validate=False)
    version = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    none: list[str] = []  # nothing is fetched, whatever a text says
    if extension == ".png":
        return vl_convert.vegalite_to_png(
            spec, vl_version=version, scale=SCALE, allowed_base_urls=none
        )
    if extension == ".pdf":
        return vl_convert.vegalite_to_pdf(
            spec, vl_version=version, allowed_base_urls=none
        )
    drawn = vl_convert.vegalite_to_svg(spec, vl_version=version, allowed_base_urls=none)
    return drawn.encode()
