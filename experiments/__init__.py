"""Commands; one file per question."""

from multiprocessing import current_process

from ftjax.heap import accelerator_installed, use_one_arena

# Other frameworks that the benchmark starts (`experiments.peers`) keep their own ways.
own = current_process().name in ("MainProcess", "ftjax")
if own and not accelerator_installed():
    use_one_arena()
