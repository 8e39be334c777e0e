"""Is what the product says true? Judged on made sweeps of which the truth is known.

    ftjax simulate --out experiments/simulate.md    200 sweeps a cell
    ftjax simulate --quick                          about a minute

Shapes of curves, run-to-run noise that grows with depth, seeds, validation images with
errors that are correlated over depths; a full grid, one run with replicates of what may
be the best, halving, and the search over depths. Two CPU cores: a quarter of an hour.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.progress import track

from ftjax.cli.console import guard, parse, refuse
from ftjax.machine.paths import expand_user
from ftjax.search.simulate import Case, Summary, cases, simulate, summarize

FEW_IMAGES_MORE = 6  # times as many sweeps with 100 images: they are quick
SLOW = (
    "auto",
    "halving",
    "surface grid",
    "surface auto",
)  # a search asks many times: fewer sweeps of these
QUICK, FULL = 60, 200
TITLES = {
    "grid": "Every depth with so many seeds",
    "replicates": "The default: one run of each depth, three of what may be the best",
    "halving": "Halving, then three runs of what is left: the set is about those",
    "auto": "The search over 19 depths (its interval; ties count as held)",
    "surface grid": "19 depths times four rates, the best depth moves: every cell once",
    "surface auto": "The same surfaces, the search over depths and rates",
}
COLUMNS = (
    "shape | noise | images | seeds | holds the best | claims | wrong | set | "
    "before: holds | before: set | bias, measured | bias, corrected | regret | runs"
)
HEAD = """# What the answer is worth, on sweeps of known truth

    ftjax simulate --out experiments/simulate.md

writes this file ({sweeps} sweeps a line, {many} with 100 images, {slow} of halving and
the search; first number {first}; the standard error of a share of 95 % over {sweeps}
sweeps is {stderr:.1f} points, that of a bias at 100 images about {error:.2f} points).

- noise: standard deviation of a run in points, from the head to the deepest cut.
- holds the best: sweeps whose set (the depths that are as good as can be told) holds
  the truly best depth; of several equal ones the shallowest.
- claims: sweeps that call any depth worse than the best; wrong: sweeps that call a
  truly best depth worse.
- set: share of the depths that are in it.
- before: the rule that this one replaced, the percentile interval of the winner, which
  with one seed knew no run-to-run noise.
- bias: accuracy of the named depth, as measured and as corrected, less the true one, in
  points (with one seed the true accuracy of that run, else of the depth).
- regret: what the named depth truly lacks to the best, in points.
- runs: trials per depth.

With one seed the run-to-run noise is assumed; the product says so and names no
confidence.
"""


def judge(case: Case, *, sweeps: int, first: int) -> Summary:
    """Judges the sweeps of one case."""
    count = sweeps_of(case, sweeps)
    return summarize([simulate(case, first + number) for number in range(count)])


def sweeps_of(case: Case, sweeps: int) -> int:
    """Number of sweeps of a case: fewer of slow ones, more where accuracies scatter."""
    if case.mode in SLOW:
        return max(1, sweeps // 2)
    return FEW_IMAGES_MORE * sweeps if case.images == 100 else sweeps


def line(case: Case, found: Summary) -> str:
    """One line of the table."""

    def share(value: float) -> str:
        return "" if value != value else f"{100 * value:.1f} %"

    def points(value: float) -> str:
        return "" if value != value else f"{100 * value:+.2f}"

    cells = [
        case.shape,
        f"0.5 to {100 * case.deepest:g}",
        str(case.images),
        str(case.seeds),
        share(found.covered),
        share(found.claims),
        share(found.wrong),
        share(found.size),
        share(found.before_covered),
        share(found.before_size),
        points(found.raw_bias),
        points(found.bias),
        points(found.regret),
        f"{found.runs:.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def tables(found: Sequence[tuple[Case, Summary]]) -> Iterable[str]:
    """A table for each mode, its extremes first."""
    for mode, title in TITLES.items():
        rows = [(case, s) for case, s in found if case.mode == mode]
        if not rows:
            continue
        covered = min(s.covered for _, s in rows)
        wrong = max(s.wrong for _, s in rows)
        few = [abs(s.bias) for c, s in rows if c.images == 100 and s.bias == s.bias]
        text = f"Least share that holds the best: {100 * covered:.1f} %"
        text += f"; most sweeps with a wrong claim: {100 * wrong:.1f} %"
        text += f"; of all claims {100 * _pooled(rows):.1f} % are wrong"
        if few:
            text += f"; largest bias at 100 images: {100 * max(few):.2f} points"
        lost = [s.lost for _, s in rows]
        if mode == "halving":
            mean = 100 * sum(lost) / len(lost)
            text += f"; the best was stopped early in {mean:.1f} %"
        yield f"\n## {title}\n\n{text}.\n"
        yield f"| {COLUMNS} |"
        yield "|---" * len(COLUMNS.split("|")) + "|"
        yield from (line(case, summary) for case, summary in rows)


def _pooled(rows: Sequence[tuple[Case, Summary]]) -> float:
    claims = sum(s.claims for _, s in rows)
    return sum(s.wrong for _, s in rows) / max(claims, 1e-9)


@dataclass(frozen=True)
class Options:
    """Judges the answer on made sweeps of known truth."""

    sweeps: int | None = None
    """Of each kind. Default: 200; 60 with --quick."""
    first: int = 0
    """Number of the first one."""
    quick: bool = False
    """Fewer kinds and sweeps."""
    jobs: int = os.cpu_count() or 1
    """Processes."""
    out: Path | None = None
    """Markdown file. Default: print."""


@guard()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parse(Options, arguments, prog="ftjax simulate", description=__doc__)
    sweeps = options.sweeps
    if sweeps is None:
        sweeps = QUICK if options.quick else FULL
    if sweeps < 1 or options.first < 0 or options.jobs < 1:
        return refuse(
            ValueError("--sweeps and --jobs must be 1 or more, --first 0 or more")
        )
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of the processes
    kinds = cases(quick=options.quick)
    work = partial(judge, sweeps=sweeps, first=options.first)
    console = Console(stderr=True)
    # Not forked: a process that has begun threads, as JAX does, must not be.
    context = get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
        done = pool.map(work, kinds)
        if console.is_terminal:
            done = track(done, "sweeps", total=len(kinds), console=console)
        found = list(zip(kinds, done, strict=True))
    head = HEAD.format(
        sweeps=sweeps,
        slow=max(1, sweeps // 2),
        many=FEW_IMAGES_MORE * sweeps,
        error=2.8 / (FEW_IMAGES_MORE * sweeps) ** 0.5,
        first=options.first,
        stderr=100 * (0.95 * 0.05 / sweeps) ** 0.5,
    )
    text = head + "\n".join(tables(found)) + "\n"
    if options.out is None:
        print(text)
    else:
        expand_user(options.out).write_text(text, encoding="utf-8")
    return 0
