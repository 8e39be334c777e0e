"""How XLA picks algorithms for convolutions on a GPU: timed once for each card.

Its own default tries all that there are for every program: on an H200 it had not ended
after 150 s for the 16 distinct units of EfficientNetB0, which take 5 s without. Without
it a convolution gets the first algorithm, which may leave the tensor cores idle. So the
first command on a card times one convolution both ways, in processes of their own, as
XLA reads its flags once. The verdict is kept in the cache folder.
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from ftjax.machine.caches import cache_folder
from ftjax.machine.files import read_json, write_json

LEVEL = "--xla_gpu_autotune_level"
UNTUNED = (f"{LEVEL}=0",)
TUNED = (f"{LEVEL}=1", "--xla_gpu_experimental_enable_fusion_autotuner=false")
# Of a sweep over the paper's 8 depths on 7,575 images for 5 epochs, about.
STEPS, PROGRAMS = 10_000, 40
LIMIT = 60.0  # seconds for each way, the start of JAX included
SHAPE, REPEATS = (32, 56, 56, 64), 20


class Timing(NamedTuple):
    """Of one convolution and its gradients, in seconds.

    Attributes:
        compile: until it ran for the first time.
        run: of each later time.
    """

    compile: float
    run: float

    @property
    def sweep(self) -> float:
        """What a sweep would take whose programs were all like it."""
        return PROGRAMS * (self.compile + STEPS * self.run)


class Verdict(NamedTuple):
    """What was chosen for a card.

    Attributes:
        flags: of XLA.
        why: in one line.
    """

    flags: tuple[str, ...]
    why: str


Measure = Callable[[tuple[str, ...]], Timing]


def choose(measure: Measure) -> Verdict:
    """The faster way to compile convolutions, by timing both.

    Args:
        measure: times a convolution under some flags; raises OSError if it cannot.
    """
    try:
        plain, tuned = measure(UNTUNED), measure(TUNED)
    except OSError as error:
        return Verdict(UNTUNED, f"not tuned, as timing them failed: {error}")
    times = " against ".join(
        f"{own.run * 1e3:.3f} ms a call and {own.compile:.1f} s to compile"
        for own in (tuned, plain)
    )
    better = tuned.sweep < plain.sweep
    flags = TUNED if better else UNTUNED
    return Verdict(flags, f"{'' if better else 'not '}tuned, as that took {times}")


def kept_or_chosen(card: str, path: Path, measure: Measure) -> Verdict:
    """The verdict for a card: that of an earlier command, else `choose`, and kept.

    Args:
        card: its name, and what else the verdict depends on.
        path: of the file of all verdicts; one that cannot be read or written costs the
            time of another measurement.
        measure: as of `choose`.
    """
    known = read_verdicts(path)
    if card in known:
        return known[card]
    say = logging.getLogger(__name__).warning
    say(
        f"first command on {card}: two ways to compile convolutions are timed, in "
        f"{2 * LIMIT:.0f} s at most; XLA_FLAGS with {LEVEL} skips it"
    )
    verdict = choose(measure)
    say(f"convolutions are {verdict.why}; kept in {path}, remove it to time them again")
    try:
        plain = {name: own._asdict() for name, own in (known | {card: verdict}).items()}
        write_json(path, plain)
    except OSError as error:
        say(
            f"{path} cannot be written ({error.strerror}): the next command times again"
        )
    return verdict


def read_verdicts(path: Path) -> Mapping[str, Verdict]:
    """Those of a file, by card; none where it is missing or not what was written."""
    try:
        found = read_json(path) or {}
        return {
            name: Verdict(tuple(map(str, own["flags"])), str(own["why"]))
            for name, own in found.items()
            if {*own["flags"]} in ({*UNTUNED}, {*TUNED})
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def gpu_flags() -> tuple[str, ...]:
    """Flags for this machine's card; comes before all other use of JAX."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if LEVEL in os.environ.get("XLA_FLAGS", "") or platforms.startswith(("cpu", "tpu")):
        return UNTUNED
    card = find_card()
    if card is None:
        return UNTUNED
    path = cache_folder() / "autotune.json"
    return kept_or_chosen(
        f"{card}, jaxlib {version('jaxlib')}", path, measure_apart
    ).flags


def find_card() -> str | None:
    """Name and driver of the first NVIDIA card that JAX can use; None without one."""
    if not any(map(installed, ("jax-cuda13-plugin", "jax-cuda12-plugin"))):
        return None
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = found.stdout.splitlines() if found.returncode == 0 else []
    return lines[0].strip() if lines else None


def installed(package: str) -> bool:
    """Whether there is a package of that name."""
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def measure_apart(flags: tuple[str, ...]) -> Timing:
    """`time_convolution` in a process with these flags.

    Raises:
        OSError: it failed, or took too long.
    """
    own = {
        "XLA_FLAGS": " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip(),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    code = f"from {__name__} import time_convolution; time_convolution()"
    try:
        found = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"{flags[0]} took more than {LIMIT:.0f} s") from None
    try:
        return Timing(*json.loads(found.stdout.splitlines()[-1]))
    except (IndexError, TypeError, ValueError):
        said = found.stderr.strip().splitlines() or [f"exit code {found.returncode}"]
        raise OSError(said[-1][:200]) from None


def time_convolution() -> None:
    """Prints the `Timing` of a 3x3 convolution in the card's type, as JSON."""
    import jax
    import jax.numpy as jnp

    from ftjax.machine.capability import device_type

    dtype = device_type(jax.local_devices()[0])

    @jax.jit
    def run(x, kernel):
        def total(x, kernel):
            numbers = ("NHWC", "HWIO", "NHWC")
            y = jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=numbers
            )
            return jnp.sum(jnp.square(y.astype(jnp.float32)))

        return jax.grad(total, (0, 1))(x, kernel)

    channels = SHAPE[-1]
    x, kernel = jnp.ones(SHAPE, dtype), jnp.ones((3, 3, channels, channels), dtype)
    jax.block_until_ready((x, kernel))
    begun = time.perf_counter()
    jax.block_until_ready(run(x, kernel))
    compiled, ended = time.perf_counter() - begun, float("inf")
    for _ in range(3):
        begun = time.perf_counter()
        for _ in range(REPEATS):
            found = run(x, kernel)
        jax.block_until_ready(found)
        ended = min(ended, (time.perf_counter() - begun) / REPEATS)
    print(json.dumps([compiled, ended]))
