"""Mixup and CutMix: images and labels are mixed by one share."""

import numpy as np
import pytest

from resnet_fit.data.augment import Normalize
from resnet_fit.data.dataset import ArrayDataset
from resnet_fit.data.loading import ArrayLoader, FileLoader
from resnet_fit.data.mixing import Mix, cutmix, different_partners, mixup
from resnet_fit.data.sampling import balanced, repeated, shuffled
from resnet_fit.errors import UserError

N, CLASSES = 6, 4
# Image i is i everywhere, and so says what it was mixed of.
IMAGES = np.repeat(np.arange(N, dtype=np.float32), 3 * 16 * 12).reshape(N, 3, 16, 12)
LABELS = np.array([0, 1, 2, 3, 1, 0])
PARTNERS = np.roll(np.arange(N), 1)


def mixed(mix, seed=0):
    images, targets = mix(IMAGES.copy(), LABELS, CLASSES, np.random.default_rng(seed), PARTNERS)
    return images, targets


def partner_share(images):
    """How much of each image is its partner's, from the images alone."""
    values = images.mean((1, 2, 3))
    own, partner = np.arange(N), PARTNERS
    return (values - own) / (partner - own)


@pytest.mark.parametrize("mix", [Mix(mixup=0.4), Mix(cutmix=1.0), Mix(0.4, 1.0)])
def test_labels_have_the_share_that_images_have(mix):
    for seed in range(20):
        images, targets = mixed(mix, seed)
        assert (images.dtype, targets.dtype) == (np.float32, np.float32)
        share = partner_share(images)
        np.testing.assert_allclose(share, share[0], atol=1e-5)
        one_hot = np.eye(CLASSES)[LABELS]
        expected = (1 - share[0]) * one_hot + share[0] * np.roll(one_hot, 1, axis=0)
        np.testing.assert_allclose(targets, expected, atol=1e-5)


def test_mixup_blends_pixel_by_pixel():
    a = np.random.default_rng(0).normal(size=(4, 3, 5, 5)).astype(np.float32)
    before = a.copy()
    partners = np.array([2, 0, 0, 1])
    expected = [0.3 * a[i] + 0.7 * a[partners[i]] for i in range(4)]
    np.testing.assert_allclose(mixup(a, partners, 0.3), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(a, before)


@pytest.mark.parametrize(
    ("share", "centre", "rows", "columns"),
    [
        (0.75, (0.5, 0.5), (4, 12), (3, 9)),  # sides of half the image's
        (0.75, (0.0, 0.99), (0, 4), (8, 12)),  # cut at the edges
        (1.0, (0.5, 0.5), (8, 8), (6, 6)),
        (0.0, (0.5, 0.5), (0, 16), (0, 12)),
    ],
)
def test_cutmix_sets_in_a_rectangle(share, centre, rows, columns):
    images = np.stack([np.zeros((3, 16, 12)), np.ones((3, 16, 12))])
    made, kept = cutmix(images, np.array([1, 0]), share, centre)
    expected = np.zeros((3, 16, 12))
    expected[:, slice(*rows), slice(*columns)] = 1
    np.testing.assert_array_equal(made, [expected, 1 - expected])
    assert kept == pytest.approx(1 - expected.mean())


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_are_betas(alpha):
    shares = np.sort(
        [1 - partner_share(mixed(Mix(mixup=alpha), seed)[0])[0] for seed in range(600)]
    )
    quantiles = np.quantile(np.random.default_rng(1).beta(alpha, alpha, 100_000), [0.25, 0.5, 0.75])
    # 600 draws know the place of a quantile to two hundredths of their number.
    places = np.searchsorted(shares, quantiles) / 600
    np.testing.assert_allclose(places, [0.25, 0.5, 0.75], atol=0.06)


def test_half_of_the_batches_have_the_one_and_half_the_other():
    kinds = [len(np.unique(mixed(Mix(0.4, 9.0), seed)[0][0])) == 1 for seed in range(400)]
    assert 0.43 < np.mean(kinds) < 0.57  # a blend is of one value, a rectangle brings a second


def test_share_of_the_batches():
    untouched = [np.array_equal(mixed(Mix(1.0, share=0.3), s)[0], IMAGES) for s in range(400)]
    assert 0.64 < np.mean(untouched) < 0.76
    targets = mixed(Mix(1.0, share=0))[1]
    np.testing.assert_array_equal(targets, np.eye(CLASSES)[LABELS])


# --- partners -------------------------------------------------------------------------------


def test_different_images_are_mixed_with_the_one_before():
    assert different_partners(np.array([7, 3, 9, 1])).tolist() == [3, 0, 1, 2]


@pytest.mark.parametrize("times", [2, 3, 4, 7])
@pytest.mark.parametrize("batch", [2, 3, 5, 8, 13, 64])
@pytest.mark.parametrize("sampler", [shuffled, balanced])
def test_copies_never_meet(times, batch, sampler):
    """In any batch, the uneven last one too, that has two different images."""
    labels = np.repeat([0, 1, 2], [40, 12, 1])
    for epoch in range(3):
        order = repeated(sampler, times)(labels, np.random.default_rng(epoch))
        for first in range(0, len(order), batch):
            rows = order[first : first + batch]
            partners = different_partners(rows)
            assert (rows[partners] != rows).all() or len(set(rows)) == 1
            if sampler is shuffled and len(rows) >= 2 * times:
                assert sorted(partners) == list(range(len(rows)))  # each has its turn


@pytest.mark.parametrize(
    ("rows", "partners"),
    [
        ([5], [0]),
        ([5, 5, 5], [0, 1, 2]),
        ([5, 5, 6], [2, 2, 1]),
        ([5, 6, 5, 7, 5, 5], [3, 0, 1, 2, 3, 3]),
    ],
)
def test_partners_where_one_image_fills_the_batch(rows, partners):
    assert different_partners(np.array(rows)).tolist() == partners


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("mix", [Mix(mixup=1.0), Mix(cutmix=1.0)])
def test_with_repeats_a_loader_mixes_no_image_with_itself(mix, on_device):
    n = 50
    images = np.repeat(np.arange(n, dtype=np.uint8), 3 * 64).reshape(n, 3, 8, 8)
    dataset = ArrayDataset(images, np.arange(n), tuple(map(str, range(n))))
    loader = ArrayLoader(
        dataset, 16, sampler=repeated(shuffled, 4), mix=mix, seed=3, on_device=on_device
    )
    batches = [targets for _ in range(3) for _, targets in loader]
    mixed_labels = [int(((targets > 0).sum(axis=1) == 2).sum()) for targets in batches]
    # Where a rectangle is empty or fills the image, all of its batch is pure.
    assert {*mixed_labels} <= {0, 16, n % 16}
    assert sum(mixed_labels) > 100


@pytest.mark.parametrize("options", [{"mixup": -1}, {"cutmix": np.inf}, {"share": 1.5}])
def test_wrong_settings_are_refused(options):
    with pytest.raises(UserError, match=f"{next(iter(options))}: received"):
        Mix(**options)


def test_a_loader_mixes_what_it_augmented_and_again_the_same():
    dataset = ArrayDataset(IMAGES.astype(np.uint8), LABELS, tuple("abcd"))
    normalize = [Normalize((0.5,), (0.5,))]
    plain = ArrayLoader(dataset, 4, normalize, shuffle=True)
    loader = ArrayLoader(dataset, 4, normalize, shuffle=True, mix=Mix(mixup=1.0))
    again = ArrayLoader(dataset, 4, normalize, shuffle=True, mix=Mix(mixup=1.0))
    for (images, labels), (own, targets), (same, same_targets) in zip(
        plain, loader, again, strict=True
    ):
        share = 1 - targets[0, labels[0]] if labels[0] != labels[-1] else None
        if share is not None:
            expected = (1 - share) * images + share * np.roll(images, 1, axis=0)
            np.testing.assert_allclose(own, expected, atol=1e-5)
        np.testing.assert_array_equal(own, same)
        np.testing.assert_array_equal(targets, same_targets)


def test_files_are_mixed_as_well(tmp_path):
    from PIL import Image

    from resnet_fit.data.dataset import FileDataset
    from resnet_fit.data.transforms import Resize

    paths = []
    for i in range(4):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.new("RGB", (8, 8), (60 * i,) * 3).save(paths[-1])
    dataset = FileDataset(tuple(paths), np.arange(4), tuple("abcd"))
    loader = FileLoader(
        dataset, 4, [Resize(8), Normalize((0.0,), (1.0,))], workers=0, mix=Mix(mixup=1.0)
    )
    ((images, targets),) = loader
    share = targets[0, 3]
    assert 0 < share < 1
    assert images[0].mean() == pytest.approx(share * 180 / 255, abs=1e-4)
