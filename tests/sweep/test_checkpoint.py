"""What a checkpoint gives back."""

import errno
import os
import shutil
import threading

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from ftjax.sweep.checkpoint import Checkpoints, pack, reason, unpack
from ftjax.trees import flatten, unflatten

STATE = {
    "kernel": jnp.arange(6, dtype=jnp.float32).reshape(2, 3),
    "half": jnp.array([1.5, -2.0], jnp.bfloat16),
    "count": jnp.int32(7),
    "bias": jnp.zeros(3),
}


def assert_same(leaves):
    flat = flatten(STATE)
    assert leaves.keys() == flat.keys()
    for name, leaf in flat.items():
        assert leaves[name].dtype == leaf.dtype
        np.testing.assert_array_equal(leaves[name], leaf)


def test_vectors_hold_every_leaf():
    leaves = {name: np.asarray(leaf) for name, leaf in flatten(STATE).items()}
    vectors, layout = pack(leaves)
    assert {name: len(vector) for name, vector in vectors.items()} == {
        "float32": 9,
        "bfloat16": 2,
        "int32": 1,
    }
    assert_same(unpack(vectors, layout))


def test_the_newest_is_restored(tmp_path):
    store = Checkpoints(tmp_path)
    assert store.restore() is None
    store.save(1, {"a": np.zeros(2)}, {"epochs": [1]})
    store.save(2, STATE, {"epochs": [1, 2]})
    store.close()
    saved = Checkpoints(tmp_path).restore()
    assert saved is not None
    assert_same(saved.leaves)
    assert saved.meta == {"epochs": [1, 2]}
    again = unflatten(STATE, saved.leaves)
    assert again["kernel"].shape == (2, 3)


def test_trials_side_by_side_write_at_the_same_time(tmp_path):
    def write(name):
        store = Checkpoints(tmp_path / name)
        for step in range(4):
            store.save(step, {"x": np.full(3, step)}, {"name": name})
        store.close()

    names = ("a", "b", "c")
    threads = [threading.Thread(target=write, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for name in names:
        saved = Checkpoints(tmp_path / name).restore()
        assert saved is not None and saved.meta == {"name": name}
        np.testing.assert_array_equal(saved.leaves["x"], [3, 3, 3])


def test_one_that_was_written_leaf_by_leaf_is_read(tmp_path):
    manager = ocp.CheckpointManager(tmp_path)
    leaves = {name: np.asarray(leaf) for name, leaf in flatten(STATE).items()}
    args = ocp.args.Composite(
        state=ocp.args.StandardSave(leaves), meta=ocp.args.JsonSave({"epochs": []})
    )
    manager.save(1, args=args)
    manager.close()
    saved = Checkpoints(tmp_path).restore()
    assert saved is not None and saved.meta == {"epochs": []}
    assert_same(saved.leaves)


def fail(*args, **kwargs):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_a_checkpoint_that_cannot_be_written_is_one_error(
    tmp_path, capfd, caplog, monkeypatch
):
    store, whole = Checkpoints(tmp_path / "own"), shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: whole(path)._replace(free=9))
    with pytest.raises(OSError, match="No space left on device") as error:
        store.save(1, STATE, {})
    assert error.value.filename == str(tmp_path / "own")
    monkeypatch.undo()
    store.save(1, STATE, {})
    monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="own cannot be written: .*Permission denied"):
        store.save(2, STATE, {})
    assert capfd.readouterr().err == "" and not caplog.records
    store.close()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("RESOURCE_EXHAUSTED: [a] [os_error_code='28']\nb", os.strerror(28)),
        ("first\nsecond", "first"),
        ("", "ValueError"),
    ],
)
def test_why_nothing_was_written(text, expected):
    assert reason(ValueError(text)) == expected
