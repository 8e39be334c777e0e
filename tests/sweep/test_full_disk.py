"""A disk that is full at some size: one line, exit code 3, and nothing is lost.

On a small file system in memory, where one may be mounted, and with a limit of the size
of a file.
"""

import shutil
import subprocess

import pytest
from own_process import assert_same_run

pytest.importorskip("resource", reason="needs POSIX")
import fault_child

pytestmark = pytest.mark.stress
WORDS = "--depths 0 7 18 19 --bn follow frozen --epochs 4".split()
SHARES = [0.01, 0.03, 0.06, 0.1, 0.2, 0.3, 0.4, 0.5]  # of what the run needs


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    assert run(images, out, out / "said") == 0
    return out


def run(images, out, said, **faults):
    process = fault_child.context().Process(
        target=fault_child.train, args=(images, out, WORDS, said), kwargs=faults
    )
    process.start()
    return fault_child.code_of(process)


@pytest.mark.parametrize("share", SHARES)
def test_a_small_file_system(share, whole, images, tmp_path):
    disk, said = tmp_path / "disk", tmp_path / "said"
    disk.mkdir()
    pages = sum(-(-path.stat().st_size // 4096) + 1 for path in whole.rglob("*"))
    size = f"size={max(int(share * pages), 4) * 4096}"
    mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        assert run(images, disk / "out", said) == 3
        error = said.read_text()
        assert error.count("\n") == 1 and error.startswith("error: ")
        assert "No space left on device" in error or "cannot be" in error, error
        before = fault_child.done_records(disk / "out")
        subprocess.run([*mount[:4], "remount,size=64m", *mount[5:]], check=True)
        assert run(images, disk / "out", said) == 0, said.read_text()
        after = fault_child.done_records(disk / "out")
        assert {trial: after[trial] for trial in before} == before
        assert_same_run(disk / "out", whole)
        assert not list(disk.rglob("*.partial"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_a_largest_file(share, whole, images, tmp_path):
    """A limit that no look at the disk tells; TensorStore may print beside our line."""
    out, said = tmp_path / "out", tmp_path / "said"
    sizes = sorted(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    largest = sizes[int(share * (len(sizes) - 1))] - 1
    assert run(images, out, said, largest=largest) == 3
    assert said.read_text().count("error: ") == 1
    assert run(images, out, said) == 0, said.read_text()
    assert_same_run(out, whole)
