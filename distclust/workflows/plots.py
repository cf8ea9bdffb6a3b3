"""Plots of scores as SVG. The one module that imports matplotlib, itself imported when a plot is wanted."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_SCORES = (
    ("elbow", "inertia", "inertia", True),
    ("simplified_silhouette", "simplified_silhouette", "simplified silhouette", False),
    ("calinski_harabasz", "calinski_harabasz", "Calinski-Harabasz", False),
)
"""Choice that is marked, score that is drawn, its name, whether its axis is logarithmic."""
_INCHES_WIDE, _INCHES_HIGH = 12.0, 3.6

# Text as text: small files that can be searched. The salt makes the same plot the same bytes.
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "distclust"}


def draw_sweep(candidates: Sequence[dict[str, Any]], best: dict[str, int | None]) -> bytes:
    """Draw the scores of a sweep over k, the chosen k marked in each.

    Parameters
    ----------
    candidates : sequence of dict
        With ``k`` and the scores, as in sweep.json.
    best : dict
        k by each choice, or None.

    Returns
    -------
    bytes
        SVG.
    """
    figure = Figure(figsize=(_INCHES_WIDE, _INCHES_HIGH), layout="constrained")
    for axes, (choice, score, name, logarithmic) in zip(figure.subplots(1, len(_SCORES)), _SCORES, strict=True):
        _draw(axes, [(one["k"], one[score]) for one in candidates if one[score] is not None], best[choice])
        title = f"{'elbow' if logarithmic else name}: k = {best[choice] or 'none'}"
        axes.set(xlabel="k", ylabel=name, title=title, xscale="log")
        if logarithmic and all(one[score] > 0 for one in candidates):
            axes.set_yscale("log")
        ks = [one["k"] for one in candidates]
        axes.set_xticks(ks, [str(k) for k in ks], rotation=45 if len(ks) > 8 else 0)
        axes.set_xticks([], minor=True)
    out = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _draw(axes: Axes, points: list[tuple[int, float]], chosen: int | None) -> None:
    axes.plot([k for k, _ in points], [score for _, score in points], marker="o", markersize=4)
    axes.grid(alpha=0.3)
    marked = [point for point in points if point[0] == chosen]
    axes.plot([k for k, _ in marked], [s for _, s in marked], "o", markersize=11, fillstyle="none", color="tab:red")
