"""The tidy table as CSV and Parquet: to be read by others, not by `load`."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..records import Attribution
from .header import header_to_json

if TYPE_CHECKING:
    import pyarrow


def csv_bytes(attribution: Attribution) -> bytes:
    """The tidy table as CSV; a number that is not finite is nan, inf or -inf."""
    return csv_of(attribution.to_arrow())


def parquet_bytes(attribution: Attribution) -> bytes:
    """The tidy table as Parquet, its provenance in the file's metadata."""
    header = header_to_json(attribution, attribution.flags)
    return parquet_of(attribution.to_arrow(), header)


def csv_of(table: "pyarrow.Table") -> bytes:
    """A table as CSV."""
    from pyarrow import BufferOutputStream, csv

    sink = BufferOutputStream()
    csv.write_csv(table, sink)
    return sink.getvalue().to_pybytes()


def parquet_of(table: "pyarrow.Table", header: Mapping[str, Any]) -> bytes:
    """A table as Parquet, with words about it as JSON in the file's metadata.

    The metadata key `iglens.schema` names the schema whose words the key `iglens` uses.
    """
    from pyarrow import BufferOutputStream, parquet

    metadata = {"iglens.schema": header["schema"], "iglens": json.dumps(header)}
    sink = BufferOutputStream()
    parquet.write_table(table.replace_schema_metadata(metadata), sink)
    return sink.getvalue().to_pybytes()
