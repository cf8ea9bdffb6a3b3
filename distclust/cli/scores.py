"""Scores as lines of text: of a finished run, and of a sweep over numbers of clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distclust.cli.layout import pair_lines, table_lines
from distclust.cli.text import amount_text, count_text, seconds_text

if TYPE_CHECKING:
    from distclust.workflows.evaluate import RunScores

_UNIT = "higher, at most 1"

_CHOICES = {
    "elbow": "elbow",
    "simplified_silhouette": "silhouette",
    "calinski_harabasz": "Calinski-Harabasz",
}
"""Ways to choose k, by their key in the summary, as a reader calls them."""


def evaluation_lines(scores: RunScores) -> list[str]:
    """Return the scores of a run as text."""
    found = scores.as_dict()
    balance, weight, truth = found["balance"]["rows"], found["balance"]["weight"], found["truth"]
    empty = f", {count_text(balance['empty'])} empty" if balance["empty"] else ""
    dropped = f", {amount_text(found['bad_rows'], 'bad row')} left out" if found["bad_rows"] else ""
    lines = [
        f"{found['run']}: {found['kind']}, {found['metric']}",
        *pair_lines(
            [
                ("rows", f"{count_text(found['rows'])} × {found['dimensions']}{dropped}"),
                ("clusters", f"{count_text(found['clusters'])}{empty}"),
                ("time", seconds_text(found["seconds"])),
            ]
        ),
        "",
        *table_lines(
            ("score", "value", "better"),
            [
                ("inertia", f"{found['inertia']:.10g}", "lower"),
                ("silhouette (squared Euclidean)", _number(found["silhouette"]), _UNIT),
                ("simplified silhouette", _number(found["simplified_silhouette"]), _UNIT),
                ("Davies-Bouldin", _number(found["davies_bouldin"]), "lower"),
                ("Calinski-Harabasz", _number(found["calinski_harabasz"]), "higher"),
            ],
        ),
        "",
        *_balance_lines(balance, weight),
    ]
    if truth is not None:
        unknown = f", {amount_text(truth['unknown'], 'row')} without" if truth["unknown"] else ""
        lines += [
            "",
            f"Against column {truth['column']!r}: {count_text(truth['rows'])} rows of "
            f"{amount_text(truth['n_classes'], 'class')}{unknown}",
            *table_lines(
                ("score", "value", "better"),
                [
                    ("adjusted Rand index", _number(truth["adjusted_rand"]), _UNIT),
                    (
                        "normalized mutual information",
                        _number(truth["normalized_mutual_information"]),
                        _UNIT,
                    ),
                    ("purity", _number(truth["purity"]), _UNIT),
                ],
            ),
        ]
    return lines


def _balance_lines(rows: dict[str, Any], weight: dict[str, Any]) -> list[str]:
    names = {
        "max_share": "largest cluster's share",
        "gini": "Gini coefficient",
        "largest_over_smallest": "largest / smallest, not empty",
    }
    if rows == weight:
        return table_lines(("balance", "rows"), [(name, f"{rows[key]:.6g}") for key, name in names.items()])
    cells = [(name, f"{rows[key]:.6g}", f"{weight[key]:.6g}") for key, name in names.items()]
    return table_lines(("balance", "rows", "weight"), cells)


def sweep_pairs(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what a sweep found, as pairs of name and value."""
    pairs = [("rows", f"{count_text(summary['rows'])} × {summary['dimensions']}")]
    if summary["bad_rows"]:
        pairs.append(("dropped", amount_text(summary["bad_rows"], "bad row")))
    by = "  ".join(f"{name} {summary['best'][key] or 'none'}" for key, name in _CHOICES.items())
    stages = "  ".join(f"{stage} {seconds_text(seconds)}" for stage, seconds in summary["seconds"].items())
    return [*pairs, ("k by", by), ("time", stages)]


def sweep_table(summary: dict[str, Any]) -> list[str]:
    """Return a line for each k."""
    return table_lines(
        ("k", "inertia", "silhouette", "Calinski-Harabasz", "largest", "smallest", "iterations"),
        [
            (
                str(one["k"]),
                f"{one['inertia']:.8g}",
                _number(one["simplified_silhouette"]),
                _number(one["calinski_harabasz"]),
                count_text(one["largest_cluster"]),
                count_text(one["smallest_cluster"]),
                f"{one['iterations']}{'' if one['converged'] else ', --max-iter'}",
            )
            for one in summary["candidates"]
        ],
    )


def sweep_files(output: str, summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the places of a sweep's files."""
    root = output.rstrip("/")
    plot = f"{root}/{summary['plot']}" if summary["plot"] else "none: pip install 'distclust[report]' draws one"
    return [
        ("table", f"{root}/sweep.parquet"),
        ("plot", plot),
        ("models", f"{root}/models/k{summary['candidates'][0]['k']} ..."),
        ("manifest", f"{root}/manifest.json"),
    ]


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.8g}"
