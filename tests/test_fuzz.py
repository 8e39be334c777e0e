"""Any bytes are read, or refused in one line: files that were changed, new ones."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzed import READERS, check, whole_inputs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SECONDS = 60  # of a reader, guided by coverage


@st.composite
def changed(draw, name):
    """A whole input with some bytes exchanged, cut out or put in; or any bytes."""
    content = bytearray(draw(st.sampled_from(whole_inputs(name))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from([0, 1, 1, 4, 64]))
        content[at : at + length] = draw(st.binary(max_size=8))
    return bytes(content)


@pytest.mark.parametrize("name", READERS)
def test_changed_files_are_read_or_refused(name, tmp_path):
    @given(changed(name) | st.binary(max_size=64))
    @settings(max_examples=150, suppress_health_check=[*HealthCheck])
    def read(content):
        check(name, content, tmp_path)

    read()


@pytest.mark.stress
@pytest.mark.parametrize("name", READERS)
def test_fuzzed_by_coverage(name, tmp_path):
    pytest.importorskip("atheris", reason="pip install atheris")
    ended = subprocess.run(
        [sys.executable, Path(__file__).parent / "fuzzed.py", name, str(SECONDS)],
        cwd=tmp_path,  # where an input that fails is left
        capture_output=True,
        text=True,
    )
    done = re.search(r"Done (\d+) runs", ended.stderr)
    assert ended.returncode == 0 and done, ended.stderr[-3000:]
    print(f"{name}: {done[1]} executions")
