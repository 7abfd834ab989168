"""Operations and loaders on a device give what they give on the host, from the same chance."""

import numpy as np
import paddle
import pytest
from PIL import Image
from test_augment import photos

from resnet_fit.data.augment import (
    ColorJitter,
    Cutout,
    HorizontalFlip,
    Normalize,
    RandAugment,
    RandomCrop,
    RandomErasing,
    Resize,
    VerticalFlip,
    on_device,
)
from resnet_fit.data.dataset import ArrayDataset, FileDataset
from resnet_fit.data.loading import ArrayLoader, FileLoader
from resnet_fit.data.mixing import Mix
from resnet_fit.data.resizing import progressive
from resnet_fit.data.transforms import RandomResizedCrop
from resnet_fit.errors import UserError

NORMALIZE = Normalize((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
FLIP = HorizontalFlip()
OPERATIONS = [
    RandomCrop(4),
    RandomCrop(3, "reflect"),
    RandomCrop(0, size=16),
    HorizontalFlip(),
    VerticalFlip(0.3),
    Cutout(9),
    RandomErasing(0.7),
    NORMALIZE,
    Normalize((0.5,), (0.25,)),
    ColorJitter(brightness=0.5),
    ColorJitter(contrast=0.5),
    ColorJitter(saturation=0.5),
    ColorJitter(hue=0.5),
    ColorJitter(0.4, 0.4, 0.4, 0.2),
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_an_operation_makes_the_same_images(operation):
    images = photos(n=24, height=20, width=28)
    uniforms = np.random.default_rng(3).random((24, operation.draws))
    expected = operation.apply(images, uniforms).astype(np.float32)
    made = on_device.apply(operation, paddle.to_tensor(images).astype("float32"), uniforms).numpy()
    np.testing.assert_allclose(made, expected, atol=2e-3)
    assert made.dtype == np.float32
    assert expected.shape != images.shape or np.abs(expected - images).max() > 0.5


def test_grey_images_lose_and_gain_contrast_alike():
    images = photos(channels=1)
    uniforms = np.random.default_rng(3).random((16, 5))
    jitter = ColorJitter(contrast=0.9)
    made = on_device.apply(jitter, paddle.to_tensor(images).astype("float32"), uniforms).numpy()
    np.testing.assert_allclose(made, jitter.apply(images, uniforms), atol=2e-3)


@pytest.mark.parametrize("operation", [ColorJitter(saturation=0.5), ColorJitter(hue=0.1)], ids=str)
def test_colours_of_grey_images_are_refused(operation):
    grey = paddle.zeros([2, 1, 8, 8])
    with pytest.raises(UserError, match=r"color_jitter\.(saturation|hue): images have 1 channel"):
        on_device.apply(operation, grey, np.full((2, 5), 0.3))


@pytest.mark.parametrize(
    ("operations", "host"),
    [
        ([RandomCrop(4), FLIP, NORMALIZE], 0),
        ([FLIP, RandAugment(), NORMALIZE, Cutout(4)], 2),
        ([RandomCrop(2), Resize(16), NORMALIZE], 2),
        ([RandAugment()], 1),
        ([], 0),
    ],
)
def test_the_host_does_what_the_device_cannot_and_all_before(operations, host):
    assert on_device.host_operations(operations) == host


class Unmirrored(HorizontalFlip):
    """A user's own: it does something else than what it is derived from."""

    def apply(self, images, uniforms):
        return images


def test_a_derived_operation_runs_on_the_host_as_it_is_written():
    assert on_device.host_operations([Unmirrored(), NORMALIZE]) == 1


# --- loaders ------------------------------------------------------------------------------


@pytest.fixture
def arrays():
    return ArrayDataset(photos(n=50, height=16, width=16), np.arange(50) % 5, tuple("abcde"))


LISTS = {
    "all on the device": [RandomCrop(2), FLIP, ColorJitter(0.4, 0.4), NORMALIZE, Cutout(4)],
    "part of them": [RandAugment(), RandomCrop(2), HorizontalFlip(alternate=True), NORMALIZE],
    "none": [RandomCrop(2), Resize(12)],
}


@pytest.mark.parametrize("mix", [None, Mix(mixup=0.4), Mix(cutmix=1.0), Mix(0.4, 1.0, 0.5)])
@pytest.mark.parametrize("operations", LISTS)
def test_arrays_come_as_from_the_host(arrays, operations, mix):
    options = {"shuffle": True, "seed": 5, "mix": mix}
    host, device = (
        ArrayLoader(arrays, 16, LISTS[operations], **options, on_device=on) for on in (False, True)
    )
    for _epoch in range(2):
        for (expected, labels), (images, theirs) in zip(host, device, strict=True):
            assert isinstance(images, paddle.Tensor)
            np.testing.assert_allclose(images.numpy(), expected, atol=2e-3)
            np.testing.assert_array_equal(theirs, labels)


def test_growing_images_come_as_from_the_host(arrays):
    options = {"sizes": progressive(8, 16, 2), "seed": 1}
    operations = [RandomCrop(2), FLIP, NORMALIZE]
    host, device = (
        ArrayLoader(arrays, 16, operations, **options, on_device=on) for on in (False, True)
    )
    for size in (8, 12, 16):
        for (expected, _), (images, _) in zip(host, device, strict=True):
            assert images.shape[2:] == [size, size]
            np.testing.assert_allclose(images.numpy(), expected, atol=1e-4)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    paths = []
    for i, pixels in enumerate(photos(n=10, height=40, width=48)):
        paths.append(str(folder / f"{i}.png"))
        Image.fromarray(pixels.transpose(1, 2, 0)).save(paths[-1])
    return FileDataset(tuple(paths), np.arange(10) % 2, ("a", "b"))


@pytest.mark.parametrize("workers", [0, 2])
def test_normalised_on_the_device_files_are_those_of_the_host(files, workers):
    options = {"workers": workers, "shuffle": True, "mix": Mix(0.4, 1.0)}
    host, device = (
        FileLoader(files, 4, [RandomResizedCrop(24), NORMALIZE], **options, on_device=on)
        for on in (False, True)
    )
    for (expected, labels), (images, theirs) in zip(host, device, strict=True):
        np.testing.assert_allclose(images.numpy(), expected, atol=1e-4)
        np.testing.assert_array_equal(theirs, labels)


def test_what_workers_leave_to_the_device_depends_on_the_place_alone(files):
    """Flips and colours then have chances of their own, the same wherever a run starts."""
    operations = [RandomResizedCrop(24), FLIP, ColorJitter(0.4, 0.4, 0.4, 0.1), NORMALIZE]

    def images(workers, first=0):
        loader = FileLoader(files, 4, operations, workers=workers, on_device=True)
        loader.set_position(0, first)
        return [batch.numpy() for batch, _ in loader]

    whole = images(workers=0)
    for others in (images(workers=2), [whole[0], *images(workers=0, first=1)]):
        for one, other in zip(whole, others, strict=True):
            np.testing.assert_array_equal(one, other)
    plain = FileLoader(files, 4, [operations[0], NORMALIZE], workers=0, on_device=True)
    assert np.abs(whole[0] - next(iter(plain))[0].numpy()).max() > 0.1  # they do something
