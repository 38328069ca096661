"""Before a run: how many questions show a difference, and how small a difference shows.

All three are exact for :func:`orch_local.stats.mcnemar_exact`, unconditionally: on how many questions the two
systems differ is not known before the run, so power is averaged over it. Shares are of all questions:
``gained`` is first right and second wrong, ``lost`` the other way round, ``discordant`` their sum, and
``difference`` is gained - lost, that of the two accuracies.

Source: Schork & Williams (1980), Communications in Statistics B 9:349. Neither scipy nor statsmodels has it;
the distributions are scipy's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from orch_local.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_TAIL = 1e-13
"""Numbers of differing questions beyond this probability, on either side, are left out of the sum."""
_MOST = 10**8
"""More questions than anybody asks."""
_SMOOTH = 30.0
"""From this variance of the number of differing questions on, power rises with n without teeth."""
_HAIR = 1e-12


class _Outlook(NamedTuple):
    """What the number of differing questions may be, and what the test then asks for."""

    differing: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]
    """Probability of each."""
    cutoff: npt.NDArray[np.int64]
    """The test rejects where the smaller of gained and lost is at most this; -1: it never does."""

    def power(self, gained: float) -> float:
        """Chance of rejecting where ``gained`` is this share of the differing questions."""
        from scipy.stats import binom

        tails = binom.cdf(self.cutoff, self.differing, gained) + binom.cdf(
            self.cutoff, self.differing, 1 - gained
        )
        return min(float(self.weight @ tails), 1.0)


def mcnemar_power(n: int, gained: float, lost: float, alpha: float = 0.05) -> float:
    """Chance that the exact two-sided McNemar test on ``n`` questions gives p at most ``alpha``.

    0 without questions, and where the systems never differ. With ``gained`` = ``lost`` it is the size of the
    test, at most ``alpha``. Tails of the number of differing questions below 1e-13 are left out.

    Raises
    ------
    InputError
        For shares that are negative or sum to more than 1, a negative ``n``, or ``alpha`` outside 0 and 1.
    """
    discordant = _rounded(gained + lost)
    _check_share("alpha", alpha)
    if n < 0 or not (gained >= 0 and lost >= 0 and discordant <= 1):
        raise InputError(
            f"{n} questions, {gained:g} gained and {lost:g} lost make no sense together",
            hint="the shares of questions gained and lost are not negative and sum to at most 1",
        )
    if n * discordant < _TAIL:
        return 0.0
    return _outlook(n, discordant, alpha).power(gained / (gained + lost))


def minimum_detectable(n: int, discordant: float, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Smallest difference of the two accuracies that ``n`` questions show with the wanted power.

    Parameters
    ----------
    n:
        Questions on which both are scored.
    discordant:
        Share of questions on which exactly one of the two is right; the difference is at most this.
    power, alpha:
        Wanted chance to see the difference; greatest chance of a false alarm.

    Returns
    -------
    ``None`` where even a difference of ``discordant`` does not show: too few questions.

    Raises
    ------
    InputError
        For a share outside 0 and 1, or ``power`` not above ``alpha``.
    """
    _check_wanted(discordant, power, alpha)
    if n * discordant < _TAIL:
        return None
    from scipy.optimize import brentq

    outlook = _outlook(n, discordant, alpha)

    def surplus(difference: float) -> float:
        return outlook.power((1 + difference / discordant) / 2) - power

    if surplus(discordant) < 0:
        return None
    # The root may lie a hair on the side of too little power.
    return min(float(brentq(surplus, 0.0, discordant, xtol=_HAIR)) + 2 * _HAIR, discordant)


def questions_needed(
    difference: float, discordant: float, power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """Smallest number of questions from which on the difference shows with at least the wanted power.

    The power of an exact test has teeth: one question more may lower it a little. The number given holds for
    itself and for all larger ones.

    Parameters
    ----------
    difference:
        Of the two accuracies; 0 or more, at most ``discordant``.
    discordant, power, alpha:
        As in :func:`minimum_detectable`.

    Returns
    -------
    ``None`` where no number is enough: for a difference of 0, or one that needs about 100 million questions.

    Raises
    ------
    InputError
        For a share outside 0 and 1, a difference above ``discordant``, or ``power`` not above ``alpha``.
    """
    _check_wanted(discordant, power, alpha)
    if not 0 <= difference <= discordant:
        raise InputError(
            f"a difference of {difference:g} does not go with {discordant:g} of the questions differing",
            hint="the difference is 0 or more, and at most the share of questions where exactly one is right",
        )
    gained = (1 + difference / discordant) / 2
    about = _normal_size(difference, discordant, power, alpha)
    if about > _MOST:
        return None

    @cache
    def enough(n: int) -> bool:
        return _outlook(n, discordant, alpha).power(gained) >= power - _HAIR

    low, high = _bracket(enough, math.ceil(about), math.ceil(2 / difference))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    if high * discordant * (1 - discordant) > _SMOOTH:
        return high
    # high is enough and one less is not, but a few more may not be either: teeth go on for some 2 sqrt(n).
    beyond = range(high + 3 * math.isqrt(high) + 16, high, -1)
    return next((n + 1 for n in beyond if not enough(n)), high)


def _normal_size(difference: float, discordant: float, power: float, alpha: float) -> float:
    """Where to start looking. Source: Connor (1987), Biometrics 43:207."""
    from scipy.special import ndtri

    if not difference:
        return math.inf
    spread = math.sqrt(max(discordant - difference**2, 0.0))
    root = (float(ndtri(1 - alpha / 2)) * math.sqrt(discordant) + float(ndtri(power)) * spread) / difference
    return max(root * root, 1.0)


def _bracket(enough: Callable[[int], bool], start: int, step: int) -> tuple[int, int]:
    """Two numbers of questions near ``start``: the first is not enough, or 0; the second is."""
    low = high = start
    while not enough(high):
        low, high, step = high, high + step, 2 * step
    while low and enough(low):
        high, low, step = low, max(low - step, 0), 2 * step
    return low, high


def _outlook(n: int, discordant: float, alpha: float) -> _Outlook:
    import numpy as np
    from scipy.stats import binom

    low, high = binom.ppf(_TAIL, n, discordant), binom.isf(_TAIL, n, discordant)
    differing = np.arange(int(low), int(high) + 1)
    return _Outlook(differing, binom.pmf(differing, n, discordant), _cutoffs(differing, alpha))


def _cutoffs(differing: npt.NDArray[np.int64], alpha: float) -> npt.NDArray[np.int64]:
    """The largest k with 2 * P(Binomial(differing, 1/2) <= k) <= alpha; -1 where there is none."""
    import numpy as np
    from scipy.stats import binom

    allowed = alpha / 2 * (1 + 1e-12)  # p = alpha rejects, whatever the last bit of the float says
    # The smallest k whose probability reaches what is allowed: itself if it does so exactly, else one below.
    reach = np.maximum(binom.ppf(allowed, differing, 0.5), 0)
    return (reach - (binom.cdf(reach, differing, 0.5) > allowed)).astype(np.int64)


def _check_wanted(discordant: float, power: float, alpha: float) -> None:
    _check_share("alpha", alpha)
    _check_share("power", power)
    if not 0 < discordant <= 1:
        raise InputError(
            f"the share of differing questions must be above 0 and at most 1, not {discordant:g}",
            hint="two systems of 70 % and 75 % differ on 5 % of the questions at least",
        )
    if power <= alpha:
        raise InputError(f"a power of {power:g} is reached by chance alone, with alpha {alpha:g}")


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise InputError(
            f"{name} must be between 0 and 1, not {value:g}", hint="usual are alpha 0.05, power 0.8"
        )


def _rounded(share: float) -> float:
    """A sum of shares, without the last bit by which 0.7 + 0.3 may exceed 1."""
    return 1.0 if 1 < share < 1 + 1e-12 else share
