"""Answers as lines of text, and as plain values for ``--json``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from distclust.cli.layout import INDENT as _INDENT
from distclust.cli.layout import pair_lines as _pairs
from distclust.cli.layout import table_lines as _table
from distclust.cli.scores import sweep_files, sweep_pairs, sweep_table
from distclust.cli.text import amount_text, bytes_text, count_text, seconds_text

if TYPE_CHECKING:
    from distclust.cli.demo.show import Demo, NamedCluster
    from distclust.cli.inspection import RunView
    from distclust.cli.plan import PlanView
    from distclust.cli.verification import Verification
    from distclust.workflows.common import JobOutcome

_SHOWN_CLUSTERS = 10
_SHOWN_PASSES = 12
_LINE_WIDTH = 110


def outcome_dict(outcome: JobOutcome) -> dict[str, Any]:
    """Return the end of a job as plain values."""
    return {
        "output": outcome.output,
        "already_complete": outcome.already_complete,
        "summary": outcome.summary,
        "digests": outcome.digests,
    }


def outcome_lines(outcome: JobOutcome, more: Iterable[tuple[str, str]] = ()) -> list[str]:
    """Return the short summary at the end of a job, with further pairs of name and value."""
    if outcome.already_complete:
        head = f"{outcome.output} is complete already: nothing was done."
    else:
        head = f"{outcome.output} is complete."
    lines = [head, *_pairs([*_summary_pairs(outcome.summary), *_file_pairs(outcome), *more])]
    return [*lines, "", *sweep_table(outcome.summary)] if "candidates" in outcome.summary else lines


def inspect_lines(view: RunView) -> list[str]:
    """Return a run as text."""
    record = view.record
    inputs = record["inputs"]
    config = {key: value for key, value in record["config"].items() if value not in (None, [], "") and key != "kind"}
    lines = [
        f"{view.output}: {record['kind']}, {view.state}",
        *_pairs(
            [
                ("began", f"{record['created']} by distclust {record['versions'].get('distclust', '?')}"),
                ("finished", view.finished),
                ("engine", record["engine"]),
                (
                    "input",
                    f"{count_text(inputs['rows'])} rows × {inputs['width']} {inputs['dtype']} "
                    f"in {amount_text(len(inputs['files']), 'file')}",
                ),
                ("first file", inputs["files"][0]["uri"]),
                ("settings", "  ".join(f"{key}={value}" for key, value in config.items())),
                *_summary_pairs(view.summary),
                *((f"{name} digest", digest) for name, digest in view.digests.items()),
            ]
        ),
    ]
    medoids = record["kind"].startswith("kmedoids")
    lines += _medoid_history(view.history) if medoids else _history_lines(view.history)
    if "candidates" in view.summary:
        lines += ["", *sweep_table(view.summary)]
    if view.clusters:
        shown = view.clusters[:_SHOWN_CLUSTERS]
        lines += ["", f"Largest {len(shown)} of {count_text(view.n_clusters)} clusters"]
        sums = ("loss", "mean") if medoids else ("inertia", "mean square")
        lines += _table(
            ("cluster", "rows", *sums),
            (
                (str(one.cluster), count_text(one.size), f"{one.inertia:.6g}", f"{one.inertia / max(1, one.size):.6g}")
                for one in shown
            ),
        )
    lines += [
        "",
        "Files",
        *_table(
            ("path", "files", "size"), ((one.path, count_text(one.files), bytes_text(one.bytes)) for one in view.files)
        ),
    ]
    return lines


def plan_lines(view: PlanView) -> list[str]:
    """Return a plan as text."""
    travels = "nothing: tasks are threads of this process"
    if view.sent_bytes:
        travels = (
            f"each iteration {bytes_text(view.sent_bytes)} of centres to {view.tasks} tasks, and back at most "
            f"{bytes_text(view.returned_bytes)} of sums (later only clusters that changed)"
        )
    passes = view.seeding_passes + view.iterations + view.other_passes
    return [
        "Nothing was run or written. The job would be:",
        *_pairs(
            [
                (
                    "input",
                    f"{count_text(view.rows)} rows × {view.dimensions} {view.dtype}, "
                    f"{amount_text(view.files, 'file')}, {bytes_text(view.input_bytes)}",
                ),
                ("engine", f"{view.engine}, {view.slots} slots, {view.tasks} tasks a pass"),
                (
                    "partitions",
                    f"{count_text(view.partitions)} of at most {count_text(view.partition_rows)} rows, "
                    f"{bytes_text(view.block_bytes)} decoded",
                ),
                (
                    "scratch",
                    f"{bytes_text(view.scratch_bytes)} over all nodes; where there is no room, rows are read again",
                ),
                ("memory", f"about {bytes_text(view.task_bytes)} for a task: its block, the centres, its sums"),
                ("model", f"{bytes_text(view.model_bytes)} of centres"),
                (
                    "passes",
                    f"at most {count_text(passes)}: {view.seeding_passes} for first centres, "
                    f"{count_text(view.iterations)} iterations, {view.other_passes} others",
                ),
                ("travels", travels),
            ]
        ),
        *(f"note: {note}" for note in view.notes),
    ]


def verify_lines(found: Verification) -> list[str]:
    """Return what a check found."""
    if not found.problems:
        return [f"{found.output}: {amount_text(found.files, 'file')}, {bytes_text(found.bytes)}, all as recorded."]
    return [
        f"{found.output}: {amount_text(len(found.problems), 'problem')} in {amount_text(found.files, 'file')}",
        *(f"{_INDENT}{problem}" for problem in found.problems),
    ]


def demo_lines(shown: Demo) -> list[str]:
    """Return the clusters with their words and nearest documents, then the summary of the job."""
    lines: list[str] = []
    for one in shown.clusters:
        lines += [*_cluster_lines(one), ""]
    return [*lines, *outcome_lines(shown.outcome, [("documents", shown.documents)])]


def _cluster_lines(one: NamedCluster) -> Iterable[str]:
    yield f"cluster {one.cluster}: {amount_text(one.size, 'docstring')}: {', '.join(one.words)}"
    for document in one.nearest:
        yield f"{_INDENT}{document.distance:.2f}  {document.name}: {document.title}"[:_LINE_WIDTH]


def _summary_pairs(summary: dict[str, Any]) -> list[tuple[str, str]]:
    if not summary:
        return []
    if "candidates" in summary:
        return sweep_pairs(summary)
    empty = f", {count_text(summary['empty_clusters'])} empty" if summary["empty_clusters"] else ""
    pairs = [
        ("rows", f"{count_text(summary['rows'])} × {summary['dimensions']}"),
        (
            "clusters",
            f"{count_text(summary['clusters'])}, largest {count_text(summary['largest_cluster'])}, "
            f"smallest {count_text(summary['smallest_cluster'])}{empty}",
        ),
        *_loss_pairs(summary),
    ]
    if summary["bad_rows"]:
        pairs.insert(1, ("dropped", amount_text(summary["bad_rows"], "bad row")))
    if "balance" in summary:
        pairs += _balance_pairs(summary["balance"])
    if "depth" in summary:
        pairs.append(("tree", f"{amount_text(summary['passes'], 'pass')}, at most {summary['depth']} splits deep"))
    if "log_likelihood" in summary:
        pairs += _mixture_pairs(summary)
    if "ppp" in summary:
        pairs += _ppp_pairs(summary["ppp"])
    if summary.get("strategy") == "two-level":
        pairs.append(("levels", _levels_text(summary)))
        pairs.append(("iterations", amount_text(summary["iterations"], "pass") + " over all rows"))
    elif "iterations" in summary:
        end = "converged" if summary["converged"] else "stopped at --max-iter"
        pairs.append(("iterations", f"{summary['iterations']}, {end}"))
    stages = "  ".join(f"{stage} {seconds_text(seconds)}" for stage, seconds in summary["seconds"].items())
    return [*pairs, ("time", stages)]


def _mixture_pairs(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what a mixture adds: the projection, the kind of covariance, likelihood and criteria."""
    pairs = []
    projection = summary["projection"]
    if projection is not None:
        parts = ["columns of unit variance"] if projection["zscore"] else []
        if projection["pca"]:
            share = f"{projection['explained']:.2%} of the variance"
            parts.append(f"{projection['components']} of {projection['of']} principal axes, {share}")
        pairs.append(("projection", "; ".join(parts)))
    pairs.append(("mixture", f"{summary['covariance_type']}, {count_text(summary['parameters'])} parameters"))
    if summary["reg_covar_raised"]:
        pairs.append(("reg_covar", f"raised to {summary['reg_covar']:.3g}: a covariance was singular"))
    criteria = "  ".join(f"{name.upper()} {summary[name]:.8g}" for name in ("bic", "aic", "icl"))
    return [*pairs, ("likelihood", f"{summary['log_likelihood']:.8g} a row  {criteria}")]


def _ppp_pairs(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what PPP adds: verdicts, stability, what it looked at, what it took."""
    clusters = f"{found['valid_clusters']} of them, stability {found['stability']:.3f}"
    rounds = amount_text(found["rounds"], "round")
    return [
        ("valid", clusters if found["clusterable"] else "one cluster: the rows are not clusterable"),
        ("separable", f"{amount_text(found['separable_rows'], 'row')}, {amount_text(found['kept_columns'], 'column')}"),
        ("outliers", amount_text(found["outliers"], "row") if found["outliers"] else ""),
        ("mixture", f"{found['covariance_type']}, {amount_text(found['dimensions'], 'dimension')}"),
        ("passes", f"{found['levels']} to cut cells, {found['passes']} of the mixture, {rounds} of validation"),
    ]


def _levels_text(summary: dict[str, Any]) -> str:
    """Return in how many cells clusters were found, and how rows are labelled."""
    cells = f"{count_text(summary['n_cells'])} cells; labels by the nearest of "
    if summary["labels"] == "nearest":
        return cells + "all centres"
    probes, share = summary["label_probes"], 100 * summary["label_exact_share"]
    return f"{cells}the centres in {probes} cells, which is the nearest of all for {share:.3g} % of sampled rows"


def _loss_pairs(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the inertia; of k-medoids the loss, and what found the medoids."""
    if "loss" not in summary:
        return [("inertia", f"{summary['inertia']:.10g}")]
    pairs = [("loss", f"{summary['loss']:.10g}")]
    if "medoid_silhouette" in summary:
        pairs.append(("silhouette", f"{summary['medoid_silhouette']:.6g} (medoid silhouette)"))
        if summary["choices"]:
            tried = sorted(one["k"] for one in summary["choices"])
            pairs.append(("k", f"{summary['clusters']}, chosen from {tried[0]} to {tried[-1]}"))
        pairs.append(("found by", f"{summary['method']}, {amount_text(summary['swaps'], 'swap')}"))
    return pairs


def _balance_pairs(balance: dict[str, Any]) -> list[tuple[str, str]]:
    """Return sizes and cost beside those of labels by the nearest centre."""
    low, high = balance["target_smallest"], balance["target_largest"]
    target = f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
    sizes = f"{count_text(balance['smallest'])} to {count_text(balance['largest'])}, wanted {target}"
    before = f"{count_text(balance['nearest_smallest'])} to {count_text(balance['nearest_largest'])}"
    pairs = [("sizes", f"{sizes}; by the nearest centre {before}")]
    if balance["cost_ratio"] is not None:
        pairs.append(("cost", f"{balance['cost_ratio']:.4f} of the inertia by the nearest centre"))
    if balance["unassigned"]:
        pairs.append(("left out", amount_text(balance["unassigned"], "row")))
    return pairs


def _file_pairs(outcome: JobOutcome) -> list[tuple[str, str]]:
    if "candidates" in outcome.summary:
        return sweep_files(outcome.output, outcome.summary)
    root = outcome.output.rstrip("/")
    fitted = outcome.summary.keys() & {"iterations", "depth", "medoid_silhouette"}
    model = [("model", f"{root}/model/centers.parquet")] if fitted else []
    if "medoid_silhouette" in outcome.summary:
        model.append(("medoids", f"{root}/model/medoids.parquet"))
    if "depth" in outcome.summary:
        model.append(("tree", f"{root}/model/tree.parquet"))
    if "ppp" in outcome.summary:
        model += [("model", f"{root}/model/centers.parquet"), ("report", f"{root}/stats/ppp.json: distclust explain")]
    if outcome.summary.keys() & {"log_likelihood", "ppp"}:
        model.append(("mixture", f"{root}/model/mixture.parquet"))
    return [*model, ("labels", f"{root}/labels/"), ("manifest", f"{root}/manifest.json")]


def _medoid_history(history: Sequence[dict[str, Any]]) -> list[str]:
    """Return the passes of k-medoids; a pass that moved medoids to central rows counts as one that reassigned."""
    rows = [
        (
            str(entry["iteration"]),
            "centre" if entry["reassigned"] else "swap",
            f"{entry['inertia']:.8g}",
            count_text(entry["moved"]),
            f"{entry['seconds']:.3f}",
        )
        for entry in history
    ]
    title = f"History: {amount_text(len(rows), 'pass')}; losses are estimates by the batch or the sample"
    return ["", title, *_table(("pass", "of", "loss", "medoids", "seconds"), rows)] if rows else []


def _history_lines(history: Sequence[dict[str, Any]]) -> list[str]:
    if not history:
        return []
    header: tuple[str, ...] = ("pass", "inertia", "shift", "moved", "reassigned", "seconds")
    cells = _lloyd_cells
    if "log_likelihood" in history[0]:
        header, cells = ("pass", "log-likelihood", "change", "reg_covar", "seconds"), _likelihood_cells
    rows = [cells(entry) for entry in history]
    title = f"History: {amount_text(len(rows), 'pass')}"
    if len(rows) > _SHOWN_PASSES:
        head, tail = rows[: _SHOWN_PASSES // 2], rows[-_SHOWN_PASSES // 2 :]
        rows = [*head, ("...", *[""] * (len(header) - 1)), *tail]
        title += "; all with --json"
    return ["", title, *_table(header, rows)]


def _lloyd_cells(entry: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(entry["iteration"]),
        f"{entry['inertia']:.8g}",
        f"{entry['shift']:.4g}",
        count_text(entry["moved"]),
        str(entry["reassigned"]),
        f"{entry['seconds']:.3f}",
    )


def _likelihood_cells(entry: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(entry["iteration"]),
        f"{entry['log_likelihood']:.8g}",
        f"{entry['change']:.4g}",
        f"{entry['reg_covar']:.3g}",
        f"{entry['seconds']:.3f}",
    )
