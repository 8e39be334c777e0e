"""Where and how a run was made; compiled programs are kept between runs."""

import gc
import os
import re
from collections.abc import Iterable
from importlib.metadata import version

import jax

from ftjax.machine.autotune import UNTUNED
from ftjax.machine.caches import cache_folder
from ftjax.machine.threads import POOL_SIZE, one_thread, usable_cores

UNTRIED_JAXLIB = 0, 13  # from here on nothing is known of its flags
GONE_SINCE = {"--xla_cpu_use_fusion_emitters": (0, 11)}  # jaxlib's version
TUNED_FLAGS = (
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_prefer_vector_width=512",
    "--xla_backend_extra_options=xla_cpu_disable_loop_unrolling=true",
)
CODEGEN_PARTS = "--xla_cpu_parallel_codegen_split_count"
FORCED_DEVICES = re.compile(r"--xla_force_host_platform_device_count=(\d+)")


def tune_xla(gpu_flags: Iterable[str] = UNTUNED) -> None:
    """Chooses how XLA compiles and runs; comes before all other use of JAX.

    On a GPU how it picks algorithms is timed once for each card (`autotune`); XLA_FLAGS
    with --xla_gpu_autotune_level=4 brings XLA's own default back.

    On a CPU its older code for fusions, where that is still there (jaxlib 0.10), is
    compiled in two thirds of the time and runs as fast (first and later steps of
    EfficientNet-Lite0, 32 pixels, 2 cores: 34 s and 110 ms against 22 s and 108 ms;
    EfficientNetB0, 96 pixels: 48 s and 805 ms against 37 s and 805 ms). Vectors as wide
    as AVX-512's, where a core has them: EfficientNetB0's step on one core takes
    0.205 s, by default 0.223. Loops are not unrolled: its programs are compiled in
    6.4 s instead of 10.5 and run as fast, within 2 %. A program is compiled in half as
    many parts as there are cores instead of 32, so that less of it is done twice (all
    of a sweep of EfficientNetB0, two at a time: 18 s of two cores, in 32 parts 20 s).

    Args:
        gpu_flags: for a GPU, as of `autotune`.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    tuned = (
        *TUNED_FLAGS,
        *gpu_flags,
        f"{CODEGEN_PARTS}={min(max(usable_cores() // 2, 1), 32)}",
    )
    missing = [flag for flag in known(tuned) if flag.split("=")[0] not in flags]
    os.environ["XLA_FLAGS"] = " ".join([*missing, flags]).strip()
    choose_dispatch()


def known(flags: Iterable[str]) -> list[str]:
    """Those that this jaxlib takes; XLA ends the process at one that it does not."""
    own = tuple(map(int, version("jaxlib").split(".")[:2]))
    return [
        flag
        for flag in flags
        if own < GONE_SINCE.get(flag.split("=")[0], UNTRIED_JAXLIB)
    ]


def choose_dispatch() -> None:
    """Programs are queued while one runs, unless XLA:CPU's pool has one thread.

    A step of EfficientNetB0 (96 pixels, batch 32, 2 cores) takes 0.131 s queued, 0.136
    not. A queue has as many threads as the pool: with one, trials side by side would
    wait for each other and take two thirds longer, so each runs its programs itself.
    Comes before JAX starts.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", not one_thread())


def give_devices_threads() -> None:
    """Two threads of XLA:CPU's pool for each device that XLA_FLAGS make of the CPU.

    Comes before all other use of JAX. A device that adds up over all of them holds as
    many threads until the others come, which need some as well: with fewer threads
    EfficientNetB0 on two devices of two cores stood still.
    """
    if forced := FORCED_DEVICES.search(os.environ.get("XLA_FLAGS", "")):
        threads = max(2 * int(forced[1]), usable_cores())
        os.environ.setdefault(POOL_SIZE, str(threads))


def join_processes() -> None:
    """Joins the processes that train together; comes before all other use of JAX.

    Raises:
        ValueError: nothing tells where the others are, or they cannot be reached.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    address, *numbers = (os.environ.get(name) for name in names)
    try:
        if any(numbers):
            jax.distributed.initialize(address, *map(int, numbers))
        else:
            jax.distributed.initialize()
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--distributed: the processes cannot be joined ({reason}); start them "
            f"by SLURM, Open MPI or on a TPU pod, or set {', '.join(names)}"
        ) from None


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk, unless JAX_COMPILATION_CACHE_DIR says where."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def collect_garbage_rarely() -> None:
    """Leaves what is imported out of Python's search for cycles, and searches seldom.

    Tracing makes many objects that live on: while the programs of EfficientNetB0's
    sweep were compiled, 7 % of the cores' time went into the search.
    """
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
