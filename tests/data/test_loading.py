"""Loaders: the same batches from wherever a run starts, and nothing left behind."""

import fcntl
import gc
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import bad_images
import numpy as np
import pytest
from PIL import Image

from resnet_fit.data.augment import ColorJitter, HorizontalFlip, Normalize, Operation, RandomCrop
from resnet_fit.data.dataset import ArrayDataset, FileDataset
from resnet_fit.data.loading import ArrayLoader, FileLoader
from resnet_fit.data.seeding import generator
from resnet_fit.data.transforms import BadImage, CenterCrop, RandomResizedCrop, Resize
from resnet_fit.errors import RunFailed, UserError

NORMALIZE = Normalize((0.5,), (0.25,))


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100, 3, 16, 16), np.uint8)
    return ArrayDataset(images, np.arange(100) % 10, tuple("abcdefghij"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    paths = []
    for i in range(26):
        colours = rng.integers(0, 256, (3, 4, 3), np.uint8)
        path = folder / f"{i:02}.jpg"
        Image.fromarray(colours).resize((80 + i, 60), Image.Resampling.BICUBIC).save(path)
        paths.append(str(path))
    return FileDataset(tuple(paths), np.arange(26) % 2, ("a", "b"))


def array_loader(data, **options):
    operations = [RandomCrop(2), HorizontalFlip(), ColorJitter(0.4, 0.4, 0.4, 0.1), NORMALIZE]
    return ArrayLoader(data, 16, operations, **{"shuffle": True, "seed": 7, **options})


def file_loader(data, workers, **options):
    operations = (RandomResizedCrop(32), HorizontalFlip(), ColorJitter(0.4, hue=0.1), NORMALIZE)
    settings = {"shuffle": True, "seed": 7, "workers": workers, **options}
    return FileLoader(data, settings.pop("batch_size", 4), operations, **settings)


@pytest.fixture(params=["arrays", "in process", "workers"])
def kind(request):
    return request.param


@pytest.fixture
def make(kind, arrays, files):
    """A function that makes a new loader of one kind."""
    if kind == "arrays":
        return lambda **options: array_loader(arrays, **options)
    workers = 2 if kind == "workers" else 0
    return lambda **options: file_loader(files, workers, **options)


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)


def position(loader):
    return loader.state_dict()["position"]


def children():
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return path.read_text().split() if path.exists() else []


def loader_threads():
    return [t for t in threading.enumerate() if t.name.startswith("resnet-fit-loader")]


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    before = children()
    yield
    gc.collect()
    assert loader_threads() == []
    assert children() == before


# --- batches --------------------------------------------------------------------------


def test_an_epoch_is_every_sample_once(arrays):
    plain = ArrayLoader(arrays, 16)
    batches = list(plain)
    assert len(batches) == len(plain) == 7
    same(
        [[np.concatenate(part) for part in zip(*batches, strict=True)]],
        [[arrays.images, arrays.labels]],
    )
    shuffled = ArrayLoader(arrays, 16, shuffle=True, seed=1)
    first, second = ([i.tobytes() for b in shuffled for i in b[0]] for _ in range(2))
    assert first != second
    assert sorted(first) == sorted(second) == sorted(i.tobytes() for i in arrays.images)


def test_types_and_shapes(arrays, files):
    images, labels = next(iter(array_loader(arrays)))
    assert (images.shape, images.dtype, labels.dtype) == ((16, 3, 16, 16), np.float32, np.int64)
    images, labels = next(iter(file_loader(files, 0)))
    assert (images.shape, images.dtype, labels.dtype) == ((4, 3, 32, 32), np.float32, np.int64)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "uint64"])
def test_labels_of_any_integers_are_int64(dtype, files):
    """Paddle reads uint16 as bfloat16, and uint8 overflows in a confusion matrix."""
    images, labels = np.zeros((300, 1, 2, 2), np.uint8), np.arange(300).astype(dtype) % 20
    dataset = ArrayDataset(images, labels, tuple("abcdefghijklmnopqrst"))
    batch = next(iter(ArrayLoader(dataset, 300)))
    assert batch[1].dtype == np.int64
    np.testing.assert_array_equal(batch[1], labels.astype(np.int64))
    some = FileDataset(files.paths, (np.arange(26) % 2).astype(dtype), files.classes)
    assert some.labels.dtype == some.take(np.arange(3)).labels.dtype == np.int64


def test_files_as_users_give_them(files):
    given = FileDataset(
        [Path(path) for path in files.paths], (np.arange(26) % 2).tolist(), ("a", "b")
    )
    assert given.take(np.arange(2)).paths == list(files.paths[:2])
    with pytest.raises(UserError, match="labels: received"):
        FileDataset(files.paths, np.arange(26), ("a", "b"))
    with pytest.raises(UserError, match="labels: received"):
        FileDataset(files.paths, np.zeros(25, int), ("a", "b"))


def test_labels_stay_with_their_images(arrays):
    by_image = {i.tobytes(): label for i, label in zip(arrays.images, arrays.labels, strict=True)}
    for images, labels in ArrayLoader(arrays, 16, shuffle=True):
        assert [by_image[i.tobytes()] for i in images] == labels.tolist()


def test_drop_last(arrays):
    loader = ArrayLoader(arrays, 16, drop_last=True)
    assert [len(labels) for _, labels in loader] == [16] * len(loader) == [16] * 6


def test_kept_batches_are_not_overwritten(make):
    kept, copies = [], []
    for images, _ in make():
        kept.append(images)
        copies.append(images.copy())
    for one, other in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(one, other)


# --- chance and position --------------------------------------------------------------


def test_two_loaders_of_one_seed_agree_and_epochs_and_seeds_differ(make):
    one, other = make(), make()
    first, second = list(one), list(one)
    same(first, list(other))
    same(second, list(other))
    assert not np.array_equal(first[0][0], second[0][0])
    assert not np.array_equal(first[0][0], next(iter(make(seed=8)))[0])


@pytest.mark.parametrize(("epoch", "batch"), [(0, 3), (2, 0), (2, 5), (1, 6)])
def test_a_run_from_the_middle_sees_what_the_uninterrupted_sees(
    kind, make, arrays, files, epoch, batch
):
    # Worker processes make the same batches, and would have to be started.
    whole = array_loader(arrays) if kind == "arrays" else file_loader(files, 0)
    straight = [list(whole) for _ in range(4)]
    resumed = make()
    resumed.set_position(epoch, batch)
    assert len(resumed) == len(whole) - batch
    same(list(resumed), straight[epoch][batch:])
    assert len(resumed) == len(whole)
    assert position(resumed) == [epoch + 1, 0]
    same(list(resumed), straight[epoch + 1])


def test_position_counts_what_was_handed_out(make):
    loader = make()
    assert position(loader) == [0, 0]
    for i, _ in enumerate(loader):
        assert position(loader) == [0, i + 1]
    assert position(loader) == [1, 0]
    loader.set_position(3, len(loader))
    assert position(loader) == [4, 0]


def test_an_iteration_left_early_starts_its_epoch_anew(make):
    loader = make()
    whole = list(make())
    for i, _ in enumerate(loader):
        if i == 2:
            break
    assert position(loader) == [0, 3]
    same(list(loader), whole)
    assert position(loader) == [1, 0]
    loader.set_position(0, 3)
    break_out(loader)
    same(list(loader), whole)


def test_an_abandoned_iterator_does_not_disturb_a_new_position(arrays):
    loader = array_loader(arrays)
    abandoned = iter(loader)
    next(abandoned)
    loader.set_position(0, 5)
    del abandoned
    gc.collect()
    assert position(loader) == [0, 5]
    assert len(list(loader)) == 2


@pytest.mark.parametrize(("epoch", "batch"), [(-1, 0), (0, -1), (0, 8)])
def test_positions_that_cannot_be(arrays, epoch, batch):
    with pytest.raises(UserError, match=r"position: received .* of 0\.\.7"):
        array_loader(arrays).set_position(epoch, batch)


def test_streams_of_random_numbers_differ():
    streams = [(1, 2), (1, 2, 0), (1, 2, 1), (1, 2, 0, 0), (1, 2, 0, 1), (1, 3), (2, 2), (1, 3, 0)]
    assert len({generator(*s).random() for s in streams}) == len(streams)


def test_skipping_a_file_leaves_the_chance_of_others_alone(files, tmp_path):
    (tmp_path / "broken.jpg").touch()
    paths = (*files.paths[:5], str(tmp_path / "broken.jpg"), *files.paths[6:])
    broken = FileDataset(paths, files.labels, files.classes)
    operations = (RandomResizedCrop(32), NORMALIZE)
    whole = list(FileLoader(files, 4, operations, workers=0))
    holed = list(FileLoader(broken, 4, operations, workers=0, on_bad_image="skip"))
    same(holed[:1] + holed[2:], whole[:1] + whole[2:])
    same([holed[1]], [[part[[0, 2, 3]] for part in whole[1]]])


@pytest.mark.parametrize(
    ("operations", "different"),
    [
        ([CenterCrop(32)], 1),
        ([RandomResizedCrop(32)], 8),
        ([CenterCrop(32), ColorJitter(0.5)], 8),
        ([CenterCrop(32), NORMALIZE, RandomCrop(15)], 8),
    ],
)
def test_every_image_of_a_batch_has_its_own_chance(files, operations, different):
    one_file = FileDataset(files.paths[:1] * 8, np.zeros(8, np.int64), ("a",))
    images, _ = next(iter(FileLoader(one_file, 8, operations, workers=0)))
    assert len({i.tobytes() for i in images}) == different


def test_workers_make_what_one_process_makes(files):
    alone = list(file_loader(files, 0))
    for workers in (1, 3, 9):  # there are 7 batches
        same(list(file_loader(files, workers)), alone)


def test_without_shared_memory_the_pipe_takes_all(files, monkeypatch):
    alone = list(file_loader(files, 0))
    monkeypatch.delattr(os, "memfd_create", raising=False)
    same(list(file_loader(files, 2)), alone)


def test_workers_do_with_usual_pipes_where_a_user_may_have_no_wider_ones(files, monkeypatch):
    """As after 64 MB of them; only root may have more, so that the refusal is a made one."""
    refused = []

    def refuse(*arguments):
        refused.append(arguments)
        raise PermissionError(1, "Operation not permitted")

    alone = list(file_loader(files, 0))
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    same(list(file_loader(files, 2)), alone)
    assert len(refused) == 4


def test_batches_stay_as_they_were_given(files):
    """Though the memory they came in is used again; of all sizes, the last batch is smaller."""
    loader = FileLoader(files, 3, [CenterCrop(8)], workers=2)
    given = [(part.copy(), part) for batch in loader for part in batch]
    for then, now in given:
        np.testing.assert_array_equal(then, now)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_workers_stay_for_the_next_epoch_and_go_with_the_loader(files):
    before, descriptors = children(), len(os.listdir("/proc/self/fd"))
    loader = file_loader(files, 2)
    list(loader)
    workers = children()
    assert len(workers) == len(before) + 2
    list(loader)
    assert children() == workers
    next(iter(loader))
    gc.collect()
    assert children() == before
    loader.set_position(0)
    same(list(loader), list(file_loader(files, 0)))
    assert len(children()) == len(before) + 2
    loader.close()
    assert children() == before
    list(loader)
    assert len(children()) == len(before) + 2
    del loader
    gc.collect()
    assert children() == before
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (6, 6), (64, 8)])
def test_by_default_each_core_has_a_worker_up_to_eight(files, monkeypatch, cores, workers):
    monkeypatch.setattr("resnet_fit.data.workers.usable_cores", lambda: cores)
    assert FileLoader(files, 4, [RandomResizedCrop(8)]).workers == workers


# --- waiting --------------------------------------------------------------------------


class Slow(Operation):
    def apply(self, images, uniforms):
        time.sleep(0.05)
        return images


def test_the_next_batch_is_made_while_the_consumer_works(arrays):
    loader = ArrayLoader(arrays, 16, [Slow()])
    first_batch = 0.05
    # Of 7 batches; the first is under way before this thread begins to wait.
    assert 0.5 * first_batch <= seconds_waited(loader, working=0.08) < 5 * first_batch
    assert seconds_waited(loader, working=0) > 6 * 0.05  # nothing to hide behind


def seconds_waited(loader, working):
    waited, batches = 0.0, iter(loader)
    while True:
        started = time.perf_counter()
        if next(batches, None) is None:
            return waited
        waited += time.perf_counter() - started
        time.sleep(working)


# --- ends -----------------------------------------------------------------------------


def test_leaving_early_ends_threads_and_processes(make):
    for ending in (break_out, raise_in_loop, drop_iterator):
        ending(make())
        gc.collect()
        assert loader_threads() == []


def break_out(loader):
    for _ in loader:
        break


def raise_in_loop(loader):
    def loop():
        for _ in loader:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop()


def drop_iterator(loader):
    next(iter(loader))


class Failing(Operation):
    def apply(self, images, uniforms):
        raise RuntimeError("on purpose")


def test_an_exception_in_the_thread_surfaces_at_once(arrays):
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="on purpose"):
        list(ArrayLoader(arrays, 1, [Failing()]))
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("options", [{"batch_size": 101, "drop_last": True}, {"batch_size": 0}])
def test_loaders_without_a_batch_are_refused(arrays, options):
    with pytest.raises(UserError, match=r"100 images, batch size 101|batch_size: received 0"):
        ArrayLoader(arrays, **options)
    with pytest.raises(UserError, match="0 images"):
        ArrayLoader(arrays.take(np.arange(0)), 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": -1}, "workers: received -1"),
        ({"workers": 0, "on_bad_image": "ignore"}, "on_bad_image: received 'ignore'"),
        ({"workers": 0, "seed": -1}, "seed: received -1"),
    ],
)
def test_settings_that_cannot_be(files, options, message):
    with pytest.raises(UserError, match=message):
        file_loader(files, **options)


# --- bad files ------------------------------------------------------------------------


@pytest.fixture
def mixed(files, tmp_path):
    """Good files, and one of every damaged kind, in class b."""
    damaged = []
    for kind, (extension, _, write) in bad_images.DAMAGED.items():
        path = tmp_path / f"{kind}.{extension}"
        write(path)
        damaged.append(str(path))
    labels = np.array([0] * 26 + [1] * len(damaged))
    return FileDataset((*files.paths, *damaged), labels, ("good", "bad")), damaged


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_file_is_an_error_that_names_it(mixed, workers):
    data, damaged = mixed
    with pytest.raises(BadImage) as caught:
        list(file_loader(data, workers))
    assert any(str(caught.value).startswith(path) for path in damaged)


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_files_are_listed_and_the_others_all_there(mixed, workers):
    data, damaged = mixed
    loader = file_loader(data, workers, on_bad_image="skip", batch_size=2)
    for _ in range(2):
        labels = np.concatenate([labels for _, labels in loader])
        assert labels.tolist() == [0] * 26
        assert sorted(loader.skipped) == sorted(damaged)
    assert all(reason.startswith(path) for path, reason in loader.skipped.items())


def test_nothing_readable_at_all_is_an_error(mixed):
    data, damaged = mixed
    loader = file_loader(data.take(np.arange(26, len(data))), 0, on_bad_image="skip")
    with pytest.raises(UserError, match=f"none of the {len(damaged)} images could be read"):
        list(loader)


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_different_sizes_are_refused(files, workers):
    with pytest.raises(
        UserError, match=r"01\.jpg: 43x32 after its transforms, but others of its batch are 42x32"
    ):
        list(FileLoader(files, 4, [Resize(32), NORMALIZE], workers=workers))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_crop_that_does_not_fit_names_the_file(files, workers):
    with pytest.raises(UserError, match=r"00\.jpg: center_crop: 64 px do not fit into 80x60"):
        list(FileLoader(files, 4, [CenterCrop(64)], workers=workers))


# --- worker processes -----------------------------------------------------------------


def test_a_worker_that_dies_is_reported(files):
    loader = file_loader(files, 1, batch_size=1)
    before = children()
    iterator = iter(loader)
    next(iterator)
    (worker,) = set(children()) - set(before)
    os.kill(int(worker), signal.SIGKILL)
    with pytest.raises(RunFailed, match=r"a data worker died \(killed by signal 9"):
        list(iterator)


class Local(Operation):
    """Cannot be imported by a worker: this module is not on its own import path by this name."""


def test_transforms_a_worker_cannot_have_are_refused(files, monkeypatch):
    with pytest.raises(UserError, match="workers: 0"):
        list(FileLoader(files, 4, [CenterCrop(8), type("Inner", (Operation,), {})()], workers=1))
    monkeypatch.setattr(Local, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Local", Local, raising=False)
    with pytest.raises(UserError, match=r"cannot load the transforms .*workers: 0"):
        list(FileLoader(files, 4, [CenterCrop(8), Local()], workers=1))


class Broken(Operation):
    def apply(self, images, uniforms):
        print("a decoder's chatter on standard output")
        raise IndexError("on purpose")


def test_a_bug_in_a_worker_arrives_with_its_reason(files, capfd):
    with pytest.raises(RunFailed, match=r"a data worker failed \(IndexError: on purpose\)"):
        list(FileLoader(files, 4, [CenterCrop(8), Broken()], workers=1))
    assert "in apply" in capfd.readouterr().err


SCRIPT = """
import sys, time
import numpy as np
from resnet_fit.data.loading import FileLoader
from resnet_fit.data.dataset import FileDataset
from resnet_fit.data.transforms import RandomResizedCrop

paths = tuple(sys.argv[1:])
for batch in FileLoader(FileDataset(paths, np.zeros(len(paths), int), ("a",)), 2,
                        [RandomResizedCrop(256)], workers=2):
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_die_with_a_killed_parent(files, deadly):
    # No main guard in the script: workers must not run it again.
    command = [sys.executable, "-c", SCRIPT, *files.paths]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        workers = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        assert len(workers) == 2
        parent.send_signal(deadly)
        parent.wait(timeout=10)
    deadline = time.monotonic() + 5
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [pid for pid in workers if alive(pid)] == []


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_workers_import_nothing_from_the_working_directory(files, tmp_path, monkeypatch):
    alone = list(file_loader(files, 0))
    for module in ("queue", "pickle", "numpy", "cv2", "sitecustomize"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('from the working directory')")
    monkeypatch.chdir(tmp_path)
    same(list(file_loader(files, 2)), alone)


def test_workers_import_the_users_modules(files, tmp_path, monkeypatch):
    """From the same folders as their parent, the working directory if that is one of them."""
    (tmp_path / "operations_of_mine.py").write_text(
        "from resnet_fit.data.augment import Operation\n"
        "class Invert(Operation):\n"
        "    def apply(self, images, uniforms):\n"
        "        return 255 - images\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    mine = importlib.import_module("operations_of_mine").Invert()
    plain, inverted = (
        list(FileLoader(files, 4, [CenterCrop(8), *more], workers=1)) for more in ((), (mine,))
    )
    same(inverted, [[255 - images, labels] for images, labels in plain])


def test_data_is_imported_without_paddle():
    code = (
        "import sys, resnet_fit.data.loading\n"
        "assert not {'paddle', 'PIL', 'sklearn'} & set(sys.modules), sys.modules.keys()"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


# --- speed ----------------------------------------------------------------------------


def test_standard_augmentation_is_array_code_not_a_loop_over_images():
    # A tenth of what one core does, so that a busy machine passes and a loop in Python does not.
    images = np.random.default_rng(0).integers(0, 256, (4096, 3, 32, 32), np.uint8)
    data = ArrayDataset(images, np.zeros(4096, np.int64), ("a",))
    loader = ArrayLoader(data, 128, [RandomCrop(4), HorizontalFlip(), NORMALIZE], shuffle=True)
    rates = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in loader:
            pass
        rates.append(4096 / (time.perf_counter() - started))
    assert max(rates) > 15_000


# --- flips that alternate by epoch ------------------------------------------------------


def sides(loader, images):
    """Which of the images an epoch shows mirrored, by their place in the data set."""
    mirrored = {}
    for batch, labels in loader:
        for image, label in zip(batch, labels, strict=True):
            side = np.array_equal(image, images[label][..., ::-1])
            assert side or np.array_equal(image, images[label])
            mirrored[int(label)] = side
    return [mirrored[i] for i in range(len(images))]


def test_alternating_flips_show_the_other_side_in_the_next_epoch():
    images = np.random.default_rng(0).integers(0, 256, (200, 3, 6, 6)).astype(np.uint8)
    dataset = ArrayDataset(images, np.arange(200), tuple(map(str, range(200))))
    loader = ArrayLoader(dataset, 32, [HorizontalFlip(alternate=True)], shuffle=True)
    first, second, third = (sides(loader, images) for _ in range(3))
    assert 70 < sum(first) < 130
    assert second == [not side for side in first]
    assert third == first
    random = ArrayLoader(dataset, 32, [HorizontalFlip()], shuffle=True)
    first, second = (sides(random, images) for _ in range(2))
    assert 70 < sum(a == b for a, b in zip(first, second, strict=True)) < 130


@pytest.mark.parametrize("workers", [0, 2])
def test_alternating_flips_of_files(tmp_path, workers):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 6, 6, 3)).astype(np.uint8)
    paths = []
    for i, image in enumerate(pixels):
        paths.append(str(tmp_path / f"{i:02}.png"))
        Image.fromarray(image).save(paths[-1])
    dataset = FileDataset(tuple(paths), np.arange(40), tuple(map(str, range(40))))
    transforms = [Resize(6), HorizontalFlip(alternate=True)]
    loader = FileLoader(dataset, 8, transforms, shuffle=True, workers=workers)
    images = pixels.transpose(0, 3, 1, 2)
    first, second = (sides(loader, images) for _ in range(2))
    assert 8 < sum(first) < 32
    assert second == [not side for side in first]
