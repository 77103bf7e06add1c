"""Measures of the autoencoder: exact cases, plain twins, quadrature, and a classifier that reads real digits."""

import numpy as np
import pytest
import torch
from scipy import stats

from model_collapse import vae_measures, vae_neighbours
from model_collapse.data import mnist
from model_collapse.vae import Network, draw
from model_collapse.vae_measures import (
    LEVELS,
    Classifier,
    PrecisionRecall,
    accuracy,
    classes,
    elbo,
    entropy,
    features,
    latent_means,
    measures,
    precision_recall,
    probe,
    train_classifier,
)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def z_score(sample, exact):
    sample = np.asarray(sample)
    return (sample.mean() - exact) / (sample.std(ddof=1) / np.sqrt(len(sample)))


def tensors(split, n=None):
    digits = mnist("embedded", split)
    return torch.tensor(digits.images[:n] / np.float32(255)), torch.tensor(digits.labels[:n])


@pytest.fixture(scope="module")
def classifier():
    return train_classifier(*tensors("train"), np.random.default_rng(0), epochs=8)


@pytest.fixture(scope="module")
def network():
    return Network(20, stream()).requires_grad_(False)


class Toy:
    """One latent; q(z | x) = N(m, s^2) whatever x; the log-odds of pixel j are a_j + b_j z."""

    def __init__(self, m=0.3, s=0.6, slope=0.3):
        self.m, self.s = m, s
        self.a, self.b = torch.randn(28, 28, generator=stream(1)), slope * torch.randn(28, 28, generator=stream(2))

    def encode(self, images):
        one = torch.ones(len(images), 1)
        return self.m * one, 2 * np.log(self.s) * one

    def decode(self, latents):
        return self.a + latents[:, :, None] * self.b

    def log_likelihood(self, image, z):
        logits = self.a.double().numpy() + np.multiply.outer(z, self.b.double().numpy())
        return (image * -np.logaddexp(0, -logits) + (1 - image) * -np.logaddexp(0, logits)).sum((1, 2))


# The bound


def test_bound_of_a_toy_by_quadrature_and_below_its_evidence():
    toy, image = Toy(), (torch.rand(28, 28, generator=stream(3)) < 0.5).float()
    z = np.linspace(-8, 8, 2_001)
    step, likelihood = z[1] - z[0], toy.log_likelihood(image.double().numpy(), z)
    reconstruction = np.sum(stats.norm.pdf(z, toy.m, toy.s) * likelihood) * step
    kl = np.sum(stats.norm.pdf(z, toy.m, toy.s) * (stats.norm.logpdf(z, toy.m, toy.s) - stats.norm.logpdf(z))) * step
    top = likelihood.max()
    evidence = top + np.log(np.sum(np.exp(likelihood - top) * stats.norm.pdf(z)) * step)
    generator = stream(4)
    bounds = [elbo(toy, image.repeat(200, 1, 1), generator) for _ in range(50)]
    assert abs(z_score([bound.reconstruction for bound in bounds], reconstruction)) < 4
    assert bounds[0].kl == pytest.approx(kl, rel=1e-6)
    assert all(bound.elbo == bound.reconstruction - bound.kl for bound in bounds)
    assert z_score([bound.elbo for bound in bounds], evidence) < -4


def test_bound_is_the_evidence_where_q_is_the_posterior():
    """A decoder that ignores z has the prior as its posterior: no noise is left, grey pixels follow the formula."""
    toy, images = Toy(m=0, s=1, slope=0), torch.rand(7, 28, 28, generator=stream())
    exact = [toy.log_likelihood(image.double().numpy(), np.zeros(1))[0] for image in images]
    assert elbo(toy, images, stream()) == pytest.approx((np.mean(exact), np.mean(exact), 0), rel=1e-6, abs=1e-9)


def test_bound_does_not_depend_on_chunks(monkeypatch):
    toy, images = Toy(slope=0), torch.rand(7, 28, 28, generator=stream())
    whole = elbo(toy, images, stream())
    monkeypatch.setattr(vae_measures, "CHUNK", 3)
    assert elbo(toy, images, stream()) == pytest.approx(whole, rel=1e-9)


def test_divergence_of_a_network_by_monte_carlo(network):
    images, _ = tensors("test", 20)
    mean, log_variance = (part.double().numpy() for part in network.encode(images))
    sd, rng = np.exp(log_variance / 2), np.random.default_rng(0)
    points = mean + sd * rng.standard_normal((20_000, *mean.shape))
    ratios = (stats.norm.logpdf(points, mean, sd) - stats.norm.logpdf(points)).sum(axis=2).mean(axis=1)
    assert abs(z_score(ratios, elbo(network, images, stream()).kl)) < 4


def test_bound_draws_one_latent_for_each_image(network):
    """The twin: image by image, with the same noise, in the authors' form (sigmoid, then logarithms)."""
    images, _ = tensors("test", 9)
    noise, total = torch.randn(9, 20, generator=stream(5)), 0.0
    for x, e in zip(images, noise, strict=True):
        mean, log_variance = network.encode(x[None])
        p = torch.sigmoid(network.decode(mean + torch.exp(0.5 * log_variance) * e)).double()
        total += float((x * p.log() + (1 - x) * (1 - p).log()).sum())
    assert elbo(network, images, stream(5)).reconstruction == pytest.approx(total / 9, rel=1e-6)
    assert elbo(network, images, stream(6)).reconstruction != elbo(network, images, stream(5)).reconstruction


# The probe


def test_probe_is_mean_sd_and_quantiles_of_all_values(network, monkeypatch):
    images, _ = tensors("test", 100)
    one_by_one = np.concatenate([network.encode(image[None])[0].double().numpy() for image in images])
    assert one_by_one.size == 2_000  # the authors' number of values
    monkeypatch.setattr(vae_measures, "CHUNK", 30)
    np.testing.assert_allclose(latent_means(network, images).numpy(), one_by_one, atol=1e-6)
    seen = probe(network, images)
    assert (seen.mean, seen.sd) == pytest.approx((np.mean(one_by_one), np.std(one_by_one)), rel=1e-4)
    assert seen.quantiles == pytest.approx(np.quantile(one_by_one, LEVELS), abs=1e-6)
    norms = np.sqrt((one_by_one**2).sum(axis=1))
    assert seen.norms == pytest.approx(np.quantile(norms, (0.5, 0.99)), rel=1e-4)


# The classifier


def test_classifier_reads_other_real_digits(classifier):
    assert accuracy(classifier, *tensors("test")) > 0.95
    images, labels = tensors("test")
    seen = classes(classifier, images)
    assert seen.lost == ()
    assert seen.confidence > 0.9
    few = classes(classifier, images[labels < 5])
    assert few.lost == (5, 6, 7, 8, 9)
    assert few.entropy < 2.7 < seen.entropy <= np.log2(10)


def test_one_generator_gives_one_classifier():
    images, labels = tensors("train", 200)
    before = torch.get_rng_state()
    one, same, other = (train_classifier(images, labels, np.random.default_rng(s), epochs=1) for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one(images), other(images))
    assert not any(parameter.requires_grad for parameter in one.parameters())


def test_start_values_have_the_variance_of_he():
    for name, parameter in Classifier(stream()).named_parameters():
        if "bias" in name:
            assert not parameter.any()
        else:
            squares = parameter.detach().double().numpy().ravel() ** 2
            assert abs(z_score(squares, 2 / parameter[0].numel())) < 4, name


def test_accuracy_and_features_are_those_of_single_images(classifier):
    images, labels = tensors("test", 60)
    right = [int(classifier(x[None]).argmax()) == int(y) for x, y in zip(images, labels, strict=True)]
    wrong_labels = (labels + torch.tensor(right)) % 10
    assert accuracy(classifier, images, labels) == np.mean(right)
    assert accuracy(classifier, images, wrong_labels) == 0
    hidden = features(classifier, images)
    torch.testing.assert_close(hidden, torch.cat([classifier.hidden(x[None]) for x in images]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(classifier.output(hidden), classifier(images))


def reader(images):
    """Reads the digit that the first pixel says in tenths, with probability 1/2; the other nine share the rest."""
    log_odds = torch.zeros(len(images), 10)
    log_odds[torch.arange(len(images)), (images[:, 0, 0] * 10).round().long()] = np.log(9)
    return log_odds


def test_classes_count_and_call_lost_what_is_below_the_threshold():
    images = torch.zeros(200, 28, 28)
    images[:, 0, 0] = torch.tensor([0] * 95 + [1] * 98 + [7] * 4 + [9] * 3) / 10
    seen = classes(reader, images)
    np.testing.assert_array_equal(seen.counts, [95, 98, 0, 0, 0, 0, 0, 4, 0, 3])
    assert seen.lost == (2, 3, 4, 5, 6, 8, 9)  # 4 of 200 are not below 2%
    assert classes(reader, images, threshold=0).lost == ()
    assert seen.confidence == pytest.approx(0.5)
    assert seen.entropy == pytest.approx(stats.entropy(seen.counts, base=2))


@pytest.mark.parametrize(("counts", "bits"), [([7], 0), ([0, 3, 3], 1), ([5] * 10, np.log2(10)), ([4, 2, 1, 1], 1.75)])
def test_entropy_in_bits(counts, bits):
    assert entropy(np.array(counts)) == pytest.approx(bits, abs=1e-15)


# Precision and recall


def brute_force(real, generated, k):
    def share(points, others):
        among = 0
        for point in points:
            for i, centre in enumerate(others):
                rest = sorted(float(np.linalg.norm(centre - x)) for j, x in enumerate(others) if j != i)
                if np.linalg.norm(point - centre) <= rest[k - 1]:
                    among += 1
                    break
        return among / len(points)

    return share(generated, real), share(real, generated)


@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize(("m", "n"), [(20, 33), (28, 14)])
def test_precision_and_recall_are_those_of_the_plain_loops(k, m, n, monkeypatch):
    rng = np.random.default_rng([k, m])
    real, generated = rng.standard_normal((m, 3)), 0.8 + rng.standard_normal((n, 3))
    expected = brute_force(real, generated, k)
    assert 0 < min(expected) < max(expected) <= 1
    for rows in (7, 1_000):  # in chunks and at once
        monkeypatch.setattr(vae_neighbours, "ROWS", rows)
        assert precision_recall(torch.tensor(real), torch.tensor(generated), k) == pytest.approx(expected, rel=1e-12)


def circle(rng, n):
    angles = rng.uniform(0, 2 * np.pi, n)
    return np.column_stack([np.cos(angles), np.sin(angles)])


@pytest.mark.parametrize("k", [1, 3])
def test_points_of_one_law_on_a_circle_cover_1_minus_4_to_the_minus_k(k):
    """A point is missed on one side if the gap to it is longer than the next k together: 2^-k, independently twice."""
    rng = np.random.default_rng(k)
    runs = [precision_recall(*(torch.tensor(circle(rng, 150)) for _ in range(2)), k) for _ in range(80)]
    for shares in zip(*runs, strict=True):
        assert abs(z_score(shares, 1 - 4.0**-k)) < 4


def test_a_lost_mode_lowers_recall_alone():
    rng, runs = np.random.default_rng(0), []
    for _ in range(80):
        real = np.concatenate([circle(rng, 100), 50 + circle(rng, 100)])
        runs.append(precision_recall(torch.tensor(real), torch.tensor(circle(rng, 100))))
    precision, recall = zip(*runs, strict=True)
    assert abs(z_score(precision, 63 / 64)) < 4
    assert abs(z_score(recall, 63 / 128)) < 4


def test_equal_and_distant_sets():
    points = torch.randn(50, 5, generator=stream())
    assert precision_recall(points, points) == (1, 1)
    assert precision_recall(points, points + 1_000) == (0, 0)
    for far in (0, 1e4):  # radius 0: only the copied point
        copies = points[:1].repeat(20, 1)
        assert precision_recall(points + far, copies + far) == (1, 1 / 50)
        assert precision_recall(copies + far, points + far) == (1 / 50, 1)


def test_digits_that_are_missing_lower_recall_of_real_digits(classifier):
    (real, _), (others, labels) = tensors("test", 500), tensors("train", 500)
    every = precision_recall(*(features(classifier, images) for images in (real, others)))
    few = precision_recall(*(features(classifier, images) for images in (real, others[labels < 5])))
    assert min(every) > 0.7 > 0.6 > few.recall
    assert few.precision > 0.7


# All together


def test_measures_are_the_single_ones_at_one_generator(network, classifier):
    first, (images, _) = Network(20, stream(1)).requires_grad_(False), tensors("test", 40)
    network.loss.fill_(25_000)
    row = measures(network, first, images, classifier, 60, stream(7), "bernoulli")
    assert row == measures(network, first, images, classifier, 60, stream(7), "bernoulli")
    assert all(type(value) is float for value in row.values())
    assert all(name.isidentifier() and name == name.lower() for name in row)
    generator = stream(7)
    generated = draw(network, 60, generator, "bernoulli")
    bound, seen, kinds = elbo(network, images, generator), probe(first, generated), classes(classifier, generated)
    pair = precision_recall(features(classifier, images), features(classifier, generated[:40]))
    assert list(row.items()) == [
        ("training_loss", 25_000),
        *zip(("elbo", "reconstruction", "kl"), bound, strict=True),
        *zip(("latent_mean", "latent_sd"), seen[:2], strict=True),
        *zip([f"latent_q{q}" for q in ("005", "050", "250", "500", "750", "950", "995")], seen.quantiles, strict=True),
        *zip(("latent_norm_q500", "latent_norm_q990"), seen.norms, strict=True),
        *((f"share_{digit}", kinds.counts[digit] / 60) for digit in range(10)),
        *zip(("entropy", "lost_digits", "confidence"), (kinds.entropy, len(kinds.lost), kinds.confidence), strict=True),
        *zip(("precision", "recall"), pair, strict=True),
    ]


def test_measures_compare_as_many_real_images_as_generated_ones(network, monkeypatch):
    images, reads = tensors("test", 40)[0], Classifier(stream())
    monkeypatch.setattr(vae_measures, "precision_recall", lambda *sets: PrecisionRecall(*map(len, sets)))
    for n, each in ((30, 30), (50, 40)):
        row = measures(network, network, images, reads, n, stream())
        assert (row["precision"], row["recall"]) == (each, each)


# What is refused

IMAGES, POINTS = torch.zeros(4, 28, 28), torch.zeros(5, 2)
BAD_IMAGES = {
    "ndarray": IMAGES.numpy(),
    "torch.uint8": IMAGES.to(torch.uint8),
    "torch.float64": IMAGES.double(),
    r"shape \(4, 784\)": IMAGES.flatten(1),
    r"shape \(4, 1, 28, 28\)": IMAGES[:, None],
    r"shape \(0, 28, 28\)": IMAGES[:0],
    "from 0 to 1, got 0.0 to 255.0": torch.tensor([0.0, 255.0])[:, None, None].repeat(1, 28, 28),
    "from 0 to 1, got nan": IMAGES * torch.nan,
}


@pytest.mark.parametrize("message", BAD_IMAGES)
def test_images_of_another_kind_are_refused(message, network):
    images, reads = BAD_IMAGES[message], Classifier(stream())
    for call in (
        lambda: elbo(network, images, stream()),
        lambda: probe(network, images),
        lambda: latent_means(network, images),
        lambda: features(reads, images),
        lambda: classes(reads, images),
        lambda: accuracy(reads, images, torch.zeros(4, dtype=torch.int64)),
        lambda: train_classifier(images, torch.zeros(4, dtype=torch.int64), np.random.default_rng(0), epochs=1),
        lambda: measures(network, network, images, reads, 4, stream()),
    ):
        with pytest.raises(ValueError, match=f"images: .*{message}"):
            call()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(4, int), "labels: .*ndarray"),
        (torch.zeros(4), "labels: .*4 integers.*float32"),
        (torch.zeros(3, dtype=torch.int64), r"labels: .*shape \(3,\)"),
        (torch.tensor([0, 1, 2, 10]), "labels: .*from 0 to 9, got 0 to 10"),
        (torch.tensor([0, 1, 2, -1]), "labels: .*got -1 to 2"),
    ],
)
def test_labels_of_another_kind_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        accuracy(Classifier(stream()), IMAGES, labels)
    with pytest.raises(ValueError, match=message):
        train_classifier(IMAGES, labels, np.random.default_rng(0), epochs=1)


@pytest.mark.parametrize("argument", [{"epochs": 0}, {"epochs": 1, "batch": 0}, {"epochs": 1, "learning_rate": 0}])
def test_other_settings_of_the_classifier_are_refused(argument):
    with pytest.raises(ValueError, match=rf"{list(argument)[-1]} = 0"):
        train_classifier(IMAGES, torch.zeros(4, dtype=torch.int64), np.random.default_rng(0), **argument)
    with pytest.raises(ValueError, match=r"threshold = 1\.5"):
        classes(reader, IMAGES, threshold=1.5)


@pytest.mark.parametrize(
    ("real", "generated", "k", "message"),
    [
        (POINTS.numpy(), POINTS, 3, "real = "),
        (POINTS, POINTS.long(), 3, "generated = "),
        (POINTS, POINTS[:, 0], 3, "generated = "),
        (POINTS, POINTS / 0, 3, "generated: every number must be finite"),
        (POINTS, POINTS.double(), 3, "of one dimension, dtype and device, got 2 torch.float32 on cpu and 2 torch.fl"),
        (POINTS, POINTS[:, :1], 3, "of one dimension"),
        (POINTS, POINTS[:1], 1, "at least two points of each are needed, got 5, 1"),
        (POINTS, POINTS[:3], 3, "k = 3: must be an integer from 1 to 2"),
        (POINTS, POINTS, 0, "k = 0: must be an integer from 1 to 4"),
    ],
)
def test_features_of_another_kind_are_refused(real, generated, k, message):
    with pytest.raises(ValueError, match=message):
        precision_recall(real, generated, k)


def test_too_few_images_are_refused(network):
    with pytest.raises(ValueError, match="n = 3: must be an integer >= 4"):
        measures(network, network, IMAGES, Classifier(stream()), 3, stream())
    with pytest.raises(ValueError, match="real_images: at least 4 are needed, got 3"):
        measures(network, network, IMAGES[:3], Classifier(stream()), 4, stream())
