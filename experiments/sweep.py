"""How many top layers should I unfreeze? Trains at many depths and says.

    python -m experiments.sweep
    python -m experiments.sweep --model effnetlite0 --data my_pictures/ --seeds 3

Exit codes: 0 all trials done, 1 some failed (listed), 2 bad arguments or input.
"""

import os
import shlex
import sys
import time
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from ftjax.config import Config, complete, to_json

LOG_WIDTH = 160  # columns of a log file; a terminal has its own


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    config = tyro.cli(
        Config, prog="python -m experiments.sweep", args=arguments, description=__doc__
    )
    console = Console()
    if not (console.is_terminal or console.is_jupyter):
        console = Console(width=LOG_WIDTH)
    try:
        return run(config, console)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from the last epoch")
        return 130


def run(config: Config, console: Console) -> int:
    """Loads, trains what is missing, writes the answer."""
    errors = Console(stderr=True)
    try:
        config = complete(config)
        # JAX starts here, not at import, so that a wrong argument is answered at once.
        from experiments.progress import Display
        from ftjax import environment, sweep
        from ftjax.results import read_correct, write_results

        environment.keep_freed_memory()
        environment.use_compilation_cache()
        setup = sweep.prepare(config)
        out = open_folder(config)
    except ValueError as error:
        errors.print(f"error: {error}", highlight=False, soft_wrap=True, markup=False)
        return 2
    print_plan(setup, console)
    if config.plan:
        return 0
    start = time.perf_counter()
    command = "python -m experiments.sweep " + shlex.join(sys.argv[1:])
    environment.write_run(out, to_json(config), command, setup.dataset.class_names)
    failed = []
    with Display(setup, console) as display:
        for event in sweep.run(setup, out):
            display.show(event)
            if event.status in ("done", "failed", "kept"):
                write_results(setup, out)
            if event.status == "failed":
                failed.append(event)
    results, epochs = write_results(setup, out)
    answer(setup, out, results, epochs, read_correct(setup, out), command, console)
    console.print(f"{time.perf_counter() - start:.0f} s in all; results in {out}")
    for event in failed:
        cut = event.trial.cut
        errors.print(
            f"failed: top {cut.depth_layers} layers, bn {event.trial.policy}, seed "
            f"{event.trial.seed}: {event.message}",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
    return 1 if failed else 0


def open_folder(config: Config) -> Path:
    """The folder of the results.

    Raises:
        ValueError: it cannot be written, or holds results that are not to be resumed.
    """
    out = config.out
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {out} cannot be made: {error.strerror}") from None
    if not os.access(out, os.W_OK):
        raise ValueError(f"--out {out} cannot be written; choose another folder")
    if not config.resume and any(out.iterdir()):
        raise ValueError(
            f"--no-resume, but {out} is not empty; remove it, or choose another --out"
        )
    return out


def print_plan(setup, console: Console) -> None:
    """What will be trained, before anything is."""
    config, dataset, plan = setup.config, setup.dataset, setup.plan
    console.print(
        f"[bold]{config.model}[/bold] ({setup.weights}) on {dataset.name}: "
        f"{len(dataset.train.labels)} training and {len(dataset.val.labels)} "
        f"validation pictures of {len(dataset.class_names)} classes at "
        f"{config.image_size} pixels",
        highlight=False,
    )
    console.print(
        f"{len(plan.requests)} rows, {len(plan.trials)} trainings of {config.epochs} "
        "epochs: depths "
        + " ".join(str(d) for d in sorted({r.cut.depth_layers for r in plan.requests}))
        + f" of {len(setup.network.layers)} layers, bn {' '.join(config.bn)}, "
        f"{config.seeds} seed" + "s" * (config.seeds > 1),
        highlight=False,
    )
    if config.weights == "random":
        console.print(
            "[yellow]random weights: the curve says nothing about transfer[/yellow]"
        )
    if config.plan:
        print_forecast(setup, console)


def print_forecast(setup, console: Console) -> None:
    """FLOPs and memory of every training."""
    from ftjax.plan import trainable_params, trial_flops
    from ftjax.prefix import boundary_bytes

    config = setup.config
    train, val = len(setup.dataset.train.labels), len(setup.dataset.val.labels)
    sizes = boundary_bytes(setup.network, config.image_size)
    table = Table("Layers", "Blocks", "BN", "Seed", "Parameters", "Stored before", "GB")
    table.add_column("TFLOP", justify="right")
    total = 0.0
    for trial in setup.plan.trials:
        boundary = setup.boundaries[trial.id]
        flops = trial_flops(
            trial.cut,
            setup.cost,
            boundary=boundary,
            epochs=config.epochs,
            steps=train // config.batch_size,
            batch_size=config.batch_size,
            evaluated=train + val,
            recalibrated=train if trial.policy == "recalibrate" else 0,
        )
        total += flops
        table.add_row(
            str(trial.cut.depth_layers),
            str(trial.cut.depth_units),
            trial.policy,
            str(trial.seed),
            f"{trainable_params(setup.network, trial.cut, setup.cost):,}",
            setup.network.units[boundary].name,
            f"{sizes[boundary] * (train + val) / 1e9:.2f}",
            f"{flops / 1e12:.2f}",
        )
    console.print(table)
    console.print(f"{total / 1e12:.1f} TFLOP in all")


def answer(setup, out, results, epochs, correct, command, console: Console) -> None:
    """Table, figures, report and the sentence."""
    from ftjax import environment
    from ftjax.analysis import plots, report
    from ftjax.analysis.recommend import recommend
    from ftjax.records import write_json

    console.print(result_table(results))
    if not (results.status == "done").any():
        console.print("no trial is done, so there is no answer yet")
        return
    recommendation = recommend(
        results,
        correct,
        num_classes=len(setup.dataset.class_names),
        batch_norm=any(unit.batch_norm_keys for unit in setup.network.units),
    )
    write_json(out / "recommendation.json", recommendation.to_json())
    plots.save(plots.depth_curve(results, recommendation), out / "depth_curve")
    report.write_report(
        out / "report.html",
        results=results,
        epochs=epochs,
        recommendation=recommendation,
        config=to_json(setup.config),
        environment=environment.describe(),
        command=command,
    )
    for warning in recommendation.warnings:
        console.print(f"warning: {warning}", style="yellow", highlight=False)
    for sentence in recommendation.explanation:
        console.print(sentence, highlight=False)
    console.print(recommendation.sentence, style="bold", highlight=False)


def result_table(results) -> Table:
    """The paper's table (Philip 2025, table 3), with what it leaves out."""
    table = Table()
    for name in ("Layers Unfreeze", "Blocks", "BN", "Seed"):
        table.add_column(name, justify="right", no_wrap=name == "BN")
    numbers = {
        "Accuracy": "accuracy",
        "Loss": "loss",
        "Val-accuracy": "val_accuracy",
        "Val-loss": "val_loss",
        "Train-mode accuracy": "train_mode_accuracy",
    }
    for name in (*numbers, "Seconds", "Frozen intact"):
        table.add_column(name, justify="right")
    for row in results.itertuples():
        cells = [str(row.depth_layers), str(row.depth_units), row.bn, str(row.seed)]
        if row.status == "done":
            cells += [f"{getattr(row, column):.4f}" for column in numbers.values()]
            cells += [f"{row.seconds:.1f}", "yes" if row.frozen_intact else "NO"]
        else:
            cells += [row.status]
        table.add_row(*cells)
    return table


if __name__ == "__main__":
    sys.exit(main())
