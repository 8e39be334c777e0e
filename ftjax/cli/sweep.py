"""How many top layers should I unfreeze? Trains at many depths and says.

    ftjax sweep
    ftjax sweep --model effnetlite0 --data my_images/ --seeds 3

Exit codes: 0 all trials done, 1 some failed (listed), 2 bad arguments or input, 3 a
file cannot be read or written (disk full, damaged), 130 stopped by Ctrl-C.
"""

import shlex
import signal
import sys
import time
from collections.abc import Sequence

from ftjax.axes import varied
from ftjax.cli.console import guard, make_console, parse, print_error, refuse
from ftjax.config import Config, axis_values


@guard()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    config = parse(Config, words, prog="ftjax sweep", description=__doc__)
    console = make_console()
    began = time.perf_counter()
    own_process = arguments is None  # nobody else has JAX arrays in it, or garbage
    # JAX starts here, not at import: --help and a wrong argument are answered at once.
    from ftjax import session
    from ftjax.cli.answer import AnswerSoFar, write_answer
    from ftjax.cli.plan_table import print_forecast
    from ftjax.machine import peers
    from ftjax.machine.mesh import is_first_process
    from ftjax.report.progress import Display, print_plan
    from ftjax.sweep.cores import one_core_each
    from ftjax.sweep.engines import open_engine
    from ftjax.sweep.events import ENDED_BADLY
    from ftjax.sweep.run import run

    if own_process:
        stop_alike()
    try:
        try:
            session.start_jax(config, own_process=own_process)
            console.quiet = not is_first_process()
            sweep, out = session.load(config)
            engine = open_engine(sweep.config, out)
        except ValueError as error:
            code = refuse(error)
            peers.abandon(code)  # the others may have met no error
            return code
        print_plan(sweep, console)
        if config.plan:
            forecast = print_forecast(sweep, console)
            if forecast is not None:
                session.record_forecast(out, forecast)
            peers.leave()
            return 0
        session.record(sweep, out, "ftjax sweep " + shlex.join(words))
        if own_process and config.engine == "local":
            sweep = one_core_each(sweep)
        so_far = AnswerSoFar(out, console)
        allowance = session.make_allowance(sweep, out, began)
        with engine as elsewhere, Display(console, began=began) as display:
            heard = [so_far.heard] if is_first_process() else []
            listen = session.make_listener(sweep, out, display.show, *heard)
            begin = display.begin_round
            outcome = run(sweep, out, listen, begin, allowance, train_round=elsewhere)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from the last epoch")
        peers.abandon(130)
        return 130
    if is_first_process():
        took = time.perf_counter() - began
        session.record_time(out, seconds=took, forecast=display.forecast)
        if outcome.left:
            console.print(
                f"shard {sweep.config.shard} has ended its trials; {len(outcome.left)} "
                "of other shards have not ended. The same command without --shard adds "
                "what is missing and gives the answer"
            )
        else:
            left_out = session.report_allowance(allowance, outcome, out)
            score = session.make_scorer(sweep, outcome, out)
            write_answer(out, outcome.results, outcome.epochs, console, score)
            if left_out:
                console.print(left_out)
        console.print(f"{took:.0f} s in all; results in {out}")
        for event in outcome.failed.values():
            print_error(f"{event.status}: {event.trial.describe()}: {event.message}")
    peers.leave()
    # Of several settings, one that diverges is an answer if another one does not.
    several = bool(varied(axis_values(sweep.config)))
    answered = several and bool((outcome.results["status"] == "done").any())
    bad = ("failed",) if answered else ENDED_BADLY
    return 1 if any(e.status in bad for e in outcome.failed.values()) else 0


def stop_alike() -> None:
    """A scheduler's SIGTERM and a closed terminal's SIGHUP stop as Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), stop)
