"""Models that are opened, made once for each file."""

import families
import pytest
from brute_force import AT, IDS, TOKEN

import iglens


@pytest.fixture(scope="module")
def opened():
    """Decoder, trace and result of a family, made once."""
    known = {}

    def get(family, by, target=TOKEN, **options):
        key = family, by
        if key not in known:
            decoder = iglens.Decoder(families.build(family).double())
            known[key] = decoder, decoder.trace(IDS, AT, by=by)
        decoder, trace = known[key]
        result = iglens.attribute(trace, target, by=by, **options)
        return decoder, trace, result

    return get
