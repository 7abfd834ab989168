"""Data sets: found where they are said to be, checked, divided fairly."""

import collections
import functools
import io
import os
import pickle
import tarfile
from dataclasses import replace
from hashlib import md5

import numpy as np
import pytest

from resnet_fit.data.dataset import ArrayDataset, FileDataset, split, subset
from resnet_fit.data.datasets import cifar
from resnet_fit.data.datasets.digits import digits
from resnet_fit.downloads import fetch
from resnet_fit.errors import UserError


def batch(count, classes=10, **changes):
    """The content of one file, of keys in bytes as Python 2 left them."""
    labels = (np.arange(count) % classes).tolist()
    data = np.random.default_rng(count).integers(0, 256, (count, 3072), np.uint8)
    content = {"data": data, "labels": labels, "fine_labels": labels, **changes}
    return {key.encode(): value for key, value in content.items()}


def cifar10_files(**replaced):
    names = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse"]
    files = {f"data_batch_{i}": batch(100) for i in range(1, 6)}
    files |= {
        "test_batch": batch(100),
        "batches.meta": {b"label_names": [*names, b"ship", b"truck"]},
    }
    return files | replaced


def write_folder(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))


@functools.cache
def archive_bytes():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name, content in cifar10_files().items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            raw = pickle.dumps(content, protocol=2)
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def no_data_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.delenv(cifar.ENVIRONMENT, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("CIFAR10", "CIFAR100"):
        small = replace(getattr(cifar, name), urls=("http://127.0.0.1:9/no",), counts=(500, 100))
        monkeypatch.setattr(cifar, name, small)


def put_archive(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cifar-10-python.tar.gz").write_bytes(archive_bytes())
    return folder / "cifar-10-python.tar.gz"


# --- CIFAR ----------------------------------------------------------------------------


def test_archive_and_extracted_folder_give_the_same_sets(tmp_path):
    from_archive = cifar.cifar10(put_archive(tmp_path))
    write_folder(tmp_path / "x" / "cifar-10-batches-py", cifar10_files())
    from_folder = cifar.cifar10(tmp_path / "x")
    for ours, theirs, count in zip(from_archive, from_folder, (500, 100), strict=True):
        assert ours.images.shape == (count, 3, 32, 32)
        assert ours.images.dtype == np.uint8
        assert ours.labels.dtype == np.int64
        assert ours.classes[0] == "airplane"
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_array_equal(
        from_archive[0].images[201].reshape(-1), cifar10_files()["data_batch_3"][b"data"][1]
    )


def test_environment_comes_before_the_cache_and_a_path_before_both(tmp_path, monkeypatch):
    put_archive(cifar.cache_folder())
    assert len(cifar.cifar10()[0]) == 500
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "cifar-10-python.tar.gz").write_bytes(b"damaged")
    monkeypatch.setenv(cifar.ENVIRONMENT, str(tmp_path / "env"))
    with pytest.raises(UserError, match=r"/env/cifar-10-python\.tar\.gz: damaged"):
        cifar.cifar10()
    assert len(cifar.cifar10(cifar.cache_folder())[1]) == 100


def test_cifar100_has_its_fine_labels(tmp_path):
    names = [f"class{i}".encode() for i in range(100)]
    files = {
        "train": batch(500, 100),
        "test": batch(100, 100),
        "meta": {b"fine_label_names": names},
    }
    write_folder(tmp_path / "cifar-100-python", files)
    train, test = cifar.cifar100(tmp_path)
    assert train.classes[99] == "class99"
    assert set(train.labels) == set(test.labels) == set(range(100))


def test_files_written_by_python_2_are_read(tmp_path):
    # Python 2 wrote str as STRING opcodes: the bytes of an array are in one, as are the keys.
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I2\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"
        b"I00\nS'\\x07\\xff'\ntb"
    )
    (tmp_path / "file").write_bytes(b"(dS'data'\n" + array + b"sS'labels'\n(lI3\nas.")
    with open(tmp_path / "file", "rb") as file:
        content = cifar._unpickle(file)
    assert content["data"].tolist() == [7, 255]
    assert content["labels"] == [3]


class Evil:
    def __reduce__(self):
        return os.mkdir, ("/tmp/resnet-fit-was-here",)


class Decoded:
    def __reduce__(self):
        import codecs

        return codecs.encode, ("eval", "rot13")


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("data_batch_2", Evil(), "asks for 'posix.mkdir': only plain data"),
        ("data_batch_2", {b"data": Decoded()}, "encoding 'rot13' is not allowed"),
        ("data_batch_2", [1, 2], "holds a list"),
        ("data_batch_2", batch(90), "expected 500 images"),
        ("test_batch", batch(100, data=1), "zero-dimensional"),
        ("test_batch", batch(100, labels=[10] * 100), "labels: received (10, 10), expected 0 to 9"),
        ("test_batch", batch(100, labels=[1]), "labels: received 'int64 [1]', expected integers"),
        ("batches.meta", {b"label_names": [b"cat"]}, "1 class names, expected 10"),
        ("test_batch", {}, "data"),
    ],
)
def test_content_that_is_not_cifar_is_refused(tmp_path, file, content, reason):
    write_folder(tmp_path / "cifar-10-batches-py", cifar10_files(**{file: content}))
    with pytest.raises(UserError) as caught:
        cifar.cifar10(tmp_path)
    assert str(tmp_path / "cifar-10-batches-py") in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not os.path.exists("/tmp/resnet-fit-was-here")


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:-20],
        lambda raw: raw[:5000] + bytes(100) + raw[5100:],
        lambda raw: b"",
        lambda raw: b"<html>404</html>",
    ],
    ids=["half", "tail", "overwritten", "empty", "web page"],
)
def test_damaged_archive_is_named_with_the_remedy(tmp_path, damage):
    path = put_archive(tmp_path)
    path.write_bytes(damage(archive_bytes()))
    with pytest.raises(UserError, match=r"damaged.*put cifar.* from http.* in its place") as caught:
        cifar.cifar10(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path):
    write_folder(tmp_path / "cifar-10-batches-py", cifar10_files())
    (tmp_path / "cifar-10-batches-py" / "data_batch_4").unlink()
    os.mkfifo(tmp_path / "cifar-10-batches-py" / "data_batch_4")
    with pytest.raises(UserError, match="without data_batch_4"):
        cifar.cifar10(tmp_path)


def test_only_a_file_of_the_cache_is_to_be_deleted(tmp_path, monkeypatch):
    cached = put_archive(cifar.cache_folder())
    cached.write_bytes(b"damaged")
    with pytest.raises(UserError, match="delete it and run again to download it"):
        cifar.cifar10()
    with pytest.raises(UserError) as given:
        cifar.cifar10(cached)  # what is named is not downloaded again
    monkeypatch.setenv(cifar.ENVIRONMENT, str(tmp_path / "mine"))
    put_archive(tmp_path / "mine").write_bytes(b"damaged")
    with pytest.raises(UserError) as own:
        cifar.cifar10()
    assert "delete" not in f"{given.value} {own.value}"


def test_missing_path_names_the_nearest(tmp_path):
    put_archive(tmp_path)
    with pytest.raises(UserError, match=r"Did you mean 'cifar-10-python\.tar\.gz'"):
        cifar.cifar10(tmp_path / "cifar10-python.tar.gz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds neither"):
        cifar.cifar10(tmp_path / "empty")


# --- download -------------------------------------------------------------------------


def test_offline_says_where_the_file_goes_and_what_runs_without(tmp_path, monkeypatch):
    cache = tmp_path / "home/.cache/paddle/dataset/cifar"
    with pytest.raises(UserError) as caught:
        cifar.cifar10()
    assert f"put cifar-10-python.tar.gz at {cache}/cifar-10-python.tar.gz" in str(caught.value)
    assert "run resnet-fit --config resnet18_digits, which needs" in str(caught.value)
    assert list(cache.iterdir()) == []
    monkeypatch.setenv(cifar.ENVIRONMENT, str(tmp_path / "mine"))
    with pytest.raises(UserError, match=f"RESNET_FIT_DATA: received {tmp_path}/mine, expected a"):
        cifar.cifar10()
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match=f"at {tmp_path}/mine/cifar-10-python.tar.gz"):
        cifar.cifar10()


def served(monkeypatch, *urls, checksum):
    monkeypatch.setattr(cifar, "CIFAR10", replace(cifar.CIFAR10, urls=urls, md5=checksum))


def test_download_goes_on_to_the_second_mirror_and_is_kept(monkeypatch, web_server, capsys):
    put_archive(web_server.folder)
    url = f"{web_server.url}/cifar-10-python.tar.gz"
    served(monkeypatch, f"{web_server.url}/absent", url, checksum=md5(archive_bytes()).hexdigest())
    assert len(cifar.cifar10()[0]) == 500
    assert [p.name for p in cifar.cache_folder().iterdir()] == ["cifar-10-python.tar.gz"]
    assert capsys.readouterr() == ("", "")
    (web_server.folder / "cifar-10-python.tar.gz").unlink()
    assert len(cifar.cifar10()[0]) == 500


def test_a_download_draws_no_line_into_a_file(monkeypatch, tmp_path, capsys):
    """Whatever the environment says of colours and terminals."""
    for name, value in {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "there").write_bytes(b"content")
    url = (tmp_path / "there").as_uri()
    fetch(url, tmp_path / "here", md5(b"content").hexdigest())
    assert (tmp_path / "here").read_bytes() == b"content"
    assert capsys.readouterr() == ("", "")


def test_download_with_a_wrong_checksum_leaves_nothing(monkeypatch, web_server):
    put_archive(web_server.folder)
    served(monkeypatch, f"{web_server.url}/cifar-10-python.tar.gz", checksum="0" * 32)
    with pytest.raises(UserError, match=f"md5 [0-9a-f]+, expected {'0' * 32}"):
        cifar.cifar10()
    assert list(cifar.cache_folder().iterdir()) == []


# --- digits ---------------------------------------------------------------------------


def test_digits_are_all_of_scikit_learns():
    from sklearn.datasets import load_digits

    train, test = digits()
    assert (len(train), len(test)) == (1437, 360)
    assert train.images.shape[1:] == (1, 8, 8)
    assert train.images.max() == 255
    assert np.bincount(test.labels).min() >= 35
    raw = load_digits()

    def digest(images, labels):
        return collections.Counter(
            i.tobytes() + bytes([d]) for i, d in zip(images, labels, strict=True)
        )

    ours = digest(
        np.concatenate([train.images, test.images]), np.concatenate([train.labels, test.labels])
    )
    assert ours == digest(np.rint(raw.images / 16 * 255).astype(np.uint8), raw.target)
    np.testing.assert_array_equal(digits()[1].images, test.images)


# --- arrays ---------------------------------------------------------------------------

PIXELS, LABELS = np.zeros((8, 3, 6, 6), np.uint8), np.arange(8) % 2


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (PIXELS / 255, LABELS, r"images: received 'float64 \[8, 3, 6, 6\]', expected uint8"),
        (PIXELS[0], LABELS, r"images: received 'uint8 \[3, 6, 6\]'"),
        (PIXELS.transpose(0, 2, 3, 1), LABELS, r"channels first"),
        (PIXELS, LABELS[:3], r"labels: received 'int64 \[3\]', expected integers \[8\]"),
        (PIXELS, LABELS[:, None], r"labels: received 'int64 \[8, 1\]'"),
        (PIXELS, LABELS / 2, r"labels: received 'float64 \[8\]'"),
        (
            PIXELS,
            LABELS + 1,
            r"labels: received \(1, 2\), expected 0 to 1, since there are 2 classes",
        ),
        (PIXELS, LABELS - 1, r"labels: received \(-1, 0\)"),
    ],
)
def test_arrays_that_are_no_images_or_no_labels_are_refused(images, labels, message):
    with pytest.raises(UserError, match=message):
        ArrayDataset(images, labels, ("a", "b"))


def test_lists_become_arrays():
    dataset = ArrayDataset(PIXELS, LABELS.tolist(), ("a", "b"))
    assert dataset.take(np.array([1, 2])).labels.tolist() == [1, 0]


@pytest.mark.parametrize("classes", [["a", "b"], np.array(["a", "b"])])
def test_classes_become_a_tuple_of_texts(classes):
    """A list never equals the tuple that is read from a run's record."""
    for dataset in (
        ArrayDataset(PIXELS, LABELS, classes),
        FileDataset(["1.png"] * 8, LABELS, classes),
    ):
        assert dataset.classes == ("a", "b")
        assert {type(name) for name in dataset.take(np.arange(2)).classes} == {str}


def test_names_are_kept_and_there_is_one_for_each_image():
    names = [f"scan {i}" for i in range(8)]
    dataset = ArrayDataset(PIXELS, LABELS, ("a", "b"), names)
    assert dataset.name(3) == "scan 3"
    assert dataset.take(np.array([5, 2])).names == ("scan 5", "scan 2")
    assert replace(dataset, names=None).name(3) == "image 3"
    with pytest.raises(UserError, match=r"names: received 2, expected 8, one for each image"):
        ArrayDataset(PIXELS, LABELS, ("a", "b"), names[:2])


# --- parts ----------------------------------------------------------------------------


def numbered(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    labels = np.random.default_rng(5).permutation(labels)
    images = np.arange(len(labels)).astype(np.uint8).reshape(-1, 1, 1, 1)
    return ArrayDataset(images, labels, tuple("abcdefgh"[: len(counts)]))


def numbers(dataset):
    return dataset.images.reshape(-1).tolist()


def test_split_parts_all_samples_class_by_class():
    train, held_out = split(numbered([100, 50, 30, 2]), 0.1, seed=1)
    assert np.bincount(held_out.labels).tolist() == [10, 5, 3, 1]
    assert sorted(numbers(train) + numbers(held_out)) == list(range(182))
    assert numbers(train) == sorted(numbers(train))


def test_split_depends_on_the_seed_alone():
    data = numbered([60, 60])
    assert numbers(split(data, 0.5, seed=1)[0]) == numbers(split(data, 0.5, seed=1)[0])
    assert numbers(split(data, 0.5, seed=1)[0]) != numbers(split(data, 0.5, seed=2)[0])


def test_split_leaves_every_class_on_both_sides():
    train, held_out = split(numbered([2, 2, 2, 100]), 0.01)
    assert np.bincount(train.labels).tolist() == [1, 1, 1, 99]
    assert np.bincount(held_out.labels).tolist() == [1, 1, 1, 1]
    assert np.bincount(split(numbered([2, 2]), 0.99)[0].labels).tolist() == [1, 1]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_split_refuses_fractions_that_are_none(fraction):
    with pytest.raises(UserError, match="between 0 and 1"):
        split(numbered([5, 5]), fraction)


def test_split_refuses_what_cannot_be_split():
    with pytest.raises(UserError, match="too few"):
        split(numbered([1, 1]), 0.1)
    with pytest.raises(UserError, match="1 images cannot be split"):
        split(numbered([1]), 0.5)


def test_subset_is_stratified_and_exact():
    part = subset(numbered([100, 50, 25]), 21)
    assert np.bincount(part.labels).tolist() == [12, 6, 3]
    assert numbers(part) == numbers(subset(numbered([100, 50, 25]), 21))
    assert len(subset(numbered([3, 4]), 100)) == 7
    with pytest.raises(UserError, match="received 0"):
        subset(numbered([3, 4]), 0)


# --- the real thing -------------------------------------------------------------------


def test_real_cifar10(monkeypatch, real_data):
    monkeypatch.setenv(cifar.ENVIRONMENT, real_data)
    monkeypatch.setattr(cifar, "CIFAR10", replace(cifar.CIFAR10, counts=(50_000, 10_000)))
    train, test = cifar.cifar10()
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert train.classes == (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    # Known of the set: the mean colour, in 0..1.
    means = train.images.mean((0, 2, 3)) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=1e-3)


@pytest.fixture(scope="session")
def real_data():
    path = os.environ.get(cifar.ENVIRONMENT, "")
    if not os.path.exists(os.path.join(path, "cifar-10-python.tar.gz")):
        pytest.skip("RESNET_FIT_DATA does not hold cifar-10-python.tar.gz")
    return path
