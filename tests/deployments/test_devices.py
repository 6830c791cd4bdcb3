"""Several devices. There is one processor here: the other one is `second_device`."""

import pytest
from isolated import run_python


@pytest.mark.slow
def test_on_and_across_devices_that_do_not_mix_the_map_is_the_same():
    run_python("import two_devices; two_devices.main()")
