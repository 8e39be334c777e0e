"""Learning-rate schedules: a factor for every step of a trial."""

import numpy as np


def rate_factors(
    schedule: str, *, steps: int, epochs: int, warmup: float = 0.0
) -> np.ndarray:
    """Factors on the learning rate, float32 (epochs * steps,).

    Args:
        schedule: `constant`; `cosine`, which falls from 1 to 0 over the trial
            (Loshchilov and Hutter 2017, SGDR, equation 5, without restarts); or
            `one-over-t:TAU`, 1 / (1 + t / TAU) with t and TAU in epochs.
        steps: per epoch.
        epochs: of the trial.
        warmup: epochs in which the rate rises linearly from 0.
    """
    step = np.arange(steps * epochs, dtype=np.float64)
    name, _, tau = schedule.partition(":")
    factors = np.ones_like(step)
    if name == "cosine":
        factors = 0.5 * (1 + np.cos(np.pi * step / len(step)))
    elif name == "one-over-t":
        factors = 1 / (1 + step / steps / float(tau))
    if warmup:
        factors *= np.minimum(1.0, (step + 1) / (warmup * steps))
    return factors.astype(np.float32)
