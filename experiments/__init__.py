"""Commands; one file per question."""

from multiprocessing import current_process

from ftjax.machine.heap import use_one_arena

# Other frameworks that the benchmark starts (`experiments.peers`) keep their own ways.
if current_process().name in ("MainProcess", "ftjax"):
    use_one_arena()
