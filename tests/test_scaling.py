"""The model of costs against real shapes, and the page's short form."""

import pytest
import torch

from benchmarks.text import text_ids
from scaling.__main__ import PAGE, main
from scaling.architecture import LLAMA_8B, LLAMA_70B, Architecture
from scaling.projection import H100, Projected, projections, shapes


def test_totals_are_the_published_ones():
    """8.03 and 70.6 billion parameters; norms are left out."""
    assert LLAMA_8B.weights == pytest.approx(8.03e9, rel=0.001)
    assert LLAMA_70B.weights == pytest.approx(70.55e9, rel=0.001)


def test_weights_are_those_of_a_real_model(embedded):
    shape = Architecture.of("it", embedded.model.config)
    matrices = [p.numel() for p in embedded.model.parameters() if p.dim() == 2]
    assert shape.tied
    assert shape.weights == sum(matrices)


def test_operations_are_those_that_torch_counts(embedded):
    """Counted while the model runs: products only, as in the model of costs."""
    from torch.utils.flop_counter import FlopCounterMode

    ids = torch.tensor([text_ids(embedded, 32)])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        embedded.model(ids, use_cache=False)
    shape = Architecture.of("it", embedded.model.config)
    assert counter.get_total_flops() / 32 == pytest.approx(shape.forward(32), rel=0.01)


def test_the_readout_is_a_product_per_point():
    assert LLAMA_8B.readout == 2 * 128256 * 4096 * 33


def test_pruning_and_gpus_are_paid_for():
    whole, pruned = Projected(LLAMA_8B, H100), Projected(LLAMA_8B, H100, pruned=0.5)
    saved = whole.seconds - pruned.seconds
    assert saved == pytest.approx((whole.seconds - whole.forward_seconds) / 2)
    assert Projected(LLAMA_8B, H100).n_gpus == 1
    assert Projected(LLAMA_70B, H100).n_gpus == 3
    price = whole.seconds * 1e6 / 3600 * H100.price
    assert whole.price_per_million == pytest.approx(price)


@pytest.mark.parametrize(
    ("name", "made"), [("shapes", shapes), ("projections", projections)]
)
def test_the_page_has_what_the_formulas_say(name, made):
    text = PAGE.read_text(encoding="utf-8")
    block = text.split(f"<!-- {name}:begin -->")[1].split(f"<!-- {name}:end -->")[0]
    assert block.strip() == made()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_the_short_form(capsys):
    main(["--short", "--only", "killed", "--only", "memory"])
    out = capsys.readouterr().out
    assert "Killed 3 times" in out
    assert "6,000 explained tokens" in out
