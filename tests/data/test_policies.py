"""RandAugment and TrivialAugment: each operation against Pillow, and what is picked how often."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from test_augment import from_pil, photos, pil

from resnet_fit.data.augment import RandAugment, TrivialAugment, compose, policies
from resnet_fit.errors import UserError

AFFINE = Image.Transform.AFFINE
FOURTEEN = 14


def moved(matrix):
    return lambda image: image.transform(image.size, AFFINE, matrix)


def enhanced(kind, factor):
    return lambda image: kind(image).enhance(factor)


@pytest.mark.parametrize("size", [(32, 32), (20, 28)])
@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        (lambda x: policies.affine(x, shear_x=np.full(16, 0.23)), moved((1, 0.23, 0, 0, 1, 0))),
        (lambda x: policies.affine(x, shear_y=np.full(16, -0.4)), moved((1, 0, 0, -0.4, 1, 0))),
        (lambda x: policies.affine(x, shift_x=np.full(16, 5.0)), moved((1, 0, 5, 0, 1, 0))),
        (lambda x: policies.affine(x, shift_y=np.full(16, -31.0)), moved((1, 0, 0, 0, 1, -31))),
        (lambda x: policies.affine(x, turn=np.full(16, 27.0)), lambda image: image.rotate(27)),
        (lambda x: policies.affine(x, turn=np.full(16, -133.0)), lambda image: image.rotate(-133)),
        (lambda x: policies.posterize(x, np.full(16, 3)), lambda i: ImageOps.posterize(i, 3)),
        (lambda x: policies.solarize(x, np.full(16, 90.0)), lambda i: ImageOps.solarize(i, 90)),
        (policies.autocontrast, ImageOps.autocontrast),
        (policies.equalize, ImageOps.equalize),
    ],
)
def test_equals_pillow(ours, reference, size):
    images = photos(height=size[0], width=size[1])
    images[0] = 77  # of one colour
    images[1, 1] = 200
    before = images.copy()
    theirs = from_pil(reference(pil(i)) for i in images)
    # Pillow finds the source of a pixel in steps of 1/65536.
    assert np.mean(ours(images) != theirs) < 0.001
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("factor", [0.05, 0.7, 1.0, 1.9])
def test_sharpness_equals_pillow_up_to_rounding(factor):
    images = photos()
    theirs = from_pil(enhanced(ImageEnhance.Sharpness, factor)(pil(i)) for i in images)
    assert np.abs(policies.adjust_sharpness(images, np.full(16, factor)) - theirs).max() <= 1.01


def seen_by(operation, images, columns):
    """What is made of images whose uniform numbers are these."""
    return operation.apply(images, np.tile(columns, (len(images), 1)))


@pytest.mark.parametrize(
    ("place", "reference"),
    [
        (0, lambda image: image),
        (1, moved((1, 0.3 * 0.6, 0, 0, 1, 0))),
        (2, moved((1, 0, 0, 0.3 * 0.6, 1, 0))),
        (3, moved((1, 0, int(0.6 * 32 * 150 / 331), 0, 1, 0))),
        (4, moved((1, 0, 0, 0, 1, int(0.6 * 32 * 150 / 331)))),
        (5, lambda image: image.rotate(18)),
        (6, enhanced(ImageEnhance.Brightness, 1.54)),
        (7, enhanced(ImageEnhance.Color, 1.54)),
        (8, enhanced(ImageEnhance.Contrast, 1.54)),
        (9, enhanced(ImageEnhance.Sharpness, 1.54)),
        (10, lambda image: ImageOps.posterize(image, 8 - round(0.6 * 4))),
        (11, lambda image: ImageOps.solarize(image, round(255 * 0.4))),
        (12, ImageOps.autocontrast),
        (13, ImageOps.equalize),
    ],
)
def test_rand_augment_has_the_papers_fourteen_at_their_strengths(place, reference):
    images = photos()
    ours = seen_by(RandAugment(1, 18), images, [(place + 0.5) / FOURTEEN, 0.9])
    theirs = from_pil(reference(pil(i)) for i in images)
    difference = np.abs(ours.astype(float) - theirs)
    assert np.mean(difference > 1) < 0.001


def test_half_of_the_signs_are_negative():
    images = photos()
    rotated = [seen_by(RandAugment(1, 30), images, [5.5 / FOURTEEN, sign]) for sign in (0.4, 0.6)]
    for turn, ours in zip((-30, 30), rotated, strict=True):
        np.testing.assert_array_equal(ours, from_pil(pil(i).rotate(turn) for i in images))


def test_trivial_augment_draws_its_strength():
    images = photos()
    for uniform, turn in ((0.0, 0), (0.5, 67.5), (0.999, 135)):
        ours = seen_by(TrivialAugment(), images, [5.5 / FOURTEEN, uniform, 0.9])
        # By 135 degrees some pixels come from the border between two.
        assert np.mean(ours != from_pil(pil(i).rotate(turn) for i in images)) < 0.03
    weakest = seen_by(TrivialAugment(), images, [10.5 / FOURTEEN, 0.0, 0])
    strongest = seen_by(TrivialAugment(), images, [10.5 / FOURTEEN, 0.999, 0])
    np.testing.assert_array_equal(weakest, images)
    np.testing.assert_array_equal(strongest, images & 0xC0)


@pytest.mark.parametrize("policy", [RandAugment(1, 30), TrivialAugment()])
def test_each_of_the_fourteen_is_picked_as_often(policy):
    """Told by what becomes of copies of an image, by numbers that are drawn as in a training."""
    image = photos(1) // 2 + 40  # levels that contrast can stretch, and nothing can clip
    strengths = [(np.arange(31) + 0.5) / 31] if policy.draws == 3 else []
    others = list(itertools.product(*strengths, (0.25, 0.75)))  # and both signs
    rows = [((place + 0.5) / FOURTEEN, *other) for place in range(FOURTEEN) for other in others]
    made = policy.apply(np.repeat(image, len(rows), axis=0), np.array(rows))
    places = {}
    for (which, *_), result in zip(rows, made, strict=True):
        places.setdefault(result.tobytes(), int(which * FOURTEEN))
    assert places[image.tobytes()] == 0
    drawn = compose([policy])(np.repeat(image, 1400, axis=0), np.random.default_rng(0))
    counts = np.bincount([places[result.tobytes()] for result in drawn], minlength=FOURTEEN)
    assert counts.min() > 60
    assert counts[1:].max() < 140  # the weakest of the others count as the first: no change


def test_several_operations_are_one_after_another():
    images = photos()
    both = seen_by(RandAugment(2, 18), images, [5.5 / 14, 0.9, 13.5 / 14, 0.9])
    np.testing.assert_array_equal(
        both, from_pil(ImageOps.equalize(pil(i).rotate(18)) for i in images)
    )


@pytest.mark.parametrize("policy", [RandAugment(2, 15), TrivialAugment()])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_neither_depend_on_their_neighbours_nor_change(policy, channels, dtype):
    images = photos(40, channels).astype(dtype)
    before = images.copy()
    uniforms = np.random.default_rng(3).random((40, policy.draws))
    together = policy.apply(images, uniforms)
    alone = [policy.apply(images[i : i + 1], uniforms[i : i + 1]) for i in range(40)]
    np.testing.assert_array_equal(together, np.concatenate(alone))
    np.testing.assert_array_equal(images, before)
    assert together.dtype == np.uint8
    assert compose([policy])(images, np.random.default_rng(0)).shape == images.shape


def test_wrong_settings_are_refused():
    with pytest.raises(UserError, match=r"magnitude: received 31, expected 0 to 30"):
        RandAugment(2, 31)
    with pytest.raises(UserError, match="operations: received 0"):
        RandAugment(0)


def test_randaugment_shifts_by_a_share_of_each_side(monkeypatch):
    seen = []
    monkeypatch.setattr(policies, "_apply", lambda full, images, *_: (seen.append(full), images)[1])
    RandAugment(1, 9).apply(np.zeros((2, 3, 20, 40), np.uint8), np.zeros((2, 2)))
    assert seen[0].shift == pytest.approx((40 * 150 / 331, 20 * 150 / 331))
