"""Continuations: beams against the library's own, samples against the law that its logits processors give."""

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)
from transformers.generation import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

from model_collapse.corpus import blocks, corpus
from model_collapse.pretrained import pretrained
from model_collapse.torch_random import drawing_from
from model_collapse.writing import beams, sampled

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128}
TOKENS = {"vocab_size": 256, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2}
GROUPED = {"intermediate_size": 64, "num_key_value_heads": 2, **SHAPE, **TOKENS}


def opt(kind=OPTForCausalLM, **changes):
    return made(kind, OPTConfig(**{"ffn_dim": 64, "word_embed_proj_dim": 32, **SHAPE, **TOKENS, **changes}))


def llama(**changes):
    return made(LlamaForCausalLM, LlamaConfig(**GROUPED | changes))


def made(kind, config, dtype=torch.float64):
    """A random model, at larger weights than usual so that its laws are not flat."""
    with drawing_from(torch.Generator().manual_seed(0)):
        model = kind(config).to(dtype).eval()
    for parameter in model.parameters():
        parameter.data.mul_(3)
    return model.requires_grad_(False)


MODELS = {"opt": opt(), "llama": llama()}


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def some(n, length=64, vocabulary=256):
    return torch.randint(3, vocabulary, (n, length), generator=stream(9))


def generated(model, prompts, new=64, beams=5, penalty=1.0):
    """As the authors call it."""
    output = model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        num_beams=beams,
        do_sample=False,
        min_new_tokens=new,
        max_new_tokens=new,
        repetition_penalty=penalty,
        return_dict_in_generate=True,
        output_scores=True,
    )
    return output.sequences[:, prompts.shape[1] :], output.sequences_scores * new


def agree(model, prompts, *sizes, **settings):
    written = beams(model, prompts, *sizes, **settings)
    tokens, scores = generated(model, prompts, *sizes, **settings)
    assert torch.equal(written.tokens, tokens)
    torch.testing.assert_close(written.scores, scores, rtol=1e-6, atol=0)
    return written.tokens


# Beams


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("penalty", [1.0, 2.0, 3.0])
def test_beams_are_those_of_generate(name, penalty):
    tokens = agree(MODELS[name], some(8), penalty=penalty)
    assert len({tuple(row) for row in tokens.tolist()}) == 8


@pytest.mark.parametrize("penalty", [1.0, 2.0, 3.0])
def test_beams_of_the_shipped_model_are_those_of_generate(penalty):
    """In double precision, on prompts of the corpus; single precision may choose otherwise between equal tokens."""
    start = pretrained("tiny")
    prompts = torch.as_tensor(blocks(corpus("wikipedia"), start.tokenizer).train[:4], dtype=torch.long)
    agree(start.model.double(), prompts, penalty=penalty)


@pytest.mark.parametrize(("new", "count", "penalty"), [(1, 5, 1.0), (2, 5, 3.0), (16, 2, 0.5), (16, 11, 1.0)])
@pytest.mark.parametrize("name", MODELS)
def test_other_sizes_too(name, new, count, penalty):
    agree(MODELS[name], some(4, 7), new, beams=count, penalty=penalty)


@pytest.mark.parametrize("name", MODELS)
def test_one_beam_takes_the_likeliest_token(name):
    prompts = some(4, 7)
    tokens = beams(MODELS[name], prompts, 16, beams=1).tokens
    generated = MODELS[name].generate(prompts, do_sample=False, min_new_tokens=16, max_new_tokens=16)
    assert torch.equal(tokens, generated[:, 7:])


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (GPT2LMHeadModel, GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **TOKENS)),
        (Gemma2ForCausalLM, Gemma2Config(head_dim=8, sliding_window=32, **GROUPED)),
        (MistralForCausalLM, MistralConfig(sliding_window=32, **GROUPED)),
    ],
)
def test_other_architectures_too(kind, config):
    """Learned positions; capped logits without torch's kernel; windows that are no shorter than the text."""
    agree(made(kind, config), some(4, 16), 16)


@pytest.mark.parametrize("many", [0, 1, 3])
def test_end_tokens_are_never_written(many):
    """Those that would be written most often, as None, one number or a list."""
    model, prompts = opt(), some(4, 16)
    model.generation_config.eos_token_id = None
    favourites = beams(model, prompts, 16).tokens.flatten().bincount().topk(3).indices.tolist()
    ends = (None, favourites[0], favourites)[(0, 1, 3).index(many)]
    model.generation_config.eos_token_id = ends
    tokens = agree(model, prompts, 16)
    samples = sampled(model, prompts.repeat(50, 1), stream(), 16).tokens
    for written in (tokens, samples):
        assert set(favourites[:many]).isdisjoint(written.flatten().tolist())


def test_types_of_prompts_and_blocks_written_together_make_no_difference():
    together = beams(MODELS["opt"], some(6), 8)
    apart = [beams(MODELS["opt"], part.int(), 8) for part in some(6).split(4)]
    assert torch.equal(together.tokens, torch.cat([part.tokens for part in apart]))
    assert together.tokens.dtype == torch.int64
    assert together.scores.dtype == torch.float32


@pytest.mark.parametrize("way", ["half", "autocast"])
def test_half_precision_finds_beams_that_are_nearly_as_good(way):
    """Mean score per token within a tenth of a nat of double precision's, and above that of one beam."""
    prompts = some(16)
    best, greedy = (beams(MODELS["llama"], prompts, beams=count).scores.mean() / 64 for count in (5, 1))
    model = llama().to(torch.bfloat16 if way == "half" else torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        tokens = beams(model, prompts).tokens
    score = log_probabilities(MODELS["llama"], prompts, tokens).sum(1).mean() / 64
    assert abs(score - best) < 0.1
    assert score > greedy


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_writes_the_same(name):
    prompts = some(8)
    written = beams((opt, llama)[name == "llama"]().cuda(), prompts.cuda(), penalty=2.0)
    assert torch.equal(written.tokens.cpu(), beams(MODELS[name], prompts, penalty=2.0).tokens)


@pytest.mark.parametrize("way", ["beams", "sampled"])
def test_log_probabilities_that_are_no_numbers_are_said_whichever_block_has_them(way):
    broken = opt()
    with torch.no_grad():
        broken.get_input_embeddings().weight[49] = torch.nan
    prompts = some(3) % 49
    prompts[2] = 49
    with pytest.raises(FloatingPointError, match="OPTForCausalLM: log-probabilities are not finite in torch"):
        beams(broken, prompts, 4) if way == "beams" else sampled(broken, prompts, stream(), 4)


def test_end_tokens_that_the_model_does_not_have_are_refused():
    other = opt()
    other.generation_config.eos_token_id = [2, 50_000]
    with pytest.raises(ValueError, match=r"model with end tokens \[2, 50000\]: must be from 0 to"):
        beams(other, some(1), 4)


# Samples


def log_probabilities(model, prompts, tokens, penalty=1.0):
    """Of each token (n, new), from the whole text at once and the library's logits processors."""
    length, new = prompts.shape[1], tokens.shape[1]
    text = torch.cat([prompts, tokens], 1)
    logits = model(input_ids=text).logits.float()
    rules = processors(model, length, new, penalty)
    laws = [rules(text[:, :end], logits[:, end - 1]).double().log_softmax(-1) for end in range(length, length + new)]
    return torch.stack(laws, 1).gather(-1, tokens[..., None])[..., 0]


def processors(model, length, new, penalty):
    ends = model.generation_config.eos_token_id
    return LogitsProcessorList(
        [RepetitionPenaltyLogitsProcessor(penalty), MinNewTokensLengthLogitsProcessor(length, new, ends)]
    )


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("penalty", [1.0, 0.5, 3.0])
def test_scores_of_samples_are_their_log_probabilities(name, penalty):
    prompts = some(8)
    written = sampled(MODELS[name], prompts, stream(), penalty=penalty)
    expected = log_probabilities(MODELS[name], prompts, written.tokens, penalty).sum(1)
    torch.testing.assert_close(written.scores, expected.float(), rtol=1e-6, atol=0)


def z(counts, probabilities):
    """Chi-square of counts, standardised; the cells that expect fewer than five are joined with the next larger one."""
    expected, order = (counts.sum() * probabilities).sort()
    joined = int((expected < 5).sum()) + 1
    observed = counts[order].double()
    observed, expected = (torch.cat([x[:joined].sum()[None], x[joined:]]) for x in (observed, expected))
    freedom = len(observed) - 1
    assert freedom >= 20
    return float((((observed - expected) ** 2 / expected).sum() - freedom) / (2 * freedom) ** 0.5)


@pytest.mark.parametrize("penalty", [1.0, 3.0])
def test_samples_follow_the_law(penalty):
    """Pairs of tokens, 20,000 of them; the law with the other penalty is rejected."""
    n, vocabulary = 20_000, 11
    model = opt(vocab_size=vocabulary)
    prompts = torch.tensor([[3, 5, 8]])
    tokens = sampled(model, prompts.expand(n, -1), stream(), 2, penalty=penalty).tokens
    counts = (tokens[:, 0] * vocabulary + tokens[:, 1]).bincount(minlength=vocabulary**2)
    pairs = torch.cartesian_prod(torch.arange(vocabulary), torch.arange(vocabulary))

    def law(penalty):
        return log_probabilities(model, prompts.expand(len(pairs), -1), pairs, penalty).sum(1).exp()

    assert law(penalty).sum() == pytest.approx(1)
    assert abs(z(counts, law(penalty))) < 4
    assert z(counts, law(4 - penalty)) > 20


def test_samples_are_not_of_the_likeliest_tokens_only():
    """Of 5,000 first tokens, as many lie outside the 50 likeliest (the library's usual cut) as the law says."""
    n, model, prompts = 5_000, MODELS["opt"], some(1, 4)
    tokens = sampled(model, prompts.expand(n, -1), stream(), 1).tokens
    law = log_probabilities(model, prompts.expand(256, -1), torch.arange(256)[:, None])[:, 0].exp()
    outside = 1 - float(law.topk(50).values.sum())
    share = float((~torch.isin(tokens, law.topk(50).indices)).double().mean())
    assert outside > 0.01
    assert abs(share - outside) / (outside * (1 - outside) / n) ** 0.5 < 4


def test_samples_come_from_the_generator_alone():
    before = torch.get_rng_state()
    first, again, other = (sampled(MODELS["opt"], some(8), stream(seed), 8).tokens for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


# What is refused


class Blind(OPTForCausalLM):
    """Does not look at masks of four dimensions."""

    def forward(self, input_ids, position_ids=None, attention_mask=None, past_key_values=None, logits_to_keep=0, **kw):
        kw |= {"past_key_values": past_key_values, "logits_to_keep": logits_to_keep}
        return super().forward(input_ids, position_ids=position_ids, **kw)


class Forgetful(OPTForCausalLM):
    """Has no cache, and takes the mask for as much as it sees."""

    def forward(self, input_ids, position_ids=None, attention_mask=None, past_key_values=None, logits_to_keep=0, **kw):
        kw |= {"use_cache": False, "logits_to_keep": logits_to_keep}
        mask = None if attention_mask is None else attention_mask[..., -input_ids.shape[1] :]
        return super().forward(input_ids, position_ids=position_ids, attention_mask=mask, **kw)


def written(way, model, prompts, *sizes, **settings):
    if way == "beams":
        return beams(model, prompts, *sizes, **settings)
    return sampled(model, prompts, stream(), *sizes, **settings)


@pytest.mark.parametrize("way", ["beams", "sampled"])
@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (torch.zeros(2, 3), r"prompts of torch\.float32, shape \(2, 3\): must be int32 or int64"),
        (torch.zeros(3, dtype=torch.int64), r"prompts of torch\.int64, shape \(3,\): must be .* \(n, length\)"),
        (torch.zeros(0, 3, dtype=torch.int64), r"shape \(0, 3\): must be .*, not empty"),
        (torch.zeros(2, 0, dtype=torch.int64), r"shape \(2, 0\): must be .*, not empty"),
        ([[1, 2]], r"prompts = \[\[1, 2\]\]: must be a tensor of integers"),
        (torch.tensor([[4, 256]]), "prompts with tokens from 4 to 256: must be from 0 to 255"),
        (torch.tensor([[-1, 4]]), "prompts with tokens from -1 to 4: must be"),
    ],
)
def test_bad_prompts_are_refused(way, prompts, message):
    with pytest.raises(ValueError, match=message):
        written(way, MODELS["opt"], prompts, 4)


@pytest.mark.parametrize("way", ["beams", "sampled"])
def test_a_context_must_hold_prompt_and_continuation(way):
    assert written(way, MODELS["llama"], some(1, 120), 8).tokens.shape == (1, 8)
    with pytest.raises(ValueError, match=r"new = 9: with prompts of 120 .* max_position_embeddings = 128"):
        written(way, MODELS["llama"], some(1, 120), 9)
    windowed = made(MistralForCausalLM, MistralConfig(sliding_window=16, **GROUPED))
    with pytest.raises(ValueError, match=r"new = 9: .* the model's sliding_window = 16"):
        written(way, windowed, some(1, 8), 9)


@pytest.mark.parametrize("way", ["beams", "sampled"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"penalty": 0.0}, "penalty = 0.0: must be positive"),
        ({"penalty": -2}, "penalty = -2: must be positive"),
        ({"penalty": float("nan")}, "penalty = nan: must be a finite real number"),
        ({"new": 0}, "new = 0: must be an integer >= 1"),
    ],
)
def test_bad_settings_are_refused(way, settings, message):
    with pytest.raises(ValueError, match=message):
        written(way, MODELS["opt"], some(2), **settings)


@pytest.mark.parametrize("count", [0, 256, 2.0])
def test_beams_are_at_most_the_tokens_that_can_be_written(count):
    with pytest.raises(ValueError, match=f"beams = {count}: must be an integer from 1 to 255"):
        beams(MODELS["opt"], some(2), 4, beams=count)


@pytest.mark.parametrize("way", ["beams", "sampled"])
def test_models_that_cannot_be_asked_are_refused(way):
    with pytest.raises(ValueError, match="OPTForCausalLM in training: must be in evaluation mode"):
        written(way, opt().train(), some(2), 4)
    bloom = made(BloomForCausalLM, BloomConfig(hidden_size=32, n_layer=1, n_head=4, **TOKENS))
    with pytest.raises(ValueError, match="BloomForCausalLM: must take position_ids"):
        written(way, bloom, some(2), 4)
    flexible = opt()
    flexible.set_attn_implementation("flex_attention")
    with pytest.raises(ValueError, match="attention 'flex_attention': must be 'sdpa' or 'eager'"):
        written(way, flexible, some(2), 4)


@pytest.mark.parametrize(("way", "kind"), [("beams", Blind), ("beams", Forgetful), ("sampled", Forgetful)])
def test_a_model_that_only_seems_to_listen_is_refused(way, kind):
    with pytest.raises(ValueError, match=rf"model = {kind.__name__}: must honour .* with -\d.* has -\d.* in one go"):
        written(way, opt(kind), some(2), 16)


def test_a_generator_must_be_one():
    with pytest.raises(ValueError, match=r"generator = 0: must be a torch\.Generator on cpu"):
        sampled(MODELS["opt"], some(2), 0)


def test_the_model_is_left_as_it_was(monkeypatch):
    model = opt()
    beams(model, some(2), 2)
    assert model.config._attn_implementation == "sdpa"
    before = dict(model.named_parameters())
    monkeypatch.setattr("model_collapse.writing._rows", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        beams(model, some(2), 2)
    assert model.config._attn_implementation == "sdpa"
    assert all(torch.equal(before[name], value) for name, value in opt().named_parameters())
