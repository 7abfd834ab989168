import json

import numpy as np
import pytest
from safetensors_files import write_safetensors

from resnet_fit.errors import UserError
from resnet_fit.networks import read_weights
from resnet_fit.networks.safetensors import read_safetensors


def assert_same(tensors, others):
    assert set(tensors) == set(others)
    for name, value in tensors.items():
        assert value.dtype == others[name].dtype, name
        np.testing.assert_array_equal(value, others[name], err_msg=name)


def tensors_of_every_type():
    types = "float64 float32 float16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool"
    tensors = {name: np.array([[0, 1, 3]]).astype(name) for name in types.split()}
    return tensors | {
        "scalar": np.array(2.5, "f4"),
        "empty": np.zeros((0, 3), "f4"),
        "turned": np.arange(6.0).reshape(2, 3).T,
    }


def test_tensors_of_every_type_are_read(tmp_path):
    file, tensors = tmp_path / "t.safetensors", tensors_of_every_type()
    write_safetensors(file, tensors, {"epoch": "3"})
    assert_same(read_safetensors(file), tensors)


def test_files_that_the_library_writes_are_read(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    file, tensors = tmp_path / "t.safetensors", tensors_of_every_type()
    library.save_file({**tensors, "turned": tensors["turned"].copy(order="C")}, file)
    assert_same(read_safetensors(file), tensors)


def test_bfloat16_is_widened(tmp_path):
    # 0x3FC0 is 1.5, 0xC000 is -2, 0x7F80 infinity: the upper half of a float32.
    header = b'{"a":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]}}'
    file = tmp_path / "t.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"\xc0\x3f\x00\xc0\x80\x7f")
    assert read_weights(file)["a"].tolist() == [1.5, -2.0, np.inf]
    file.write_bytes(file.read_bytes().replace(b"BF16", b"F8_X"))
    with pytest.raises(UserError, match="holds 'a' of type F8_X"):
        read_weights(file)


@pytest.mark.parametrize(
    ("shape", "offsets"),
    [([2], [0, 12]), ([4], [0, 12]), ([3], [4, 16]), ([3], [-12, 0]), ([-1], [0, 12]), ([3], [0])],
)
def test_a_header_that_contradicts_the_bytes_is_refused(tmp_path, shape, offsets):
    file = tmp_path / "t.safetensors"

    def write(shape, offsets):
        header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": offsets}})
        numbers = np.arange(3, dtype="<f4").tobytes()
        file.write_bytes(len(header).to_bytes(8, "little") + header.encode() + numbers)

    write([3], [0, 12])
    assert read_weights(file)["a"].tolist() == [0, 1, 2]
    write(shape, offsets)
    with pytest.raises(UserError, match="is damaged or cut short"):
        read_weights(file)


@pytest.mark.parametrize("length", [128, 640, 0x8080])
def test_a_header_whose_length_looks_like_a_pickle(tmp_path, length):
    """The first byte of a pickle is 0x80; so is that of one file in 32."""
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'.ljust(length)
    content = np.array([1.5, -2], "<f4").tobytes()
    file = tmp_path / "t.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + content)
    assert read_weights(file)["a"].tolist() == [1.5, -2.0]
