"""The autoencoder: against torch's own layers and a plain loop, and its data in the one loop of the process."""

from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from model_collapse import vae
from model_collapse.data import mnist
from model_collapse.drawn import Drawn, Joined
from model_collapse.process import generations
from model_collapse.settings import Vae, mixture
from model_collapse.torch_random import torch_generator
from model_collapse.vae import Images, Network, batch_loss, draw, family, pack, train, unpack

TINY = {"mnist": "embedded", "digits": 48, "epochs": 2, "batch": 16}
DIGITS = mnist("embedded", "train").images[:48].astype(np.float32) / np.float32(255)


def rng(*key):
    return np.random.default_rng([0, *key])


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def network():
    return Network(20, stream()).eval().requires_grad_(False)


@pytest.fixture
def batches(monkeypatch):
    """The images of every batch that is trained on, and its loss."""
    seen = []

    def spied(network, images, generator):
        loss = batch_loss(network, images, generator)
        seen.append((images.clone(), float(loss.detach())))
        return loss

    monkeypatch.setattr(vae, "batch_loss", spied)
    return seen


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


# The network


def test_layers_are_those_of_the_authors(network):
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters() if "weight" in name}
    assert shapes == {
        "conv1.weight": (64, 1, 4, 4),
        "conv2.weight": (128, 64, 4, 4),
        "mean.weight": (20, 6272),
        "log_variance.weight": (20, 6272),
        "expand.weight": (6272, 20),
        "deconv2.weight": (128, 64, 4, 4),
        "deconv1.weight": (64, 1, 4, 4),
    }
    assert sum(parameter.numel() for parameter in network.parameters()) == 647_081
    assert [part.shape for part in network.encode(torch.zeros(5, 28, 28))] == [(5, 20), (5, 20)]
    assert network.decode(torch.zeros(5, 20)).shape == (5, 28, 28)
    assert Network(7, stream()).encode(torch.zeros(2, 28, 28))[1].shape == (2, 7)


def test_encoder_and_decoder_are_torch_s_layers_in_a_row(network):
    encoder = nn.Sequential(nn.Unflatten(1, (1, 28)), network.conv1, nn.ReLU(), network.conv2, nn.ReLU(), nn.Flatten())
    decoder = nn.Sequential(
        network.expand, nn.Unflatten(1, (128, 7, 7)), network.deconv2, nn.ReLU(), network.deconv1, nn.Flatten(1, 2)
    )
    images, latents = torch.tensor(DIGITS[:3]), torch.randn(3, 20, generator=stream())
    hidden = encoder(images)
    torch.testing.assert_close(network.encode(images), (network.mean(hidden), network.log_variance(hidden)))
    torch.testing.assert_close(network.decode(latents), decoder(latents))
    assert [(conv.stride, conv.padding) for conv in (network.conv1, network.deconv2)] == [((2, 2), (1, 1))] * 2


def test_start_values_are_torch_s_own():
    """From one state of a generator: torch's default layers, made in the same order, and ours."""
    ours = torch.Generator()
    ours.set_state(torch.get_rng_state())
    layers = [nn.Conv2d(1, 64, 4), nn.Conv2d(64, 128, 4), nn.Linear(6272, 20), nn.Linear(6272, 20)]
    layers += [nn.Linear(20, 6272), nn.ConvTranspose2d(128, 64, 4), nn.ConvTranspose2d(64, 1, 4)]
    theirs = [parameter for layer in layers for parameter in layer.parameters()]
    state = torch.get_rng_state()
    for parameter, default in zip(Network(20, ours).parameters(), theirs, strict=True):
        torch.testing.assert_close(parameter, default, rtol=1e-6, atol=0)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"


# Its loss and its training


def test_loss_is_the_formula(network):
    images = torch.tensor(DIGITS[:6])
    mean, log_variance = (part.double().numpy() for part in network.encode(images))
    z = mean + np.exp(0.5 * log_variance) * torch.randn(6, 20, generator=stream(3)).numpy()
    p = torch.sigmoid(network.decode(torch.tensor(z, dtype=torch.float32)).double()).numpy()
    likelihood = np.sum(DIGITS[:6] * np.log(p) + (1 - DIGITS[:6]) * np.log(1 - p))
    kl = -0.5 * np.sum(1 + log_variance - mean**2 - np.exp(log_variance))
    assert float(batch_loss(network, images, stream(3))) == pytest.approx(kl - likelihood, rel=1e-6)


def plain_loss(network, images, noise):
    """The authors' loss: binary cross-entropy of sigmoid outputs, and the divergence."""
    mean, log_variance = network.encode(images)
    p = torch.sigmoid(network.decode(mean + noise * torch.exp(0.5 * log_variance)))
    kl = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
    return functional.binary_cross_entropy(p.flatten(1), images.flatten(1), reduction="sum") + kl


def test_gradient_is_that_of_the_plain_loss():
    network, images = Network(20, stream()).double(), torch.tensor(DIGITS[:8]).double()
    batch_loss(network, images, stream(4)).backward()
    ours = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    plain_loss(network, images, torch.randn(8, 20, generator=stream(4))).backward()
    for gradient, parameter in zip(ours, network.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-9, atol=1e-9)


@pytest.fixture
def double():
    """Adam's first steps have the sign of a gradient: in single precision, rounding decides some of them."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_training_is_the_plain_loop(double, monkeypatch):
    """With a decay that would show if it were left out, or decoupled from the gradient; in float64, else refused."""
    monkeypatch.setattr("model_collapse.vae._held", lambda data, device: [torch.tensor(data)])
    digits, settings = DIGITS.astype(np.float64), Vae(**TINY, learning_rate=2e-3, weight_decay=50.0)
    trained = train(digits, rng(1), settings)
    source = rng(1)
    order, noise = torch_generator(source), torch_generator(source)
    plain = Network(20, order)
    optimiser = torch.optim.Adam(plain.parameters(), lr=2e-3, weight_decay=50.0)
    for _ in range(2):
        permutation, losses = torch.randperm(48, generator=order), []
        for first in range(0, 48, 16):
            images = torch.tensor(digits)[permutation[first : first + 16]]
            loss = plain_loss(plain, images, torch.randn(16, 20, generator=noise))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    for ours, theirs in zip(trained.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-7, atol=1e-9)
    assert float(trained.loss) == pytest.approx(np.mean(losses), rel=1e-9)


def test_one_generator_gives_one_network():
    settings, state, original = Vae(**TINY), torch.get_rng_state(), DIGITS.copy()
    one, same, other = (train(DIGITS, rng(key), settings) for key in (1, 1, 2))
    assert equal(one, same)
    assert torch.equal(one.loss, same.loss)
    assert not equal(one, other)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    np.testing.assert_array_equal(DIGITS, original)
    assert not one.training
    assert not any(parameter.requires_grad for parameter in one.parameters())


def test_every_generation_starts_anew():
    fit = family(Vae(**TINY)).fit
    first = fit(DIGITS, rng(1), None)
    assert equal(first, fit(DIGITS, rng(1), fit(DIGITS[::-1].copy(), rng(2), None)))


def test_training_lowers_the_loss_and_counts_images(batches):
    counted = []
    network = train(DIGITS, rng(1), Vae(**TINY | {"epochs": 12, "batch": 20}), tick=counted.append)
    assert counted == [20, 20, 8] * 12
    losses = [loss for _, loss in batches]
    assert float(network.loss) == pytest.approx(np.mean(losses[-3:]), rel=1e-6)
    assert np.mean(losses[-3:]) < 0.6 * np.mean(losses[:3])


def test_a_loss_that_is_no_number_stops_the_training():
    with pytest.raises(FloatingPointError, match="epoch 0: the loss is nan"):
        train(DIGITS, rng(1), Vae(**TINY, learning_rate=1e30))


@pytest.mark.parametrize("data", [[1, 2], Joined((DIGITS, "text")), DIGITS.astype(np.float64), DIGITS[:, :14]])
def test_other_data_are_refused(data):
    with pytest.raises(ValueError, match=r"(?s)data = .*must be float32 images \(n, 28, 28\), Images, or both joined"):
        train(data, rng(1), Vae(**TINY))


# Its images


def test_means_are_decoded_standard_normal_latents(network, monkeypatch):
    latents = torch.randn(50, 20, generator=stream(2))
    means = torch.sigmoid(network.decode(latents))
    for chunk in (2_000, 7):
        monkeypatch.setattr(vae, "CHUNK", chunk)
        torch.testing.assert_close(draw(network, 50, stream(2)), means)
    assert means.dtype == torch.float32
    assert 0 < means.min() < means.max() < 1


def test_bernoulli_draws_have_these_means(network):
    white = Network(20, stream())
    with torch.no_grad():
        white.deconv1.weight.mul_(30)  # means far from 1/2
    p = draw(white, 400, stream(5)).double()
    x = draw(white, 400, stream(5), "bernoulli").double()
    assert set(x.unique().tolist()) == {0, 1}
    assert p.std() > 0.2
    variance = p * (1 - p)
    assert abs(float((x - p).sum() / variance.sum().sqrt())) < 4
    fourth = (variance * (1 - 4 * variance)).sum()  # of Bernoulli variables, the variance of (x - p)^2
    assert abs(float(((x - p) ** 2 - variance).sum() / fourth.sqrt())) < 4


def test_images_are_data_that_are_drawn_when_asked(network):
    images = Images(network, 9)
    assert isinstance(images, Drawn)
    assert (images.shape, images.dtype, len(images)) == ((9, 28, 28), np.float32, 9)
    assert len(images.at(np.array([8, 0, 3]))) == 3
    assert images.at(np.array([1])).network is network
    generator = stream()
    assert not torch.equal(images.draw(4, generator), images.draw(4, generator))
    assert torch.equal(images.draw(4, stream()), draw(network, 4, stream()))
    assert set(Images(network, 9, "bernoulli").draw(4, stream()).unique().tolist()) == {0, 1}


def epochs(batches, n=2):
    """The images of each epoch, as bytes."""
    images = [image.numpy().tobytes() for batch, _ in batches for image in batch]
    return [images[i * len(images) // n : (i + 1) * len(images) // n] for i in range(n)]


@pytest.mark.parametrize("output", ["mean", "bernoulli"])
def test_fresh_images_are_never_seen_twice(network, batches, output):
    sample = family(Vae(**TINY, output=output)).sample
    train(sample(network, 48, rng(1)), rng(2), Vae(**TINY))
    first, second = epochs(batches)
    assert len(set(first + second)) == 96
    grey = torch.cat([images for images, _ in batches])
    assert (len(grey.unique()) == 2) == (output == "bernoulli")


@pytest.mark.parametrize("output", ["mean", "bernoulli"])
def test_a_fixed_set_is_seen_once_in_each_epoch(network, batches, output):
    sample = family(Vae(**TINY, draws="fixed", output=output)).sample
    images = sample(network, 48, rng(1))
    assert (type(images), images.shape, images.dtype) == (np.ndarray, (48, 28, 28), np.float32)
    np.testing.assert_array_equal(images, sample(network, 48, rng(1)))
    assert (images != sample(network, 48, rng(2))).any()
    train(images, rng(2), Vae(**TINY))
    first, second = epochs(batches)
    assert first != second, "the order must be another in each epoch"
    assert sorted(first) == sorted(second) == sorted(image.tobytes() for image in images)


@pytest.mark.parametrize("draws", ["fresh", "fixed"])
def test_mixtures_through_the_one_loop(draws, batches, monkeypatch):
    """Of 48 images 24 are new, 12 of the previous data and 12 real, in every epoch; the drawn parts are drawn anew."""
    settings, drawn = Vae(**TINY, alpha=0.5, beta=0.25, gamma=0.25, draws=draws), []

    def spied(network, n, generator, output="mean"):
        drawn.append((network, n))
        return draw(network, n, generator, output)

    monkeypatch.setattr(vae, "draw", spied)
    run = list(islice(generations(family(settings), DIGITS, rng(3), mixture=mixture(settings)), 3))
    real = {image.tobytes() for image in DIGITS}
    seen = epochs(batches, 6)  # two of each generation
    for i, trained in zip((1, 1, 2, 2), seen[2:], strict=True):
        originals = [image for image in trained if image in real]
        assert len(trained) == 48
        assert len(set(originals)) >= 12, "12 real ones without replacement"
        assert len(originals) == 24 or i == 2, "of D_1, the previous data are real too"
    if draws == "fresh":
        parts = run[2].data.parts
        assert [len(parts[0]), sum(map(len, parts))] == [24, 48]
        assert parts[0].network is run[1].theta
        own = [n for network, n in drawn if network is run[1].theta]
        assert sum(own) == 2 * 24
        older = [len(part) for part in parts[1:] if isinstance(part, Images)]
        assert sum(n for network, n in drawn if network is run[0].theta) == 2 * 24 + 2 * sum(older)
        new = [image for epoch in seen[4:] for image in epoch if image not in real]
        assert len(set(new)) == len(new) == 2 * (24 + sum(older))
    else:
        assert [n for _, n in drawn] == [24, 24]
        assert sorted(seen[4]) == sorted(seen[5])


def test_batches_mix_sources_at_random(network, batches):
    """Real images among drawn ones: in a batch of 16 of 48, as many as drawing without replacement gives."""
    data = Joined((Images(network, 36), DIGITS[:12]))
    train(data, rng(4), Vae(**TINY | {"epochs": 20}))
    real = {image.tobytes() for image in DIGITS[:12]}
    counts = np.array([sum(x.numpy().tobytes() in real for x in images) for images, _ in batches]).reshape(20, 3)
    np.testing.assert_array_equal(counts.sum(axis=1), 12)
    variance = 16 * (1 / 4) * (3 / 4) * (48 - 16) / (48 - 1)  # hypergeometric
    squares = (counts[:, 0] - 4.0) ** 2
    assert abs((squares.mean() - variance) / (squares.std(ddof=1) / np.sqrt(20))) < 4
    assert len({tuple(row) for row in counts.tolist()}) > 5


# Stored


def test_packed_networks_come_back(network):
    trained = train(DIGITS, rng(1), Vae(**TINY))
    arrays = pack(trained)
    assert all(isinstance(value, np.ndarray) and value.flags.c_contiguous for value in arrays.values())
    back = unpack(arrays)
    assert equal(trained, back)
    assert torch.equal(trained.loss, back.loss)
    latents = torch.randn(4, 20, generator=stream())
    torch.testing.assert_close(trained.decode(latents), back.decode(latents), rtol=0, atol=0)
    half = unpack({name: value.astype(np.float16) for name, value in arrays.items()})
    assert half.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(half.decode(latents), back.decode(latents), rtol=0.02, atol=0.02)


def test_other_arrays_are_refused(network):
    arrays = pack(network)
    for wrong in (
        {},
        {name: value for name, value in arrays.items() if name != "conv1.bias"},
        arrays | {"extra": np.zeros(1)},
        arrays | {"conv1.bias": np.zeros(63, np.float32)},
    ):
        with pytest.raises(ValueError, match="not the weights of this network"):
            unpack(wrong)


def test_torch_generators_follow_the_numpy_stream():
    source = rng(1)
    seeds = [torch_generator(source).initial_seed() for _ in range(2)]
    assert len(set(seeds)) == 2
    assert torch_generator(rng(1)).initial_seed() == seeds[0]
