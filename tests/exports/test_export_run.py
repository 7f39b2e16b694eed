"""Export of a run: written atomically to its folder or elsewhere, and compared with the model on real images."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

import foveola
from foveola import files
from foveola.datasets.splits import divide
from foveola.errors import DataError, DownloadError, ExportError, ModelError, OutputError, UserError
from foveola.exports import FORMATS, default_name, export_run, onnx
from foveola.files import CHECKSUM_FILE, record_checksum
from foveola.models.classifier import Classifier, open_classifier
from foveola.workflow import export as workflow
from foveola.workflow.export import export

FILES = [name for name, format in FORMATS.items() if format.SUFFIX]


@pytest.fixture
def run(toy_run, tmp_path):
    """A copy of the finished run, to export into."""
    return Path(shutil.copytree(toy_run, tmp_path / "run"))


@pytest.fixture(scope="session")
def digits_run(tiny, tmp_path_factory):
    return foveola.train("digits", tiny, out=tmp_path_factory.mktemp("runs") / "digits", verbose=False).path


def files_in(folder):
    return {path.relative_to(folder) for path in folder.rglob("*")}


# The export


@pytest.mark.parametrize("format", FILES)
def test_threshold_and_statistics_are_exported(tiny, toy, tmp_path, format):
    run = foveola.train(toy, tiny, out=tmp_path / "run", overrides={"reject": 0.2, "epochs": 10}, verbose=False)
    live, found = foveola.open(run.path), foveola.open(export(run.path, format, data=toy, verbose=False).path)
    assert None not in (live.metadata.reject, live.metadata.statistics)
    assert (found.metadata.reject, found.metadata.statistics) == (live.metadata.reject, live.metadata.statistics)
    Image.fromarray(255 - toy.train.images[0, :, :, 0]).save(tmp_path / "dark.png")
    one, two = (foveola.predict(model, [tmp_path / "dark.png"], fix=["auto"])[0] for model in (live, found))
    assert (one.class_name, one.uncertain, one.findings, one.fixes) == (
        two.class_name, two.uncertain, two.findings, two.fixes
    )  # fmt: skip


@pytest.mark.parametrize("format", FILES)
def test_every_format_gives_the_logits_of_the_run(run, toy, format):
    report = export(run, format, data=toy, verbose=False)
    assert report.path == run / "exports" / f"model.{format}"
    assert files_in(run / "exports") == {Path(f"model.{format}"), Path(CHECKSUM_FILE)}
    assert (report.format, report.size_bytes) == (format, report.path.stat().st_size)
    assert report.parity.images == 1000
    assert report.parity.largest_difference < 1e-4
    found = FORMATS[format].open(report.path).predict_logits(toy.train.images)
    np.testing.assert_allclose(found, foveola.open(run).predict_logits(toy.train.images), atol=1e-4)


def test_named_data_is_reloaded(digits_run, tmp_path):
    report = export(digits_run, out=tmp_path / "digits.onnx", verbose=False)
    assert report.path == tmp_path / "digits.onnx"
    assert files_in(tmp_path) == {Path("digits.onnx")}


def test_a_new_export_replaces_an_old_one(run, toy):
    (run / "exports").mkdir()
    (run / "exports" / "model.onnx").write_bytes(b"old")
    path = export(run, data=toy, verbose=False).path
    assert onnx.open(path).class_names == toy.class_names


def test_an_export_has_the_evaluation_of_its_run(digits_run, tmp_path):
    path = export(digits_run, out=tmp_path / "digits.onnx", verbose=False).path
    written, found = foveola.Run.open(digits_run).evaluation, foveola.evaluate(path, "digits", verbose=False)
    assert found.accuracy == written.accuracy
    assert found.confusion == written.confusion
    assert (found.split, found.n, found.held_out) == (written.split, written.n, True)
    assert found.metrics["log_loss"].value == pytest.approx(written.metrics["log_loss"].value, abs=1e-5)


def test_an_export_predicts_image_files_like_its_run(run, toy, tmp_path):
    for number in (0, 30, 59):
        large = toy.train.images[number, ..., 0].repeat(5, axis=0).repeat(5, axis=1)
        Image.fromarray(large).save(tmp_path / f"{number}.png")
    paths = sorted(tmp_path.glob("*.png"))
    path = export(run, data=toy, verbose=False).path
    for found, expected in zip(
        foveola.predict(path, paths, verbose=False), foveola.predict(run, paths, verbose=False), strict=True
    ):
        assert found.class_name == expected.class_name
        assert found.probability == pytest.approx(expected.probability, abs=1e-4)
        assert found.findings == expected.findings


def test_evaluation_and_prediction_need_neither_torch_nor_onnx(run, toy, toy_npz, tmp_path):
    path = export(run, data=toy, verbose=False).path
    Image.fromarray(toy.train.images[0, ..., 0]).save(tmp_path / "left.png")
    code = (
        "import sys, foveola\nmodel, data, image = sys.argv[1:]\n"
        "print(foveola.evaluate(model, data, verbose=False).accuracy.value)\n"
        "print(foveola.predict(model, [image], verbose=False)[0].class_name)\n"
        "print([name for name in ('torch', 'onnx') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, path, toy_npz, tmp_path / "left.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    accuracy = foveola.Run.open(run).evaluation.accuracy.value
    predicted = foveola.predict(run, [tmp_path / "left.png"], verbose=False)[0].class_name
    assert (done.stdout.split(), done.stderr) == ([str(accuracy), predicted, "[]"], "")


def test_colour_image_files_of_another_size_are_exported(tmp_path):
    """From PNG files to logits, with a recipe whose layers are folded, at another size than the files."""
    random = np.random.default_rng(0)
    for number in range(36):
        image = random.integers(0, 90, (26, 30, 3), dtype=np.uint8)
        image[..., number % 3] += 120
        path = tmp_path / "images" / ("red", "green", "blue")[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    changes = {"image_size": 20, "epochs": 1, "minimum_steps": 1, "validation": 0.2}
    run = foveola.train(tmp_path / "images", "fast", out=tmp_path / "run", overrides=changes, verbose=False)
    report = export(run.path, verbose=False)
    assert report.parity.largest_difference < 1e-3
    live, found = foveola.open(run.path), foveola.open(report.path)
    assert live.metadata.image_shape == (20, 20, 3)
    original = np.asarray(Image.open(path))[None]
    np.testing.assert_allclose(found.predict_logits(original), live.predict_logits(original), atol=1e-3)


# SHA256SUMS


def test_the_exports_folder_lists_checksums_of_all_files(run, toy):
    for format in (*FILES, *FILES):
        export(run, format, data=toy, verbose=False)
    lines = (run / "exports" / CHECKSUM_FILE).read_text().splitlines()
    names = [default_name(format) for format in FILES]
    assert lines == [f"{hashlib.sha256((run / 'exports' / name).read_bytes()).hexdigest()}  {name}" for name in names]


@pytest.mark.parametrize("format", FILES)
def test_a_replaced_export_is_refused_before_it_is_parsed(run, toy, format, foveola_command, tmp_path, monkeypatch):
    path = export(run, format, data=toy, verbose=False).path
    other = open_classifier(run / "model.safetensors")
    other.metadata = other.metadata.model_copy(update={"class_names": ("right", "middle", "left")})
    shutil.copytree(run, tmp_path / "other", ignore=shutil.ignore_patterns("exports", CHECKSUM_FILE))
    other.save(tmp_path / "other" / "model.safetensors")
    record_checksum(tmp_path / "other" / "model.safetensors")
    shutil.copy(export(tmp_path / "other", format, data=toy, verbose=False).path, path)
    Image.fromarray(toy.train.images[0, ..., 0]).save(tmp_path / "bar.png")

    def parse(*arguments):
        raise AssertionError("the file was parsed")

    monkeypatch.setattr(onnx, "inspect_onnx", parse)
    monkeypatch.setattr("foveola.models.model_file.parse_metadata", parse)
    code, _, err = foveola_command("predict", path, tmp_path / "bar.png")
    assert code == 2
    assert f"{path} is not the file that SHA256SUMS names" in " ".join(err.split())


def test_elsewhere_checksums_are_updated_but_not_created(run, toy, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "model.onnx"
    export(run, data=toy, out=target, verbose=False)
    assert files_in(target.parent) == {Path("model.onnx")}
    target.write_bytes(b"old")
    files.record_checksum(target)
    export(run, data=toy, out=target, verbose=False)
    assert onnx.open(target).class_names == toy.class_names


# Formats that are folders


class Folder:
    """A format: ONNX in a folder, beside a page."""

    SUFFIX = ""

    def write(self, source, live, target):
        target.mkdir()
        onnx.write(source, live, target / "inner.onnx")
        (target / "page").mkdir()
        (target / "page" / "index.html").write_text("a page")
        files.record_checksums(target)

    def open(self, path):
        files.verify_checksums(path)
        return onnx.open(path / "inner.onnx")


@pytest.fixture
def folder(monkeypatch):
    monkeypatch.setitem(FORMATS, "folder", Folder())


def test_a_folder_is_reopened_and_compared(run, toy, folder):
    report = export(run, "folder", data=toy, verbose=False)
    assert report.path == run / "exports" / "folder"
    assert files_in(run / "exports") == {
        Path("folder", name) for name in ("", "inner.onnx", "page", "page/index.html", CHECKSUM_FILE)
    }
    assert report.size_bytes == sum(path.stat().st_size for path in report.path.rglob("*") if path.is_file())
    assert report.parity.largest_difference < 1e-4
    assert Folder().open(report.path).class_names == toy.class_names


def test_the_target_folder_may_exist_if_it_is_empty(run, toy, folder, tmp_path):
    (tmp_path / "page").mkdir()
    assert export(run, "folder", data=toy, out=tmp_path / "page", verbose=False).path == tmp_path / "page"
    before = files_in(tmp_path)
    with pytest.raises(OutputError, match=r"page already exists and is not overwritten.*--out"):
        export(run, "folder", data=toy, out=tmp_path / "page", verbose=False)
    (tmp_path / "file").write_text("a file")
    with pytest.raises(OutputError, match="file already exists and is not overwritten"):
        export(run, "folder", data=toy, out=tmp_path / "file", verbose=False)
    assert files_in(tmp_path) == before | {Path("file")}


def test_a_folder_with_other_logits_is_not_kept(run, toy, folder, other, monkeypatch):
    monkeypatch.setattr(onnx, "verify_golden", lambda *arguments: None)
    before = files_in(run)
    with pytest.raises(ExportError, match="its logits differ from the model's"):
        export_run(run / "model.safetensors", other, toy.train.images, run / "exports" / "folder", "folder")
    assert files_in(run) == before


# Refused


def test_missing_data_is_refused(run, tmp_path):
    moved = foveola.Run(shutil.copytree(run, tmp_path / "moved", ignore=shutil.ignore_patterns("exports")))
    gone = moved.status.data.model_copy(update={"path": str(tmp_path / "gone.npz")})
    moved.write_status(moved.status.model_copy(update={"data": gone}))
    with pytest.raises(DataError, match=r"gone\.npz.*--data"):
        export(moved.path, verbose=False)
    assert not (moved.path / "exports").exists()


def test_data_that_cannot_be_downloaded_is_refused(digits_run, tmp_path, monkeypatch):
    def load(*arguments, **options):
        raise DownloadError("No source answered.")

    monkeypatch.setattr("foveola.datasets.reload.load", load)
    with pytest.raises(DataError, match=r"digits is not on this machine.*No source answered.*--data"):
        export(digits_run, out=tmp_path / "digits.onnx", verbose=False)


def test_an_unknown_format_is_refused(run, toy):
    with pytest.raises(UserError, match="Did you mean 'onnx'"):
        export(run, "onx", data=toy, verbose=False)


def test_a_wrong_suffix_is_refused(run, toy, tmp_path):
    with pytest.raises(OutputError, match=r"model\.bin .*\.onnx"):
        export(run, data=toy, out=tmp_path / "model.bin", verbose=False)


@pytest.mark.parametrize("path", ["missing/folder/model.onnx", "file/model.onnx", "folder.onnx"])
def test_a_path_that_cannot_be_written_is_refused(run, toy, tmp_path, path):
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder.onnx").mkdir()
    before = files_in(tmp_path)
    with pytest.raises(OutputError, match="cannot be written"):
        export(run, data=toy, out=tmp_path / path, verbose=False)
    assert files_in(tmp_path) == before


def test_a_diverged_model_is_refused(run, toy):
    classifier = open_classifier(run / "model.safetensors")
    classifier.network.dense_1.bias.data.fill_(float("nan"))
    (run / CHECKSUM_FILE).unlink()
    classifier.save(run / "model.safetensors")
    record_checksum(run / "model.safetensors")
    with pytest.raises(ModelError, match=r"dense_1\.bias holds values that are NaN or infinite.*lower learning rate"):
        export(run, data=toy, verbose=False)
    assert not (run / "exports").exists()


def test_a_folder_that_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no run"):
        export(tmp_path, verbose=False)


# Exports that differ from the model


@pytest.fixture
def other(run):
    """A model slightly different from the run's."""
    live = open_classifier(run / "model.safetensors")
    return Classifier(
        live.network, live.metadata.model_copy(update={"temperature": 1.1 * live.metadata.temperature})
    ).eval()


@pytest.mark.parametrize("old", [None, b"old"])
def test_an_export_that_cannot_be_reopened_is_not_kept(run, toy, other, old):
    target = run / "exports" / "model.onnx"
    if old:
        target.parent.mkdir()
        target.write_bytes(old)
    before = files_in(run)
    with pytest.raises(ExportError, match="does not reproduce its golden examples"):
        export_run(run / "model.safetensors", other, toy.train.images, target)
    assert files_in(run) == before
    assert old is None or target.read_bytes() == old


def test_an_export_with_other_logits_on_real_images_is_not_kept(run, toy, other, monkeypatch):
    monkeypatch.setattr(onnx, "verify_golden", lambda *arguments: None)
    before = files_in(run)
    with pytest.raises(ExportError, match="its logits differ from the model's"):
        export_run(run / "model.safetensors", other, toy.train.images, run / "exports" / "model.onnx")
    assert files_in(run) == before


def test_models_are_compared_on_training_images(run, toy, monkeypatch):
    seen = []
    monkeypatch.setattr(workflow, "export_run", lambda source, live, images, *rest: seen.append(images))
    export(run, data=toy, verbose=False)
    (images,) = seen
    splits = divide(toy, 0.2, 0.2, 0)[0]
    np.testing.assert_array_equal(images, splits.train.images)


# Opening


def test_an_export_runs_on_the_cpu_with_its_own_network(run, toy):
    path = export(run, data=toy, verbose=False).path
    with pytest.raises(UserError, match="--device cpu"):
        foveola.open(path, device="cuda")
    with pytest.raises(ModelError, match="Leave it out"):
        foveola.open(path, network=nn.Linear(1, 1))
    assert foveola.open(path, device="auto").class_names == toy.class_names


def test_training_cannot_start_from_an_export(run, toy, tiny, tmp_path):
    path = export(run, data=toy, verbose=False).path
    with pytest.raises(ModelError, match="can only predict"):
        foveola.train(toy, tiny, init=path, out=tmp_path / "next", verbose=False)


def test_a_missing_export_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no run or model file"):
        foveola.open(tmp_path / "missing.onnx")
