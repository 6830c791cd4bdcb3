"""The tidy table as CSV and Parquet: to be read by others, not by `load`."""

import json

from ..records import Attribution
from .header import header_to_json


def csv_bytes(attribution: Attribution) -> bytes:
    """The tidy table as CSV; a number that is not finite is nan, inf or -inf."""
    from pyarrow import BufferOutputStream, csv

    sink = BufferOutputStream()
    csv.write_csv(attribution.to_arrow(), sink)
    return sink.getvalue().to_pybytes()


def parquet_bytes(attribution: Attribution) -> bytes:
    """The tidy table as Parquet, its provenance as JSON in the file's metadata.

    The metadata key `iglens.schema` names the schema whose words the key `iglens` uses.
    """
    from pyarrow import BufferOutputStream, parquet

    header = header_to_json(attribution, attribution.flags)
    metadata = {"iglens.schema": header["schema"], "iglens": json.dumps(header)}
    sink = BufferOutputStream()
    table = attribution.to_arrow().replace_schema_metadata(metadata)
    parquet.write_table(table, sink)
    return sink.getvalue().to_pybytes()
