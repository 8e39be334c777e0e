"""How far a run is, while it runs and after it."""

import shutil

import pytest
from tiny_run import run, table

from experiments import status as command
from ftjax.machine.files import write_json
from ftjax.sweep import records
from ftjax.sweep.claims import Claims, Owner
from ftjax.sweep.status import TrialStatus, seconds_left


@pytest.mark.usefixtures("undrawn")
def test_what_is_done_running_failed_and_left(images, tmp_path, capsys):
    words = "--depths 0 7 18 19 --bn frozen --epochs 1".split()
    assert run(images, tmp_path, *words) == 0
    capsys.readouterr()
    assert command.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == "4 trials: 4 done, 0 running, 0 failed, 0 left\n"
    running, failed, left, _ = table(tmp_path).trial
    for trial in (running, left):
        shutil.rmtree(records.trial_folder(tmp_path, trial))
    dead = Owner("there", 1, since=0.0, epochs=0)  # nobody holds its lock
    write_json(records.trial_folder(tmp_path, left) / "owner.json", dead._asdict())
    records.write_trial(
        tmp_path, failed, canonical={}, status="failed", epochs=[], message="no [b]luck"
    )
    claims = Claims(tmp_path)
    claims.take(running)
    assert command.main([str(tmp_path)]) == 0
    claims.give_all_back()
    said = capsys.readouterr().out
    assert said.startswith("4 trials: 1 done, 1 running, 1 failed, 1 left\n")
    assert "running  top 0 layers  bn frozen  seed 0: 0 of 1 epochs kept, proc" in said
    assert "failed  top 7 layers  bn frozen  seed 0: no [b]luck" in said
    assert "time left about " in said
    assert command.main([str(tmp_path / "trials")]) == 2


def test_time_left_is_by_work_and_processes():
    def trial(status, had, owner=None):
        return TrialStatus("", status, had, 4, 8e9, 10.0 * had, owner=owner)

    here, there = Owner("a", 1, 0.0, 0), Owner("b", 1, 0.0, 0)
    trials = [trial("done", 4), trial("left", 0), trial("failed", 1)]
    assert seconds_left(trials) == 40
    trials += [trial("running", 1, here), trial("running", 1, there)]
    assert seconds_left(trials) == (40 + 30 + 30) / 2
    assert seconds_left([trial("left", 0)]) is None
