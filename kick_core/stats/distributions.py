"""Normal, Student's and binomial distributions, from scipy.special.

scipy.stats has the same under better names, but takes a second to import; every page and command would pay it.
"""

from __future__ import annotations

from scipy import special


def normal_quantile(p: float) -> float:
    """The z below which a share p of the standard normal distribution lies.

    Args:
        p: In [0, 1].
    """
    return float(special.ndtri(p))


def normal_cumulative(z: float) -> float:
    """The share of the standard normal distribution below z.

    Args:
        z: In standard deviations.
    """
    return float(special.ndtr(z))


def student_cumulative(t: float, freedom: float) -> float:
    """The share of Student's distribution below t.

    Args:
        t: The statistic.
        freedom: Degrees of freedom.
    """
    return float(special.stdtr(freedom, t))


def student_p(t: float, freedom: float) -> float:
    """Two-sided p of Student's t.

    Args:
        t: The statistic.
        freedom: Degrees of freedom.
    """
    return 2 * student_cumulative(-abs(t), freedom)


def student_quantile(confidence: float, freedom: float) -> float:
    """The t between whose negative and itself a share of Student's distribution lies.

    Args:
        confidence: The share.
        freedom: Degrees of freedom.
    """
    return float(special.stdtrit(freedom, (1 + confidence) / 2))


def fair_coin(heads: int, tosses: int) -> float:
    """The probability of at most so many heads with a fair coin.

    Args:
        heads: At most `tosses`.
        tosses: How often it is tossed.
    """
    return float(special.bdtr(heads, tosses, 0.5))
