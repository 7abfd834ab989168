"""Mean and deviation of a data set's pixels."""

import numpy as np
import pytest
from PIL import Image

from resnet_fit.data.dataset import ArrayDataset, FileDataset
from resnet_fit.data.statistics import statistics
from resnet_fit.data.transforms import BadImage


def test_of_arrays_they_are_exact():
    images = np.random.default_rng(0).integers(0, 256, (1100, 3, 8, 8), np.uint8)
    mean, std = statistics(ArrayDataset(images, np.zeros(1100, np.int64), ("a",)))
    np.testing.assert_allclose(mean, images.mean((0, 2, 3)) / 255, rtol=1e-9)
    np.testing.assert_allclose(std, images.std((0, 2, 3)) / 255, rtol=1e-9)


def test_of_files_they_are_those_of_their_pixels(tmp_path):
    rng = np.random.default_rng(0)
    paths = [str(tmp_path / f"{i:02}.jpg") for i in range(26)]
    for i, path in enumerate(paths):
        colours = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8))
        colours.resize((80 + i, 60), Image.Resampling.BICUBIC).save(path)
    mean, std = statistics(FileDataset(paths, np.arange(26) % 2, ("a", "b")))
    pixels = np.concatenate([np.asarray(Image.open(path)).reshape(-1, 3) for path in paths])
    np.testing.assert_allclose(mean, pixels.mean(0) / 255, atol=0.01)
    np.testing.assert_allclose(std, pixels.std(0) / 255, atol=0.02)
    (tmp_path / "empty.jpg").touch()
    paths.append(str(tmp_path / "empty.jpg"))
    broken = FileDataset(paths, np.arange(27) % 2, ("a", "b"))
    with pytest.raises(BadImage, match=r"empty\.jpg: empty file"):
        statistics(broken)
    assert statistics(broken, on_bad_image="skip") == (mean, std)
