"""Rows of mapped arrays: those in memory, whoever reads them and when."""

import time

import numpy as np
import pytest

from ftjax.data import read_ahead as module
from ftjax.data.read_ahead import is_mapped, read_ahead


class Counted(np.memmap):
    """A mapped array that counts how often rows are taken."""

    taken = 0

    def __getitem__(self, rows):
        Counted.taken += 1
        return np.asarray(super().__getitem__(rows))


@pytest.fixture
def mapped(tmp_path):
    """(40, 3, 2), by row 0, 1, 2, ..."""
    values = np.repeat(np.arange(40, dtype=np.uint8), 6).reshape(40, 3, 2)
    values.tofile(tmp_path / "rows")
    return Counted(tmp_path / "rows", np.uint8, "r", shape=values.shape)


def test_views_of_a_mapped_file_are_mapped(mapped):
    assert is_mapped(mapped.view(np.ndarray)[3:][::2])
    assert not is_mapped(np.array(mapped)[3:])


@pytest.mark.parametrize("min_bytes", [0, 10**6])
def test_batches_come_in_order(mapped, min_bytes, monkeypatch):
    monkeypatch.setattr(module, "MIN_BYTES", min_bytes)
    rows = np.random.default_rng(0).permutation(40).reshape(20, 2)
    found = list(read_ahead(mapped.view(np.ndarray), rows))
    np.testing.assert_array_equal(np.stack(found)[..., 0, 0], rows)


def test_a_large_array_is_read_ahead_and_a_small_one_is_not(mapped, monkeypatch):
    batches = np.arange(40).reshape(20, 2)
    Counted.taken = 0
    next(read_ahead(mapped, batches))
    assert Counted.taken == 1
    monkeypatch.setattr(module, "MIN_BYTES", 0)
    ahead = read_ahead(mapped, batches)
    next(ahead)
    deadline = time.monotonic() + 10
    while Counted.taken < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 5 <= Counted.taken <= 3 + 2 * module.THREADS  # and not all at once
