"""`resnet-fit evaluate` says what the training's own evaluation said, and writes what it says."""

from __future__ import annotations

import base64
import copy
import csv
import io
import json
import os
import shutil
import warnings

import numpy as np
import paddle
import pytest
from conftest import TINY
from evaluated import Page
from PIL import Image
from rich.console import Console
from sklearn import metrics

from resnet_fit import RunFailed, UserError, fit, open_run, parse_config
from resnet_fit.cli import main
from resnet_fit.data.dataset import ArrayDataset
from resnet_fit.evaluation import evaluate, save
from resnet_fit.evaluation import folder as saving
from resnet_fit.evaluation.tables import cell
from resnet_fit.reports.evaluate import print_evaluation
from resnet_fit.runs.held_out import held_out


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run on digits, and its summary."""
    config = copy.deepcopy(TINY) | {"callbacks": {"visualdl": None}}
    config["training"] = {"epochs": 3}
    done = fit(parse_config(config), tmp_path_factory.mktemp("runs"), "digits")
    return done.folder, done.summary


@pytest.fixture(scope="module")
def folder(run):
    """What an evaluation of that run has written."""
    assert main(["evaluate", str(run[0]), "--flip", "--checkpoint", "last"]) == 0
    return run[0] / "evaluation"


@pytest.fixture(scope="module")
def document(folder):
    return json.loads((folder / "evaluation.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def table(folder):
    """Labels, predictions and probabilities from predictions.csv."""
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels, taken = (np.array([int(r[name]) for r in rows]) for name in ("label", "prediction"))
    probabilities = np.array([[float(r[f"p({i})"]) for i in range(10)] for r in rows])
    assert [r["image"] for r in rows] == [str(i) for i in range(len(rows))]
    return labels, taken, probabilities


def command(capsys, *arguments):
    code = main(["evaluate", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_it_agrees_with_the_trainings_own_evaluation(run, checkpoint):
    folder, summary = run
    figures = evaluate(open_run(folder, checkpoint)).figures
    told = summary[checkpoint]["eval"]
    for name in ("top1", "top5", "loss"):
        assert figures[name] == pytest.approx(told[name], rel=1e-5)


def test_the_source_says_what_was_judged(run, document):
    source = document["source"]
    wanted = {"run": "digits", "checkpoint": "last", "epoch": 3, "weights": "plain"}
    assert source.items() >= wanted.items()
    assert source["environment"]["paddle"] == paddle.__version__
    assert source["data"] == "held-out images of digits"


def test_figures_are_scikit_learns_of_the_predictions(document, table):
    labels, taken, probabilities = table
    assert np.array_equal(probabilities.argmax(axis=1), taken)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-8)
    figures = document["figures"]
    assert figures["top1"] == pytest.approx(metrics.accuracy_score(labels, taken))
    assert figures["top5"] == pytest.approx(
        metrics.top_k_accuracy_score(labels, probabilities, k=5)
    )
    assert figures["loss"] == pytest.approx(metrics.log_loss(labels, probabilities), rel=1e-5)
    assert document["macro"]["f1"] == pytest.approx(
        metrics.f1_score(labels, taken, average="macro")
    )
    matrix = metrics.confusion_matrix(labels, taken)
    for row in document["confusions"]:
        assert matrix[int(row["label"]), int(row["prediction"])] == row["images"]
    assert len(document["confusions"]) == ((matrix - np.diag(matrix.diagonal())) > 0).sum()


def test_mirror_images_are_reported_beside(run, document):
    opened = open_run(run[0], "last")
    data = held_out(opened)
    mirrored = np.ascontiguousarray(data.images[..., ::-1])
    logits = (opened.logits(data.images).numpy() + opened.logits(mirrored).numpy()) / 2
    top1 = np.mean(logits.argmax(axis=1) == data.labels)
    assert document["figures"]["flip_top1"] == pytest.approx(top1)
    assert document["figures"]["top1"] == pytest.approx(run[1]["last"]["eval"]["top1"])


def test_the_report_holds_all_it_shows(folder, document):
    text = (folder / "report.html").read_text("utf-8")
    page = Page(text)
    assert f"{100 * document['figures']['top1']:.2f} %" in page.text
    assert f"{document['figures']['loss']:.4f}" in page.text
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert "@import" not in text
    assert "url(http" not in text
    pictures = [a for a in page.addresses if not a.startswith("#")]
    assert 2 <= len(pictures) <= 200
    for address in pictures:
        kind, _, data = address.partition(";base64,")
        assert kind == "data:image/jpeg"
        picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        picture.load()
        assert max(picture.size) <= 128


def test_visualdl_reads_the_records(folder, document, table):
    from visualdl import LogReader

    labels, _, probabilities = table
    reader = LogReader(file_path=str(next((folder / "visualdl").iterdir())))
    tags = reader.get_tags()
    assert len({t for kind in tags.values() for t in kind}) == sum(map(len, tags.values()))
    assert set(tags["pr_curve"]) == {"precision_recall/all classes"} | {
        f"precision_recall/{i}" for i in range(10)
    }
    (record,) = reader.get_data("pr_curve", "precision_recall/3")
    curve = record.pr_curve
    right, scores = labels == 3, probabilities[:, 3]
    expected = metrics.precision_recall_curve(right, scores)
    theirs = set(zip(expected[0].round(6), expected[1].round(6), strict=True))
    ours = set(zip(np.round(curve.precision, 6), np.round(curve.recall, 6), strict=True))
    assert len(ours) > 10
    assert ours <= theirs
    (record,) = reader.get_data("roc_curve", "roc/3")
    curve = record.roc_curve
    area = metrics.auc(curve.fpr, curve.tpr)
    assert area == pytest.approx(metrics.roc_auc_score(right, scores), abs=0.005)
    assert {tuple(np.add(curve.TP, curve.FN)), tuple(np.add(curve.FP, curve.TN))} == {
        (right.sum(),) * len(curve.TP),
        ((~right).sum(),) * len(curve.TP),
    }
    assert "confusion_matrix" in tags["image"]
    assert len([t for t in tags["image"] if t.startswith("mistakes/")]) == min(
        24, len(document["surest_mistakes"])
    )
    (record,) = reader.get_data("embeddings", "features")
    points = record.embeddings.embeddings
    assert len(points) == len(labels)
    assert sorted(p.label[0] for p in points) == sorted(map(str, labels))


def test_the_network_is_as_it_was(run):
    opened = open_run(run[0])

    def state():
        layers = opened.network.sublayers(include_self=True)
        return (
            {k: v.numpy().tobytes() for k, v in opened.network.state_dict().items()},
            [(len(x._forward_pre_hooks), len(x._forward_post_hooks)) for x in layers],
            [(p.stop_gradient, p.grad is None) for p in opened.network.parameters()],
            [x.training for x in layers],
        )

    before = state()
    evaluate(opened, flip=True)
    assert state() == before


def test_an_evaluation_that_ends_early_leaves_the_former_one(run, folder, monkeypatch):
    before = {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file()}
    evaluation = evaluate(open_run(run[0]))
    left = folder.with_name(".evaluation.part")
    for error in (KeyboardInterrupt, OSError(28, "No space left on device")):
        with monkeypatch.context() as patch:
            patch.setattr(saving, "write_records", lambda *_, error=error: raise_(error))
            with pytest.raises((KeyboardInterrupt, RunFailed)):
                save(evaluation, folder)
        assert {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file()} == before
        assert not left.exists()
    # Killed while it wrote, and killed between its two renamings.
    shutil.copytree(folder, left)
    folder.rename(folder.with_name(".evaluation.previous"))
    with monkeypatch.context() as patch:
        patch.setattr(saving, "write_records", lambda *_: raise_(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            save(evaluation, folder)
    assert {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file()} == before
    assert not list(folder.parent.glob(".evaluation*"))


def raise_(error):
    raise error


def test_a_folder_of_something_else_is_not_replaced(run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no evaluation"):
        save(evaluate(open_run(run[0])), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_of_some_of_the_classes(run, tmp_path, capsys):
    copied = tmp_path / "run"
    shutil.copytree(run[0], copied)
    data = held_out(open_run(run[0]))
    for i in np.flatnonzero(np.isin(data.labels, (3, 8)))[:30]:
        place = tmp_path / "digits" / str(data.labels[i])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.images[i, 0]).save(place / f"{i}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        code, out, err = command(capsys, copied, "--data", tmp_path / "digits")
    assert (code, err) == (0, "")
    assert f"on 30 images: {tmp_path}/digits" in out
    found = json.loads((copied / "evaluation/evaluation.json").read_text("utf-8"))
    by_name = {c["name"]: c for c in found["classes"]}
    assert by_name["0"]["images"] == 0
    assert by_name["0"]["recall"] is None
    assert by_name["3"]["images"] + by_name["8"]["images"] == 30
    with open(copied / "evaluation/predictions.csv", encoding="utf-8", newline="") as file:
        names = [row["image"] for row in csv.DictReader(file)]
    assert sorted(names) == sorted(map(str, (tmp_path / "digits").rglob("*.png")))
    page = Page((copied / "evaluation/report.html").read_text("utf-8"))
    assert "8 of 10 classes have no images here" in " ".join(page.text.split())


def test_a_folder_that_cannot_be_replaced_is_told_before_the_work(
    run, tmp_path, monkeypatch, capsys
):
    copied = tmp_path / "run"
    shutil.copytree(run[0], copied, ignore=shutil.ignore_patterns("evaluation"))
    (copied / "evaluation").mkdir()
    (copied / "evaluation/notes.txt").write_text("mine")
    monkeypatch.setattr(
        "resnet_fit.reports.evaluate.evaluate", lambda *_, **__: raise_(AssertionError("it works"))
    )
    code, out, err = command(capsys, copied)
    assert (code, out) == (2, "")
    assert "holds no evaluation" in err


def test_figures_are_printed_where_they_cannot_be_written(run, monkeypatch, capsys):
    monkeypatch.setattr(saving, "write_json", lambda *_: raise_(OSError(28, "No space left")))
    code, out, err = command(capsys, run[0])
    assert code == 1
    assert "top-1" in out
    assert "could not be written (No space left)" in err


def test_a_state_cut_short_is_one_line(run, tmp_path, capsys):
    copied = tmp_path / "run"
    shutil.copytree(run[0], copied)
    state = copied / "checkpoints/best/state.json"
    state.write_bytes(state.read_bytes()[:20])
    code, out, err = command(capsys, copied)
    assert (code, out) == (2, "")
    assert "state.json" in err
    assert len(err.splitlines()) == 1


def test_images_of_another_size_are_refused(run):
    opened = open_run(run[0])
    large = ArrayDataset(np.zeros((4, 1, 16, 16), np.uint8), np.arange(4), opened.classes)
    with pytest.raises(
        UserError, match=r"images: received \[4, 1, 16, 16\], expected \[N, 1, 8, 8"
    ):
        evaluate(opened, large)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda names: (*names[:7], "x", *names[8:]), "data: class 7 is 'x', the network's is '7'"),
        (lambda names: names[:9], "data: 9 classes, the network has 10"),
        (lambda names: (*names, "x"), "data: 11 classes, the network has 10"),
    ],
)
def test_other_classes_are_refused_by_the_first_that_differs(run, change, message):
    opened = open_run(run[0])
    classes = change(opened.classes)
    images = ArrayDataset(np.zeros((4, 1, 8, 8), np.uint8), np.arange(4), classes)
    with pytest.raises(UserError) as refused:
        evaluate(opened, images)
    assert str(refused.value) == message


def test_arrays_for_a_network_of_image_files_are_refused(photos):
    opened = open_run(photos)
    arrays = ArrayDataset(np.zeros((4, 3, 12, 12), np.uint8), np.arange(4) % 2, opened.classes)
    with pytest.raises(UserError, match="this network was trained on image files"):
        evaluate(opened, arrays)


def test_the_last_line_names_the_report(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    code, out, _ = command(capsys, run[0], "--checkpoint", "last")
    assert code == 0
    assert out.splitlines()[-1] == f"report: {run[0]}/evaluation/report.html"


def test_tables_fit_a_narrow_terminal(run):
    out = io.StringIO()
    console = Console(file=out, width=40, force_terminal=True, color_system=None)
    print_evaluation(evaluate(open_run(run[0], "last")), console)
    lines = out.getvalue().splitlines()
    tables = lines[[line.startswith("top-1") for line in lines].index(True) :]
    assert max(map(len, tables)) <= 40
    assert any(line.split() == ["worst", "classes", "images", "F1"] for line in tables)


def test_mistakes_are_told_in_one_line(run, capsys, tmp_path):
    for arguments, expected in (
        ((tmp_path / "none",), "no such file or folder"),
        ((tmp_path,), "not a run's folder"),
        ((run[0], "--checkpoint", "epoch-7"), "no checkpoint 'epoch-7'"),
        ((run[0], "--average"), "without callbacks.weight_average"),
        ((run[0], "--data", tmp_path / "none"), "no such file or folder"),
        ((run[0], "--device", "tpu"), "tpu"),
    ):
        code, out, err = command(capsys, *arguments)
        assert (code, out) == (2, ""), arguments
        assert expected in err
        assert len(err.splitlines()) == 1


STRANGE = ("<script>alert(1)", '=1+"2",3', b"caf\xff".decode("utf-8", "surrogateescape"), "a%b")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A run on image files, of classes whose names are no words."""
    root = tmp_path_factory.mktemp("strange")
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 4)):
        for channel, name in enumerate(STRANGE):
            place = root / "photos" / part / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 160, (20 + i, 24, 3), np.uint8)
                pixels[..., channel % 3] += 90
                Image.fromarray(pixels).save(place / f"{i}.png")
    os.rename(root / "photos/val/a%b/0.png", root / "photos/val/a%b/@\n<b>.png")
    size = {"size": 16}
    config = parse_config(
        {
            "model": {"depth": [1, 1], "stem": "cifar", "width": 4},
            "data": {
                "name": "folder",
                "path": str(root / "photos"),
                "batch_size": 6,
                "workers": 0,
            },
            "augmentation": {
                "train": [{"random_resized_crop": size}, "normalize"],
                "eval": [{"resize": size}, {"center_crop": size}, "normalize"],
            },
            "optimizer": {"name": "momentum", "learning_rate": 0.001},
            "training": {"epochs": 1},
            "callbacks": {"visualdl": None},
        }
    )
    return fit(config, root, "run").folder


def test_strange_names_are_text_everywhere(photos, capsys):
    code, out, _ = command(capsys, photos)
    assert code == 0
    assert "Traceback" not in out
    folder = photos / "evaluation"
    text = (folder / "report.html").read_text("utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert "<script>alert(1)" in page.text
    assert r"caf\xff" in page.text
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    assert {r["label"] for r in rows} == {
        "<script>alert(1)",
        '\'=1+"2",3',
        r"caf\xff",
        "a%b",
    }
    assert any(r["image"].endswith(r"@\n<b>.png") for r in rows)
    found = json.loads((folder / "evaluation.json").read_text("utf-8"))
    assert {c["name"] for c in found["classes"]} == set(STRANGE)


def test_text_that_a_spreadsheet_would_compute():
    assert cell("=HYPERLINK(1)") == "'=HYPERLINK(1)"
    assert (cell("@a"), cell("+a"), cell("-a")) == ("'@a", "'+a", "'-a")
    assert (cell("-1"), cell("+2.5"), cell("a=b")) == ("-1", "+2.5", "a=b")


def test_a_file_that_cannot_be_read_is_named(photos, capsys, tmp_path):
    for name in STRANGE[:2]:
        shutil.copytree(photos.parent / "photos/val" / name, tmp_path / "data" / name)
    broken = tmp_path / "data" / STRANGE[0] / "9.png"
    broken.write_bytes(b"no image")
    shutil.copytree(photos / "checkpoints", tmp_path / "run/checkpoints")
    code, _, err = command(capsys, tmp_path / "run", "--data", tmp_path / "data")
    assert code == 2
    assert str(broken) in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run/evaluation").exists()
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["checkpoints"]


@pytest.mark.parametrize("most", [1, 99])
def test_images_that_are_all_right(run, tmp_path, most):
    opened = open_run(run[0])
    data = held_out(opened)
    right = np.flatnonzero(opened.logits(data.images).argmax(axis=1).numpy() == data.labels)
    found = evaluate(opened, data.take(right[:most]))
    assert found.figures["top1"] == 1
    assert found.calibration.temperature is None
    save(found, tmp_path / "out")
    page = Page((tmp_path / "out/report.html").read_text("utf-8"))
    assert "every image is classified correctly" in page.text
    assert "No label looks wrong" in page.text
    assert "Surest mistakes" not in page.text
