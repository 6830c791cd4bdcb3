import math

import hypothesis.strategies as st
import oracle
import pytest
import torch
from hypothesis import given, settings
from toys import DTYPES, NORMS, POSTS, Head, LargestTensor, generator, make_head, normal

from iglens.errors import ArgumentError
from iglens.readout import MEMORY_BUDGET, TokenLogits, read
from iglens.readout.observers import Divergence, Rank, Top
from iglens.readout.streamed import Normaliser, block_width, summarise
from iglens.readout.target import level, margin
from iglens.records import UNITS

INF = torch.inf


def random_tokens(points, slots, vocab, *, seed=0):
    """Up to `slots` distinct tokens per point at random places, -1 elsewhere."""
    source = generator(seed)
    table = torch.full((points, slots), -1)
    for row in table:
        used = int(torch.randint(0, min(slots, vocab) + 1, (), generator=source))
        places = torch.randperm(slots, generator=source)[:used]
        row[places] = torch.randperm(vocab, generator=source)[:used]
    return table


def slow_read(head, states, tokens):
    """Every logit at once; the wanted ones gathered, the others summed."""
    z = oracle.logits(head, states)
    rest = z.clone()
    for row, wanted in zip(rest, tokens, strict=True):
        row[wanted[wanted >= 0]] = -INF
    picked = z.gather(1, tokens.clamp(min=0)).masked_fill(tokens < 0, -INF)
    return TokenLogits(picked, rest.logsumexp(1), rest.amax(1))


def assert_close(found, expected, atol):
    for name in ("logits", "rest", "rest_max"):
        a, b = getattr(found, name), getattr(expected, name)
        assert a.dtype == torch.float64, name
        torch.testing.assert_close(a, b, rtol=0, atol=atol, msg=name)


def level_of(found, slot, unit):
    """Levels of a single slot."""
    chosen = torch.zeros_like(found.logits, dtype=torch.bool)
    chosen[:, slot] = True
    return level(margin(found, chosen), unit)


def head_of_logits(z, *, dtype=torch.float64):
    """A head whose logits are these numbers, for the state [1]."""
    return Head(lambda h: h, z.to(dtype)[:, None])


ONE = torch.ones(1, 1, dtype=torch.float64)


@pytest.mark.parametrize(
    ("points", "vocab", "slots"),
    [(1, 1, 1), (3, 1, 4), (1, 97, 1), (5, 97, 0), (4, 3, 7), (2, 7, 7), (6, 131, 3)],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_reading_equals_whole_rows_of_logits(points, vocab, slots, dtype):
    head = make_head(vocab=vocab, dtype=dtype)
    states = normal(points, 12, dtype=dtype)
    tokens = random_tokens(points, slots, vocab)
    found = read(head.readout, states, tokens)
    precision = torch.promote_types(dtype, torch.float32)
    assert_close(
        found, slow_read(head, states, tokens), oracle.tolerance(precision, 10)
    )


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("bias", [True, False])
def test_every_kind_of_head_is_read_right(norm, post, bias):
    head = make_head(norm=norm, post=post, bias=bias, dtype=torch.float64)
    states = normal(5, 12)
    tokens = random_tokens(5, 2, 97)
    found = read(head.readout, states, tokens)
    assert_close(found, slow_read(head, states, tokens), 1e-12)


@settings(deadline=None, max_examples=60)
@given(
    points=st.integers(1, 7),
    vocab=st.integers(1, 401),
    slots=st.integers(0, 4),
    budget=st.integers(0, 20_000),
    seed=st.integers(0, 1000),
)
def test_memory_budgets_change_nothing_beyond_rounding(
    points, vocab, slots, budget, seed
):
    head = make_head(vocab=vocab, dtype=torch.float64, seed=seed)
    states, tokens = (
        normal(points, 12, seed=seed),
        random_tokens(points, slots, vocab, seed=seed),
    )
    whole = read(head.readout, states, tokens)
    blocks = read(head.readout, states, tokens, memory_budget=budget)
    assert_close(blocks, whole, 1e-12)


def test_small_budgets_read_in_several_blocks():
    seen = []

    class Watch:
        def watch(self, block, wanted):
            seen.append((block.start, block.logits.shape[1]))

    head = make_head(vocab=200)
    read(
        head.readout,
        normal(3, 12, dtype=torch.float32),
        torch.zeros(3, 0, dtype=torch.int64),
        observers=[Watch()],
        memory_budget=0,
    )
    assert seen == [(0, 64), (64, 64), (128, 64), (192, 8)]


@pytest.mark.parametrize("spread", [1.0, 30.0, 5e3])
@pytest.mark.parametrize("unit", UNITS[:3])
def test_wide_ranges_of_logits_are_read_right(spread, unit):
    head = make_head(vocab=211, spread=spread, dtype=torch.float64)
    states, tokens = normal(40, 12), torch.arange(40)[:, None] * 5
    found = level_of(read(head.readout, states, tokens), 0, unit)
    z = oracle.logits(head, states)
    expected = torch.stack(
        [oracle.level(z[i], [5 * i], unit) for i in range(len(states))]
    )
    size = 1.0 if unit == "probability" else spread
    torch.testing.assert_close(
        found, expected, rtol=1e-11, atol=oracle.tolerance(torch.float64, size)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exponentials_that_would_be_denormal_are_read_right(dtype):
    # exp(-90) and exp(-720) are denormal; sums of them matter only among themselves.
    for gap in (70.0, 90.0, 103.0, 720.0, 745.0):
        z = torch.cat([torch.zeros(1), torch.full((200,), -gap)]).to(dtype)
        head = head_of_logits(z, dtype=dtype)
        found = read(head.readout, ONE.to(dtype), torch.tensor([[0]]))
        assert float(found.rest) == pytest.approx(math.log(200) - gap, rel=1e-6)
        none = read(head.readout, ONE.to(dtype), torch.zeros((1, 0), dtype=torch.int64))
        assert float(none.rest) == pytest.approx(
            200 * math.exp(-gap), rel=1e-5, abs=1e-28
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_exponential_is_denormal(dtype):
    """They are slow: `exp` takes ten times as long where they come up."""
    z = torch.tensor([[0.0, -60.0, -90.0, -103.0, -1e4, -720.0, -740.0, -INF]])
    z = z.to(dtype)
    normaliser = Normaliser(torch.tensor([[-1]]))
    normaliser.consume(z, 0)  # leaves the exponentials behind
    assert (z >= torch.finfo(dtype).tiny).all()
    assert float(normaliser.rest) == pytest.approx(0.0, abs=1e-20)


@settings(deadline=None, max_examples=60)
@given(gap=st.floats(-1e4, 1e4), vocab=st.sampled_from([2, 3, 97, 1009]))
def test_log_odds_are_finite_and_no_level_loses_its_digits(gap, vocab):
    """Target ahead of equal others by `gap`: the levels are known in closed form."""
    z = torch.zeros(vocab, dtype=torch.float64)
    z[1] = gap
    found = read(head_of_logits(z).readout, ONE, torch.tensor([[1]]))
    odds = gap - math.log(vocab - 1)
    assert float(level_of(found, 0, "log_odds")) == pytest.approx(odds, rel=1e-14)
    log_p = -math.log1p(math.exp(-odds)) if odds > -600 else odds
    assert float(level_of(found, 0, "log_probability")) == pytest.approx(
        log_p, rel=1e-11, abs=1e-320
    )
    p = math.exp(log_p) if log_p > -745 else 0.0
    assert float(level_of(found, 0, "probability")) == pytest.approx(
        p, rel=1e-11, abs=1e-307
    )


@pytest.mark.parametrize("log_p", [-1e-3, -1e-7, -1e-12, -1e-15])
def test_log_probabilities_near_zero_keep_their_digits_in_float32(log_p):
    """Where plain float32 gives 0 or a multiple of 6e-8."""
    z = torch.zeros(1001)
    z[7] = -math.log(math.expm1(-log_p) / 1000)
    read_z = float(z[7])  # rounded to float32
    truth = -math.log1p(1000 * math.exp(-read_z))
    head = head_of_logits(z, dtype=torch.float32)
    found = read(head.readout, ONE.float(), torch.tensor([[7]]))
    ours = float(level_of(found, 0, "log_probability"))
    assert ours == pytest.approx(truth, rel=1e-6, abs=0)
    plain = float(z.log_softmax(-1)[7])
    assert log_p == -1e-3 or abs(plain - truth) > 1e-3 * abs(truth)


def test_probabilities_of_1e_minus_300_keep_their_digits_in_float32():
    z = torch.zeros(1001)
    z[7] = -683.5
    head = head_of_logits(z, dtype=torch.float32)
    found = read(head.readout, ONE.float(), torch.tensor([[7]]))
    log_p = -683.5 - math.log(1000)
    assert float(level_of(found, 0, "log_probability")) == pytest.approx(log_p)
    assert (
        0
        < float(level_of(found, 0, "probability"))
        == pytest.approx(math.exp(log_p), rel=1e-5, abs=0)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spread", [1.0, 5.0, 40.0])
def test_reading_is_no_less_accurate_than_plain_log_softmax(dtype, spread):
    """Against float64, over many states: the mean error and the largest."""
    points, vocab, d_model = 400, 503, 48
    precision = torch.promote_types(dtype, torch.float32)
    ours, plain = [], []
    for seed, (norm, post) in enumerate(zip(NORMS, (*POSTS, "identity"), strict=True)):
        head = make_head(
            vocab=vocab,
            d_model=d_model,
            norm=norm,
            post=post,
            spread=spread,
            dtype=dtype,
            seed=seed,
        )
        states = normal(points, d_model, seed=seed, dtype=dtype)
        z = oracle.logits(head, states)
        tokens = z.argmax(1) if seed % 2 else torch.arange(points) % vocab
        truth = z.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        found = read(head.readout, states, tokens[:, None])
        ours.append(level_of(found, 0, "log_probability") - truth)
        wide = head.but(
            unembed=head.unembed.to(precision), bias=head.bias.to(precision)
        )
        whole = wide.readout.logits(states).log_softmax(-1)
        plain.append(whole.gather(1, tokens[:, None])[:, 0].double() - truth)
    ours, plain = torch.cat(ours).abs(), torch.cat(plain).abs()
    size = spread * torch.finfo(precision).eps
    assert float(ours.mean()) <= 1.01 * float(plain.mean()) + 0.01 * size
    assert float(ours.max()) <= float(plain.max()) + 2 * size


def test_masked_tokens_have_probability_zero_and_change_no_other():
    head = make_head(dtype=torch.float64)
    masked = torch.rand(97, generator=generator(1)) < 0.5
    masked[[3, 5]] = torch.tensor([True, False])
    head = head.but(bias=head.bias.masked_fill(masked, -INF))
    states, tokens = normal(4, 12), torch.tensor([[3, 5]] * 4)
    found = read(head.readout, states, tokens)
    assert_close(found, slow_read(head, states, tokens), 1e-12)
    assert (level_of(found, 0, "probability") == 0).all()
    assert (level_of(found, 0, "log_probability") == -INF).all()
    torch.testing.assert_close(
        level_of(found, 1, "probability"),
        oracle.level(oracle.logits(head, states), [5], "probability"),
    )


@pytest.mark.parametrize("budget", [0, MEMORY_BUDGET])
def test_the_only_possible_token_has_probability_one(budget):
    z = torch.full((300,), -INF, dtype=torch.float64)
    z[211] = 2.0
    found = read(
        head_of_logits(z).readout, ONE, torch.tensor([[211]]), memory_budget=budget
    )
    assert float(found.rest) == -INF
    assert float(level_of(found, 0, "probability")) == 1.0
    assert float(level_of(found, 0, "log_probability")) == 0.0


def test_a_block_without_any_possible_token_spoils_no_other_block():
    z = normal(200)
    z[:130] = -INF  # two whole blocks of 64
    tokens = torch.tensor([[190, 3]])
    found = read(head_of_logits(z).readout, ONE, tokens, memory_budget=0)
    assert_close(found, slow_read(head_of_logits(z), ONE, tokens), 1e-13)


@pytest.mark.parametrize("value", [torch.nan, INF])
@pytest.mark.parametrize("place", [0, 7, 150])
@pytest.mark.parametrize("budget", [0, MEMORY_BUDGET])
@pytest.mark.parametrize("unit", UNITS[:3])
def test_a_logit_that_is_no_number_makes_every_level_nan(value, place, budget, unit):
    z = normal(151)
    z[place] = value
    found = read(
        head_of_logits(z).readout,
        ONE,
        torch.tensor([[7, 60]]),
        memory_budget=budget,
    )
    assert level_of(found, 0, unit).isnan().all()
    assert level_of(found, 1, unit).isnan().all()
    whole = summarise(z[None], torch.tensor([[7, 60]]))
    assert level_of(whole, 0, unit).isnan().all()
    assert level_of(whole, 1, unit).isnan().all()


@pytest.mark.parametrize("value", [torch.nan, INF, -INF])
def test_a_state_that_is_no_number_spoils_no_other_state(value):
    head = make_head(dtype=torch.float64)
    states, tokens = normal(5, 12), torch.arange(5)[:, None]
    spoiled = states.clone()
    spoiled[2, 4] = value
    found = level_of(read(head.readout, spoiled, tokens), 0, "log_odds")
    right = level_of(read(head.readout, states, tokens), 0, "log_odds")
    assert found[2].isnan()
    others = torch.tensor([0, 1, 3, 4])
    torch.testing.assert_close(found[others], right[others])


@pytest.mark.parametrize("bad", [-2, 97, 10**9])
def test_tokens_outside_the_vocabulary_are_refused(bad):
    head = make_head()
    states = normal(2, 12, dtype=torch.float32)
    with pytest.raises(ArgumentError, match=r"\[0, 97\).*tokenizer"):
        read(head.readout, states, torch.tensor([[0], [bad]]))
    with pytest.raises(ArgumentError, match=r"\[0, 97\)"):
        summarise(torch.zeros(1, 97), torch.tensor([[bad]]))


@pytest.mark.parametrize("good", [-1, 0, 96])
def test_tokens_of_the_vocabulary_and_unused_slots_are_accepted(good):
    head = make_head()
    read(head.readout, normal(1, 12, dtype=torch.float32), torch.tensor([[good]]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_summarising_logits_equals_reading_them(dtype):
    z = (5 * normal(4, 97)).to(dtype)
    kept = z.clone()
    tokens = random_tokens(4, 3, 97)
    found = summarise(z, tokens)
    assert torch.equal(z, kept)
    identity = Head(lambda h: h, torch.eye(97, dtype=torch.float64))
    expected = slow_read(identity, z, tokens)
    precision = torch.promote_types(dtype, torch.float32)
    assert_close(found, expected, oracle.tolerance(precision, 10))


def test_picked_points_keep_their_values_in_the_given_order():
    head = make_head()
    states, tokens = normal(4, 12, dtype=torch.float32), torch.arange(4)[:, None]
    found = read(head.readout, states, tokens)
    picked = found.at(torch.tensor([3, 0, 3]))
    for name in ("logits", "rest", "rest_max"):
        values = getattr(found, name)
        assert torch.equal(getattr(picked, name), values[[3, 0, 3]])


@settings(deadline=None, max_examples=100)
@given(
    points=st.integers(1, 4096),
    vocab=st.integers(1, 300_000),
    budget=st.integers(0, MEMORY_BUDGET),
)
def test_a_block_is_within_the_vocabulary_and_a_quarter_of_the_budget(
    points, vocab, budget
):
    readout = Head(lambda h: h, torch.zeros(1, 1).expand(vocab, 1)).readout
    width = block_width(readout, points, budget)
    assert 1 <= width <= vocab
    assert width <= 64 or 4 * points * width <= budget / 4


BIG = {"vocab": 50_021, "d_model": 64, "bias": False}


@pytest.mark.parametrize("points", [1, 300])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("watched", [False, True])
def test_reading_allocates_no_tensor_larger_than_the_budget(points, dtype, watched):
    head = make_head(**BIG, dtype=dtype)
    states = normal(points, 64, dtype=dtype)
    tokens = random_tokens(points, 2, 50_021)
    budget = 2**22
    assert points * 50_021 * 4 > budget or points == 1
    observers = [Rank(tokens), Top(points, 5, tokens.device), Divergence(1)]
    with LargestTensor() as largest:
        read(
            head.readout,
            states,
            tokens,
            observers=observers if watched else [],
            memory_budget=budget,
        )
    assert 0 < largest.bytes <= budget, largest.made_by


def test_the_largest_tensor_of_a_plain_reading_is_noticed():
    head = make_head(**BIG)
    with LargestTensor() as largest:
        head.readout.logits(normal(300, 64, dtype=torch.float32))
    assert largest.bytes == 300 * 50_021 * 4


def test_more_states_than_fit_at_once_are_read_in_turns_to_the_same_numbers():
    head = make_head()
    states = normal(700, head.readout.d_model, dtype=torch.float32)
    tokens = torch.arange(700)[:, None] % head.readout.vocab_size
    budget = 16 * head.readout.d_model * 40
    assert head.readout.points_within(budget) < 700
    found = read(head.readout, states, tokens, memory_budget=budget)
    assert_close(found, read(head.readout, states, tokens), 1e-5)


def test_log_probabilities_and_the_normaliser_are_those_of_a_softmax():
    head = make_head()
    states = normal(5, head.readout.d_model, dtype=torch.float32)
    found = read(head.readout, states, torch.tensor([[0, 3]] * 5))
    z = oracle.logits(head, states)
    expected = z.log_softmax(1)[:, [0, 3]]
    torch.testing.assert_close(found.log_probabilities, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.log_normaliser, z.logsumexp(1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("vocab", [1000, 50_000])
def test_sums_keep_their_digits_in_blocks_of_any_width(vocab):
    """Adding 50,000 terms one after the other would lose some 1e-6 of them."""
    z = normal(64, vocab, dtype=torch.float32)
    normaliser = Normaliser(torch.full((64, 1), -1))
    normaliser.consume(z.clone(), 0)
    error = normaliser.rest - z.double().logsumexp(1)
    assert float(error.abs().max()) < 5e-7
    assert float(error.abs().mean()) < 1e-7
