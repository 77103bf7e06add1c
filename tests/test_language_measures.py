"""Losses and perplexities of language models: plain twins, hand-made numbers, the authors' computation done again."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from model_collapse import language_measures
from model_collapse.language_measures import (
    BINS,
    bits_per_byte,
    block_losses,
    continuation_losses,
    hill,
    histogram,
    perplexity,
    tail,
)
from model_collapse.torch_random import drawing_from

K = 64
COMMON = {"vocab_size": K, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def seeded(kind, config, seed=0):
    with drawing_from(torch.Generator().manual_seed(seed)):
        model = kind(config)
    for parameter in model.parameters():
        parameter.data.mul_(8)  # far from uniform predictions
    return model.eval().requires_grad_(False)


def opt(seed=0, **others):
    return seeded(OPTForCausalLM, OPTConfig(**COMMON, ffn_dim=32, word_embed_proj_dim=16, **others), seed)


def llama():
    return seeded(LlamaForCausalLM, LlamaConfig(**COMMON, intermediate_size=32))


def gpt2():
    return seeded(GPT2LMHeadModel, GPT2Config(vocab_size=K, n_embd=16, n_layer=1, n_head=2))


MODELS = {"OPT": opt, "Llama": llama, "GPT-2": gpt2}


def some_blocks(n=7, T=64, seed=0):
    return np.random.default_rng(seed).integers(K, size=(n, T)).astype(np.int32)


@pytest.fixture(scope="module")
def model():
    return opt()


@torch.no_grad()
def plain_losses(model, rows, first):
    """Each token from its own prefix, in float64."""
    losses = []
    for row in rows.tolist():
        nats = []
        for t in range(first, len(row)):
            logits = model(torch.tensor([row[:t]]), attention_mask=torch.ones(1, t)).logits[0, -1].double().numpy()
            nats.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[row[t]])
        losses.append(np.mean(nats))
    return losses


# Losses


@pytest.mark.parametrize("name", MODELS)
def test_losses_are_those_of_single_tokens(name):
    model, blocks = MODELS[name](), some_blocks(3)
    losses = block_losses(model, blocks)
    assert losses.dtype == np.float64
    assert np.ptp(losses) > 0.1
    np.testing.assert_allclose(losses, plain_losses(model, blocks, 1), rtol=1e-5)
    given = continuation_losses(model, blocks[:, :20], blocks[:, 20:])
    np.testing.assert_allclose(given, plain_losses(model, blocks, 20), rtol=1e-5)


def test_prompt_and_continuation_share_the_nats_of_the_whole(model):
    prompts, blocks = some_blocks(5), some_blocks(5, seed=1)
    whole = 127 * block_losses(model, np.hstack([prompts, blocks]))
    parts = 63 * block_losses(model, prompts) + 64 * continuation_losses(model, prompts, blocks)
    np.testing.assert_allclose(parts, whole, rtol=1e-6)


def test_losses_do_not_depend_on_the_batch(model, monkeypatch):
    sizes, real = [], language_measures._part
    monkeypatch.setattr(
        language_measures, "_part", lambda m, part, first: sizes.append(len(part)) or real(m, part, first)
    )
    blocks = some_blocks(7)
    at_once = block_losses(model, blocks)
    np.testing.assert_allclose(block_losses(model, blocks, batch=3), at_once, rtol=1e-6)
    assert sizes == [7, 3, 3, 1]
    np.testing.assert_array_equal(block_losses(model, blocks), at_once)


def test_losses_leave_the_model_and_the_random_state_alone(model):
    state, before = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    trained = opt(dropout=0.5).requires_grad_(True)
    assert not torch.is_tensor(block_losses(trained, some_blocks()))
    block_losses(model, some_blocks())
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in trained.parameters())


def test_half_precision_models_are_read_in_single_precision(model):
    """The log-softmax of half logits in half precision has errors of 1e-2; its logits alone move losses less."""
    blocks = some_blocks()
    losses = block_losses(opt().to(torch.bfloat16), blocks)
    logits = opt().to(torch.bfloat16)(torch.tensor(blocks).long()).logits[:, :-1].double()
    exact = -logits.log_softmax(-1).gather(2, torch.tensor(blocks[:, 1:, None]).long()).mean((1, 2)).numpy()
    np.testing.assert_allclose(losses, exact, rtol=1e-6)
    assert np.abs(losses - block_losses(model, blocks)).max() > 1e-4


def test_a_model_that_has_diverged_gives_losses_that_are_not_finite():
    broken = opt()
    broken.lm_head.weight.data[:] = torch.nan
    assert not np.isfinite(block_losses(broken, some_blocks())).any()


def test_padding_tokens_are_tokens_like_others(model):
    blocks = some_blocks()
    blocks[:, ::3] = model.config.pad_token_id
    np.testing.assert_allclose(block_losses(model, blocks[:2]), plain_losses(model, blocks[:2], 1), rtol=1e-5)


def test_sampled_text_has_the_loss_that_its_model_expects_and_another_model_a_higher_one():
    """The loss less its expectation at each position, given the prefix, is a martingale: a z-score over all tokens."""
    model, prompts = opt(), torch.tensor(some_blocks(64))
    with drawing_from(torch.Generator().manual_seed(0)):
        settings = {"min_new_tokens": 64, "max_new_tokens": 64, "do_sample": True, "top_k": 0, "pad_token_id": 1}
        model.generation_config.eos_token_id = None
        rows = model.generate(prompts.long(), attention_mask=torch.ones_like(prompts), **settings)
    with torch.no_grad():
        logp = model(rows).logits[:, 63:-1].double().log_softmax(-1)
    expected, variance = -(logp.exp() * logp).sum(-1), (logp.exp() * logp**2).sum(-1)
    variance -= expected**2
    losses = continuation_losses(model, prompts, rows[:, 64:])
    z = (64 * losses.sum() - float(expected.sum())) / np.sqrt(float(variance.sum()))
    assert abs(z) < 4
    other = continuation_losses(opt(seed=1), prompts, rows[:, 64:])
    difference = other - losses
    assert difference.mean() / (difference.std(ddof=1) / 8) > 10


# Perplexity


def test_three_perplexities_of_numbers_made_by_hand():
    """Perplexities 1, 4 and 16 in batches of two: losses 0, log 4, log 16; means of batches log 2 and log 16."""
    found = perplexity(np.log([1, 4, 16]), batch=2)
    assert found.corpus == pytest.approx(4)  # the third root of 64
    assert found.block_mean == pytest.approx(7)  # 21 / 3
    assert found.authors == pytest.approx(32**0.5)  # the root of 2 x 16
    assert found.authors_band == pytest.approx(8 ** (0.5**0.5))  # the deviation of two numbers, log 8 apart
    assert len(set(np.round(found, 3))) == 4


def test_perplexities_that_agree():
    losses = np.random.default_rng(0).normal(4, 0.5, 256)
    found = perplexity(losses)
    assert found.authors == pytest.approx(found.corpus, rel=1e-12)  # no short batch
    assert found.block_mean > 1.05 * found.corpus
    assert perplexity(losses, batch=1)[2:] == pytest.approx((np.exp(losses.mean()), np.exp(losses.std(ddof=1))))
    assert perplexity([2.0] * 130) == pytest.approx((np.exp(2),) * 3 + (1,))
    one = perplexity(losses, batch=256)
    assert one[:2] == pytest.approx(found[:2])
    assert np.isnan(one.authors_band)


@pytest.mark.parametrize(("n", "batch"), [(300, 128), (37, 8), (9, 4)])
@torch.no_grad()
def test_the_authors_numbers_by_their_own_steps(model, n, batch):
    """Per batch the library's own loss, then mean and deviation in float32, then the exponential."""
    blocks = some_blocks(n, T=16)
    batches = []
    for part in torch.split(torch.tensor(blocks).long(), batch):
        batches.append(model(input_ids=part, attention_mask=torch.ones_like(part), labels=part).loss)
    collected = torch.tensor(batches, dtype=torch.float32)
    found = perplexity(block_losses(model, blocks), batch)
    assert found.authors == pytest.approx(float(torch.exp(torch.mean(collected))), rel=1e-5)
    assert found.authors_band == pytest.approx(float(torch.exp(torch.std(collected))), rel=1e-5)
    assert found.authors != pytest.approx(found.corpus, rel=1e-4)


def test_batches_are_as_large_as_the_authors_where_nothing_is_said():
    losses = np.random.default_rng(0).normal(4, 0.5, 300)
    assert perplexity(losses) == perplexity(losses, batch=128) != perplexity(losses, batch=64)


def test_band_narrows_with_the_batch():
    losses = np.random.default_rng(0).normal(4, 0.5, 64_000)
    widths = [np.log(perplexity(losses, batch).authors_band) for batch in (1, 4, 16)]
    for batch, width in zip((1, 4, 16), widths, strict=True):
        exact = 0.5 / np.sqrt(batch)
        assert abs(width - exact) / (exact / np.sqrt(2 * 64_000 / batch)) < 4


# Bits per byte


@pytest.fixture(scope="module")
def tokenizer():
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "</s>", "Ġt", "he", "Ġthe"]
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he")]
    built = Tokenizer(models.BPE({piece: k for k, piece in enumerate(pieces)}, merges))
    built.pre_tokenizer, built.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=built, eos_token="</s>")


def test_bits_per_byte_of_a_text(tokenizer):
    texts = ["to the end – the very bitter end", "of the été: the the the 語! and more"]
    rows = [tokenizer(text)["input_ids"] for text in texts]
    blocks = np.array([row[:20] for row in rows])
    starts = [tokenizer.decode(row[:20]) for row in rows]
    assert all(text.startswith(start) for text, start in zip(texts, starts, strict=True))
    bytes_predicted = sum(len(start.encode()) - 1 for start in starts)
    losses = np.array([3.0, 2.0])
    assert bits_per_byte(losses, blocks, tokenizer) == pytest.approx(5 * 19 / np.log(2) / bytes_predicted, rel=1e-12)


def test_special_tokens_cost_bits_and_have_no_bytes(tokenizer):
    the, end = tokenizer(" the")["input_ids"][0], tokenizer.eos_token_id
    nats = np.log(2)
    assert bits_per_byte([nats], [[the, the, the]], tokenizer) == pytest.approx(2 / 8)
    assert bits_per_byte([nats], [[end, the, the]], tokenizer) == pytest.approx(2 / 8)
    assert bits_per_byte([nats], [[the, the, end]], tokenizer) == pytest.approx(2 / 4)
    assert bits_per_byte([nats], [[the, the, 9_999]], tokenizer) == pytest.approx(2 / 4)
    with pytest.raises(ValueError, match="no byte of text"):
        bits_per_byte([nats], [[the, end, end]], tokenizer)


def test_bits_per_byte_is_the_same_for_tokenizers_that_are_the_same_model_of_bytes(tokenizer):
    """One token ' the' for 2 bits, or its 4 bytes for half a bit each, after a first byte that nothing predicts."""
    whole = tokenizer("x the the")["input_ids"]
    by_bytes = [tokenizer.convert_tokens_to_ids(piece) for piece in "xĠtheĠthe"]
    assert (len(whole), len(by_bytes)) == (3, 9)
    bits = [bits_per_byte([b * np.log(2)], [row], tokenizer) for b, row in ((2, whole), (0.5, by_bytes))]
    assert bits == pytest.approx([0.5, 0.5])


# Tail and histogram


@pytest.mark.parametrize("xi", [0.25, 1.0])
def test_hill_estimates_the_tail_index_of_pareto_perplexities(xi):
    """Losses are exponential then, also above any of their order statistics: mean xi, variance xi^2 / k exactly."""
    rng, k = np.random.default_rng(0), 50
    estimates = np.array([hill(rng.exponential(xi, 1_000), k) for _ in range(400)])
    assert abs((estimates.mean() - xi) / (xi / np.sqrt(k * 400))) < 4
    spread = estimates.var(ddof=1) / (xi**2 / k)
    assert abs(spread - 1) / np.sqrt((2 + 6 / k) / 400) < 4


def test_hill_by_hand_and_by_a_plain_loop():
    rng = np.random.default_rng(1)
    losses = rng.gamma(3, 1, 200)
    P = sorted(np.exp(losses), reverse=True)
    for k in (1, 10, 199):
        assert hill(losses, k) == pytest.approx(sum(np.log(P[i] / P[k]) for i in range(k)) / k, rel=1e-9)
    assert hill([5.0, 1.0, 2.0], 1) == 3
    assert hill(np.full(40, 7.0), 2) == 0


def test_tail_in_numbers_by_hand():
    losses, reference = np.log(np.arange(1, 102)), np.log([3.5, 50, 98.5])
    row = tail(losses[::-1], reference)
    assert all(type(value) is float for value in row.values())
    assert list(row) == ["q01", "q05", "q25", "q50", "q75", "q95", "q99", "index", "beyond", "below"]
    assert list(row.values())[:7] == pytest.approx([2, 6, 26, 51, 76, 96, 100])
    assert row["index"] == pytest.approx(np.mean(np.log(np.arange(96, 102) / 95)))  # the upper 6 of 101
    assert (row["beyond"], row["below"]) == (3 / 101, 3 / 101)
    same = tail(losses, losses)
    assert (same["beyond"], same["below"]) == (0, 0)


def test_quantiles_between_two_blocks_are_of_perplexities_and_not_of_losses():
    assert tail(np.log([1, 9]), [1.0])["q50"] == pytest.approx(5)  # in losses it would be 3


def test_histogram_is_numpys_with_an_open_last_bin():
    losses = np.random.default_rng(0).gamma(3, 2, 5_000)
    shares = histogram(losses)
    assert shares.sum() == pytest.approx(1, rel=1e-12)
    counts, _ = np.histogram(np.minimum(np.exp(losses), 9_999), BINS)
    np.testing.assert_array_equal(np.round(shares * 5_000), counts)
    assert (np.exp(losses) > 10_000).mean() > 0.01
    assert shares.shape == (len(BINS) - 1,) == (40,)


def test_bins_hold_their_lower_edges():
    assert (BINS[0], BINS[10], BINS[-1]) == (1, 10, 10_000)
    np.testing.assert_allclose(BINS[1:] / BINS[:-1], 10**0.1)
    assert not BINS.flags.writeable
    for k, edge in enumerate(BINS[:-1]):
        for inside in (np.log(edge * 1.0001), np.log(edge)):
            assert histogram([inside])[k] == 1
    for far in (np.log(1e4), 1e4):
        assert histogram([far])[39] == 1


# What is refused


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (np.zeros((2, 1), int), r"T >= 2, got int64 of shape \(2, 1\)"),
        (np.zeros((2, 64)), "float64"),
        (np.full((2, 64), K), "the model's vocabulary, 0 to 63, got 64"),
        (np.full((2, 64), -1), "got -1"),
    ],
)
def test_blocks_that_no_model_reads_are_refused(blocks, message, model):
    with pytest.raises(ValueError, match=f"blocks: .*{message}"):
        block_losses(model, blocks)


def test_other_arguments_that_are_refused(model):
    blocks = some_blocks(3)
    with pytest.raises(ValueError, match="prompts: one for each block is needed, got 2 for 3"):
        continuation_losses(model, blocks[:2], blocks)
    with pytest.raises(ValueError, match="prompts: tokens must be >= 0"):
        continuation_losses(model, blocks - K, blocks)
    with pytest.raises(ValueError, match="batch = 0"):
        block_losses(model, blocks, batch=0)
    with pytest.raises(ValueError, match="model: must be in evaluation mode"):
        block_losses(opt().train(), blocks)
    with pytest.raises(ValueError, match="batch = 0"):
        perplexity([1.0], batch=0)
    with pytest.raises(ValueError, match="losses: one for each block is needed, got 2 for 3"):
        bits_per_byte([1.0, 2.0], blocks, SimpleNamespace())
    with pytest.raises(ValueError, match="reference_losses = "):
        tail([1.0, 2.0], [])
    with pytest.raises(ValueError, match="losses: a tail needs at least 2, got 1"):
        tail([1.0], [1.0])
    for k in (0, 3):
        with pytest.raises(ValueError, match=f"k = {k}: must be an integer from 1 to 2"):
            hill([1.0, 2.0, 3.0], k)


@pytest.mark.parametrize("losses", [[], [np.nan, 1], [np.inf], [-0.1, 1], [[1.0]], 1.0, ["a"]])
def test_losses_that_are_none_are_refused(losses):
    for call in (perplexity, histogram, lambda x: hill(x, 1), lambda x: tail(x, [1.0])):
        with pytest.raises(ValueError, match="losses = "):
            call(losses)
