"""Shares of a whole number in proportion to masses, exactly, within bounds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def apportion(total: int, mass: Ints, most: Ints) -> Ints:
    """Share a number out in proportion to masses, none above its bound.

    Everyone with mass and room gets one, the rest goes by largest remainders. What someone has no room for goes to the
    others. Integers throughout.

    Parameters
    ----------
    total : int
        What to share.
    mass : (m,) int64
        Not negative.
    most : (m,) int64
        Largest share of each.

    Returns
    -------
    (m,) int64
        Their sum is ``total``, or that of all room, if this is less. With fewer to share than there are takers, the
        heaviest get one each.

    Examples
    --------
    >>> apportion(10, np.array([5, 3, 1, 0]), np.array([9, 2, 9, 9])).tolist()
    [6, 2, 2, 0]
    """
    weights, room = [int(value) for value in mass], [int(value) for value in most]
    takers = sorted((g for g in range(len(weights)) if weights[g] > 0 and room[g] > 0), key=lambda g: (-weights[g], g))
    shares = [0] * len(weights)
    for g in takers[:total]:
        shares[g] = 1
    rest = total - len(takers)
    open_ = [g for g in takers if room[g] > 1]
    while rest > 0 and open_:
        whole = sum(weights[g] for g in open_)
        full = [g for g in open_ if rest * weights[g] >= (room[g] - 1) * whole]
        for g in full:
            shares[g] = room[g]
        if full:
            rest -= sum(room[g] - 1 for g in full)
            open_ = [g for g in open_ if shares[g] == 1]
            continue
        for g in open_:
            shares[g] += rest * weights[g] // whole
        left = rest - sum(rest * weights[g] // whole for g in open_)
        for g in sorted(open_, key=lambda g: (-(rest * weights[g] % whole), g))[:left]:
            shares[g] += 1
        rest = 0
    return np.array(shares, np.int64)
