"""The same numbers on one device, on eight, and in two processes."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from rounding import TINY_LAYERS, assert_close, rounding

from experiments import sweep as command
from ftjax.backbones import layers
from ftjax.machine.mesh import (
    fetch,
    from_first_process,
    make_mesh,
    replicate,
    shard_batch,
)

pytestmark = pytest.mark.usefixtures("undrawn_module")

RUN = (
    "--model tiny --weights random --data digits --image-size 16 --batch-size 16 "
    "--train-size 32 --val-size 20 --depths 18 --bn follow --optimizer sgd --lr 0.01 "
    "--seeds 2"
).split()
UNDRAWN = (
    "import sys; from ftjax.cli import answer, sweep; "
    "answer.write_answer = lambda *_: None; "
    "sys.exit(sweep.main())"
)
LOSSES = ["loss", "val_loss", "train_mode_loss"]
# A sum over the pixels of a batch in each layer, shared out or not.
BOUND = rounding(TINY_LAYERS * 16 * 16 * 16)


class Runs(NamedTuple):
    """On one device.

    Attributes:
        begun: folder after one epoch.
        losses: (4, 3), of two seeds and two epochs.
    """

    begun: Path
    losses: np.ndarray


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    out = tmp_path_factory.mktemp("one")
    begun = out / "begun"
    arguments = [*RUN, "--mesh", "data=1"]
    assert command.main([*arguments, "--epochs", "1", "--out", str(begun)]) == 0
    shutil.copytree(begun, out / "ended")
    assert command.main([*arguments, "--epochs", "2", "--out", str(out / "ended")]) == 0
    return Runs(begun, read_losses(out / "ended"))


def read_losses(out):
    epochs = pd.read_csv(out / "epochs.csv")
    epochs.loc[epochs.epoch == 1, "loss"] = np.nan  # only where it was the last one
    return epochs[LOSSES].to_numpy()


def start(out, *more, **environment):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
    return subprocess.Popen(
        [sys.executable, "-c", UNDRAWN]
        + [*RUN, "--epochs", "2", *more, "--out", str(out)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "XLA_FLAGS": flags, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_two(tmp_path, *more):
    """Two processes that train together.

    The second one has a folder of its own, so what it writes would be seen there.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        start(
            tmp_path / str(number),
            "--distributed",
            *more,
            JAX_COORDINATOR_ADDRESS=f"127.0.0.1:{port}",
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(number),
        )
        for number in range(2)
    ]


def assert_ends_well(process, seconds=300):
    try:
        printed, _ = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert process.returncode == 0, printed


@pytest.mark.numeric
def test_eight_devices(one_device, tmp_path):
    arguments = [*RUN, "--epochs", "2", "--mesh", "data=4,variant=2"]
    assert command.main([*arguments, "--out", str(tmp_path)]) == 0
    np.testing.assert_allclose(read_losses(tmp_path), one_device.losses, rtol=BOUND)
    assert pd.read_csv(tmp_path / "results.csv").frozen_intact.all()


def test_two_processes_go_on_and_the_first_one_writes(one_device, tmp_path):
    shutil.copytree(one_device.begun, tmp_path / "0")
    for process in start_two(tmp_path):
        assert_ends_well(process)
    found = read_losses(tmp_path / "0")
    np.testing.assert_allclose(found, one_device.losses, rtol=BOUND)
    assert pd.read_csv(tmp_path / "0" / "results.csv").frozen_intact.all()
    assert not (tmp_path / "1").exists()


@pytest.mark.slow
def test_a_killed_peer_takes_the_other_along(tmp_path):
    begun, killed = start_two(tmp_path, "--epochs", "3000")
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("0/trials/*/trial.json")):
        assert begun.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    killed.kill()
    killed.communicate()
    said, _ = begun.communicate(timeout=30)
    assert begun.returncode == 3
    errors = [line for line in said.splitlines() if "rror" in line]
    assert errors == [
        "error: --distributed: process 1 has ended, so this one does too; start all "
        "again with the same command, which goes on from the last epoch"
    ]


@pytest.mark.numeric
def test_layers_on_shards_equal_those_on_one_device():
    mesh = make_mesh("data=2", 4)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 8, 8, 3)).astype(np.float32)
    kernels = {
        layers.Conv(5, 3, lowering="cpu"): (3, 3, 3, 5),
        layers.Conv(5, 1, lowering="cpu"): (1, 1, 3, 5),
        layers.DepthwiseConv(3, lowering="cpu"): (3, 3, 1, 3),
    }

    @jax.jit
    def run(drawn, x):
        def total(drawn, x):
            outputs = [
                module.apply({"params": {"kernel": kernel, "bias": jnp.zeros(5)}}, x)
                for module, kernel in zip(kernels, drawn, strict=True)
            ]
            return sum(jnp.sum(jnp.sin(y)) for y in outputs)

        return jax.value_and_grad(total, (0, 1))(drawn, x)

    drawn = [rng.normal(size=s).astype(np.float32) for s in kernels.values()]
    expected = run(drawn, x)
    found = run(replicate(drawn, mesh), shard_batch(x, mesh))
    # The loss adds 256 pixels of 5 channels, each 27 products.
    assert_close(found, expected, rounding(256 * 5 * 27))


def test_an_older_jax_does_not_spread_seeds(monkeypatch):
    monkeypatch.setattr(jax, "__version_info__", (0, 7, 2))
    with pytest.raises(ValueError, match="to spread seeds takes JAX 0.8"):
        make_mesh("variant=2", 4)
    assert make_mesh("data=2", 4).size == 2


def test_there_and_back():
    mesh = make_mesh("data=2", 4)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    sharded = shard_batch(x, mesh)
    assert [part.data.shape for part in sharded.addressable_shards] == [(2, 3)] * 2
    whole = replicate({"kernel": x}, mesh)["kernel"]
    assert [part.data.shape for part in whole.addressable_shards] == [(4, 3)] * 2
    for value in (sharded, whole, shard_batch(x, None)):
        np.testing.assert_array_equal(fetch(value), x)


def test_one_device_needs_no_mesh():
    # The devices of one process share the cores of the CPU, so auto takes one.
    assert make_mesh("auto", 16) is make_mesh("data=1", 16) is None
    assert from_first_process(lambda: 3) == 3


@pytest.mark.parametrize(
    "text, message",
    [
        ("data=99", f"needs 99 devices, but there are {jax.device_count()}"),
        ("data=2", "2 devices cannot share 3 images equally"),
        ("data=0", "it takes auto, data=N"),
        ("seed=2", "it takes auto, data=N"),
        ("data=3,data=1", "it takes auto, data=N"),
        ("data=3,variant=3", "needs 9 devices"),
    ],
)
def test_unusable_mesh(text, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(text, 3)
