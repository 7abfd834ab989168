"""Image files: every kind decoded right or named; geometry as the reference has it."""

import os
import subprocess
import sys

import bad_images
import numpy as np
import pytest
from PIL import Image

from resnet_fit.config.registry import parts
from resnet_fit.data import transforms
from resnet_fit.data.augment import ColorJitter, HorizontalFlip, Normalize
from resnet_fit.data.transforms import (
    BadImage,
    CenterCrop,
    RandomResizedCrop,
    Resize,
    decode,
    load,
    split_operations,
)
from resnet_fit.errors import UserError


@pytest.mark.parametrize("kind", bad_images.UNUSUAL)
def test_unusual_images_are_decoded_right(tmp_path, kind):
    extension, tolerance, make = bad_images.UNUSUAL[kind]
    path = tmp_path / f"image.{extension}"
    expected = make(path)
    image = decode(path)
    assert image.mode == "RGB"
    assert np.asarray(image).shape == expected.shape
    difference = np.abs(np.asarray(image).astype(int) - expected)
    # The compression of a JPEG rings at edges: judged by nearly all pixels.
    assert np.quantile(difference, 0.9) <= tolerance
    assert tolerance or difference.max() == 0


@pytest.mark.parametrize("kind", bad_images.UNUSUAL)
def test_unusual_images_are_resized_as_they_are_decoded(tmp_path, kind):
    extension, _, make = bad_images.UNUSUAL[kind]
    path = tmp_path / f"image.{extension}"
    make(path)
    rng = np.random.default_rng(0)
    expected = np.asarray(Resize(24)(decode(path), rng))
    np.testing.assert_array_equal(np.asarray(load(path, [Resize(24)], rng)), expected)


@pytest.mark.parametrize("kind", bad_images.DAMAGED)
@pytest.mark.parametrize(
    "read", [decode, lambda p: load(p, [Resize(16)], np.random.default_rng(0))]
)
def test_damaged_images_are_named(tmp_path, kind, read):
    extension, reason, make = bad_images.DAMAGED[kind]
    path = tmp_path / f"image.{extension}"
    make(path)
    with pytest.raises(BadImage, match=f"^{path}: .*(?:{reason})") as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) > len(f"{path}: ")


def test_pixel_limit(tmp_path, monkeypatch):
    bad_images.picture().save(tmp_path / "a.png")
    monkeypatch.setattr(transforms, "PIXEL_LIMIT", 48 * 32 - 1)
    with pytest.raises(BadImage, match=r"a\.png: 48x32 pixels, the limit is 1,535 in total"):
        decode(tmp_path / "a.png")


# --- geometry -------------------------------------------------------------------------


def test_random_resized_crop_draws_scale_ratio_and_place_as_stated():
    operation = RandomResizedCrop(64)
    rng = np.random.default_rng(0)
    boxes = np.array([operation.plan((1000, 800), rng)[0] for _ in range(4000)])
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    assert boxes[:, :2].min() >= 0
    assert (boxes.max(0)[2:] <= (1000, 800)).all()
    share, ratio = width * height / 800_000, width / height
    assert share.min() == pytest.approx(0.08, abs=0.005)
    assert share.max() > 0.97
    assert 3 / 4 * 0.99 < ratio.min() < 0.76
    assert 1.32 < ratio.max() < 4 / 3 * 1.01
    # Uniform as long as it fits: below 0.6 nothing is drawn again.
    assert np.histogram(share, 4, (0.08, 0.6))[0].std() < 60
    assert np.median(np.log(ratio[share < 0.6])) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize(
    ("size", "box"), [((400, 10), (193, 0, 206, 10)), ((10, 400), (0, 193, 10, 206))]
)
def test_random_resized_crop_of_a_strip_takes_the_middle(size, box):
    operation = RandomResizedCrop(8, scale=(0.9, 1.0))
    assert operation.plan(size, np.random.default_rng(0))[0] == box


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [40, 150])
def test_random_resized_crop_equals_paddles_resampling_of_its_box(interpolation, size):
    """With its OpenCV backend. Pixels of 300 to 200: down to a little over a half, and up."""
    from paddle.vision.transforms import functional

    image = bad_images.picture().resize((80, 60))
    operation = RandomResizedCrop(size, (0.5, 1.0), interpolation=interpolation)
    for seed in range(5):
        (left, upper, right, lower), _ = operation.plan(image.size, np.random.default_rng(seed))
        part = np.asarray(image)[upper:lower, left:right]
        expected = functional.resize(part, (size, size), interpolation)
        np.testing.assert_array_equal(operation(image, np.random.default_rng(seed)), expected)


def test_random_resized_crop_sees_every_pixel_of_a_large_image():
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::4] = 200
    crop = RandomResizedCrop(50, (0.9, 1.0))(Image.fromarray(stripes), np.random.default_rng(0))
    assert np.ptp(crop) < 30
    np.testing.assert_allclose(crop.mean(), 50, atol=1)


def test_random_resized_crop_upwards_is_pillows_too():
    image = bad_images.picture()
    operation = RandomResizedCrop(200)
    (left, upper, right, lower), size = operation.plan(image.size, np.random.default_rng(4))
    expected = image.crop((left, upper, right, lower)).resize(size, Image.Resampling.BILINEAR)
    ours = operation(image, np.random.default_rng(4))
    np.testing.assert_allclose(ours, np.asarray(expected, int), atol=1)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((500, 375), (341, 256)), ((375, 500), (256, 341)), ((20, 20), (256, 256))],
)
def test_resize_makes_the_shorter_side_as_asked(size, expected):
    from paddle.vision.transforms import functional

    image = Image.new("RGB", size)
    assert Resize(256)(image, np.random.default_rng(0)).size == expected
    assert functional.resize(image, 256).size == expected


@pytest.mark.parametrize("size", [(4, 1000), (1000, 4), (3, 1201)])
def test_the_middle_of_a_very_long_image_is_resampled_as_in_all_of_it(size, monkeypatch):
    levels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    image = Image.fromarray(levels)
    operations = [Resize(8), CenterCrop(8)]

    def pixels():
        made = image
        for operation in operations:
            made = operation(made, np.random.default_rng(0))
        return np.asarray(made).astype(int)

    ours = pixels()
    assert max(operations[0](image, np.random.default_rng(0)).size) == 800
    monkeypatch.setattr(transforms, "LONGEST", 1000)
    np.testing.assert_allclose(ours, pixels(), atol=1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory")
def test_an_image_of_one_pixel_by_thousands_takes_little_memory(tmp_path):
    Image.new("RGB", (1, 30_000)).save(tmp_path / "a.png")
    code = (
        "import resource, sys, numpy as np\n"
        "from PIL import Image\n"
        "from resnet_fit.data.transforms import CenterCrop, Resize, load\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 500_000_000,) * 2)\n"
        "operations = [Resize(256), CenterCrop(224)]\n"
        "assert load(sys.argv[1], operations, np.random.default_rng(0)).size == (224, 224)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.png"], check=True, env=environment)


def test_center_crop_equals_paddles():
    from paddle.vision.transforms import functional

    image = bad_images.picture()
    for size in (1, 15, 16, 31, 32):
        ours = CenterCrop(size)(image, np.random.default_rng(0))
        np.testing.assert_array_equal(
            np.asarray(ours), np.asarray(functional.center_crop(image, size))
        )
    with pytest.raises(UserError, match="33 px do not fit into 48x32"):
        CenterCrop(33)(image, np.random.default_rng(0))


# --- fast decoding --------------------------------------------------------------------


@pytest.fixture(scope="module")
def large_jpeg(tmp_path_factory):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
    path = tmp_path_factory.mktemp("large") / "a.jpg"
    coarse.resize((1600, 1200), Image.Resampling.BICUBIC).save(path, quality=92)
    return path


@pytest.mark.parametrize("operation", [Resize(128), RandomResizedCrop(96)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_shrinking_while_decoding_looks_the_same(tmp_path, large_jpeg, operation, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    Image.open(large_jpeg).save(path, exif=exif, quality=92)
    for seed in range(5):
        fast = load(path, [operation], np.random.default_rng(seed))
        exact = operation(decode(path), np.random.default_rng(seed))
        assert np.shape(fast) == np.shape(exact)
        difference = np.abs(np.asarray(fast, int) - np.asarray(exact, int))
        # A crop keeps to whole pixels: half a pixel of the smaller image may lie between them.
        assert difference.mean() < (8 if isinstance(operation, RandomResizedCrop) else 1.5)


def test_shrinking_happens_and_leaves_enough_pixels(large_jpeg, monkeypatch):
    seen = []
    original = transforms._upright_rgb

    def watched(image):
        seen.append(image.size)
        return original(image)

    monkeypatch.setattr(transforms, "_upright_rgb", watched)
    for size in (1200, 601, 600, 300, 150, 100):
        load(large_jpeg, [Resize(size)], np.random.default_rng(0))
    assert seen == [(1600, 1200), (1600, 1200), (800, 600), (400, 300), (200, 150), (200, 150)]


# --- lists ----------------------------------------------------------------------------


def test_split_operations():
    crop, flip, jitter, norm = RandomResizedCrop(), HorizontalFlip(), ColorJitter(0.1), Normalize()
    assert split_operations([crop, flip, jitter, norm, flip]) == (
        (crop,),
        (flip, jitter),
        (norm, flip),
    )
    assert split_operations([]) == ((), (), ())
    with pytest.raises(UserError, match="random_resized_crop comes after horizontal_flip"):
        split_operations([flip, crop])
    with pytest.raises(UserError, match="color_jitter comes after normalize"):
        split_operations([crop, norm, jitter])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("random_resized_crop", {"size": 0}, "size: received 0"),
        ("random_resized_crop", {"scale": (0.5, 0.2)}, "scale: received"),
        ("random_resized_crop", {"scale": (0.0, 1.0)}, "scale: received"),
        ("random_resized_crop", {"ratio": (2.0, 1.0)}, "ratio: received"),
        ("resize", {"size": -1}, "size: received -1"),
        ("resize", {"interpolation": "box"}, "interpolation: received 'box'"),
        ("center_crop", {"size": 0}, "size: received 0"),
    ],
)
def test_settings_that_cannot_be(name, options, message):
    with pytest.raises(UserError, match=message):
        parts("transform")[name](**options)
