"""`--budget`: what is trained first, what is left out, and how the rest follows."""

import pytest
from tiny_run import run, table

from ftjax.defaults import parse_time
from ftjax.machine.files import read_json
from ftjax.search.depths import coarse_first
from ftjax.sweep.allowance import Allowance
from ftjax.sweep.forecast import Rates

EACH = 1000.0  # seconds that a trial is said to take

pytestmark = pytest.mark.usefixtures("cache", "undrawn")


@pytest.fixture
def room(monkeypatch):
    """Call it with a number of trials that there is time for."""

    def make(count):
        done = []
        heard = Allowance.heard

        def counted(self, event):
            heard(self, event)
            done.extend([event.trial.id] * (event.status == "done"))

        left = property(lambda self: EACH * (count + 0.5 - len(done)))
        monkeypatch.setattr(Allowance, "heard", counted)
        monkeypatch.setattr(Allowance, "left", left)
        monkeypatch.setattr(Allowance, "forecast", lambda self, trial, last: EACH)
        monkeypatch.setattr(Allowance, "_passing", lambda self, trials: 0.0)
        monkeypatch.setattr(Allowance, "rates", Rates(1e9, 1e9, 0.0))

    with monkeypatch.context() as monkeypatch:
        yield make


def test_levels_of_depths():
    assert coarse_first(range(7)) == [(0, 3, 6), (1, 4), (2, 5)]
    assert coarse_first([5, 5]) == [(5,)] and coarse_first([8, 0]) == [(0, 8)]
    levels = coarse_first(range(131))
    assert sorted(sum(levels, ())) == list(range(131)) and len(levels) <= 8


def test_a_grid_begins_with_its_ends_and_goes_on(images, tmp_path, room, capsys):
    words = "--depths 0 3 7 12 18 --bn frozen --epochs 1 --lr 1e-4 1e-3".split()
    room(4)
    assert run(images, tmp_path, *words, "--budget", "2h") == 0
    results = table(tmp_path)
    done = results[results.status == "done"]
    assert len(done) == 4 and (results.status != "done").sum() == 6
    coarse = done[done.lr == 1e-4]
    assert set(coarse.depth_layers) == {0, 7, 18}  # before any other rate
    answer = read_json(tmp_path / "recommendation.json")
    assert len(answer["left_out"]["trials"]) == 6
    said = capsys.readouterr().out
    assert answer["left_out"]["sentence"].split(",")[0] in said
    assert "4 of 10 trials have ended" in answer["left_out"]["sentence"]
    assert "without --budget" in answer["left_out"]["sentence"]
    # The same command without it trains only the rest.
    assert run(images, tmp_path, *words) == 0
    assert "kept 4 of 10" in capsys.readouterr().out
    assert (table(tmp_path).status == "done").all()
    assert read_json(tmp_path / "recommendation.json")["left_out"] == {}
    assert not (tmp_path / "budget.json").exists()


@pytest.mark.parametrize("words", ["--depths auto --lr 1e-4", "--depths 0 7 --lr auto"])
def test_searches_end_where_the_time_does(images, tmp_path, room, words, capsys):
    room(2)
    words = [*words.split(), *"--bn frozen --epochs 3 --budget 2h".split()]
    assert run(images, tmp_path, *words) == 0
    assert (table(tmp_path).status == "done").sum() == 2
    assert "is spent: 2 of" in capsys.readouterr().out


def test_time_enough_trains_all_by_its_own_forecast(images, tmp_path, capsys):
    words = "--depths 0 7 --bn frozen --epochs 1 --lr 1e-4".split()
    assert run(images, tmp_path, *words, "--budget", "2h") == 0
    assert (table(tmp_path).status == "done").all()
    assert read_json(tmp_path / "recommendation.json")["left_out"] == {}


def test_no_time_at_all_is_no_failure(images, tmp_path, capsys):
    words = "--depths 0 7 --bn frozen --epochs 1 --budget 0.001s".split()
    assert run(images, tmp_path, *words) == 0
    said = capsys.readouterr().out
    assert "no answer yet" in said and "0 of 2 trials have ended" in said


def test_times():
    assert [parse_time(text) for text in ("90s", "30m", "1.5h")] == [90, 1800, 5400]
    for text in ("30", "m", "-1s", "infs", "1d", ""):
        with pytest.raises(ValueError, match="must be a time such as 90s, 30m or 2h"):
            parse_time(text)
