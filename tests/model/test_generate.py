import pytest
import torch
import transformers as hf
from families import FAMILIES, Handmade, build, full_logits, left_as_it_was, some_ids

from iglens import ArgumentError, Decoder, Sampling, UnsupportedModelError
from iglens.model.generate import continuation, continuations

IDS = some_ids()


def greedy(model, ids, count, stop=2):
    """Arg-max of full forwards, without a cache."""
    text = list(ids)
    for _ in range(count):
        text.append(int(full_logits(model, text)[-1].argmax()))
        if text[-1] == stop:
            break
    return text[len(ids) :]


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_is_the_arg_max_of_full_forwards(name):
    model = build(name)
    model.generation_config.eos_token_id = None
    assert continuation(model, IDS, 10) == greedy(model, IDS, 10, stop=None)


def test_greedy_works_in_float64_experts_included():
    model = build("mixtral", torch.float64)
    with left_as_it_was(model):
        said = continuation(model, IDS, 4)
    model.set_experts_implementation("eager")
    assert said == greedy(model, IDS, 4)


def test_a_batch_of_starts_says_what_each_says_alone():
    model = build("llama")
    free = greedy(model, IDS[:4], 8, stop=None)
    model.generation_config.eos_token_id = free[2]
    model.generation_config.pad_token_id = 0
    starts = [IDS[:4], IDS[4:8]]
    said = continuations(model, torch.tensor(starts), 8)
    assert said == [continuation(model, start, 8) for start in starts]
    assert said[0] == free[:3]
    assert len(said[1]) == 8


def test_a_sampled_batch_differs_within_and_is_repeated_by_its_seed():
    model = build("llama")
    model.generation_config.eos_token_id = None
    starts = torch.tensor([[1]] * 3)
    said = continuations(model, starts, 8, Sampling(seed=3))
    assert len({tuple(text) for text in said}) == 3
    assert said == continuations(model, starts, 8, Sampling(seed=3))
    assert said != continuations(model, starts, 8, Sampling(seed=4))


@pytest.fixture
def model():
    return build("llama")


def test_a_text_ends_where_the_checkpoint_says(model):
    free = greedy(model, IDS, 8, stop=None)
    model.generation_config.eos_token_id = free[3]
    assert continuation(model, IDS, 8) == free[:4]
    model.generation_config.eos_token_id = [90, free[2]]
    assert continuation(model, IDS, 8) == free[:3]
    model.generation_config.eos_token_id = None
    assert continuation(model, IDS, 8) == free
    assert continuation(model, IDS, 1) == free[:1]


def settings():
    """Settings of a checkpoint, each of which would change what is said."""
    return {
        "repetition_penalty": 5.0,
        "no_repeat_ngram_size": 1,
        "suppress_tokens": [20],
        "begin_suppress_tokens": [20],
        "bad_words_ids": [[20]],
        "num_beams": 4,
        "max_time": 0.0,
        "guidance_scale": 2.0,
        "exponential_decay_length_penalty": (1, 2.0),
        "sequence_bias": {(20,): -10.0},
        "encoder_repetition_penalty": 3.0,
        "stop_strings": ["a"],
        "return_dict_in_generate": True,
    }


@pytest.mark.parametrize("setting", settings())
def test_settings_of_the_checkpoint_do_not_act_and_stay(model, setting):
    expected = greedy(model, IDS, 12)
    assert expected[0] == 20
    value = settings()[setting]
    setattr(model.generation_config, setting, value)
    with left_as_it_was(model):
        assert continuation(model, IDS, 12) == expected
    assert getattr(model.generation_config, setting) == value


def test_a_repetition_penalty_acts_in_transformers_own_generate(model):
    """The guard would otherwise have nothing to guard against."""
    model.generation_config.repetition_penalty = 5.0
    text = model.generate(
        torch.tensor([IDS]),
        attention_mask=torch.ones(1, len(IDS), dtype=torch.int64),
        generation_config=hf.GenerationConfig(
            max_new_tokens=12, do_sample=False, eos_token_id=2, pad_token_id=0
        ),
    )
    assert text[0, len(IDS) :].tolist() != greedy(model, IDS, 12)


def test_sampling_settings_of_the_checkpoint_do_not_act(model):
    plain = continuation(model, IDS, 12, Sampling(seed=1))
    model.generation_config.update(top_k=1, min_p=0.9, typical_p=0.1, temperature=0.01)
    assert continuation(model, IDS, 12, Sampling(seed=1)) == plain


def test_a_sample_repeats_with_its_seed_and_leaves_the_generator_alone(model):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first = continuation(model, IDS, 12, Sampling(seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(10)
    assert continuation(model, IDS, 12, Sampling(seed=1)) == first
    others = {tuple(continuation(model, IDS, 12, Sampling(seed=s))) for s in range(5)}
    assert len(others) > 3
    assert first != greedy(model, IDS, 12)


def test_greedy_leaves_the_generator_alone(model):
    before = torch.get_rng_state()
    continuation(model, IDS, 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_cold_or_narrow_sample_is_greedy(model):
    expected = greedy(model, IDS, 8)
    assert continuation(model, IDS, 8, Sampling(temperature=1e-4)) == expected
    assert continuation(model, IDS, 8, Sampling(top_p=1e-6)) == expected


def test_samples_follow_the_models_own_probabilities(model):
    """The first sampled token, over many seeds, against the softmax."""
    own = full_logits(model, IDS)[-1].softmax(-1)
    counts = torch.zeros(97)
    for seed in range(200):
        counts[continuation(model, IDS, 1, Sampling(seed=seed))[0]] += 1
    likeliest = own.topk(3).indices
    expected = 200 * own[likeliest]
    assert (counts[likeliest] - expected).abs().max() < 5 * expected.sqrt().max()


def test_every_token_can_be_sampled(model):
    """Also those after the fiftieth, where Transformers stops unless told otherwise."""
    model.generation_config.eos_token_id = None
    said = continuation(model, IDS, 50, Sampling(temperature=100.0))
    text, late = list(IDS), 0
    for token in said:
        order = full_logits(model, text)[-1].argsort(descending=True).tolist()
        late += order.index(token) >= 50
        text.append(token)
    assert 10 < late < 40


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_an_impossible_temperature_is_refused(temperature):
    with pytest.raises(ArgumentError, match="`temperature` is"):
        Sampling(temperature=temperature)


@pytest.mark.parametrize("top_p", [0.0, -0.1, 1.1, float("nan")])
def test_an_impossible_top_p_is_refused(top_p):
    with pytest.raises(ArgumentError, match="`top_p` is"):
        Sampling(top_p=top_p)


class Chatty(Handmade):
    def generate(self, idx, max_new_tokens):
        raise AssertionError("not the generate of Transformers")


@pytest.mark.parametrize("kind", [Handmade, Chatty])
def test_a_model_that_cannot_generate_says_what_to_do(kind):
    decoder = Decoder(kind())
    with pytest.raises(UnsupportedModelError, match="Pass an `answer` or"):
        decoder.generate([3, 4], 2)


@pytest.mark.parametrize("training", [True, False])
def test_modes_hooks_and_settings_are_put_back(model, training):
    model.train(training)
    with left_as_it_was(model):
        continuation(model, IDS, 2, Sampling())
    handle = model.lm_head.register_forward_hook(lambda *_: 1 / 0)
    with left_as_it_was(model), pytest.raises(ZeroDivisionError):
        continuation(model, IDS, 2)
    handle.remove()
