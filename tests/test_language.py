"""Fine-tuning and writing: against plain twins, through the loop, and in runs that are stopped inside a generation."""

from dataclasses import replace
from itertools import islice
from math import exp
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM, FalconConfig, FalconForCausalLM, OPTConfig, OPTForCausalLM

from model_collapse import language
from model_collapse.corpus import Blocks
from model_collapse.fine_tuning import learning_rate
from model_collapse.language_measures import block_losses
from model_collapse.pretrained import Pretrained
from model_collapse.process import generations
from model_collapse.settings import Lm, mixture
from model_collapse.torch_random import drawing_from
from model_collapse.unfinished import Unfinished

SETTINGS = Lm(
    model="tiny", corpus="wikipedia", blocks=12, epochs=3, batch=5, learning_rate=1e-2, last_generation=2, beams=2
)


def model(dropout=0.1):
    config = OPTConfig(
        vocab_size=40, hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=16,
        max_position_embeddings=128, dropout=dropout, pad_token_id=1, bos_token_id=2, eos_token_id=2,
    )  # fmt: skip
    with drawing_from(torch.Generator().manual_seed(0)):
        return OPTForCausalLM(config).eval()


@pytest.fixture(scope="module")
def start():
    return Pretrained("random", "none", model(), None)


@pytest.fixture(scope="module")
def text():
    rng = np.random.default_rng(7)
    periodic = (np.arange(64) + rng.integers(0, 36, (40, 1))) % 36 + 4  # what one token tells of the next can be learnt
    parts = np.split(periodic.astype(np.int32), [20, 30])
    return Blocks(*parts)


def family(start, text, settings=SETTINGS, **options):
    return language.family(settings, start, text, **options)


def rng(seed=0):
    return np.random.default_rng(seed)


def same(first, second):
    return first.weights.keys() == second.weights.keys() != set() and all(
        torch.equal(value, second.weights[name]) for name, value in first.weights.items()
    )


# Fine-tuning


def test_fine_tuning_is_adamw_with_the_cosine_of_torch_and_the_model_s_own_loss(start, text):
    """Without dropout, in the same order of blocks, a plain loop of torch ends with the same weights.

    A decay and a final rate that are not the usual ones; the last batch of an epoch is short.
    """
    settings = replace(SETTINGS, keep="last", batch=6, weight_decay=0.3, final_rate=1e-3)
    ours = language.fine_tune(model(dropout=0.0), text.train, text.validation, rng(), settings)
    plain = model(dropout=0.0).train()
    optimiser = torch.optim.AdamW(plain.parameters(), lr=1e-2, weight_decay=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=3, eta_min=1e-3)
    for seed in rng().integers(2**63, size=3):
        order = torch.Generator().manual_seed(int(rng(seed).integers(2**63)))
        for indices in torch.split(torch.randperm(20, generator=order), 6):
            part = torch.tensor(text.train, dtype=torch.long)[indices]
            optimiser.zero_grad()
            plain(input_ids=part, labels=part).loss.backward()
            optimiser.step()
        schedule.step()
    for name, value in language.packed(plain).items():
        torch.testing.assert_close(ours.weights[name].float(), value.float(), rtol=2e-3, atol=2e-4)
    assert ours.validation[-1] == pytest.approx(block_losses(plain.eval(), text.validation).mean(), rel=1e-4)


def test_dropout_is_on_while_it_learns(text):
    """Start, order of blocks and steps are the same: what is dropped is the difference."""
    once = replace(SETTINGS, epochs=1)
    kept, dropped = (language.fine_tune(model(p), text.train, text.validation, rng(), once) for p in (0.0, 0.5))
    assert not same(kept, dropped)


def test_it_learns(start, text):
    theta = family(start, text).fit(text.train, rng(), None)
    before = block_losses(model(), text.validation).mean()
    assert theta.validation[-1] < theta.validation[0] < before


def test_the_same_stream_gives_the_same_weights_and_leaves_the_global_state_alone(start, text):
    state = torch.get_rng_state()
    first, second = (family(start, text).fit(text.train, rng(), None) for _ in range(2))
    assert same(first, second)
    assert torch.equal(state, torch.get_rng_state())
    assert not same(first, family(start, text).fit(text.train, rng(1), None))


def test_the_pretrained_model_and_the_data_are_left_as_they_were(start, text):
    before, data = language.packed(start.model), text.train.copy()
    fitted = family(start, text)
    fitted.sample(fitted.fit(text.train, rng(), None), 3, rng())
    assert all(torch.equal(value, before[name]) for name, value in language.packed(start.model).items())
    np.testing.assert_array_equal(text.train, data)


def test_the_best_epoch_by_validation_is_kept_not_the_last(start, text):
    """On one token over and over, a model soon knows nothing else."""
    same_token, settings = np.full((20, 64), 5, np.int32), replace(SETTINGS, epochs=4)
    best = language.fine_tune(model(), same_token, text.validation, rng(), settings)
    last = language.fine_tune(model(), same_token, text.validation, rng(), replace(settings, keep="last"))
    assert best.epoch == best.validation.argmin() + 1 < 4 == last.epoch
    np.testing.assert_array_equal(best.validation, last.validation)
    for theta in (best, last):
        found = block_losses(language.place(model(), theta.weights), text.validation).mean()
        assert found == pytest.approx(theta.validation[theta.epoch - 1], rel=1e-3)  # but for half precision


def test_epochs_are_compared_on_the_validation_blocks_and_not_on_those_that_are_reported(start, text):
    other = text._replace(test=np.full((10, 64), 39, np.int32))
    theta = family(start, other, replace(SETTINGS, keep="last")).fit(text.train, rng(), None)
    fitted = language.place(model(), theta.weights)
    assert theta.validation[-1] == pytest.approx(block_losses(fitted, text.validation).mean(), rel=1e-3)
    assert abs(theta.validation[-1] - block_losses(fitted, other.test).mean()) > 0.1


def test_the_start_is_the_pretrained_model_or_the_predecessor(start, text):
    frozen = replace(SETTINGS, epochs=1, learning_rate=1e-9, final_rate=0.0)
    given = family(start, text).fit(text.train, rng(), None)
    anew = family(start, text, frozen).fit(text.train, rng(), given)
    further = family(start, text, replace(frozen, start="predecessor")).fit(text.train, rng(), given)
    assert max(float((further.weights[n] - w).abs().max()) for n, w in given.weights.items()) < 1e-3
    pretrained = language.packed(start.model)
    assert max(float((anew.weights[n] - w).abs().max()) for n, w in pretrained.items()) < 1e-3


def test_a_loss_that_is_no_number_is_said(start, text):
    with pytest.raises(FloatingPointError, match=r"epoch 1: the loss is (nan|inf); try a smaller learning_rate"):
        family(start, text, replace(SETTINGS, learning_rate=1e30)).fit(text.train, rng(), None)


def test_of_epochs_that_are_equally_good_the_first_is_kept(start, text, monkeypatch):
    losses = iter([2.0, 1.0, 1.0])
    monkeypatch.setattr("model_collapse.fine_tuning.block_losses", lambda *_: np.array([next(losses)]))
    theta = family(start, text).fit(text.train, rng(), None)
    losses = iter([2.0, 1.0, 3.0])
    assert same(theta, family(start, text).fit(text.train, rng(), None))
    assert theta.epoch == 2


@pytest.mark.parametrize("epoch", range(5))
def test_the_learning_rate_is_that_of_torch(epoch):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.AdamW([weight], lr=2e-5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=5, eta_min=1e-6)
    for _ in range(epoch):
        optimiser.step()
        schedule.step()
    assert learning_rate(Lm(), epoch) == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)


def test_half_precision_learns_too(start, text):
    theta = family(start, text, replace(SETTINGS, precision="half")).fit(text.train, rng(), None)
    full = family(start, text).fit(text.train, rng(), None)
    assert not same(theta, full)
    assert theta.validation[-1] == pytest.approx(full.validation[-1], abs=0.1)


# Writing


@pytest.mark.parametrize("penalty", [1.0, 2.0])
def test_what_is_written_is_what_the_library_s_own_beam_search_writes(start, text, penalty):
    settings = replace(SETTINGS, repetition_penalty=penalty)
    theta = family(start, text, settings).fit(text.train, rng(), None)
    positions = np.array([1, 4, 7])
    written = family(start, text, settings).sample_at(theta, positions, rng())
    prompts = torch.tensor(language.original(text, settings)[positions], dtype=torch.long)
    peer = language.place(model(), theta.weights).generate(
        prompts, attention_mask=torch.ones_like(prompts), num_beams=2, do_sample=False, min_new_tokens=64,
        max_new_tokens=64, repetition_penalty=penalty, pad_token_id=1,
    )  # fmt: skip
    np.testing.assert_array_equal(written, peer[:, 64:].numpy())


def test_a_sample_takes_each_prompt_at_most_once(start, text):
    fitted = family(start, text)
    theta = fitted.fit(text.train, rng(), None)
    every = fitted.sample_at(theta, np.arange(12), rng())
    some = fitted.sample(theta, 5, rng(3))
    places = [next(k for k in range(12) if (every[k] == row).all()) for row in some]
    assert places == sorted(set(places))
    with pytest.raises(ValueError, match="n = 13: each block of the original data is continued once"):
        fitted.sample(theta, 13, rng())


def test_sampling_depends_on_the_stream_and_beams_do_not(start, text):
    for writing, differs in (("sampling", True), ("beams", False)):
        fitted = family(start, text, replace(SETTINGS, writing=writing))
        theta = fitted.fit(text.train, rng(), None)
        first, again, other = (fitted.sample(theta, 12, rng(seed)) for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any() == differs


def written(text, **changes):
    """What the random model draws after one prompt that stands there four times."""
    return language.write(model(), text.train[[0] * 4], rng(), replace(SETTINGS, writing="sampling", **changes))


def test_blocks_that_are_written_one_part_after_the_other_have_streams_of_their_own(text, monkeypatch):
    monkeypatch.setitem(language.TOGETHER, "cpu", 2)
    assert len({row.tobytes() for row in written(text)}) == 4


def test_the_repetition_penalty_holds_for_samples_too(text):
    """From one stream: had the penalty not been passed on, the same would be drawn."""
    assert (written(text) != written(text, repetition_penalty=9.0)).any()


@pytest.mark.parametrize(("precision", "kind"), [("float32", torch.float32), ("half", torch.bfloat16)])
def test_a_model_writes_in_the_precision_of_the_settings_and_keeps_its_own(text, monkeypatch, precision, kind):
    kinds, usual = [], language.beams
    monkeypatch.setattr(language, "beams", lambda writer, *a, **k: kinds.append(writer.dtype) or usual(writer, *a, **k))
    writer = model()
    language.write(writer, text.train[:1], rng(), replace(SETTINGS, precision=precision))
    assert (kinds, writer.dtype) == ([kind], torch.float32)


def test_original_blocks_are_spread_evenly_and_more_than_there_are_is_refused(text):
    assert language.original(text, SETTINGS)[:, 0].tolist() == text.train[np.arange(12) * 20 // 12, 0].tolist()
    assert language.original(text, replace(SETTINGS, blocks=0)) is text.train
    with pytest.raises(ValueError, match="blocks = 21: there are only 20 blocks"):
        language.original(text, replace(SETTINGS, blocks=21))


# What cannot be run is refused before work begins


def test_devices_that_are_not_known_are_refused(start, text):
    with pytest.raises(ValueError, match="device = 'meta': allowed are 'cpu', 'cuda'"):
        family(start, text, device="meta")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(start, text):
    with pytest.raises(ValueError, match="device = 'cuda': torch finds no GPU"):
        family(start, text, device="cuda")


def test_fresh_blocks_need_blocks_that_are_not_in_use(start, text):
    with pytest.raises(ValueError, match="control = 'fresh': all 20 blocks are in use already"):
        family(start, text, replace(SETTINGS, blocks=20, control="fresh"))


@pytest.mark.parametrize(
    ("kind", "config", "why"),
    [
        (BloomForCausalLM, BloomConfig(n_layer=1, n_head=2), "must take position_ids"),
        (FalconForCausalLM, FalconConfig(num_hidden_layers=1, num_attention_heads=2, alibi=True), "unpack"),
    ],
)
def test_a_model_that_cannot_write_is_refused(start, text, kind, config, why):
    config.update({"vocab_size": 40, "hidden_size": 16, "eos_token_id": 2})
    with drawing_from(torch.Generator().manual_seed(0)):
        other = kind(config).eval()
    with pytest.raises(ValueError, match=f"model = '{SETTINGS.model}' cannot write a block: .*{why}"):
        family(start._replace(model=other), text)


def test_a_device_without_memory_is_not_taken_for_a_model_that_cannot_write(start, text, monkeypatch):
    def exhausted(*_):
        raise torch.OutOfMemoryError("9 GiB of 8")

    monkeypatch.setattr(language, "write", exhausted)
    with pytest.raises(torch.OutOfMemoryError, match="9 GiB of 8"):
        family(start, text)


@pytest.mark.parametrize("name", ["corpus", "keep", "start", "writing", "control", "precision"])
def test_settings_that_nobody_would_follow_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} = 'other': allowed are"):
        Lm(**{name: "other"})


def test_blocks_of_another_vocabulary_are_refused(start, text):
    with pytest.raises(ValueError, match=r"validation blocks: tokens from .* to 49, where random knows 0 to 39"):
        family(start, text._replace(validation=text.validation + 10))


# Through the loop


def run(start, text, settings, seed=0, count=3):
    fitted, original = family(start, text, settings), language.original(text, settings)
    return list(islice(generations(fitted, original, rng(seed), mixture=mixture(settings)), count))


def test_real_blocks_stand_in_place_of_written_ones(start, text):
    """Setting B: of 12 positions one keeps its real block, the others hold what the model writes for them."""
    settings = replace(SETTINGS, alpha=0.9, gamma=0.1)
    first, second = run(start, text, settings, count=2)
    real = (second.data == first.data).all(1)
    assert real.sum() == 1
    written = family(start, text, settings).sample_at(first.theta, np.flatnonzero(~real), rng())
    np.testing.assert_array_equal(second.data[~real], written)


def test_the_control_with_fresh_blocks_reads_real_text_only(start, text):
    chain = run(start, text, replace(SETTINGS, control="fresh"))
    real = {row.tobytes() for row in text.train}
    assert all(row.tobytes() in real for g in chain for row in g.data)
    assert (chain[1].data != chain[2].data).any()


def test_fresh_blocks_are_of_all_training_blocks_and_each_at_most_once(start, text):
    distinct = text._replace(train=np.random.default_rng(0).integers(4, 40, (20, 64)).astype(np.int32))
    settings = replace(SETTINGS, control="fresh")
    drawn = family(start, distinct, settings).sample_at(None, np.arange(12), rng())
    real, original = (
        {row.tobytes() for row in rows} for rows in (distinct.train, language.original(distinct, settings))
    )
    found = {row.tobytes() for row in drawn}
    assert len(found) == 12
    assert found <= real
    assert found - original


def test_the_control_with_kept_text_reads_the_text_of_generation_0_again_and_again(start, text):
    first, second, third = run(start, text, replace(SETTINGS, control="kept", start="predecessor"))
    np.testing.assert_array_equal(second.data, third.data)
    assert (first.data != second.data).any()
    assert not same(second.theta, third.theta)


# Stopped inside a generation


class StopError(Exception):
    pass


def stopping(after):
    """A tick that stops the work after so many calls."""
    calls = iter(range(after))

    def tick(blocks):
        if next(calls, None) is None:
            raise StopError

    return tick


@pytest.mark.parametrize("after", [1, 4, 6, 10])
def test_fine_tuning_goes_on_with_the_epoch_it_was_in_and_ends_bit_identical(start, text, tmp_path, after):
    whole = family(start, text).fit(text.train, rng(), None)
    kept = Unfinished(every=0)
    kept.begin(tmp_path, 0, "")
    with pytest.raises(StopError):
        family(start, text, tick=stopping(after), unfinished=kept).fit(text.train, rng(), None)
    assert (kept.load("fit") is not None) == (after > 4)  # 4 batches an epoch
    ticks = []
    again = family(start, text, tick=ticks.append, unfinished=kept).fit(text.train, rng(), None)
    assert same(whole, again)
    np.testing.assert_array_equal(whole.validation, again.validation)
    assert sum(ticks) == 3 * 20


@pytest.mark.parametrize("stopped", [False, True])
def test_the_best_epoch_is_kept_whatever_comes_after_it(start, text, tmp_path, monkeypatch, stopped):
    """A worse epoch, two that gain on it but not on the best; and a stop in the third."""
    losses, seen, settings = iter([1.0, 3.0, 2.0, 1.5]), [], replace(SETTINGS, epochs=4)

    def scripted(fitted, blocks):
        seen.append(language.packed(fitted))
        return np.array([next(losses)])

    monkeypatch.setattr("model_collapse.fine_tuning.block_losses", scripted)
    kept = Unfinished(every=0)
    kept.begin(tmp_path, 0, "")
    if stopped:
        with pytest.raises(StopError):
            family(start, text, settings, tick=stopping(9), unfinished=kept).fit(text.train, rng(), None)
        assert len(seen) == 2
    theta = family(start, text, settings, unfinished=kept).fit(text.train, rng(), None)
    assert (theta.epoch, theta.validation.tolist()) == (1, [1.0, 3.0, 2.0, 1.5])
    assert theta.weights.keys() == seen[0].keys()
    assert all(torch.equal(value, seen[0][name]) for name, value in theta.weights.items())


@pytest.mark.parametrize("writing", ["beams", "sampling"])
def test_writing_goes_on_with_the_blocks_that_are_left(start, text, tmp_path, monkeypatch, writing):
    monkeypatch.setitem(language.TOGETHER, "cpu", 5)
    settings = replace(SETTINGS, writing=writing)
    theta = family(start, text, settings).fit(text.train, rng(), None)
    whole = family(start, text, settings).sample_at(theta, np.arange(12), rng())
    kept = Unfinished(every=0)
    kept.begin(tmp_path, 1, "abc")
    with pytest.raises(StopError):
        family(start, text, settings, tick=stopping(2), unfinished=kept).sample_at(theta, np.arange(12), rng())
    assert len(kept.load("text")["tokens"]) == 5
    ticks = []
    again = family(start, text, settings, tick=ticks.append, unfinished=kept)
    np.testing.assert_array_equal(again.sample_at(theta, np.arange(12), rng()), whole)
    assert sum(ticks) == 12 * language.WRITTEN


def test_a_whole_text_is_kept_at_once_and_fine_tuning_goes_on_with_no_other_data(start, text, tmp_path):
    kept = Unfinished(every=1e9)
    kept.begin(tmp_path, 1, "abc")
    fitted = family(start, text, unfinished=kept)
    theta = fitted.fit(text.train, rng(), None)
    assert kept.load("fit") is None
    written = fitted.sample_at(theta, np.arange(12), rng())
    np.testing.assert_array_equal(kept.load("text")["tokens"], written)
    kept.every = 0
    with pytest.raises(StopError):
        family(start, text, tick=stopping(6), unfinished=kept).fit(text.train, rng(), None)
    ticks = []
    family(start, text, tick=ticks.append, unfinished=kept).fit(text.train[::-1].copy(), rng(), None)
    assert ticks[0] == 0  # other data: from the first epoch


# On every device that there is

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["float32", "half"])
@pytest.mark.parametrize("writing", ["beams", "sampling"])
def test_a_generation_that_was_stopped_on_a_device_ends_there_bit_identical(
    start, text, tmp_path, device, precision, writing
):
    settings, kept = replace(SETTINGS, precision=precision, writing=writing), Unfinished(every=0)
    fitted = family(start, text, settings, device=device)
    theta = fitted.fit(text.train, rng(), None)
    written = fitted.sample_at(theta, np.arange(12), rng())
    kept.begin(tmp_path, 0, "")
    with pytest.raises(StopError):
        family(start, text, settings, device=device, tick=stopping(6), unfinished=kept).fit(text.train, rng(), None)
    again = family(start, text, settings, device=device, unfinished=kept)
    assert same(theta, again.fit(text.train, rng(), None))
    np.testing.assert_array_equal(again.sample_at(theta, np.arange(12), rng()), written)


@pytest.mark.parametrize("device", DEVICES)
def test_losses_of_a_model_on_a_device_are_those_on_the_processor(start, text, device):
    on_device = model().to(device)
    np.testing.assert_allclose(block_losses(on_device, text.test), block_losses(model(), text.test), rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "times"),
    [
        ({}, 1),
        ({"num_key_value_heads": 4}, 2.9),
        ({"dtype": torch.float16}, 1.9),
        ({"beams": 1}, 3),
        ({"memory": 4}, 4),
    ],
)
def test_how_many_blocks_a_gpu_writes_together_goes_by_their_size(monkeypatch, change, times):
    def together(dtype=torch.float32, beams=5, memory=1, **options):
        config = OPTConfig(vocab_size=1_000, hidden_size=768, num_hidden_layers=12, num_attention_heads=12)
        config.update(options)
        card = SimpleNamespace(total_memory=memory * 10**10)
        monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: card)
        device = torch.device("cuda")
        return language._together(SimpleNamespace(device=device, dtype=dtype, config=config), beams)

    assert 50 < together() < 100
    assert together(**change) / together() == pytest.approx(times, rel=0.3)
    assert together(memory=1000) == language.TOGETHER["cuda"]
    assert together(memory=0) == 1


# Weights


def test_weights_survive_being_stored(start, text):
    theta = family(start, text).fit(text.train, rng(), None)
    again = language.unpack(language.pack(theta))
    assert same(theta, again)
    assert again.epoch == theta.epoch
    np.testing.assert_array_equal(again.validation, theta.validation)


def test_half_precision_between_generations_moves_perplexity_by_little(start, text):
    trained = model(dropout=0.0)
    language.fine_tune(trained, text.train, text.validation, rng(), SETTINGS)
    full = block_losses(trained, text.test).mean()
    halved = block_losses(language.place(trained, language.packed(trained)), text.test).mean()
    assert exp(halved) == pytest.approx(exp(full), rel=1e-3)


def test_weights_of_another_model_or_beyond_half_precision_are_refused(start):
    with pytest.raises(ValueError, match=r"not those of this model \(1 differ"):
        language.place(model(), language.packed(start.model) | {"other": torch.zeros(1)})
    huge = model()
    with torch.no_grad():
        next(huge.parameters()).fill_(1e6)
    with pytest.raises(FloatingPointError, match="not finite in half precision"):
        language.packed(huge)
