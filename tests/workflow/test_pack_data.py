"""`foveola pack`: the same training from folder and pack; interrupted packs go on; nothing is lost or half-written."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import foveola
from foveola.datasets import image_files, packed, shards
from foveola.datasets.packed import FILES, Pack
from foveola.errors import DataError, OutputError
from foveola.files import lock
from foveola.workflow.export import export


def make_folder(root, count=24, size=(12, 9), splits=("",), deep=False):
    random = np.random.default_rng(0)
    for split in splits:
        for number in range(count):
            path = root / split / ("cat", "dog", "emu")[number % 3] / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if deep and number % 2:
                Image.fromarray(random.integers(0, 1000, size, dtype=np.uint16)).save(path)
                continue
            pixels = random.integers(0, 200, (*size, 3), dtype=np.uint8)
            pixels[..., number % 3] += 50
            Image.fromarray(pixels).save(path)
    return root


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "IMAGES_A_SHARD", 5)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ({}, {}),
        ({"size": (90, 70)}, {}),
        ({"size": (90, 30)}, {"image_size": 16}),
        ({"splits": ("train", "test")}, {"channels": 1}),
        ({"size": (90, 30)}, {"image_size": 16, "resize": "stretch"}),
        ({"deep": True}, {}),
    ],
)
def test_a_pack_is_what_load_gives(kind, options, tmp_path, small_shards):
    source = make_folder(tmp_path / "pets", **kind)
    expected = foveola.load(source, **options)
    document = foveola.pack(source, tmp_path / "out", processes=1, verbose=False, **options)
    found = foveola.load(tmp_path / "out")
    assert found.fingerprint == expected.fingerprint == document.fingerprint
    for name in ("name", "notes", "resize", "fill", "picture_polarity", "skipped"):
        assert getattr(found, name) == getattr(expected, name), name
    if expected.originals is not None:
        np.testing.assert_array_equal(found.originals.heights, expected.originals.heights)
        assert found.originals.colour == expected.originals.colour
        assert found.originals.white_level == expected.originals.white_level
    assert sorted(content(tmp_path / "out")) == sorted(set(FILES) - {"groups.npy", "weights.npy"})


def test_folder_pack_and_lazy_pack_train_to_the_same_bytes(tmp_path, tiny):
    source = make_folder(tmp_path / "pets", count=60)
    foveola.pack(source, tmp_path / "out", processes=1, verbose=False)
    lazy = Pack.open(tmp_path / "out").load(in_memory=False)
    models = [
        foveola.train(data, tiny, out=tmp_path / f"run{number}", report=False, verbose=False).model_path
        for number, data in enumerate((source, tmp_path / "out", lazy))
    ]
    assert len({model.read_bytes() for model in models}) == 1
    evaluated = [foveola.evaluate(models[0], data, verbose=False) for data in (tmp_path / "out", lazy)]
    assert evaluated[0].metrics == evaluated[1].metrics


def test_a_model_of_more_images_than_its_file_can_name_is_measured(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr("foveola.models.learnt.MAX_HASHES", 10)
    source = make_folder(tmp_path / "pets", count=60)
    run = foveola.train(source, tiny, out=tmp_path / "run", report=False, verbose=False)
    assert foveola.open(run.path).metadata.data.learnt is None
    assert foveola.evaluate(run.path, source, verbose=False).metrics == run.evaluation.metrics


@pytest.mark.slow
def test_lazy_images_are_reported_exported_and_compared(tmp_path, tiny, monkeypatch):
    foveola.pack(make_folder(tmp_path / "pets", count=60), tmp_path / "out", processes=1, verbose=False)
    monkeypatch.setattr(packed, "MAX_IN_MEMORY", 100)
    runs = [foveola.train(tmp_path / "out", tiny, out=tmp_path / f"run{n}", seed=n, verbose=False) for n in (0, 1)]
    assert (runs[0].path / "report.html").is_file()
    exported = export(runs[0].path, verbose=False)
    assert foveola.evaluate(exported.path, tmp_path / "out", verbose=False).n > 0
    foveola.compare(*(run.path for run in runs), out=tmp_path / "comparison.html", verbose=False)
    assert foveola.resume(runs[0].path, verbose=False).status.status == "done"


def test_several_processes_give_the_same_bytes(tmp_path, small_shards):
    source = make_folder(tmp_path / "pets")
    for processes in (1, 2):
        foveola.pack(source, tmp_path / f"out{processes}", processes=processes, verbose=False)
    assert content(tmp_path / "out1") == content(tmp_path / "out2")


def test_groups_are_packed(tmp_path):
    source = make_folder(tmp_path / "pets")
    foveola.pack(source, tmp_path / "out", groups=r"(\d\d)\d\.png", processes=1, verbose=False)
    expected = foveola.load(source, groups=r"(\d\d)\d\.png")
    np.testing.assert_array_equal(foveola.load(tmp_path / "out").train.groups, expected.train.groups)


def test_an_interrupted_pack_decodes_only_what_is_missing(tmp_path, small_shards, monkeypatch):
    source = make_folder(tmp_path / "pets")
    foveola.pack(source, tmp_path / "whole", processes=1, verbose=False)
    decoded, decode = [], image_files.decode_one

    def failing(path, shape, options):
        if len(decoded) == 13:
            raise KeyboardInterrupt
        decoded.append(path)
        return decode(path, shape, options)

    monkeypatch.setattr(shards, "decode_one", failing)
    with pytest.raises(KeyboardInterrupt):
        foveola.pack(source, tmp_path / "out", processes=1, verbose=False)
    with pytest.raises(DataError, match="not packed completely"):
        foveola.load(tmp_path / "out")
    monkeypatch.setattr(shards, "decode_one", lambda *arguments: (decoded.append(1), decode(*arguments))[1])
    foveola.pack(source, tmp_path / "out", processes=1, verbose=False)
    assert len(decoded) == 13 + 24 - 10  # two shards of five were whole
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_picture_that_changed_meanwhile_is_decoded_again(tmp_path, small_shards, monkeypatch):
    source = make_folder(tmp_path / "pets")
    with monkeypatch.context() as patches, pytest.raises(OutputError, match=r"No space.*goes on where it ended"):
        patches.setattr(packed, "write", lambda *arguments, **options: (_ for _ in ()).throw(OSError(28, "No space")))
        foveola.pack(source, tmp_path / "out", processes=1, verbose=False)
    Image.new("RGB", (9, 12), "red").save(source / "cat" / "000.png")
    foveola.pack(source, tmp_path / "out", processes=1, verbose=False)
    assert foveola.load(tmp_path / "out").fingerprint == foveola.load(source).fingerprint


@pytest.mark.parametrize("moved", [0, 1, 3])
def test_a_move_that_was_interrupted_is_finished(moved, tmp_path, monkeypatch):
    source = make_folder(tmp_path / "pets")
    foveola.pack(source, tmp_path / "out", processes=1, groups=r"(\d\d)\d", verbose=False)
    replaced, replace = [], os.replace

    def failing(old, new):
        if str(new).startswith(str(tmp_path / "out")) and ".packing" not in str(new):
            if len(replaced) == moved:
                raise KeyboardInterrupt
            replaced.append(new)
        replace(old, new)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(KeyboardInterrupt):
        foveola.pack(source, tmp_path / "out", processes=1, force=True, verbose=False)
    monkeypatch.undo()
    with pytest.raises(DataError, match="not packed completely"):
        foveola.load(tmp_path / "out")
    with pytest.raises(OutputError, match="already holds a packed data set"):
        foveola.pack(source, tmp_path / "out", processes=1, verbose=False)
    assert foveola.load(tmp_path / "out").train.groups is None
    assert not (tmp_path / "out" / "groups.npy").exists()
    Pack.open(tmp_path / "out").verify()


def test_what_is_there_is_kept(tmp_path):
    source = make_folder(tmp_path / "pets")
    foveola.pack(source, tmp_path / "out", processes=1, verbose=False)
    before = content(tmp_path / "out")
    with pytest.raises(OutputError, match="already holds a packed data set"):
        foveola.pack(source, tmp_path / "out", verbose=False)
    (source / "dog" / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="1 file cannot be used"):
        foveola.pack(source, tmp_path / "out", processes=1, force=True, verbose=False)
    after = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert after == before
    skipped = foveola.pack(source, tmp_path / "out", processes=1, force=True, skip_bad=1, verbose=False).skipped
    assert skipped == [str(source / "dog" / "broken.png")]
    (tmp_path / "out" / "mine.txt").write_text("")
    with pytest.raises(OutputError, match=r"left alone: mine\.txt"):
        foveola.pack(source, tmp_path / "out", force=True, verbose=False)
    with pytest.raises(OutputError, match="would be taken for a class"):
        foveola.pack(source, source / "packed", verbose=False)


def test_two_packs_into_one_folder_do_not_meet(tmp_path):
    source = make_folder(tmp_path / "pets")
    (tmp_path / "out" / ".packing").mkdir(parents=True)
    held = lock(tmp_path / "out" / ".packing" / "lock")
    with pytest.raises(OutputError, match="Another process packs"):
        foveola.pack(source, tmp_path / "out", verbose=False)
    os.close(held)
    foveola.pack(source, tmp_path / "out", processes=1, verbose=False)


def test_a_pack_that_fails_before_it_decodes_leaves_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        foveola.pack(tmp_path / "empty", tmp_path / "new" / "out", verbose=False)
    assert not (tmp_path / "new").exists()


def test_damage_to_what_was_decoded_is_named(tmp_path, small_shards, monkeypatch):
    source = make_folder(tmp_path / "pets")
    with monkeypatch.context() as patches, pytest.raises(KeyboardInterrupt):
        patches.setattr(packed, "write", lambda *arguments, **options: (_ for _ in ()).throw(KeyboardInterrupt))
        foveola.pack(source, tmp_path / "out", processes=1, verbose=False)
    shards._pixels.cache_clear()
    shard = next((tmp_path / "out" / ".packing" / "shards").iterdir())
    for damaged in (shard.read_bytes()[:-1] + b"\0", b"", b"{}\n", b"[" * 100):
        shard.write_bytes(damaged)
        with pytest.raises(DataError, match=r"is damaged\. Delete"):
            foveola.pack(source, tmp_path / "out", processes=1, verbose=False)
        shards._pixels.cache_clear()


def test_the_command(foveola_command, tmp_path):
    source = make_folder(tmp_path / "pets")
    done = foveola_command("pack", source, "--out", tmp_path / "out", "--image-size", "8x6", "--processes", 1, "--json")
    document = json.loads(done.out)
    assert (done.code, document["image_shape"], document["splits"]) == (0, [8, 6, 3], {"train": 24})
    verified = foveola_command("pack", tmp_path / "out", "--verify")
    assert verified.code == 0
    assert "24 train images of 8×6×3" in verified.out
    for arguments, message in [
        (["pack", source, "--verify"], "not a packed data set"),
        (["pack", source, "--image-size", "big"], "--image-size is 'big'"),
        (["pack", source, "--out", tmp_path / "out"], "already holds"),
        (["pack", tmp_path / "nothing"], "no file or folder"),
    ]:
        refused = foveola_command(*arguments)
        assert refused.code == 2
        assert message in refused.err


def start(source, out):
    code = (
        "import sys; from foveola.datasets import shards; shards.IMAGES_A_SHARD = 5; from foveola.cli import main\n"
        "if __name__ == '__main__':\n    sys.exit(main(['pack', *sys.argv[1:], '--quiet', '--processes', '1']))"
    )
    return subprocess.Popen([sys.executable, "-c", code, source, "--out", out])


def kill_and_go_on(tmp_path, kills):
    source = make_folder(tmp_path / "pets", count=300)
    foveola.pack(source, tmp_path / "whole", processes=1, verbose=False)
    delays = np.random.default_rng(0).uniform(0.3, 1.6, kills)
    for number, delay in enumerate(delays):
        out = tmp_path / f"out{number}"
        process = start(source, out)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert start(source, out).wait() in (0, 2)  # 2: it had been whole
        assert content(out) == content(tmp_path / "whole")


def test_a_killed_pack_goes_on(tmp_path):
    kill_and_go_on(tmp_path, 2)


@pytest.mark.slow
def test_packs_killed_at_any_moment_go_on(tmp_path):
    kill_and_go_on(tmp_path, 60)
