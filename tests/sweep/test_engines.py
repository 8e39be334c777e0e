"""Workers elsewhere: on a local Ray cluster, as local jobs of submitit."""

import os
import signal
import warnings
from pathlib import Path

import pytest
from own_process import assert_same_run, finish, owners, start, wait_until
from tiny_run import run

GRID = "--depths 0 7 18 19 --bn follow frozen --epochs 150".split()
SEARCHES = {
    "halving": "--depths 0 7 18 19 --bn follow --epochs 27 --search halving".split(),
    "auto": "--depths auto --bn follow --epochs 10".split(),
}
WORKERS = "--workers", "2"


@pytest.mark.parametrize(
    "words, message",
    [
        ("--workers 2", "--workers and --job are of --engine ray and submitit"),
        ("--engine ray --shard 0/2", "--engine ray deals out the shards itself"),
        ("--engine ray", "--engine ray is not installed: pip install 'ftjax[ray]'"),
    ],
)
def test_what_goes_with_no_engine(
    words, message, images, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("ftjax.sweep.engines.find_spec", lambda name: None)
    assert run(images, tmp_path, "--depths", "0", *words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """A folder by the words of a command, trained by a single process."""
    made = {}

    def make(words):
        key = " ".join(words)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("whole")
            finish(start(images, made[key], *words))
        return made[key]

    return make


@pytest.fixture
def cluster(monkeypatch):
    """A Ray cluster of two nodes on this machine, which the command joins."""
    pytest.importorskip("ray")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 2, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=node)
        made.add_node(num_cpus=2)
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    yield made
    made.shutdown()


def finish_after_deaths(images, out, *words):
    """The command to its end; again if two deaths were at one epoch of a trial."""
    driver = start(images, out, *words)
    _, said = driver.communicate(timeout=900)
    if "its process died 2 times" in said:
        finish(start(images, out, *words))
    else:
        assert driver.returncode == 0, said


def some_done(out):
    return list(out.glob("trials/*/val_correct.npy"))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray", "submitit"])
def test_a_killed_worker_and_a_killed_driver_change_nothing(
    engine, whole, images, tmp_path
):
    pytest.importorskip(engine)
    words = [*GRID, "--engine", engine, *WORKERS]
    driver = start(images, tmp_path, *words)
    os.kill(wait_until(lambda: owners(tmp_path), driver)[0], signal.SIGKILL)
    wait_until(lambda: some_done(tmp_path), driver)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    finish_after_deaths(images, tmp_path, *words)
    assert_same_run(tmp_path, whole(GRID))


def node_of(process):
    """The node of a Ray worker, which is its parent."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_a_killed_node_of_a_cluster_changes_nothing(cluster, whole, images, tmp_path):
    def both():
        found = {node_of(p) for p in owners(tmp_path)}
        return found if len(found) == 2 else None

    driver = start(images, tmp_path, *GRID, "--engine", "ray")
    nodes = wait_until(both, driver)  # without --workers one on each machine
    head = cluster.head_node.all_processes["raylet"][0].process.pid
    (other,) = nodes - {head}
    os.kill(other, signal.SIGKILL)
    finish(driver)
    assert_same_run(tmp_path, whole(GRID))


@pytest.mark.slow
@pytest.mark.parametrize("search", SEARCHES)
def test_searches_decide_alike_on_a_cluster(search, cluster, whole, images, tmp_path):
    words = SEARCHES[search]
    driver = start(images, tmp_path, *words, "--engine", "ray")
    os.kill(wait_until(lambda: owners(tmp_path), driver)[0], signal.SIGKILL)
    finish(driver)
    assert_same_run(tmp_path, whole(words))


@pytest.mark.slow
def test_four_shards_at_once_are_the_single_process(whole, images, tmp_path):
    shards = [start(images, tmp_path, *GRID, "--shard", f"{n}/4") for n in range(4)]
    for shard in shards:
        finish(shard)
    finish(start(images, tmp_path, *GRID))  # adds up; nothing is left to train
    assert_same_run(tmp_path, whole(GRID))
