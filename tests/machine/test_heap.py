"""One arena for all threads of a command."""

import platform
import subprocess
import sys

import pytest

from ftjax.machine import heap

CODE = """
import ctypes, sys, tempfile, threading
{first}
import pandas
for size in range(1000, 9000, 1000):
    thread = threading.Thread(target=bytearray, args=(size,))
    thread.start()
    thread.join()
import jax
jax.numpy.zeros(3).block_until_ready()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile() as file:
    stream = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(file.read().count(b"<heap nr="))
"""


def count_arenas(first: str) -> int:
    """Arenas of a process that begins with that line and then starts threads."""
    code = CODE.format(first=first)
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return int(found.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_threads_of_a_command_share_the_arena_that_can_grow():
    assert count_arenas("") > 1
    assert count_arenas("import experiments.sweep, ftjax.sweep.run") == 1


@pytest.mark.parametrize(
    ("plugins", "platforms", "expected"),
    [([], "", False), (["xla_cuda13"], "", True), (["xla_cuda13"], "cpu", False)],
)
def test_malloc_is_left_alone_beside_an_accelerator(
    monkeypatch, plugins, platforms, expected
):
    monkeypatch.setattr(heap, "entry_points", lambda group: plugins)
    monkeypatch.setattr(heap, "find_spec", lambda name: None)
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    assert heap.accelerator_installed() is expected
