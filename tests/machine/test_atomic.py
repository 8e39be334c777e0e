"""A reader sees the old file or the new one, and a failed writer leaves nothing."""

import stat

import pytest

from ftjax.machine.atomic import PARTIAL, atomic_file
from ftjax.machine.files import read_json, write_atomically, write_json


@pytest.mark.parametrize("durable", [True, False])
def test_the_old_file_stays_until_all_is_written(tmp_path, durable):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with atomic_file(path, durable=durable) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        (partial,) = (each for each in tmp_path.iterdir() if each != path)
        assert partial.suffix == PARTIAL and partial.name.startswith(".")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_writer_that_fails_leaves_nothing(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_file(path) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_error_or_made(tmp_path):
    path = tmp_path / "folder" / "a.json"
    with pytest.raises(OSError), atomic_file(path):
        pass
    write_json(path, {"depth": 3})
    assert read_json(path) == {"depth": 3}
    write_atomically(path, b"{")
    with pytest.raises(ValueError, match="is damaged"):
        read_json(path)
