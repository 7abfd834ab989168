"""What a training needs stays compiled, and the rest does not stay for ever."""

from __future__ import annotations

from weakref import ref

import pytest

from resnet_fit.backends import set_threads, threads
from resnet_fit.backends.onednn.cache import Cache


class Compiled:
    def __init__(self, *shape):
        self.shape = shape


@pytest.fixture
def compiled():
    """Shapes in the order in which they were compiled."""
    return []


@pytest.fixture
def use(compiled):
    cache = Cache(kinds=16)

    @cache.once
    def compile_(*shape):
        compiled.append(shape)
        return Compiled(*shape)

    def use(*shape, layers=200):
        cache.begin("network", *shape)
        return [compile_(*shape, layer) for layer in range(layers)]

    return use


def test_a_training_on_growing_images_compiles_each_size_once(use, compiled):
    for pixels in range(128, 228, 4):
        for _ in range(2):
            use(32, pixels)
            use(7, pixels)  # the last batch
            use(50, 224)
            use(11, 224)
    assert len(compiled) == len(set(compiled))


def test_what_no_batch_of_late_needed_is_dropped(use, compiled):
    old, shared = (ref(made) for made in (use(0)[0], use(1)[0]))
    for pixels in range(2, 16):
        use(pixels)
    assert old() is not None
    use(1)
    use(16)
    assert old() is None
    for pixels in range(17, 31):
        use(pixels)
    assert shared() is not None
    use(31)
    assert shared() is None
    use(0)
    assert compiled.count((0, 0)) == 2


def test_another_number_of_threads_is_compiled_for_too(use, compiled):
    before = threads()
    first = use(8, layers=1)
    try:
        set_threads(before + 1)
        assert use(8, layers=1) != first
    finally:
        set_threads(before)
    assert use(8, layers=1) == first
    assert len(compiled) == 2
