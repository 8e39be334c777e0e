"""The command on `tiny`, with random weights: a run in seconds, and its tables."""

import pandas as pd

from experiments import sweep as command
from ftjax.sweep import records

TIMES = ["seconds", "compile_seconds"]
# One rate, and nothing is trained again: what a test does not ask for costs time.
LR = ["--lr", "1e-4"]
PLAIN = " ".join([*LR, "--no-replicate"])
TINY = f"--model tiny --weights random --image-size 16 --batch-size 16 {PLAIN}".split()


def without(words, more):
    """The words less those of an option that is given again."""
    return words if "--lr" not in more else [w for w in words if w not in LR]


def run(images, out, *more):
    more = [*map(str, more)]
    return command.main(
        [*without(TINY, more), "--data", str(images), "--out", str(out), *more]
    )


def table(out, name="results.csv"):
    return pd.read_csv(out / name).drop(columns=TIMES, errors="ignore")


def interrupt_after(count, monkeypatch):
    """Ctrl-C when so many epochs have been trained."""
    write, seen = records.write_trial, []

    def counted(*args, **kwargs):
        write(*args, **kwargs)
        seen.append(kwargs["status"])
        if seen.count("pending") == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(records, "write_trial", counted)
    monkeypatch.setattr("ftjax.sweep.trials.KEEP_EVERY", 0)  # every epoch is written
