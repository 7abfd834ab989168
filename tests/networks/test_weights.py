import argparse
import collections
import io
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import paddle
import pytest
from drawn_weights import images
from safetensors_files import write_safetensors

from resnet_fit.child import code_for_child
from resnet_fit.errors import UserError
from resnet_fit.networks import LoadReport, densenet, load_weights, read_weights, resnet
from resnet_fit.networks.pickled_weights import TORCH_NAMES, read_torch_zip
from resnet_fit.restricted_pickle import Unpickler

REFERENCES = Path(__file__).parent / "references"
REFERENCE = json.loads((REFERENCES / "torchvision.json").read_text())
DENSE_REFERENCE = json.loads((REFERENCES / "torchvision_densenet.json").read_text())

pytestmark = [
    pytest.mark.filterwarnings("error:.*classes"),
    pytest.mark.filterwarnings("ignore:stem='imagenet' shrinks"),
]


def narrow(**options):
    return resnet([1, 1, 1, 1], **{"num_classes": 5, "width": 2} | options)


def narrow_dense(**options):
    return densenet([1, 1, 1, 1], **{"num_classes": 5, "growth": 2} | options)


def logits(network):
    network.eval()
    with paddle.no_grad():
        return network(paddle.to_tensor(images(REFERENCE["pixels"]))).numpy()


def torch_state(file):
    """A torch file's tensors under torch's own names."""
    return {
        name: value
        for name, value in read_torch_zip(REFERENCES / file).items()
        if not name.endswith("num_batches_tracked")
    }


def state_of(network):
    return {name: value.numpy() for name, value in network.state_dict().items()}


def assert_same(states, others):
    assert set(states) == set(others)
    for name, value in states.items():
        np.testing.assert_array_equal(value, others[name], err_msg=name)


def refusal(file, network=None):
    """The one line that loading ``file`` is refused with; the network keeps its weights."""
    network = network or narrow()
    before = state_of(network)
    with pytest.raises(UserError) as caught:
        load_weights(network, file)
    assert_same(before, state_of(network))
    message = str(caught.value)
    assert message.startswith(str(file))
    assert "\n" not in message
    return message


# --- what is read ---------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["narrow.pth", "narrow_legacy.pth"])
def test_a_torchvision_file_gives_torchvisions_outputs(file):
    network = narrow()
    report = load_weights(network, REFERENCES / file)
    assert report == LoadReport(str(REFERENCES / file), len(network.state_dict()), None)
    np.testing.assert_allclose(logits(network), REFERENCE["narrow"], rtol=0, atol=1e-5)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_safetensors(tmp_path / "w.safetensors", state_of(narrow()))
    assert load_weights(narrow(), "~/w.safetensors").file == str(tmp_path / "w.safetensors")
    assert set(read_weights("~/w.safetensors")) == set(narrow().state_dict())


def test_a_densenet_of_torchvision_gives_torchvisions_outputs():
    network = narrow_dense()
    report = load_weights(network, REFERENCES / "narrow_densenet.pth")
    assert report.tensors == len(network.state_dict())
    np.testing.assert_allclose(logits(network), DENSE_REFERENCE["narrow"], rtol=0, atol=1e-6)


def test_names_of_torchvisions_published_densenets(tmp_path):
    """They are older than torchvision's code, and have a dot where it has none."""
    renamed = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): value
        for name, value in torch_state("narrow_densenet.pth").items()
    }
    assert "features.denseblock1.denselayer1.norm.1.running_mean" in renamed
    file = tmp_path / "w.safetensors"
    write_safetensors(file, renamed)
    expected = narrow_dense(weights=REFERENCES / "narrow_densenet.pth")
    assert_same(state_of(narrow_dense(weights=file)), state_of(expected))


def test_a_densenet_of_paddle_vision_loads_as_it_is(tmp_path):
    theirs = paddle.vision.models.densenet121(num_classes=4)
    theirs(paddle.to_tensor(images(64)))  # Training mode: the running statistics move.
    file = tmp_path / "densenet121.pdparams"
    paddle.save(theirs.state_dict(), str(file))
    by_name = densenet(121, num_classes=4)
    assert by_name.set_state_dict(paddle.load(str(file))) == ([], [])
    by_file = densenet(121, num_classes=4, weights=file)
    assert_same(state_of(by_file), state_of(by_name))
    np.testing.assert_allclose(logits(by_file), logits(theirs), rtol=0, atol=1e-5)


def test_every_type_and_view_of_a_torch_file():
    tensors = read_weights(REFERENCES / "tensors.pth")
    for name in ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8"]:
        assert tensors[name].dtype == np.dtype(name)
        assert tensors[name].tolist() == [0, 1, 3]
    assert tensors["bfloat16"].dtype == np.float32
    assert tensors["bfloat16"].tolist() == [0, 1, 3]
    assert tensors["bool"].tolist() == [False, True, True]
    grid = np.arange(12, dtype="float32").reshape(3, 4)
    np.testing.assert_array_equal(tensors["grid"], grid)
    np.testing.assert_array_equal(tensors["transposed"], grid.T)
    np.testing.assert_array_equal(tensors["window"], grid[1:, 1:3])
    assert tensors["scalar"].shape == ()
    assert float(tensors["scalar"]) == 2.5
    assert tensors["empty"].shape == (0, 3)
    assert tensors["parameter"].tolist() == [1.5, -2.0]


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_paddle_vision_file_gives_paddle_visions_outputs(tmp_path, protocol):
    paddle.seed(3)
    theirs = paddle.vision.models.resnet18(num_classes=4)
    theirs(paddle.to_tensor(images(64)))  # Training mode: the running statistics move.
    file = tmp_path / "resnet18.pdparams"
    paddle.save(theirs.state_dict(), str(file), protocol=protocol)
    ours = resnet(18, num_classes=4, weights=file)
    np.testing.assert_allclose(logits(ours), logits(theirs), rtol=0, atol=1e-5)


def test_files_of_numpy_1_and_2_are_read_alike(tmp_path):
    network = narrow()
    file = tmp_path / "w.pdparams"
    paddle.save(network.state_dict(), str(file), protocol=2)
    content = file.read_bytes().replace(b"cnumpy._core.", b"cnumpy.core.")
    for module in (b"cnumpy.core.", b"cnumpy._core."):
        file.write_bytes(content.replace(b"cnumpy.core.", module))
        assert content.count(b"cnumpy.core.multiarray\n_reconstruct") == 1
        assert_same(read_weights(file), state_of(network))


def test_what_else_paddle_saves_as_tensors(tmp_path):
    values = {
        "half": paddle.to_tensor([1.5, -2.0]).astype("float16"),
        "brain": paddle.to_tensor([1.5, -2.0]).astype("bfloat16"),
        "scalar": paddle.to_tensor(2.5),
        "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big_endian": np.arange(3, dtype=">f4"),
    }
    file = tmp_path / "w.pdparams"
    paddle.save(values, str(file))
    tensors = read_weights(file)
    assert tensors["half"].tolist() == tensors["brain"].tolist() == [1.5, -2.0]
    assert tensors["brain"].dtype == np.float32
    assert float(tensors["scalar"]) == 2.5
    np.testing.assert_array_equal(tensors["turned"], values["turned"])
    assert tensors["big_endian"].tolist() == [0, 1, 2]


def test_names_do_not_depend_on_what_was_built_before(tmp_path):
    first = narrow()
    file = tmp_path / "w.safetensors"
    write_safetensors(file, state_of(first))
    paddle.nn.Sequential(paddle.nn.Conv2D(1, 1, 1), paddle.nn.BatchNorm2D(1))
    assert_same(state_of(narrow(weights=file)), state_of(first))


def test_a_static_graph_is_loaded_once_it_is_prepared():
    expected = logits(narrow(weights=REFERENCES / "narrow.pth"))
    x = images(REFERENCE["pixels"])
    paddle.enable_static()
    try:
        main, startup = paddle.static.Program(), paddle.static.Program()
        with paddle.static.program_guard(main, startup):
            network = narrow()
            network.eval()
            result = network(paddle.static.data("x", [None, *x.shape[1:]], "float32"))
            executor = paddle.static.Executor(paddle.CPUPlace())
            with pytest.raises(UserError, match=r"after paddle.Model.prepare"):
                load_weights(network, REFERENCES / "narrow.pth")
            executor.run(startup)
            load_weights(network, REFERENCES / "narrow.pth")
            (found,) = executor.run(main, feed={"x": x}, fetch_list=[result])
    finally:
        paddle.disable_static()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "container", ["model", "state_dict", "model_state_dict", "net", "model_ema", "state_dict_ema"]
)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_weights_as_training_programs_keep_them(tmp_path, container, prefix):
    """Beside other things, and with names of a wrapper in front."""
    source = narrow()
    state = {prefix + name: value for name, value in state_of(source).items()}
    if "ema" in container:
        state["n_averaged"] = np.array(3)
    content = {
        "epoch": 3,
        container: state,
        "args": argparse.Namespace(lr=0.1, layers=[1, 2]),
        "schedule": {"milestones": collections.Counter([30, 60])},
    }
    file = tmp_path / "w.pdparams"
    file.write_bytes(pickle.dumps(content, protocol=2))
    assert_same(state_of(narrow(weights=file)), state_of(source))
    file.write_bytes(pickle.dumps(state, protocol=2))
    assert_same(state_of(narrow(weights=file)), state_of(source))


def test_of_several_states_in_a_file_the_first_is_taken_and_said(tmp_path):
    first, second = narrow(), narrow()
    file = tmp_path / "w.pdparams"
    content = {"model_ema": state_of(second), "model": state_of(first)}
    file.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.warns(UserWarning, match=r"holds 'model', 'model_ema': takes 'model'"):
        network = narrow(weights=file)
    assert_same(state_of(network), state_of(first))


def test_names_of_torchvisions_densenets_behind_a_prefix(tmp_path):
    state = {f"module.{name}": v for name, v in torch_state("narrow_densenet.pth").items()}
    file = tmp_path / "w.safetensors"
    write_safetensors(file, state)
    expected = narrow_dense(weights=REFERENCES / "narrow_densenet.pth")
    assert_same(state_of(narrow_dense(weights=file)), state_of(expected))


@pytest.mark.parametrize("place", ["", "best", "checkpoints/best", "checkpoints/last"])
def test_the_folder_of_a_checkpoint_or_a_run_means_its_weights(tmp_path, place):
    """The best ones of a run, where it has both."""
    source = narrow()
    for folder in dict.fromkeys(("checkpoints/last", place)):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        state = narrow() if folder != place else source
        paddle.save(state.state_dict(), str(tmp_path / folder / "model.pdparams"))
    network = narrow()
    report = load_weights(network, tmp_path)
    assert report.file == str(tmp_path / place / "model.pdparams")
    assert_same(state_of(network), state_of(source))


# --- what does not fit ----------------------------------------------------------------------


def test_other_classes_leave_fc_alone_and_say_so():
    network = narrow(num_classes=7)
    before, source = state_of(network), state_of(narrow(weights=REFERENCES / "narrow.pth"))
    with pytest.warns(
        UserWarning, match=r"narrow.pth was made for 5 classes: its last layer is not loaded"
    ):
        report = load_weights(network, REFERENCES / "narrow.pth")
    assert (report.tensors, report.other_classes) == (len(before) - 2, 5)
    fc = {name: before[name] for name in ("fc.weight", "fc.bias")}
    assert_same(state_of(network), source | fc)


@pytest.mark.parametrize("file", ["narrow_densenet.pth", "w.pdparams"])
def test_other_classes_leave_the_head_of_a_densenet_alone(tmp_path, file):
    """It is called ``classifier`` in torchvision's files and ``out`` in paddle.vision's."""
    source = narrow_dense(weights=REFERENCES / "narrow_densenet.pth")
    path = REFERENCES / file
    if file.endswith(".pdparams"):
        path = tmp_path / file
        paddle.save(source.state_dict(), str(path))
    network = narrow_dense(num_classes=7)
    before = state_of(network)
    with pytest.warns(UserWarning, match=r"made for 5 classes: its last layer is not loaded"):
        report = load_weights(network, path)
    assert (report.tensors, report.other_classes) == (len(before) - 2, 5)
    head = {name: before[name] for name in ("out.weight", "out.bias")}
    assert_same(state_of(network), state_of(source) | head)


def test_weights_of_the_other_kind_of_network_are_refused():
    dense = refusal(REFERENCES / "narrow.pth", narrow_dense())
    assert "missing (conv1_func._conv.weight, " in dense
    assert "unexpected (conv1.weight, " in dense
    assert "unexpected (conv1_func._conv.weight, " in refusal(REFERENCES / "narrow_densenet.pth")


def test_another_network_is_refused_with_what_differs():
    deeper = refusal(REFERENCES / "narrow.pth", narrow(block="bottleneck"))
    assert "25 missing (layer1.0.conv3.weight, layer1.0.bn3.weight, layer1.0.bn3.bias and" in deeper
    assert "of another shape (layer1.0.conv1.weight 2x2x3x3 for 2x2x1x1" in deeper
    fewer = refusal(REFERENCES / "narrow.pth", narrow(shortcut="zero-pad"))
    assert fewer.endswith(
        "does not fit this network: 15 unexpected (layer2.0.downsample.0.weight, "
        "layer2.0.downsample.1.weight, layer2.0.downsample.1.bias and 12 more)."
    )
    # Other features before fc are no question of classes.
    wider = refusal(REFERENCES / "narrow.pth", resnet([1, 1, 1, 1, 1], 7, width=2))
    assert wider.endswith("2 of another shape (fc.weight 16x5 for 32x7, fc.bias 5 for 7).")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc.bias": None}, "1 missing (fc.bias)"),
        ({"fc.weight": None, "fc.bias": None}, "2 missing (fc.weight, fc.bias)"),
        ({"fc.bias": np.zeros(7, "f4")}, "1 of another shape (fc.bias 7 for 5)"),
        ({"epoch": np.zeros(1)}, "1 unexpected (epoch)"),
        ({"bn1.bias": np.zeros(2, "i4")}, "1 not of floating point (bn1.bias int32)"),
    ],
)
def test_one_tensor_that_does_not_fit_is_named(tmp_path, change, message):
    state = state_of(narrow()) | change
    file = tmp_path / "w.safetensors"
    write_safetensors(file, {name: value for name, value in state.items() if value is not None})
    assert refusal(file).endswith(f"does not fit this network: {message}.")


# --- what is no weights file ----------------------------------------------------------------


def test_missing_empty_and_foreign_files(tmp_path):
    (tmp_path / "resnet18.pdparams").touch()
    misspelt = refusal(tmp_path / "resnet18.pdparam")
    assert misspelt.endswith("no such file or folder. Did you mean 'resnet18.pdparams'?")
    assert refusal(tmp_path / "none" / "w.pth").endswith("no such file or folder.")
    assert refusal(tmp_path / "resnet18.pdparams").endswith("is empty.")
    assert refusal(tmp_path).endswith(
        "is a folder without weights: expected a file, a checkpoint's folder or a run's."
    )
    text = tmp_path / "weights.yaml"
    text.write_text("model: {depth: 18}\n")
    assert refusal(text).endswith("expected .safetensors, .pdparams or .pth.")
    numbers = tmp_path / "w.npz"
    np.savez(numbers, a=np.zeros(3))
    assert "not one that torch.save wrote" in refusal(numbers)


def test_pickles_of_other_things(tmp_path):
    file = tmp_path / "w.pdparams"
    for content, message in (
        ({"epoch": 3, "model": {}}, "holds 'epoch' of type int"),
        ({"model": {"a": 3}}, "holds 'a' of type int"),
        ({"optimizer": {"a": np.zeros(1)}}, "holds 'optimizer' of type dict"),
        ([1, 2], "holds one list"),
        ({"a": np.array(["x"])}, "holds an array of type 'U1'"),
        ({"a": np.array([None])}, "holds an array of type 'O8'"),
        (paddle.CPUPlace, "asks for 'paddle"),
    ):
        file.write_bytes(pickle.dumps(content, protocol=4))
        assert message in refusal(file)


class Call:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "system"), (eval, "eval"), (os.mkdir, "mkdir"), (np.load, "load")],
)
@pytest.mark.parametrize("form", ["pdparams", "zip", "in a key of a legacy file"])
def test_nothing_in_a_file_is_called(tmp_path, monkeypatch, function, name, form):
    monkeypatch.chdir(tmp_path)
    argument = "touch called" if name == "system" else "open('called', 'w')"
    argument = "called" if name == "mkdir" else argument
    hostile = pickle.dumps({"conv1.weight": Call(function, argument)}, protocol=2)
    file = tmp_path / "w"
    if form == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("w/data.pkl", hostile)
    elif form == "pdparams":
        file.write_bytes(hostile)
    else:
        start = io.BytesIO((REFERENCES / "narrow_legacy.pth").read_bytes())
        pickle.load(start)
        file.write_bytes(start.getvalue()[: start.tell()] + hostile)
    message = refusal(file)
    assert "asks for" in message
    assert name in message
    assert os.listdir(tmp_path) == ["w"]


def test_no_file_ends_the_process(tmp_path):
    """Keys of a million nested tuples, whose hash overflows the stack."""
    deep = b")" + b"\x85" * 1_000_000
    (tmp_path / "w.pdparams").write_bytes(b"\x80\x02}" + deep + b"Ns.")
    start = io.BytesIO((REFERENCES / "narrow_legacy.pth").read_bytes())
    for _ in range(4):  # before the keys of its storages
        Unpickler(start, dict.fromkeys(TORCH_NAMES, lambda *_: None), lambda reference: None).load()
    (tmp_path / "w.pth").write_bytes(
        start.getvalue()[: start.tell()] + b"\x80\x02](" + deep + b"e."
    )
    code = (
        "import sys\n"
        "from resnet_fit.networks import read_weights\n"
        "for file in sys.argv[1:]:\n"
        "    try:\n"
        "        read_weights(file)\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
    )
    command = [sys.executable, "-c", code_for_child(code), *sorted(map(str, tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    first, second = done.stdout.splitlines()
    assert first.endswith(
        "w.pdparams is damaged or cut short (UnpicklingError: a key of type tuple)."
    )
    assert second.endswith(
        "w.pth is damaged or cut short (ValueError: a storage whose key is no text)."
    )


def test_a_file_cannot_upset_the_reading_of_the_next_one(tmp_path):
    # BUILD with a pair as state sets attributes of the object before it.
    for target in (b"ccollections\nOrderedDict\n", b"cnumpy.core.multiarray\n_reconstruct\n"):
        file = tmp_path / "w"
        file.write_bytes(b"\x80\x02" + target + b"N}U\x0c__defaults__)s\x86b.")
        refusal(file)
    assert not hasattr(collections.OrderedDict, "__defaults__")
    load_weights(narrow(), REFERENCES / "narrow.pth")


@pytest.fixture(params=["narrow.pth", "narrow_legacy.pth", "w.pdparams", "w.safetensors"])
def content(request, tmp_path):
    """The bytes of a good file of each kind."""
    if request.param.startswith("narrow"):
        return (REFERENCES / request.param).read_bytes()
    file = tmp_path / request.param
    state = narrow().state_dict()
    if request.param == "w.pdparams":
        paddle.save(state, str(file))
    else:
        write_safetensors(file, {name: value.numpy() for name, value in state.items()})
    return file.read_bytes()


def test_a_file_cut_short_is_refused(tmp_path, content):
    file = tmp_path / "cut"
    network = narrow()
    for length in (1, 5, 9, 60, len(content) // 3, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        refusal(file, network)


def test_a_damaged_file_never_raises_anything_else(tmp_path, content):
    file = tmp_path / "damaged"
    rng = np.random.default_rng(0)
    # Most of what can go wrong stands before the first tensor's bytes or after the last one's.
    ends = np.r_[0:600, len(content) - 600 : len(content)]
    refusals = []
    for _ in range(60):
        damaged = bytearray(content)
        for position in rng.choice(ends, 4):
            damaged[position] = rng.integers(256)
        file.write_bytes(damaged)
        try:
            read_weights(file)
        except UserError as error:
            refusals.append(str(error))
    assert len(refusals) > 10
    assert not [refusal for refusal in refusals if "\n" in refusal]


@pytest.mark.parametrize(
    "forged",
    [
        {"offset": 9},
        {"offset": -1},
        {"shape": (3, 4)},
        {"shape": (10**9,), "stride": (0,)},
        {"stride": (-1, 1)},
        {"stride": (1,)},
        {"shape": (2, 2), "stride": (10**6, 1)},
    ],
)
def test_a_tensor_that_leaves_its_storage_is_refused(tmp_path, forged):
    """A torch archive of nine numbers, of which ``forged`` claims more than there is."""
    view = {"offset": 0, "shape": (3, 3), "stride": (3, 1)}
    file = tmp_path / "w.pth"

    def opcodes(value):
        return pickle.dumps(value, protocol=2)[2:-1]  # Without the protocol and the final stop.

    def write(offset, shape, stride, rebuild=b"_rebuild_tensor_v2"):
        storage = opcodes("storage") + b"ctorch\nFloatStorage\n"
        storage += opcodes("0") + opcodes("cpu") + opcodes(9)
        tensor = b"ctorch._utils\n" + rebuild + b"\n((" + storage + b"tQ"
        tensor += opcodes(offset) + opcodes(shape) + opcodes(stride) + b"tR"
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("w/data.pkl", b"\x80\x02}" + opcodes("a") + tensor + b"s.")
            archive.writestr("w/data/0", np.arange(9, dtype="f4").tobytes())

    for rebuild in (b"_rebuild_tensor", b"_rebuild_tensor_v2"):  # before and since torch 0.4
        write(**view, rebuild=rebuild)
        np.testing.assert_array_equal(read_weights(file)["a"], np.arange(9).reshape(3, 3))
    write(**view | forged)
    with pytest.raises(UserError, match="is damaged or cut short"):
        read_weights(file)
