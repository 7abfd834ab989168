"""Whole-batch augmentation, operation by operation, against the per-image reference."""

import colorsys
import itertools

import numpy as np
import paddle
import pytest
from paddle.vision.transforms import functional as paddle_reference
from paddle.vision.transforms import functional_tensor
from PIL import Image, ImageEnhance

from resnet_fit.config.registry import parts
from resnet_fit.data.augment import (
    ColorJitter,
    Cutout,
    HorizontalFlip,
    Normalize,
    RandomCrop,
    RandomErasing,
    Resize,
    VerticalFlip,
    colour,
    compose,
    geometry,
)
from resnet_fit.errors import UserError


def photos(n=16, channels=3, height=32, width=32):
    """Smooth colour fields with noise: every hue, dark and light, some of them clipped."""
    rng = np.random.default_rng(7)
    coarse = rng.uniform(-60, 315, (n, channels, 4, 4))
    images = np.kron(coarse, np.ones((1, 1, -(-height // 4), -(-width // 4))))[..., :height, :width]
    return np.clip(images + rng.normal(0, 12, images.shape), 0, 255).astype(np.uint8)


def pil(image):
    return Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))


def from_pil(images):
    arrays = [np.asarray(i, np.float32) for i in images]
    return np.array([a[None] if a.ndim == 2 else a.transpose(2, 0, 1) for a in arrays])


def applied(operation, images, seed=0):
    return compose([operation])(images, np.random.default_rng(seed))


def factors(low, high, n=16):
    return np.linspace(low, high, n)


# --- colour, given the same factors ---------------------------------------------------


@pytest.mark.parametrize(
    ("adjust", "enhance", "reference"),
    [
        (colour.adjust_brightness, ImageEnhance.Brightness, paddle_reference.adjust_brightness),
        (colour.adjust_contrast, ImageEnhance.Contrast, paddle_reference.adjust_contrast),
        (colour.adjust_saturation, ImageEnhance.Color, paddle_reference.adjust_saturation),
    ],
)
def test_blends_equal_pillows_and_paddles(adjust, enhance, reference):
    images, by = photos(), factors(0, 2)
    ours = adjust(images, by)
    pillows = from_pil(enhance(pil(i)).enhance(f) for i, f in zip(images, by, strict=True))
    paddles = from_pil(reference(pil(i), f) for i, f in zip(images, by, strict=True))
    np.testing.assert_array_equal(pillows, paddles)
    # Pillow cuts off fractions and rounds its grey; nothing else may differ.
    assert np.abs(ours - pillows).max() < 2
    assert abs((ours - pillows).mean() - 0.4) < 0.2


@pytest.mark.parametrize("adjust", [colour.adjust_brightness, colour.adjust_contrast])
def test_one_channel_is_adjusted_as_well(adjust):
    images = photos(channels=1)
    enhance = {
        "adjust_brightness": ImageEnhance.Brightness,
        "adjust_contrast": ImageEnhance.Contrast,
    }
    pillows = from_pil(
        enhance[adjust.__name__](pil(i)).enhance(f)
        for i, f in zip(images, factors(0, 2), strict=True)
    )
    assert np.abs(adjust(images, factors(0, 2)) - pillows).max() < 2


def test_hue_equals_the_definition_of_hsv():
    images = photos(4, height=8, width=8)
    shifts = np.array([-0.5, -0.2, 0.13, 0.5])
    expected = np.empty(images.shape)
    for n, y, x in np.ndindex(4, 8, 8):
        hue, saturation, value = colorsys.rgb_to_hsv(*(images[n, :, y, x] / 255))
        expected[n, :, y, x] = colorsys.hsv_to_rgb((hue + shifts[n]) % 1, saturation, value)
    np.testing.assert_allclose(colour.adjust_hue(images, shifts), expected * 255, atol=1e-3)


def test_hue_of_every_corner_and_edge_of_the_colour_cube():
    levels = itertools.product((0, 127, 128, 255), repeat=3)
    image = np.array(list(levels), np.uint8).T.reshape(1, 3, 8, 8)
    for shift in np.linspace(-0.5, 0.5, 13):
        expected = [
            colorsys.hsv_to_rgb((h + shift) % 1, s, v)
            for h, s, v in (colorsys.rgb_to_hsv(*(p / 255)) for p in image.reshape(3, -1).T)
        ]
        ours = colour.adjust_hue(image, np.array([shift])).reshape(3, -1).T
        np.testing.assert_allclose(ours, np.array(expected) * 255, atol=1e-3)


def test_hue_equals_paddles_of_tensors():
    images, shifts = photos(), factors(-0.5, 0.5)
    for image, shift, ours in zip(images, shifts, colour.adjust_hue(images, shifts), strict=True):
        tensor = paddle.to_tensor(image.astype(np.float32) / 255)
        theirs = functional_tensor.adjust_hue(tensor, float(shift)).numpy() * 255
        np.testing.assert_allclose(ours, theirs, atol=0.01)


def test_hue_equals_paddles_through_pillow():
    images, shifts = photos(), factors(-0.5, 0.5)
    reference = from_pil(
        paddle_reference.adjust_hue(pil(i), float(f)) for i, f in zip(images, shifts, strict=True)
    )
    difference = np.abs(colour.adjust_hue(images, shifts) - reference)
    # Pillow rounds hue and saturation to 256 steps, there and back: it is off in strong colours.
    assert difference.mean() < 1.5
    assert np.quantile(difference, 0.99) < 12


def test_neutral_factors_change_nothing():
    images = photos()
    for adjust, neutral in (
        (colour.adjust_brightness, 1),
        (colour.adjust_contrast, 1),
        (colour.adjust_saturation, 1),
        (colour.adjust_hue, 0),
    ):
        np.testing.assert_allclose(adjust(images, np.full(16, neutral)), images, atol=1e-3)


def test_jitter_draws_its_factors_from_the_stated_ranges():
    grey = np.full((4000, 1, 1, 1), 100, np.uint8)
    seen = applied(ColorJitter(brightness=0.5), grey).reshape(-1) / 100
    assert seen.min() == pytest.approx(0.5, abs=0.01)
    assert seen.max() == pytest.approx(1.5, abs=0.01)
    assert np.histogram(seen, 4, (0.5, 1.5))[0].min() > 900
    strong = applied(ColorJitter(brightness=1.5), grey // 4) / 25
    assert strong.min() < 0.01
    assert strong.max() == pytest.approx(2.5, abs=0.02)


def test_jitter_of_several_is_the_reference_in_the_drawn_order():
    images = photos(48)
    jitter = ColorJitter(brightness=0.6, contrast=0.6, saturation=0.6)
    uniforms = np.random.default_rng(1).random((48, jitter.draws))
    ours = jitter.apply(images, uniforms)
    adjusts = (colour.adjust_brightness, colour.adjust_contrast, colour.adjust_saturation)
    matched = np.zeros(6, int)
    for image, row, result in zip(images, uniforms, ours, strict=True):
        possible = []
        for order in itertools.permutations(range(3)):
            one = image[None]
            for k in order:
                one = adjusts[k](one, np.array([0.4 + 1.2 * row[k]]))
            possible.append(np.abs(one[0] - result).max())
        assert min(possible) < 1e-3
        matched[int(np.argmin(possible))] += 1
    assert (matched > 0).all()


@pytest.mark.parametrize("name", ["saturation", "hue"])
def test_colour_of_grey_images_is_refused(name):
    with pytest.raises(UserError, match=rf"color_jitter\.{name}: images have 1 channel"):
        applied(ColorJitter(**{name: 0.2}), photos(channels=1))


# --- geometry -------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "numpy_mode"), [("zero", "constant"), ("reflect", "reflect")])
@pytest.mark.parametrize("padding", [0, 1, 4, 11])
def test_padding_equals_numpys(mode, numpy_mode, padding):
    images = photos(3, height=12, width=20)
    expected = np.pad(images, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2), mode=numpy_mode)
    np.testing.assert_array_equal(geometry.pad(images, padding, mode), expected)


def test_crops_are_windows_of_the_padded_image_at_every_place():
    places = np.arange(6 * 8).reshape(1, 1, 6, 8).repeat(5000, 0).astype(np.uint8) + 1
    crops = applied(RandomCrop(padding=2), places)
    padded = np.pad(places[0, 0], 2)
    windows = {padded[y : y + 6, x : x + 8].tobytes() for y in range(5) for x in range(5)}
    seen, counts = np.unique(crops.reshape(5000, -1), axis=0, return_counts=True)
    assert {window.tobytes() for window in seen} == windows
    assert counts.min() > 140  # 200 expected of each of 25


def test_crop_to_another_size():
    images = photos(height=20, width=24)
    assert applied(RandomCrop(0, size=16), images).shape == (16, 3, 16, 16)
    with pytest.raises(UserError, match=r"size: 29 does not fit into images of 24x20"):
        applied(RandomCrop(4, size=29), images)
    with pytest.raises(UserError, match="20 cannot be reflected from an image of 24x20"):
        applied(RandomCrop(20, "reflect"), images)


@pytest.mark.parametrize(
    ("operation", "axis", "reference"),
    [
        (HorizontalFlip, 3, paddle_reference.hflip),
        (VerticalFlip, 2, paddle_reference.vflip),
    ],
)
def test_flips_mirror_the_share_asked_for(operation, axis, reference):
    images = photos(400)
    flipped = applied(operation(1.0), images)
    np.testing.assert_array_equal(flipped, from_pil(reference(pil(i)) for i in images))
    np.testing.assert_array_equal(applied(operation(0.0), images), images)
    some = applied(operation(0.25), images)
    unchanged = (some == images).all((1, 2, 3))
    assert 60 < (~unchanged).sum() < 140
    np.testing.assert_array_equal(some[~unchanged], np.flip(images, axis)[~unchanged])


def test_cutout_is_one_square_that_may_hang_over_the_edge():
    cut = applied(Cutout(8), np.ones((3000, 2, 16, 16), np.float32)) == 0
    assert (cut[:, 0] == cut[:, 1]).all()
    heights, widths = cut[:, 0].any(2).sum(1), cut[:, 0].any(1).sum(1)
    np.testing.assert_array_equal(heights * widths, cut[:, 0].sum((1, 2)))
    assert heights.max() == widths.max() == 8
    assert heights.min() == widths.min() == 4
    assert cut[:, 0].mean(0).min() > 0  # every pixel can be hit
    assert (cut[:, 0].sum((1, 2)) == 64).mean() == pytest.approx((9 / 16) ** 2, abs=0.04)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize(("source", "target"), [(8, 32), (31, 20), (32, 64), (21, 8), (9, 9)])
def test_resize_equals_pillows(interpolation, source, target):
    images = photos(height=source, width=source)
    ours = applied(Resize(target, interpolation), images)
    filter_ = Image.Resampling[interpolation.upper()]
    reference = from_pil(pil(i).resize((target, target), filter_) for i in images)
    assert ours.dtype == np.uint8
    assert np.abs(ours.astype(np.float32) - reference).max() <= 1


def test_resize_of_oblong_images_and_of_floats():
    images = photos(height=12, width=20)
    reference = from_pil(pil(i).resize((16, 16), Image.Resampling.BILINEAR) for i in images)
    ours = applied(Resize(16), images.astype(np.float32))
    assert ours.dtype == np.float32
    assert np.abs(ours - reference).max() <= 1


# --- normalising ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_normalize_equals_paddles(kind):
    images = photos().astype(kind)
    mean, std = (0.49, 0.48, 0.44), (0.2, 0.25, 0.3)
    ours = applied(Normalize(mean, std), images)
    reference = [paddle_reference.normalize(i.astype(np.float32) / 255, mean, std) for i in images]
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, reference, atol=2e-6)


def test_normalize_with_one_value_for_all_channels():
    ours = applied(Normalize((0.5,), (0.25,)), photos())
    np.testing.assert_allclose(ours, (photos() / 255 - 0.5) / 0.25, atol=2e-6)


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (Normalize(), "mean and std are not set"),
        (Normalize((0.5,) * 2, (0.2,) * 3), "mean: 2 values"),
    ],
)
def test_normalize_that_does_not_fit_is_refused(operation, message):
    with pytest.raises(UserError, match=message):
        applied(operation, photos())


# --- lists ----------------------------------------------------------------------------

EVERYTHING = [
    RandomCrop(4, "reflect"),
    HorizontalFlip(),
    VerticalFlip(0.2),
    ColorJitter(0.4, 0.4, 0.4, 0.1),
    Resize(24),
    Normalize((0.5,), (0.2,)),
    Cutout(6),
]


def test_a_list_is_its_operations_one_after_another():
    images = photos(150)  # several pieces
    ours = compose(EVERYTHING)(images, np.random.default_rng(3))
    draws = [op.draws for op in EVERYTHING]
    uniforms = np.split(np.random.default_rng(3).random((150, sum(draws))), np.cumsum(draws), 1)
    expected = images
    for op, columns in zip(EVERYTHING, uniforms, strict=False):
        expected = op.apply(expected, columns)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert ours.shape == (150, 3, 24, 24)


@pytest.mark.parametrize("operation", EVERYTHING, ids=lambda op: type(op).__name__)
def test_operations_leave_their_input_alone_and_are_repeatable(operation):
    for images in (photos(), photos().astype(np.float32)):
        before = images.copy()
        first = applied(operation, images, seed=1)
        np.testing.assert_array_equal(images, before)
        np.testing.assert_array_equal(first, applied(operation, images, seed=1))


def test_an_empty_list_and_an_empty_batch():
    images = photos()
    result = compose([])(images, np.random.default_rng(0))
    np.testing.assert_array_equal(result, images)
    assert not np.shares_memory(result, images)
    assert len(compose(EVERYTHING)(images[:0], np.random.default_rng(0))) == 0


@pytest.mark.parametrize("late", [ColorJitter(0.1), Normalize((0.5,), (0.2,))])
def test_grey_levels_are_not_worked_on_after_normalize(late):
    with pytest.raises(UserError, match=r"(color_jitter|normalize) comes after normalize"):
        compose([Normalize((0.5,), (0.2,)), HorizontalFlip(), late])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("random_crop", {"padding": -1}, "padding: received -1"),
        ("random_crop", {"mode": "edge"}, "mode: received 'edge', expected zero or reflect"),
        ("random_crop", {"size": 0}, "size: received 0"),
        ("horizontal_flip", {"p": 1.5}, r"p: received 1.5, expected a probability"),
        ("vertical_flip", {"p": -0.1}, "p: received"),
        ("color_jitter", {"brightness": -0.1}, "brightness: received -0.1"),
        ("color_jitter", {"contrast": float("inf")}, "contrast: received inf"),
        ("color_jitter", {"hue": 0.6}, "hue: received 0.6, expected 0 to 0.5"),
        ("cutout", {"size": 0}, "size: received 0"),
        ("resize", {"size": -3}, "size: received -3"),
        ("resize", {"size": 8, "interpolation": "lanczos"}, "expected nearest, bilinear, bicubic"),
        ("normalize", {"mean": (0.5,)}, "mean, std: .*expected both or none"),
        ("normalize", {"mean": (0.5,), "std": (0.0,)}, "std: received"),
        ("normalize", {"mean": (), "std": (1.0,)}, "mean: received"),
    ],
)
def test_settings_that_cannot_be(name, options, message):
    with pytest.raises(UserError, match=message):
        parts("augmentation")[name](**options)


# --- random erasing -------------------------------------------------------------------


def test_erasing_takes_a_rectangle_of_the_stated_area_and_shape():
    ones = np.ones((3000, 1, 40, 40), np.float32)
    erasing = RandomErasing(p=0.6, scale=(0.02, 0.33), ratio=(0.3, 3.3))
    erased = applied(erasing, ones) == 0
    hit = erased.any((1, 2, 3))
    assert abs(hit.mean() - 0.6) < 0.03
    rows, columns = erased[hit, 0].any(2).sum(1), erased[hit, 0].any(1).sum(1)
    np.testing.assert_array_equal(rows * columns, erased[hit].sum((1, 2, 3)))  # rectangles
    area, ratio = rows * columns / 1600, rows / columns
    assert 0.015 < area.min() < 0.03
    assert 0.31 < area.max() < 0.35
    assert abs(area.mean() - 0.175) < 0.01  # uniform in the area
    assert abs(np.log(ratio).mean()) < 0.05  # log-uniform in the ratio
    assert 3 < ratio.max() < 4
    assert 0.45 < erased[hit].any(0)[0].mean() <= 1  # everywhere
    np.testing.assert_array_equal(ones, 1)


def test_erasing_is_cut_to_the_image():
    ones = np.ones((50, 1, 8, 8), np.float32)
    erased = applied(RandomErasing(1.0, (1.0, 1.0), (3.0, 3.0)), ones) == 0
    assert erased.any(3).all()  # of full height
    assert (erased[:, 0, 0].sum(1) == 5).all()  # 8 / sqrt(3) wide


@pytest.mark.parametrize(
    ("operation", "idle"),
    [
        (HorizontalFlip(0.0), True),
        (HorizontalFlip(), False),
        (RandomCrop(0), True),
        (RandomCrop(0, size=4), False),
        (RandomErasing(0.0), True),
        (RandomErasing(), False),
        (ColorJitter(), True),
        (ColorJitter(hue=0.1), False),
    ],
)
def test_idle_operations_say_so(operation, idle):
    images = photos(8)
    changed = applied(operation, images)
    assert operation.idle == idle
    assert (changed.shape == images.shape and np.array_equal(changed, images)) == idle
