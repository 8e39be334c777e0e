"""The command end to end: records, resuming, kill -9, bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_run import PLAIN, TINY, run, table

import ftjax
from experiments import sweep as command
from ftjax.config import RATES, Config
from ftjax.defaults import complete
from ftjax.machine.files import write_json
from ftjax.sweep import records, resources, trials
from ftjax.sweep.checkpoint import Checkpoints
from ftjax.sweep.claims import Claims, Owner
from ftjax.sweep.prepare import prepare
from ftjax.sweep.records import write_table
from ftjax.sweep.results import write_probes
from ftjax.sweep.work_queue import group_trials

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    """An uninterrupted run of four depths, two policies, two epochs."""
    folder = tmp_path_factory.mktemp("finished")
    os.environ["FTJAX_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    depths = "--depths 0 7 18 19 --bn follow frozen --epochs 2".split()
    assert run(images, folder, *depths) == 0
    return folder


def test_a_run_leaves_what_it_promises(finished):
    results, epochs = table(finished), table(finished, "epochs.csv")
    assert list(pd.read_csv(finished / "results.csv")) == records.RESULT_COLUMNS
    assert len(results) == 8
    assert (results.status == "done").all()
    assert results.frozen_intact.all()
    assert len(epochs) == 16
    for name in ("config.json", "recommendation.json", "report.html"):
        assert (finished / name).stat().st_size > 100
    for suffix in ("png", "svg"):
        assert (finished / f"depth_curve.{suffix}").stat().st_size > 1000
    config = json.loads((finished / "config.json").read_text())
    assert config["class_names"] == ["blue", "red"]


def test_no_set_is_trained_twice(finished):
    results = table(finished).set_index(["depth_layers", "bn"]).trial
    # Without a trainable BatchNorm the policies are one; 18 and 19 differ by padding.
    assert results[0, "follow"] == results[0, "frozen"]
    assert results[7, "follow"] != results[7, "frozen"]
    assert results[18, "follow"] != results[0, "follow"]
    assert len(list((finished / "trials").iterdir())) == results.nunique()


def test_the_numbers_of_the_table_are_those_of_the_last_epoch(finished):
    results = table(finished).set_index(["depth_layers", "bn"])
    epochs = table(finished, "epochs.csv")
    last = epochs[epochs.epoch == 2].set_index(["depth_layers", "bn"])
    for name in ("accuracy", "loss", "val_accuracy", "train_mode_accuracy"):
        pd.testing.assert_series_equal(results[name], last[name])
    for trial, rows in table(finished).groupby("trial"):
        correct = records.read_correct(finished, trial)
        assert correct is not None and correct.shape == (2, 24)
        np.testing.assert_allclose(correct[-1].mean(), rows.val_accuracy, rtol=1e-12)


@pytest.mark.usefixtures("undrawn")
def test_the_same_command_trains_nothing(finished, images, capsys):
    before = (finished / "results.csv").read_bytes()
    depths = "--depths 0 7 18 19 --bn follow frozen --epochs 2".split()
    assert run(images, finished, *depths) == 0
    assert (finished / "results.csv").read_bytes() == before
    assert "kept" in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_more_epochs_go_on_and_equal_an_uninterrupted_run(finished, images, tmp_path):
    short = "--depths 7 --bn follow --epochs".split()
    assert run(images, tmp_path / "grown", *short, 1) == 0
    assert run(images, tmp_path / "grown", *short, 2) == 0
    grown = table(tmp_path / "grown")
    whole = table(finished)
    whole = whole[(whole.depth_layers == 7) & (whole.bn == "follow")]
    pd.testing.assert_frame_equal(grown, whole.reset_index(drop=True))


def test_kill_and_resume_equals_an_uninterrupted_run(finished, images, tmp_path):
    arguments = [
        *TINY,
        *f"--data {images} --out {tmp_path}".split(),
        *"--depths 0 7 18 19 --bn follow frozen --epochs 2".split(),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.sweep", *arguments],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not one_done_and_one_begun(tmp_path) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    kept = {
        path.parent.name: path.read_bytes()
        for path in tmp_path.glob("trials/*/trial.json")
        if json.loads(path.read_text())["status"] == "done"
    }
    assert kept
    assert command.main(arguments) == 0
    for trial, content in kept.items():
        path = records.trial_folder(tmp_path, trial) / "trial.json"
        assert path.read_bytes() == content
    pd.testing.assert_frame_equal(table(tmp_path), table(finished))
    columns = ["trial", "epoch", "loss", "val_loss", "train_mode_loss"]
    pd.testing.assert_frame_equal(
        table(tmp_path, "epochs.csv")[columns], table(finished, "epochs.csv")[columns]
    )


@pytest.mark.usefixtures("undrawn")
def test_shards_are_merged_and_equal_a_single_process(
    finished, images, tmp_path, capsys
):
    words = "--depths 0 7 18 19 --bn follow frozen --epochs 2".split()
    for shard, left in ((1, True), (0, False)):
        assert run(images, tmp_path, *words, "--shard", f"{shard}/2") == 0
        assert ("of other shards have not ended" in capsys.readouterr().out) == left
        done = sum(table(tmp_path).status == "done")
        assert (0 < done < 8) == left
    assert run(images, tmp_path, *words) == 0
    assert "kept 7 of 7 finished trials" in capsys.readouterr().out
    for name in ("results.csv", "epochs.csv"):
        pd.testing.assert_frame_equal(table(tmp_path, name), table(finished, name))
    for trial in table(finished).trial:  # bit for bit, up to the logits
        own, other = (records.read_logits(out, trial) for out in (tmp_path, finished))
        np.testing.assert_array_equal(own, other)


@pytest.mark.usefixtures("undrawn")
def test_what_another_command_trains_is_waited_for(
    finished, images, tmp_path, capsys, monkeypatch
):
    other, trial = Claims(tmp_path), table(finished).trial.iloc[0]
    assert other.take(trial) == 0
    assert Claims(tmp_path).take(trial) is None
    polls = []

    def poll(seconds):
        polls.append(seconds)
        for name in ("trial.json", "val_correct.npy", "val_logits.npz"):
            source = records.trial_folder(finished, trial) / name
            shutil.copy(source, records.trial_folder(tmp_path, trial))
        other.give_back(trial)

    monkeypatch.setattr("ftjax.sweep.work_queue.sleep", poll)
    words = "--depths 0 7 --bn follow --epochs 2".split()
    assert run(images, tmp_path, *words) == 0
    said = capsys.readouterr().out
    assert f"process {os.getpid()} on " in said and "is waited for" in said
    assert "kept 1 of 2 finished trials" in said and len(polls) == 1
    whole = table(finished)
    whole = whole[(whole.bn == "follow") & (whole.depth_layers <= 7)]
    pd.testing.assert_frame_equal(table(tmp_path), whole.reset_index(drop=True))


@pytest.mark.usefixtures("undrawn")
def test_a_finished_trial_without_optimizer_is_smaller_and_starts_anew(
    finished, images, tmp_path, capsys
):
    words = "--depths 7 --bn follow --no-keep-optimizer --epochs".split()
    assert run(images, tmp_path, *words, 1) == 0
    (trial,) = table(tmp_path).trial
    store = Checkpoints(records.trial_folder(tmp_path, trial) / "checkpoint", trial)
    names = store.restore().leaves
    store.close()
    assert any("params/" in name for name in names)
    assert not any("opt_state" in name for name in names)
    assert ftjax.load(tmp_path, 7, bn="follow").trial == trial
    assert run(images, tmp_path, *words, 2) == 0
    own, whole = (records.read_logits(out, trial) for out in (tmp_path, finished))
    np.testing.assert_array_equal(own, whole)


@pytest.mark.usefixtures("undrawn")
def test_out_of_memory_is_tried_in_smaller_parts_where_that_is_sound(
    finished, images, tmp_path, capsys, monkeypatch
):
    step = trials.train_step

    def short(suffix, state, batch, *args, **kwargs):
        parts = [*batch]
        if len(parts[0].x) > 4:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")
        return step(suffix, state, parts, *args, **kwargs)

    monkeypatch.setattr(trials, "train_step", short)
    words = "--depths 7 --epochs 2 --optimizer sgd".split()
    assert run(images, tmp_path, *words, "--bn", "follow", "frozen") == 1
    said = capsys.readouterr()
    assert "again with 8 images" in said.out and "again with 4 images" in said.out
    assert said.err.count("failed:") == 1 and "bn follow" in said.err
    status = table(tmp_path).set_index("bn").status
    assert status.to_dict() == {"follow": "failed", "frozen": "done"}
    monkeypatch.undo()
    assert run(images, tmp_path / "whole", *words, "--bn", "frozen") == 0
    own, whole = (
        records.read_logits(out, table(tmp_path).trial.iloc[1])
        for out in (tmp_path, tmp_path / "whole")
    )
    np.testing.assert_allclose(own, whole, rtol=2**-9, atol=2**-9)  # of float16


@pytest.mark.usefixtures("undrawn")
def test_a_trial_that_kills_its_process_twice_is_recorded(images, tmp_path, capsys):
    words = "--depths 0 7 --bn frozen --epochs 1".split()
    assert run(images, tmp_path, *words) == 0
    trial = table(tmp_path).trial.iloc[0]
    folder = records.trial_folder(tmp_path, trial)
    for deaths, code in ((0, 0), (1, 1), (None, 0)):
        shutil.rmtree(folder)
        if deaths is not None:  # what a process leaves that is killed
            dead = Owner("there", 1, since=0.0, epochs=0, deaths=deaths)
            write_json(folder / "owner.json", dead._asdict())
        capsys.readouterr()
        assert run(images, tmp_path, *words) == code
        error = capsys.readouterr().err
        assert ("its process died 2 times in epoch 1" in error) == (code == 1)
        assert not (folder / "owner.json").exists()


def one_done_and_one_begun(out):
    statuses = [
        json.loads(path.read_text())["status"]
        for path in out.glob("trials/*/trial.json")
    ]
    return "done" in statuses and "pending" in statuses


@pytest.mark.usefixtures("undrawn")
def test_a_failed_trial_is_listed_and_the_others_go_on(images, tmp_path, capsys):
    words = "--depths 0 7 --bn frozen --epochs 1 --optimizer sgd --lr 1e38"
    arguments = [*words.split(), "--head-start", "random"]
    assert run(images, tmp_path, *arguments) == 1
    results = table(tmp_path)
    assert (results.status == "diverged").all()
    printed = capsys.readouterr()
    assert "try a smaller --lr" in printed.err
    assert printed.err.count("diverged:") == 2


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "count",
    [1, pytest.param(3, marks=pytest.mark.slow)],  # `finished` takes as many as cores
)
def test_trials_side_by_side_have_the_numbers_of_one_after_the_other(
    finished, images, tmp_path, count
):
    arguments = "--depths 0 7 18 19 --bn follow frozen --epochs 2".split()
    assert run(images, tmp_path, *arguments, "--trials-at-once", count) == 0
    for name in ("results.csv", "epochs.csv"):
        pd.testing.assert_frame_equal(table(tmp_path, name), table(finished, name))


def test_how_many_are_trained_side_by_side(images, monkeypatch):
    def plan(**more):
        small = {"model": "tiny", "weights": "random", "data": str(images)}
        config = Config(**small, image_size=16, depths=("units",), lr=1e-4, **more)
        return prepare(complete(config))

    def arguments(sweep):
        return sweep.start, sweep.budget, sweep.plan().trials, sweep.num_images

    def count(sweep, cores=2, available=int(1e12)):
        monkeypatch.setattr(resources, "usable_cores", lambda: cores)
        monkeypatch.setattr(resources, "available_bytes", lambda: available)
        return resources.trials_at_once(*arguments(sweep))

    sweep = plan()
    cores = (1, 2, 4, 6, 8, 64)
    assert [count(sweep, number) for number in cores] == [1, 2, 2, 3, 4, 4]
    assert count(plan(trials_at_once=5)) == 5
    one, two = (resources.needed_memory(*arguments(sweep), n) for n in (1, 2))
    assert one.residuals < two.residuals
    assert one.params < two.params < 2 * one.params  # the pretrained ones are shared
    needed = sum(two)
    assert count(sweep, available=2 * needed) == 2
    assert count(sweep, available=2 * needed - 1) == 1
    assert count(plan(cache_gb=2e-4)) == 1  # not the activations of two


@pytest.mark.usefixtures("undrawn")
def test_seeds_at_once_fail_one_by_one(images, tmp_path, capsys):
    more = "--depths 7 --bn frozen --seeds 3 --seeds-at-once 2 --lr 1e38".split()
    assert run(images, tmp_path, *more, "--epochs", "2") == 1
    assert capsys.readouterr().err.count("the loss is nan in epoch 1") == 3
    assert table(tmp_path).status.tolist() == ["diverged"] * 3


def test_which_seeds_are_trained_at_once(images, tmp_path):
    config = Config(
        model="tiny",
        weights="random",
        data=str(images),
        depths=("0", "7"),
        bn=("follow",),
        lr=1e-4,
        seeds=5,
        seeds_at_once=2,
    )
    sweep = prepare(complete(config))
    trials = sweep.plan().trials
    for trial in trials:
        if trial.seed > 2:  # has an epoch already
            folder = records.trial_folder(tmp_path, trial.id) / "checkpoint"
            (folder / "1").mkdir(parents=True)
    goals = dict.fromkeys([trial.id for trial in trials], 5)
    groups = [
        (group[0].cut.depth_layers, [trial.seed for trial in group])
        for group, last in group_trials(trials, goals, sweep.budget, tmp_path)
    ]
    seeds = [[0, 1], [2], [3, 4]]
    assert groups == [(depth, group) for depth in (7, 0) for group in seeds]


def test_probes_are_kept_and_shown_beside_the_curve(images, tmp_path, capsys):
    arguments = "--depths 0 7 19 --bn follow --epochs 1 --probes".split()
    assert run(images, tmp_path, *arguments) == 0
    probes = pd.read_csv(tmp_path / "probes.csv")
    assert {0, 7, 19} <= set(probes.depth_layers)
    assert probes.ridge_accuracy.between(0, 1).all()
    assert '<figure id="probes">' in (tmp_path / "report.html").read_text()
    assert (tmp_path / "probe_curves.png").stat().st_size > 1000
    # They are read again; those of other images or weights are made anew.
    config = json.loads((tmp_path / "config.json").read_text())["config"]
    for name in ("depths", "bn"):
        config[name] = tuple(config[name])
    sweep = prepare(Config(**config))

    def write():
        plan = sweep.plan()
        write_probes(sweep.start, sweep.data, plan, tmp_path, batch_size=16)

    def replace_by(table):
        write_table(tmp_path / "probes.csv", table.to_dict("records"), table.columns)

    marked = probes.assign(logme=7.0)
    replace_by(marked)
    write()
    assert (pd.read_csv(tmp_path / "probes.csv").logme == 7).all()
    replace_by(marked.assign(data_hash="other"))
    write()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "probes.csv"), probes)


def test_plan_trains_nothing(images, tmp_path, capsys):
    fused = "--fused", "--device-gb", "1", "--trials-at-once", "2"
    assert run(images, tmp_path / "out", "--depths", "units", "--plan", *fused) == 0
    printed = capsys.readouterr().out
    assert "TFLOP in all" in printed
    assert "programs of single units" in printed
    assert "memory: at least" in printed
    assert "2 trials side by side" in printed
    assert "times the speed of single units" in printed
    assert not (tmp_path / "out" / "trials").exists()


def test_the_plan_says_from_which_step_of_a_block_is_trained(images, tmp_path, capsys):
    within = "--depths 9 --bn follow --plan".split()
    assert run(images, tmp_path / "out", *within) == 0
    assert "mb_block2 se_reduce" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--model resnet9", "unknown model 'resnet9'"),
        ("--data nowhere", "nowhere"),
        ("--data cifar10 --data-dir EMPTY", "cifar10"),
        ("--data EMPTY", "EMPTY"),
        ("--model tiny --weights random --depths 60", "depth 60 is out of range"),
        ("--model tiny --weights random --depths most", "unknown depth 'most'"),
        ("--image-size 16", "--image-size 16 is too small"),
        ("--model tiny", "--weights random"),
        ("--weights EMPTY/none.h5", "none.h5"),
        ("--weights EMPTY/bad.h5", "bad.h5"),
        ("--bn off", "unknown BatchNorm policy 'off'"),
        ("--search bayes", "unknown search 'bayes'; --search takes halving"),
        ("--search halving --depths auto", "does not go with --depths auto"),
        ("--optimizer lion", "--optimizer lion must be adam or sgd"),
        ("--batch-size 32 --micro-batch 5", "--micro-batch 5 does not divide"),
        ("--dtype half", "unknown --dtype half; it takes float32, bfloat16, auto"),
        ("--mesh data=99", "--mesh data=99 needs 99 devices"),
        (
            "--mesh data=2 --trials-at-once 2",
            "--trials-at-once 2 takes a single device",
        ),
        ("--mesh variant=2", "spreads seeds over 2 devices, but there are 1"),
        ("--mesh variant=2 --seeds-at-once 3", "--seeds-at-once 3: the 2 devices"),
        ("--distributed", "--distributed: the processes cannot be joined"),
        ("--trials-at-once 0", "--trials-at-once 0 is too small: 1 or more"),
        ("--epochs 0", "--epochs 0 must be 1 or more"),
        ("--patience 0", "--patience 0 is too small: 1 or more"),
        ("--stop-accuracy 99.5", "--stop-accuracy 99.5 must be a share in (0, 1]"),
        ("--budget 30", "--budget 30 must be a time such as 90s, 30m or 2h"),
        (
            "--budget 30m --search halving --depths units",
            "--budget does not go with --search halving",
        ),
        (
            "--depths auto --l2 0 1e-4 --lr 1e-4 1e-3",
            "--depths auto takes several values of --lr and --bn, not of --l2",
        ),
        ("--lr -1", "--lr -1.0 must be a positive number"),
        ("--disk-gb -1", "--disk-gb -1.0 must be 0 or more"),
        ("--disk-gb nan", "--disk-gb nan must be 0 or more"),
        ("--disk-gb inf", "--disk-gb inf must be 0 or more"),
        ("--device-gb -1", "--device-gb -1.0 must be 0 or more"),
        ("--model tiny --weights random --batch-size 2000", "--batch-size 2000"),
    ],
)
def test_bad_input_is_one_line_and_code_2(arguments, message, tmp_path, capsys):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "bad.h5").write_bytes(b"no weights")
    text = arguments.replace("EMPTY/", f"{tmp_path}/")
    text = text.replace("EMPTY", str(tmp_path / "EMPTY"))
    code = command.main([*text.split(), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr()
    assert code == 2
    lines = printed.err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]


def test_results_that_are_not_to_be_resumed(finished, images, capsys):
    assert run(images, finished, "--no-resume") == 2
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_a_network_without_batch_norm_has_one_curve(images, tmp_path, capsys):
    options = f"--model vgg16 --weights random --image-size 32 {PLAIN}".split()
    arguments = [*options, "--depths", "0", "--epochs", "1", "--data", str(images)]
    assert command.main([*arguments, "--out", str(tmp_path / "run")]) == 0
    assert list(table(tmp_path / "run").bn) == ["follow"]
    assert "vgg16 has no BatchNorm" in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_of_several_rates_one_that_diverges_is_an_answer(images, tmp_path, capsys):
    words = "--depths 7 9 --bn frozen --epochs 1 --lr 1e30 1e-3".split()
    assert run(images, tmp_path, *words) == 0
    results = table(tmp_path)
    assert (results.status[results.lr == 1e30] == "diverged").all()
    assert (results.status[results.lr == 1e-3] == "done").all()
    assert capsys.readouterr().err.count("diverged:") == 2
    # It would diverge again: the same command trains nothing and says the same.
    assert run(images, tmp_path, *words) == 0
    printed = capsys.readouterr()
    assert printed.err.count("diverged:") == 2
    assert "kept 2 of 4" in printed.out and "val " not in printed.out
    # Where all of them diverge there is no answer.
    words[-1] = "1e31"
    assert run(images, tmp_path, *words) == 1


@pytest.mark.usefixtures("undrawn")
def test_a_rate_is_tuned_at_every_depth_and_contenders_are_replicated(
    images, tmp_path, capsys
):
    words = f"--data {images} --out {tmp_path} --depths 0 7 --bn frozen --epochs 3"
    tiny = "--model tiny --weights random --image-size 16 --batch-size 16"
    assert command.main([*tiny.split(), *words.split()]) == 0
    results = table(tmp_path)
    done = results[results.status == "done"]
    first = results[results.seed == 0]
    assert set(first.lr) == set(RATES)
    # Every depth has a rate that went to the end; those left behind say how far.
    assert set(done.depth_layers) == {0, 7}
    stopped = results[results.status == "stopped"]
    assert stopped.epochs.isin([0, 2]).all() and stopped.val_accuracy.isna().all()
    assert stopped.lr[stopped.epochs == 0].isin([RATES[0], RATES[-1]]).all()
    # The training set is measured where a row shows it: after a trial's last epoch.
    epochs = pd.read_csv(tmp_path / "epochs.csv")
    measured = epochs[epochs.accuracy.notna()]
    assert (measured.epoch == 3).all()
    assert set(measured.trial) == set(done.trial)
    again = results[results.seed > 0]
    assert set(again.seed) == {1, 2} and (again.status == "done").all()
    assert set(zip(again.depth_layers, again.lr, strict=True)) <= set(
        zip(done.depth_layers[done.seed == 0], done.lr[done.seed == 0], strict=True)
    )
    capsys.readouterr()
    assert command.main([*tiny.split(), *words.split()]) == 0
    assert "trial 1/" not in capsys.readouterr().out  # nothing is trained again
    pd.testing.assert_frame_equal(table(tmp_path), results)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_scheduler_stops_a_command_as_ctrl_c_does(images, tmp_path, name):
    words = f"--data {images} --out {tmp_path} --depths 0 7 18 19 --epochs 200"
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.sweep", *TINY, *words.split()],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("trials/*/trial.json")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(getattr(signal, name))
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from the last epoch" in said
