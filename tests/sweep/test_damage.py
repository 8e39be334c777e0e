"""What was written and is not what is read: told, set aside, trained again."""

import json
import shutil

import numpy as np
import orbax.checkpoint as ocp
import pandas as pd
import pytest
from tiny_run import run, table

from ftjax.machine.files import json_digest, read_json
from ftjax.sweep import records, results
from ftjax.sweep.checkpoint import Checkpoints

TRIAL = "0123456789ab"
SAVED = {"kernel": np.arange(6, dtype=np.float32), "count": np.int32(7)}
META = {"epochs": [{"epoch": 1, "loss": float("nan")}]}


def flips(content: bytes, step: int = 1):
    """The content with one bit flipped, for every bit or some of them."""
    for bit in range(0, 8 * len(content), step):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def facts(record):
    """Of a record, what a reader goes by."""
    return {key: record.get(key) for key in ("trial", "status", "config", "epochs")}


def test_every_flipped_bit_of_a_record_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "environment", lambda: {"jax": "1"})
    files = records.write_correct(tmp_path, TRIAL, np.eye(2, 3))
    epochs = [{"epoch": 1, "val_accuracy": 0.75}]
    records.write_trial(
        tmp_path,
        TRIAL,
        canonical={"seed": 0},
        status="done",
        epochs=epochs,
        files=files,
    )
    folder = records.trial_folder(tmp_path, TRIAL)
    read = {"trial.json": records.read_trial, "val_correct.npy": records.read_correct}
    for name, reader in read.items():
        content, right = (folder / name).read_bytes(), reader(tmp_path, TRIAL)
        seen = 0
        for changed in flips(content):
            (folder / name).write_bytes(changed)
            try:
                found = reader(tmp_path, TRIAL)
            except records.Damaged:
                seen += 1
                continue
            # Spaces, or the name of the digest, which then protects no more.
            assert facts(found) == facts(right)
        assert seen > 6 * len(content)
        (folder / name).write_bytes(content)
    np.testing.assert_array_equal(records.read_correct(tmp_path, TRIAL), np.eye(2, 3))


@pytest.mark.parametrize("step", [53, pytest.param(1, marks=pytest.mark.stress)])
@pytest.mark.usefixtures("undrawn_module")
def test_no_flipped_bit_of_what_a_run_is_of_is_read(a_run, tmp_path, step):
    """Its configuration, answer, labels and probes."""
    read = {
        "config.json": lambda out: read_json(out / "config.json"),
        "recommendation.json": lambda out: read_json(out / "recommendation.json"),
        "val_labels.npy": records.read_labels,
        "probes.csv": lambda out: results.read_probes(out, table(a_run).iloc[0]),
    }
    for name, reader in read.items():
        for beside in (name, f"{name}.sha256"):
            if (a_run / beside).exists():
                shutil.copy(a_run / beside, tmp_path)
        content, right = (tmp_path / name).read_bytes(), reader(tmp_path)
        for changed in flips(content, step):
            (tmp_path / name).write_bytes(changed)
            try:
                found = reader(tmp_path)
            except records.Damaged as error:
                assert str(tmp_path / name) in str(error)
                continue
            if isinstance(found, dict):  # a space, or the name of the digest
                found = {key: found[key] for key in right}
                assert json_digest(found) == json_digest(right)
            else:
                assert name == "probes.csv" and found is None  # is made anew


@pytest.fixture(scope="module")
def a_run(images, tmp_path_factory, undrawn_module):
    out = tmp_path_factory.mktemp("run")
    assert (
        run(images, out, *"--depths 0 7 --bn frozen --epochs 1 --probes".split()) == 0
    )
    return out


def test_what_older_versions_wrote_is_read(a_run, tmp_path):
    for name in ("val_labels.npy", "probes.csv"):
        shutil.copy(a_run / name, tmp_path)
    run_of = json.loads((a_run / "config.json").read_text())
    assert run_of.pop("sha256")
    (tmp_path / "config.json").write_text(json.dumps(run_of))
    assert read_json(tmp_path / "config.json") == run_of
    assert len(records.read_labels(tmp_path)) == 24
    assert results.read_probes(tmp_path, table(a_run).iloc[0]) is not None


def restored(folder, trial=TRIAL):
    store = Checkpoints(folder, trial)
    try:
        return store.restore()
    finally:
        store.close()


# Orbax leaves callbacks of a read that failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("each", [397, pytest.param(1, marks=pytest.mark.stress)])
def test_a_flipped_bit_of_a_checkpoint_changes_no_number(tmp_path, each):
    store = Checkpoints(tmp_path / "made", TRIAL)
    store.save(1, SAVED, META)
    store.close()
    files = [p for p in (tmp_path / "made").rglob("*") if p.is_file()]
    seen = 0
    for file in files:
        for number, changed in enumerate(flips(file.read_bytes(), each)):
            folder = tmp_path / f"{file.name}{number}"
            shutil.copytree(tmp_path / "made", folder)
            (folder / file.relative_to(tmp_path / "made")).write_bytes(changed)
            try:
                saved = restored(folder)
            except records.Damaged:
                seen += 1
            else:
                # A changed name of the digest is one more key.
                assert str(saved.meta["epochs"]) == str(META["epochs"])
                for name, value in SAVED.items():
                    np.testing.assert_array_equal(saved.leaves[name], value)
            shutil.rmtree(folder)
    assert seen


def test_what_is_of_another_trial_is_not_read(tmp_path):
    store = Checkpoints(tmp_path, TRIAL)
    store.save(1, SAVED, META)
    store.close()
    with pytest.raises(records.Damaged, match=f"is of trial {TRIAL}"):
        restored(tmp_path, "ba9876543210")
    records.write_trial(tmp_path, TRIAL, canonical={}, status="done", epochs=[])
    other = records.trial_folder(tmp_path, "ba9876543210")
    shutil.copytree(records.trial_folder(tmp_path, TRIAL), other)
    with pytest.raises(records.Damaged, match=f"is of trial {TRIAL}"):
        records.read_trial(tmp_path, other.name)


@pytest.mark.usefixtures("undrawn")
def test_what_is_damaged_is_set_aside_and_trained_again(images, tmp_path, capsys):
    words = "--depths 0 7 18 19 --bn follow --epochs 1".split()
    assert run(images, tmp_path, *words) == 0
    right = table(tmp_path)
    first, second, third, old = right.trial
    folder = tmp_path / "trials"
    (folder / first / "trial.json").write_bytes(b"")
    (folder / second / "val_correct.npy").write_bytes(b"x")
    record = json.loads((folder / third / "trial.json").read_text())
    record["epochs"][0]["val_accuracy"] = 1.0
    (folder / third / "trial.json").write_text(json.dumps(record))
    for file in (folder / third / "checkpoint").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    record = json.loads((folder / old / "trial.json").read_text())
    later = ("sha256", "files", "environment")
    plain = {k: v for k, v in record.items() if k not in later}
    (folder / old / "trial.json").write_text(json.dumps(plain))
    capsys.readouterr()
    assert run(images, tmp_path, *words) == 0
    said = capsys.readouterr().out
    assert "kept 1 of 4 finished trials" in said  # that of an earlier version
    assert said.count("set aside as") == 4  # of the third its checkpoint as well
    assert "The trials are of 2 versions or devices" in said
    assert "; 1 by a version that kept no account." in " ".join(said.split())
    pd.testing.assert_frame_equal(table(tmp_path), right)
    assert {path.name for path in folder.rglob("*.damaged-1")} == {
        "trial.json.damaged-1",
        "val_correct.npy.damaged-1",
        "checkpoint.damaged-1",
    }


@pytest.mark.usefixtures("undrawn")
def test_a_full_disk_is_one_line_and_nothing_is_lost(
    images, tmp_path, capsys, monkeypatch
):
    words = "--depths 0 7 18 --bn follow --epochs 1 --trials-at-once 1".split()
    saved, save = [], ocp.CheckpointManager.save

    def fill(self, *args, **kwargs):
        saved.append(self)
        if len(saved) > 1:
            raise OSError(28, "No space left on device")
        return save(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "save", fill)
        with pytest.raises(SystemExit) as stop:
            run(images, tmp_path, *words)
    error = capsys.readouterr().err
    assert stop.value.code == 3 and error.count("\n") == 1
    assert "No space left on device" in error
    assert run(images, tmp_path, *words) == 0
    assert "kept 1 of 3 finished trials" in capsys.readouterr().out
    assert (table(tmp_path).status == "done").all()
