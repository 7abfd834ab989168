"""Progressive resizing: the sizes of the epochs, and images of these sizes."""

import numpy as np
import pytest
from PIL import Image

from resnet_fit.data.augment import Normalize, RandomCrop, Resize
from resnet_fit.data.dataset import ArrayDataset, FileDataset
from resnet_fit.data.loading import ArrayLoader, FileLoader
from resnet_fit.data.resizing import progressive
from resnet_fit.data.transforms import RandomResizedCrop


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"start": 16, "end": 32, "epochs": 4}, [16, 20, 24, 28, 32, 32]),
        ({"start": 24, "end": 32, "epochs": 1}, [24, 32, 32]),
        ({"start": 17, "end": 32, "epochs": 3, "step": 8}, [17, 17, 24, 32]),
        ({"start": 128, "end": 224, "epochs": 6, "step": 32}, [128, 128, 160, 160, 192, 192, 224]),
    ],
)
def test_sizes(options, sizes):
    size = progressive(**options)
    assert [size(epoch) for epoch in range(len(sizes))] == sizes


def test_images_in_memory_are_resampled_before_they_are_normalised():
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32)).astype(np.uint8)
    dataset = ArrayDataset(images, np.arange(5), tuple("abcde"))
    normalize = Normalize((0.5,), (0.25,))
    loader = ArrayLoader(dataset, 5, [RandomCrop(0), normalize], sizes=progressive(16, 32, 2))
    for size in (16, 24, 32):
        ((seen, _),) = loader
        expected = normalize.apply(Resize(size).apply(images, None), None)
        np.testing.assert_allclose(seen, expected, atol=1e-5)


def test_files_are_cut_to_the_size_at_once(tmp_path):
    Image.new("RGB", (40, 40), (200, 10, 10)).save(tmp_path / "a.png")
    dataset = FileDataset((str(tmp_path / "a.png"),) * 2, np.array([0, 0]), ("red",))
    crop = [RandomResizedCrop(32), Normalize((0.5,), (0.25,))]
    loader = FileLoader(dataset, 2, crop, workers=0, sizes=progressive(16, 32, 1))
    assert [images.shape[2:] for _ in range(2) for images, _ in loader] == [(16, 16), (32, 32)]
