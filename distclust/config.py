"""Jobs as data: what the command line and job files say, checked before anything runs.

A job has keys of two kinds. *What* keys decide the result and are part of the run's identity; *how* keys (engine,
memory, scratch, ...) do not change a bit of it.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from distclust.algorithms.balanced_config import BalancedConfig
from distclust.algorithms.bisecting_config import BisectingConfig, Strategy, TreeLabels
from distclust.algorithms.kmeans_config import KMeansConfig, StrategyName
from distclust.algorithms.kmedoids_config import KMedoidsConfig, Method
from distclust.algorithms.mixture_config import MixtureConfig, MixtureInit, covariance_for
from distclust.algorithms.ppp_config import Covariance, Features, PPPConfig, Scaling
from distclust.errors import UsageError, nearest_name

J = TypeVar("J", bound=BaseModel)

_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kmgt]?i?b?)", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_bytes(value: object) -> object:
    """Turn ``"256MB"``, ``"1.5GiB"`` or a number into bytes; units are powers of 1024.

    Raises
    ------
    ValueError
        Anything else.
    """
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is not a size; write for example 256MB, 4GB or a number of bytes")
    power = _POWERS[match["unit"].lower().rstrip("b").rstrip("i")]
    return int(float(match["number"]) * 1024**power)


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str | Path) else value


def _as_counts(value: object) -> object:
    """Turn ``"10,20,50"`` or one number into the numbers; they come in ascending order, each once."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int) else value


def _ascending(value: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(set(value)))


def _least_memory(value: int | None) -> int | None:
    if value is not None and value < 64 << 20:
        raise ValueError(f"{value} bytes are too few; at least 64MB are needed")
    return value


def _as_shares(value: object) -> object:
    """Turn ``"1,2,2"`` into numbers; words stay."""
    if isinstance(value, str) and value not in ("uniform", "model"):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _with_balanced(value: object, info: ValidationInfo) -> object:
    assert info.field_name is not None
    if not info.data.get("balanced") and value != AssignJob.model_fields[info.field_name].default:
        raise ValueError("it is for balanced assignment only; add --balanced (balanced = true)")
    return value


def _without_top(value: bool, info: ValidationInfo) -> bool:
    if value and info.data.get("top") is not None:
        raise ValueError("it may put a row elsewhere than into the first of its --top clusters; leave out one of both")
    return value


def _without_draws(value: str | None, info: ValidationInfo) -> str | None:
    for name in ("init", "n_init"):
        if value is not None and info.data.get(name) != LloydJob.model_fields[name].default:
            raise ValueError(f"its centres are the first ones; leave out {name}, which asks for others")
    return value


def _needed_without_start(value: int | None, info: ValidationInfo) -> int | None:
    if value is None and info.data.get("warm_start") is None:
        raise PydanticCustomError("missing", "Field required")
    return value


def _as_k(value: object) -> object:
    """Turn ``"20"`` into a number; ``"auto"`` stays."""
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    if number != "auto" and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
        raise ValueError("an integer of at least 1, or 'auto', is needed")
    return number


def _as_metric(value: object) -> object:
    if isinstance(value, str) and not value.isidentifier():
        raise ValueError(
            "a function is a metric in Python only (KMedoids(metric=function)): a job loads no code that its file or "
            "its command line names"
        )
    return value


def _with_gower(value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    if value and info.data.get("metric", "gower") != "gower":
        raise ValueError("it is for metric 'gower' only; add --metric gower (metric = \"gower\")")
    return value


def _as_components(value: object) -> object:
    """Turn ``"64"`` into a number of components, ``"0.95"`` into a share of the variance."""
    if isinstance(value, str):
        value = float(value) if "." in value or "e" in value.lower() else int(value)
    return value


def _components(value: int | float | None) -> int | float | None:
    if value is None or (isinstance(value, int) and value >= 1) or (isinstance(value, float) and 0 < value < 1):
        return value
    raise ValueError("it must be a number of components, at least 1, or a share of the variance between 0 and 1")


def _regularisation(value: object) -> object:
    return float(value) if isinstance(value, str) and value != "auto" else value


Components = Annotated[int | float | None, BeforeValidator(_as_components), AfterValidator(_components)]
Size = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0)]
Memory = Annotated[Size | None, AfterValidator(_least_memory)]
Paths = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
Counts = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...],
    BeforeValidator(_as_counts),
    AfterValidator(_ascending),
    Field(min_length=1),
]


class EngineJob(BaseModel):
    """What all jobs on an engine share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: str = Field("local", description="local, local[N], dask, dask://host:port, spark, spark://host:port.")
    memory: Memory = Field(None, description="Most memory of each process beyond the interpreter, as 256MB.")
    scratch: str | None = Field(None, description="Directory on a local disk for the node cache.")
    target_bytes: Size | None = Field(None, description="Bytes of a partition; default: from the memory.")


class DataJob(EngineJob):
    """What all jobs over a dataset share."""

    how: ClassVar[frozenset[str]] = frozenset(
        {"output", "engine", "memory", "scratch", "overwrite", "target_bytes", "checkpoint_seconds"}
    )
    """Keys that do not change the result."""

    data: Paths = Field(description="Files, directories or globs of Parquet, Arrow IPC or .npy; any pyarrow URI.")
    column: str | None = Field(None, description="Column of the vectors: a list or one number.")
    columns: tuple[str, ...] = Field((), description="Numeric columns that together are the vector.")
    id_column: str | None = Field(None, description="Column copied into the labels; default: the global row id.")
    on_bad_rows: Literal["error", "drop"] = Field("error", description="NaN, infinity; zero rows under cosine.")
    output: str = Field(description="Run directory, or URI.")
    overwrite: bool = Field(False, description="Replace the output, at the very end.")

    def what(self) -> dict[str, Any]:
        """Return the keys that decide the result, as plain values."""
        return {k: v for k, v in self.model_dump(mode="json").items() if k not in self.how and k != "data"}

    def how_keys(self) -> dict[str, Any]:
        """Return the other keys, as plain values."""
        return {k: v for k, v in self.model_dump(mode="json").items() if k in self.how}


class LloydJob(DataJob):
    """What jobs that run k-means share: all but the number of clusters."""

    how: ClassVar[frozenset[str]] = DataJob.how | {"algorithm"}

    weight_column: str | None = Field(None, description="Column of non-negative row weights.")
    init: Literal["k-means||", "k-means++", "random"] = Field("k-means||", description="Seeding.")
    metric: Literal["euclidean", "cosine"] = Field("euclidean", description="Distance; cosine uses unit rows.")
    max_iter: int = Field(100, ge=1, description="Most passes of one initialisation.")
    tol: float = Field(1e-4, ge=0, description="Stop at this share of the mean variance as centre movement.")
    rtol: float = Field(1e-4, ge=0, description="Stop when a pass gains less than this share of inertia.")
    fit_mode: Literal["auto", "full", "progressive"] = Field(
        "auto",
        description="First passes on samples, and most by lists of near centres: never, always, or where it pays.",
    )
    algorithm: Literal["auto", "lloyd"] = Field(
        "auto", description="auto skips distances that bounds exclude; lloyd keeps no bounds. The bits are the same."
    )
    n_init: int = Field(1, ge=1, description="Initialisations; the best is kept.")
    seed: int = Field(0, ge=0, lt=2**64, description="Key of all random draws.")
    precision: Literal["float32", "float64"] = Field("float32", description="Type in which rows are compared.")
    allow_fewer: bool = Field(False, description="Accept fewer clusters where fewer rows are distinct.")
    checkpoint_seconds: float = Field(0.0, ge=0, description="Least seconds between checkpoints; 0: every pass.")

    def settings_for(self, n_clusters: int) -> KMeansConfig:
        """Return the settings of the algorithm for one number of clusters."""
        return KMeansConfig(
            n_clusters=n_clusters,
            init=self.init,
            metric=self.metric,
            max_iter=self.max_iter,
            tol=self.tol,
            rtol=self.rtol,
            fit_mode=self.fit_mode,
            algorithm=self.algorithm,
            n_init=self.n_init,
            seed=self.seed,
            allow_fewer=self.allow_fewer,
        )


class KMeansJob(LloydJob):
    """k-means over a dataset: model, labels, manifest."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["k"]}, {"required": ["warm_start"]}]})

    how: ClassVar[frozenset[str]] = LloydJob.how | {"warm_start"}
    """Where the model to start from lies does not change the result; its digest goes into the run's identity."""

    kind: Literal["kmeans"] = "kmeans"
    warm_start: Annotated[str | None, AfterValidator(_without_draws)] = Field(
        None, description="Run or model directory whose centres to start from."
    )
    n_clusters: Annotated[int | None, AfterValidator(_needed_without_start)] = Field(
        None,
        ge=1,
        alias="k",
        validation_alias="k",
        validate_default=True,
        description="Number of clusters; with a warm start, that of its centres.",
    )

    strategy: StrategyName = Field(
        "auto", description="two-level clusters inside cells: for very many clusters; auto does so from 20 000 on."
    )

    def settings(self, start: npt.NDArray[np.floating] | None = None) -> KMeansConfig:
        """Return the settings of the algorithm, with the centres to start from where there are some."""
        if start is not None:
            return replace(self.settings_for(len(start)), init=start, strategy=self.strategy)
        assert self.n_clusters is not None
        return replace(self.settings_for(self.n_clusters), strategy=self.strategy)


class SweepJob(LloydJob):
    """k-means with several numbers of clusters at once, and scores to choose by."""

    kind: Literal["sweep"] = "sweep"
    n_clusters: Counts = Field(
        alias="k", validation_alias="k", description="Numbers of clusters to try, such as 10,20,50,100."
    )


class BisectJob(DataJob):
    """Bisecting k-means over a dataset: a tree of clusters, labels, manifest."""

    kind: Literal["bisect"] = "bisect"
    n_clusters: int = Field(ge=1, alias="k", validation_alias="k", description="Number of clusters.")
    weight_column: str | None = Field(None, description="Column of non-negative row weights.")
    bisecting_strategy: Strategy = Field("biggest_inertia", description="Which cluster is split next.")
    labels: TreeLabels = Field("tree", description="Label rows down the tree, or by the nearest of all centres.")
    metric: Literal["euclidean", "cosine"] = Field("euclidean", description="Distance; cosine uses unit rows.")
    max_iter: int = Field(20, ge=1, description="Most two-means passes of one split.")
    rtol: float = Field(1e-4, ge=0, description="A split is done when a pass gains less than this share of inertia.")
    precision: Literal["float32", "float64"] = Field("float32", description="Type in which rows are compared.")
    allow_fewer: bool = Field(False, description="Accept fewer clusters where fewer rows are distinct.")
    checkpoint_seconds: float = Field(0.0, ge=0, description="Least seconds between checkpoints; 0: every pass.")

    def settings(self) -> BisectingConfig:
        """Return the settings of the algorithm."""
        return BisectingConfig(
            n_clusters=self.n_clusters,
            bisecting_strategy=self.bisecting_strategy,
            labels=self.labels,
            metric=self.metric,
            max_iter=self.max_iter,
            rtol=self.rtol,
            allow_fewer=self.allow_fewer,
        )


class GMMJob(DataJob):
    """A Gaussian mixture over a dataset: components, soft labels, a model, a manifest."""

    kind: Literal["gmm"] = "gmm"
    n_components: int = Field(ge=1, alias="k", validation_alias="k", description="Number of components.")
    weight_column: str | None = Field(None, description="Column of non-negative row weights.")
    covariance_type: Literal["auto", "full", "tied", "diag", "spherical"] = Field(
        "auto", description="Shape of the components; auto: the richest that rows and dimensions can pay for."
    )
    zscore: bool = Field(False, description="Scale the columns to unit variance first.")
    pca: Components = Field(
        None, description="Principal axes to project rows on: their number, or the share of the variance to keep, 0.95."
    )
    top: int = Field(0, ge=0, description="List so many components of each row, with responsibilities, in the labels.")
    init_params: MixtureInit = Field("kmeans", description="What the start is made of.")
    max_iter: int = Field(100, ge=1, description="Most passes of one initialisation.")
    tol: float = Field(1e-3, ge=0, description="Stop when the mean log-likelihood of a row changes by less.")
    reg_covar: Annotated[Literal["auto"] | Annotated[float, Field(ge=0)], BeforeValidator(_regularisation)] = Field(
        "auto", description="Added to variances; auto: 1e-6 of their mean. Raised where a covariance is singular."
    )
    n_init: int = Field(1, ge=1, description="Initialisations; the best is kept.")
    seed: int = Field(0, ge=0, lt=2**64, description="Key of all random draws.")
    precision: Literal["float32", "float64"] = Field("float64", description="Type of the centred rows.")
    checkpoint_seconds: float = Field(0.0, ge=0, description="Least seconds between checkpoints; 0: every pass.")

    def settings(self, n_rows: int, width: int) -> MixtureConfig:
        """Return the settings of the algorithm for so many rows of a width."""
        chosen = self.covariance_type
        return MixtureConfig(
            n_components=self.n_components,
            covariance_type=covariance_for(n_rows, self.n_components, width) if chosen == "auto" else chosen,
            init_params=self.init_params,
            max_iter=self.max_iter,
            tol=self.tol,
            reg_covar=self.reg_covar,
            n_init=self.n_init,
            seed=self.seed,
        )


class KMedoidsJob(DataJob):
    """k-medoids over a dataset, under any dissimilarity: model, labels, manifest."""

    kind: Literal["kmedoids"] = "kmedoids"
    n_clusters: Annotated[int | Literal["auto"], BeforeValidator(_as_k)] = Field(
        alias="k", validation_alias="k", description="Number of clusters; auto chooses by medoid silhouette."
    )
    k_max: int = Field(50, ge=2, description="Largest number of clusters that -k auto tries.")
    metric: Annotated[
        Literal[
            "euclidean",
            "sqeuclidean",
            "cosine",
            "manhattan",
            "chebyshev",
            "hamming",
            "jaccard",
            "haversine",
            "gower",
        ],
        BeforeValidator(_as_metric),
    ] = Field("euclidean", description="Dissimilarity; gower is for columns of numbers and categories.")
    categorical: Annotated[tuple[str, ...], AfterValidator(_with_gower)] = Field(
        (), description="With gower, columns of integers that are categories."
    )
    weight_column: str | None = Field(None, description="Column of non-negative row weights.")
    method: Method = Field("auto", description="auto takes fasterpam where the matrix fits, else onebatch and clara.")
    max_iter: int = Field(20, ge=1, description="Most swap passes.")
    rtol: float = Field(5e-3, ge=0, description="Passes end when one gains less than this share of the loss.")
    n_samples: int = Field(5, ge=1, description="Samples of clara.")
    sample_size: int | None = Field(None, ge=1, description="Rows of a sample of clara; default: 80 + 4 k.")
    batch_size: int | None = Field(None, ge=1, description="Columns of the batch of onebatch; default: 100 ln(n k).")
    matrix_bytes: Size = Field(
        512 << 20, ge=1, description="Largest distance matrix, as 512MB; decides the method, whatever the machine has."
    )
    seed: int = Field(0, ge=0, lt=2**64, description="Key of all random draws.")
    checkpoint_seconds: float = Field(0.0, ge=0, description="Least seconds between checkpoints; 0: every pass.")

    def settings(self) -> KMedoidsConfig:
        """Return the settings of the algorithm."""
        return KMedoidsConfig(
            n_clusters=self.n_clusters,
            k_max=self.k_max,
            metric=self.metric,
            method=self.method,
            max_iter=self.max_iter,
            rtol=self.rtol,
            n_samples=self.n_samples,
            sample_size=self.sample_size,
            batch_size=self.batch_size,
            matrix_bytes=self.matrix_bytes,
            seed=self.seed,
        )


class PPPJob(DataJob):
    """PPP over a dataset: clusters that validate themselves, without k; soft labels, a report, a model, a manifest."""

    kind: Literal["ppp"] = "ppp"
    weight_column: str | None = Field(None, description="Column of non-negative row weights.")
    max_clusters: int = Field(64, ge=1, description="Most clusters that are tried.")
    covariance_type: Covariance = Field("auto", description="Shape of the clusters; auto: that of lowest BIC.")
    scaling: Scaling = Field("robust", description="Scale of the columns: of their middle 98 %, whitened, or none.")
    explained_variance: float = Field(
        0.9, gt=0, le=1, description="From 33 columns on: share of the variance that principal components keep."
    )
    max_components: int = Field(32, ge=1, description="Most principal components.")
    features: Features = Field("auto", description="auto leaves out columns that do not separate the clusters.")
    max_valley: float = Field(0.9, gt=0, le=1, description="Clusters are one if density hardly falls between them.")
    min_overlap: float = Field(0.75, gt=0, le=1, description="Jaccard index from which a cluster is valid.")
    min_posterior: float = Field(0.9, gt=0, le=1, description="Mean probability from which a cluster is valid.")
    max_iter: int = Field(10, ge=1, description="Most passes of the mixture in each round of validation.")
    reg_covar: float = Field(1e-4, gt=0, description="Added to variances, relative to the scale of the columns.")
    top: int = Field(0, ge=0, description="List so many clusters of each row, with their probabilities.")

    def settings(self) -> PPPConfig:
        """Return the settings of the algorithm."""
        return PPPConfig(**{name: getattr(self, name) for name in PPPConfig.__dataclass_fields__})


class AssignJob(DataJob):
    """Labels of new rows under a finished model."""

    how: ClassVar[frozenset[str]] = DataJob.how | {"model"}
    """Where the model lies does not change the result; its digest, which does, goes into the run's identity."""

    kind: Literal["assign"] = "assign"
    model: str = Field(description="Run directory or model directory.")
    top: int | None = Field(None, ge=1, description="List so many nearest centres of each row, too.")
    balanced: Annotated[bool, AfterValidator(_without_top)] = Field(
        False, description="Bound the sizes of the clusters, at the least cost."
    )
    capacity_slack: Annotated[float, AfterValidator(_with_balanced)] = Field(
        0.05, ge=0, lt=1, description="Share of its target by which a cluster may be larger or smaller."
    )
    targets: Annotated[
        Literal["uniform", "model"] | tuple[Annotated[float, Field(gt=0)], ...],
        BeforeValidator(_as_shares),
        AfterValidator(_with_balanced),
    ] = Field("uniform", description="Sizes to reach: uniform, model (the training sizes), or numbers such as 1,2,2.")
    mass: Annotated[float, AfterValidator(_with_balanced)] = Field(
        1.0, gt=0, le=1, description="Share of the rows to assign; the costliest stay without cluster."
    )
    penalty: Annotated[float | None, AfterValidator(_with_balanced)] = Field(
        None, gt=0, description="Instead of bounds, what unequal sizes cost, relative to the rows' distances."
    )

    def what(self) -> dict[str, Any]:
        """Return the keys that decide the result, as plain values; those of extras where they are asked for."""
        extra = set() if self.balanced else {"balanced", "capacity_slack", "targets", "mass", "penalty"}
        extra |= {"top"} if self.top is None else set()
        return {k: v for k, v in super().what().items() if k not in extra}

    def settings(self, sizes: npt.NDArray[np.int64]) -> BalancedConfig:
        """Return the settings of balanced assignment for a model with clusters of these sizes."""
        if self.targets == "uniform":
            targets: Literal["uniform"] | npt.NDArray[np.float64] = "uniform"
        else:
            targets = np.array(sizes if self.targets == "model" else self.targets, np.float64)
        return BalancedConfig(targets=targets, capacity_slack=self.capacity_slack, mass=self.mass, penalty=self.penalty)


class EvaluateJob(EngineJob):
    """Scores of a finished run. A question rather than a run: no job file, nothing to resume."""

    run: str = Field(description="Run directory of a finished kmeans or assign.")
    truth: str | None = Field(None, description="Column of true classes (strings, integers) to compare with.")
    data: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        (), description="Where the rows of the run lie now; default: where the run read them."
    )
    output: str | None = Field(None, description="Directory for evaluation.json and clusters.parquet; default: none.")


AnyJob: TypeAlias = KMeansJob | SweepJob | BisectJob | KMedoidsJob | GMMJob | PPPJob | AssignJob
Job = Annotated[AnyJob, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[AnyJob] = TypeAdapter(Job)
JOBS: dict[str, type[AnyJob]] = {
    "kmeans": KMeansJob,
    "sweep": SweepJob,
    "bisect": BisectJob,
    "kmedoids": KMedoidsJob,
    "gmm": GMMJob,
    "ppp": PPPJob,
    "assign": AssignJob,
}


def parse_job(values: dict[str, Any], *, where: str = "") -> AnyJob:
    """Check the values of a job.

    Parameters
    ----------
    values : dict
        Keys as in the JSON schema, ``kind`` among them.
    where : str, optional
        Job file, for messages.

    Raises
    ------
    UsageError
        Unknown keys (with the nearest one), missing keys, values out of range: all of them at once.
    """
    kind = values.get("kind")
    if kind not in JOBS:
        allowed = ", ".join(map(repr, JOBS))
        raise UsageError(
            f"kind is {kind!r}; allowed are {allowed}.", where=where, do=nearest_name(str(kind or ""), JOBS)
        )
    return checked(JOBS[kind], values, where=where)


def checked(model: type[J], values: dict[str, Any], *, where: str = "") -> J:
    """Check values against a model; see `parse_job`."""
    try:
        return model.model_validate(values)
    except ValidationError as invalid:
        raise UsageError(_explain(invalid, model), where=where) from None


def _explain(invalid: ValidationError, model: type[BaseModel]) -> str:
    allowed = [field.alias or name for name, field in model.model_fields.items()]
    lines = []
    for error in invalid.errors(include_url=False):
        key = ".".join(str(part) for part in error["loc"])
        key = (model.model_fields[key].alias or key) if key in model.model_fields else key
        if error["type"] == "extra_forbidden":
            lines.append(f"unknown key {key!r}. {nearest_name(key, allowed)}".rstrip())
        elif error["type"] == "missing":
            lines.append(f"key {key!r} is missing.")
        else:
            said = error["msg"].removeprefix("Value error, ")
            lines.append(f"{key} == {error['input']!r}: {said[0].lower()}{said[1:]}.")
    return " ".join(lines)


def load_job(path: str | Path) -> AnyJob:
    """Read a job file (TOML).

    Raises
    ------
    UsageError
        The file cannot be read, is no TOML, or says something that is not allowed.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as fault:
        raise UsageError(f"the job file cannot be read: {fault.strerror}.", where=str(path)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise UsageError(f"not a TOML file: {fault}.", where=str(path)) from None
    return parse_job(values, where=str(path))


def job_schema() -> dict[str, Any]:
    """Return the JSON schema of job files."""
    return _ADAPTER.json_schema(by_alias=True)
