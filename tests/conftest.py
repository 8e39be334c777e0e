"""Strict JAX for every test: several devices, no silent rank promotion or key reuse.

Nearly all of the time goes into compiling programs that run for milliseconds. They are
not optimized, each is one LLVM module, and their fusions are emitted the old way where
there is one, which takes half of it.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # an accelerator has one device
os.environ.setdefault("KERAS_BACKEND", "jax")

from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from hypothesis import settings

from ftjax.machine import devices
from ftjax.machine.xla import known

FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_gpu_autotune_level=0",
)
os.environ["XLA_FLAGS"] = " ".join([*known(FLAGS), os.environ.get("XLA_FLAGS", "")])

SLOW = (
    "test_sweep",
    "test_chosen_depths",
    "test_notebooks",
    "test_mesh",
    "test_meshes",
    "test_devices",
    "test_train",
    "test_depthwise",
    "test_winograd",
    "test_begun_units",
    "test_backbones",
)

# The same examples every time, in whatever time; `-m stress` takes more, and new ones.
settings.register_profile("same", deadline=None, derandomize=True, database=None)
settings.load_profile("same")

# The devices are there from here on, and commands that tests start have one.
jax.devices()
os.environ["XLA_FLAGS"] = os.environ["XLA_FLAGS"].replace(FLAGS[0], "").strip()

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)


def pytest_xdist_auto_num_workers(config):
    """A process per core up to four; parity prints tables, and needs the memory."""
    return 0 if config.option.markexpr == "parity" else min(4, os.cpu_count() or 1)


def pytest_collection_modifyitems(items):
    """The slow files first, so that no process ends long after the others."""
    items.sort(key=lambda item: item.path.stem not in SLOW)


@pytest.fixture(scope="session", autouse=True)
def programs(tmp_path_factory):
    """One compilation cache for all processes of the run and the commands they start.

    Who reads a program that another one is writing gets a warning and compiles it.
    """
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "programs"
    os.environ["PYTHONWARNINGS"] = "ignore:Error reading persistent compilation cache"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="session", autouse=True)
def single_device():
    """Sweeps take one of the devices, as each would compile programs of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "local_devices", lambda: (jax.local_devices()[0],))
        yield


@pytest.fixture
def all_devices(monkeypatch):
    """Sweeps take all of them."""
    monkeypatch.setattr(devices, "local_devices", lambda: tuple(jax.local_devices()))


@pytest.fixture(scope="session")
def undraw():
    """Call it with a monkeypatch: answers then come without images and page.

    These take longer than a tiny training.
    """

    def patch(monkeypatch):
        monkeypatch.setattr("ftjax.report.answer.plots.save", lambda *_: None)
        monkeypatch.setattr("ftjax.report.answer.write_page", lambda *_: None)

    return patch


@pytest.fixture
def undrawn(undraw, monkeypatch):
    """Answers without images and page, in one test."""
    undraw(monkeypatch)


@pytest.fixture(scope="module")
def undrawn_module(undraw):
    """Likewise, in a whole file."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        undraw(monkeypatch)
        yield


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A folder of two classes that differ in colour."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 12)):
        for label, name in enumerate(("blue", "red")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                image = rng.integers(0, 120, (20, 20, 3), np.uint8)
                image[..., 2 * label] += 100
                cv2.imwrite(str(folder / split / name / f"{number}.png"), image)
    return folder


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    """A cache folder of this run of the tests, not the user's."""
    monkeypatch.setenv("FTJAX_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data and reference files; the tests that need them skip without."""
    default = Path(__file__).parents[2] / "shared"
    folder = Path(os.environ.get("FTJAX_SHARED", default))
    if not (folder / "reference").is_dir():
        pytest.skip("the folder of reference data is not here (FTJAX_SHARED)")
    return folder
