"""Why the clusters of PPP are what they are, as lines of text."""

from __future__ import annotations

from typing import Any

from distclust.cli.layout import INDENT, pair_lines, table_lines
from distclust.cli.text import amount_text, count_text

_MOST_COLUMNS = 40
_MOST_PATH = 12


def explanation_lines(report: dict[str, Any]) -> list[str]:
    """Return a report as text."""
    found = amount_text(report["clusters"], "cluster")
    head = f"{found}." if report["clusterable"] else "One cluster: the rows are not clusterable."
    searched = report["searched"]
    lines = [
        head,
        *pair_lines(
            [
                ("rows seen as", _coordinates(report)),
                (
                    "search",
                    f"{count_text(report['cells'])} cells; lowest BIC at "
                    f"{amount_text(searched['components'], 'component')}, {report['covariance_type']} covariances",
                ),
                ("validation", amount_text(report["rounds"], "round")),
                ("stability", f"{report['stability']:.3f} (mean Jaccard index over six halves of the rows)"),
                (
                    "separable",
                    f"{amount_text(report['separable_rows'], 'row')} of valid clusters with probability 0.95",
                ),
                ("outliers", amount_text(report["outliers"], "row") if report["outliers"] else ""),
                ("columns", report["refit"]),
            ]
        ),
        "",
        "Clusters",
        *table_lines(
            ("cluster", "rows", "verdict", "overlap", "posterior", "stability"),
            [
                (
                    str(one["cluster"]),
                    count_text(one["rows"]),
                    "valid" if one["valid"] else "not valid",
                    f"{one['overlap']:.3f}",
                    f"{one['posterior']:.3f}",
                    f"{one['stability']:.3f}",
                )
                for one in report["verdicts"]
            ],
        ),
        *(f"{INDENT}{one['cluster']}: {'; '.join(one['reasons'])}." for one in report["verdicts"] if not one["valid"]),
        *_split_lines(report["splits"]),
        *_path_lines(report["path"]),
        *_column_lines(report["columns"]),
        "",
        "Clusterability",
        *table_lines(
            ("", "trace", "Hopkins", "dip", "several modes"),
            [
                (
                    name,
                    f"{one['trace']:.4g}",
                    "none" if one["hopkins"] is None else f"{one['hopkins']:.3f}",
                    f"{one['dip']:.4f}",
                    "yes" if one["dip_rejects"] else "no",
                )
                for name, one in report["clusterability"].items()
            ],
        ),
    ]
    return lines


def _coordinates(report: dict[str, Any]) -> str:
    if report["principal_components"]:
        share = f"{report['explained_variance']:.1%} of the variance"
        return f"{amount_text(report['dimensions'], 'principal component')} that keep {share}"
    return amount_text(report["dimensions"], "scaled column")


def _split_lines(splits: list[dict[str, Any]]) -> list[str]:
    if not splits:
        return ["", "Splits: none was in doubt."]
    rows = [
        (
            str(one["round"]),
            "{} | {}".format(*one["clusters"]),
            f"{one['distance']:.2f}",
            f"{one['valley']:.2f}",
            " ".join(count_text(rows) for rows in one["rows"]),
            f"{one['anderson_darling']:.1f}",
            f"{one['dip']:.3f}",
            f"{one['icl_change']:+.0f}",
            one["reason"],
        )
        for one in splits
    ]
    header = ("round", "split", "distance", "valley", "rows at, between, at", "A*2", "dip", "ICL if one", "why")
    return ["", "Splits, numbered as in their round", *table_lines(header, rows)]


def _path_lines(path: list[dict[str, Any]]) -> list[str]:
    best = sorted(path, key=lambda one: one["bic"])[:_MOST_PATH]
    rows = [
        (str(one["n_components"]), one["covariance_type"], f"{one['bic']:.1f}", f"{one['icl']:.1f}") for one in best
    ]
    return ["", "Path: lowest BIC over the cells", *table_lines(("components", "covariances", "BIC", "ICL"), rows)]


def _column_lines(columns: list[dict[str, Any]]) -> list[str]:
    if not columns:
        return []
    shown = sorted(columns, key=lambda one: -one["between"])[:_MOST_COLUMNS]
    rows = [
        (
            str(one["column"]),
            "yes" if one["separable"] else "no",
            f"{one['between']:.3f}",
            f"{one['information']:.4f}",
            f"{one['p']:.2g}",
        )
        for one in shown
    ]
    header = ("column", "separates", "variance between", "information", "p")
    return ["", "Columns, of the fit to all", *table_lines(header, rows)]
