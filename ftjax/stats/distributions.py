"""Student t and F tail areas from the incomplete beta function, in plain Python.

SciPy is not a dependency of the analysis, and a closed handful of tail areas is all
that least squares needs.
"""

import math
from statistics import NormalDist

_TINY = 1e-300


def _beta_continued_fraction(a: float, b: float, x: float) -> float:
    """Continued fraction of I_x(a, b), DLMF 8.17.22, by Lentz's algorithm."""
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > _TINY else _TINY)
    value = d
    for m in range(1, 500):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 + term * d
            d = 1.0 / (d if abs(d) > _TINY else _TINY)
            c = 1.0 + term / (c if abs(c) > _TINY else _TINY)
            value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return value


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularized incomplete beta function I_x(a, b), for a, b > 0 and 0 <= x <= 1.

    Source: DLMF 8.17.2 with the continued fraction 8.17.22; the symmetry 8.17.4 keeps
    the fraction in the range where it converges fast.
    """
    if not (a > 0 and b > 0 and 0.0 <= x <= 1.0):
        raise ValueError(
            f"incomplete_beta needs a > 0, b > 0 and 0 <= x <= 1, got {a}, {b}, {x}"
        )
    if x in (0.0, 1.0):
        return x
    log_front = (
        math.lgamma(a + b)
        - math.lgamma(a)
        - math.lgamma(b)
        + a * math.log(x)
        + b * math.log1p(-x)
    )
    if x < (a + 1.0) / (a + b + 2.0):
        return math.exp(log_front) * _beta_continued_fraction(a, b, x) / a
    return 1.0 - math.exp(log_front) * _beta_continued_fraction(b, a, 1.0 - x) / b


def student_t_two_sided(t: float, dof: float) -> float:
    """P(|T| > |t|) of Student's t with `dof` degrees of freedom (DLMF 8.17 form)."""
    if math.isnan(t) or dof <= 0:
        return math.nan
    return incomplete_beta(dof / 2.0, 0.5, dof / (dof + t * t))


def student_t_quantile(probability: float, dof: float) -> float:
    """Upper quantile: the t > 0 with P(T <= t) = `probability`, 0.5 < probability < 1.

    Found by bisection on `student_t_two_sided`; nan when `dof` <= 0.
    """
    if not 0.5 < probability < 1.0:
        raise ValueError(f"probability must lie in (0.5, 1), got {probability}")
    if dof <= 0:
        return math.nan
    tail = 2.0 * (1.0 - probability)
    low, high = 0.0, 1.0
    while student_t_two_sided(high, dof) > tail:
        high *= 2.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if student_t_two_sided(middle, dof) > tail:
            low = middle
        else:
            high = middle
        if high - low <= 1e-14 * high:
            break
    return 0.5 * (low + high)


def f_survival(f: float, numerator_dof: float, denominator_dof: float) -> float:
    """P(F > f) of Fisher's F distribution; nan when a number of dof is <= 0."""
    if math.isnan(f) or numerator_dof <= 0 or denominator_dof <= 0:
        return math.nan
    if f <= 0.0:
        return 1.0
    x = denominator_dof / (denominator_dof + numerator_dof * f)
    return incomplete_beta(denominator_dof / 2.0, numerator_dof / 2.0, x)


def wilson_interval(
    right: int, count: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of a share (Wilson 1927), 0..1.

    Args:
        right: how many of them.
        count: how many in all, one or more.
        confidence: 0..1.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, more = right / count, z**2 / count
    center = (share + more / 2) / (1 + more)
    half = z * math.sqrt(share * (1 - share) / count + more / (4 * count))
    half /= 1 + more
    return max(0.0, center - half), min(1.0, center + half)
