"""Principal axes and unit variances against scikit-learn; projected rows in any cut, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from distclust.algorithms.kmeans import fit_kmeans
from distclust.algorithms.kmeans_config import KMeansConfig
from distclust.engines.local import LocalEngine
from distclust.engines.protocol import Engine
from distclust.errors import DataError, UsageError
from distclust.ops.profile import PreparedData, prepare, projected
from distclust.ops.sample import hash_sample
from distclust.ops.whiten import projection_of
from distclust.testing.hostile import HostileEngine
from tests.algorithms.rows import cut, prepared, random_sizes


@pytest.fixture
def engine() -> Iterator[Engine]:
    with LocalEngine(2) as opened:
        yield opened


def table(n: int = 400, d: int = 9) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 3)) @ rng.normal(size=(3, d)) + 0.1 * rng.normal(size=(n, d)) + 50 * rng.normal(size=d)


def rows_of(engine: Engine, data: PreparedData) -> np.ndarray:
    return hash_sample(engine, data.pinned, 10**6).rows


@pytest.mark.parametrize("zscore", [False, True])
@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("pca", [2, 9, 0.9, 0.9999])
def test_axes_are_scikit_learns(engine: Engine, zscore: bool, whiten: bool, pca: float) -> None:
    X = table()
    scaled = StandardScaler().fit_transform(X) if zscore else X
    theirs = PCA(pca, svd_solver="full", whiten=whiten).fit(scaled)
    with prepared(engine, X, [100, 300], precision="float64") as data:
        found = projection_of(engine, data, zscore=zscore, pca=pca, whiten=whiten)
        through = projected(engine, data, found.axes)
        rows = rows_of(engine, through)
        offset = data.offset
    assert found.n_components == theirs.n_components_ == through.width
    assert found.explained == pytest.approx(theirs.explained_variance_ratio_.sum(), rel=1e-9)
    wanted = theirs.transform(scaled)
    signs = np.sign((rows * wanted).sum(axis=0))
    size = np.sqrt(len(X) / (len(X) - 1)) if whiten else 1.0  # they divide by n - 1
    assert (rows - rows.mean(axis=0)) * signs == pytest.approx(wanted * size, rel=1e-6, abs=1e-6)
    assert through.moments.variance == pytest.approx(rows.var(axis=0), rel=1e-9)
    assert (np.abs(rows) <= through.extent).all()
    back = found.backward(rows) + offset
    if found.n_components == X.shape[1]:
        assert back == pytest.approx(X, rel=1e-9, abs=1e-7)
    assert found.forward(back - offset) == pytest.approx(rows, rel=1e-7, abs=1e-7)


def test_unit_variances_without_axes(engine: Engine) -> None:
    X = table()
    X[:, 4] = 3.0
    with prepared(engine, X, precision="float64") as data:
        found = projection_of(engine, data, zscore=True)
        through = projected(engine, data, found.axes)
    assert found.axes.ndim == 1
    assert through.moments.variance == pytest.approx(np.where(np.arange(9) == 4, 0.0, 1.0), abs=1e-9)
    assert found.backward(found.forward(X)) == pytest.approx(X)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_projected_rows_have_the_same_bits_in_any_cut(precision: str) -> None:
    X = table()
    rng, found = np.random.default_rng(1), []
    for engine, sizes in ((LocalEngine(1), [len(X)]), (LocalEngine(2), random_sizes(rng, len(X), 7))):
        with engine, prepared(engine, X, sizes, precision=precision) as data:
            projection = projection_of(engine, data, zscore=True, pca=4)
            through = projected(engine, data, projection.axes)
            config = KMeansConfig(n_clusters=5, seed=0)
            vectors = fit_kmeans(engine, through, config).vectors
            found.append((projection.axes.tobytes(), rows_of(engine, through).tobytes(), vectors.tobytes()))
    assert found[0] == found[1]
    with HostileEngine(0) as hostile, prepared(hostile, X, random_sizes(rng, len(X), 5), precision=precision) as data:
        again = fit_kmeans(hostile, projected(hostile, data, projection.axes), config)
    assert again.vectors.tobytes() == found[0][2]


def test_a_model_projects_new_rows_the_same_way(engine: Engine) -> None:
    X = table()
    with prepared(engine, X) as data:
        projection = projection_of(engine, data, pca=3)
        fitted = rows_of(engine, projected(engine, data, projection.axes))
        direct = prepare(
            engine, data.source, cut(data.source, engine, [200, 200]), center=data.offset, axes=projection.axes
        )
        assert rows_of(engine, direct).tobytes() == fitted.tobytes()
        assert direct.width == 3
        assert direct.offset.tolist() == [0, 0, 0]


def test_equal_rows_and_bad_numbers(engine: Engine) -> None:
    with prepared(engine, np.full((20, 3), 2.5)) as data:
        assert projection_of(engine, data, zscore=True, pca=0.9).explained > 0.9
        for pca in (0, 4, 1.0, 0.0, -0.5):
            with pytest.raises(UsageError, match=r"pca == .*, must be a number of components, 1 to 3, or a share"):
                projection_of(engine, data, pca=pca)


def test_products_beyond_the_type_are_an_error_that_names_the_rows(engine: Engine) -> None:
    with prepared(engine, table(40, 2)) as data:
        with pytest.raises(UsageError, match="would overflow float32"):
            projected(engine, data, np.full(2, 1e38))
        beyond = replace(data.view, axes=np.full(2, 1e39))
        with pytest.raises(DataError, match=r"memory://.*from the centre; float32 ends at 3.4e\+38"):
            hash_sample(engine, engine.pin(data.pinned.refs, beyond, label="rows"), 1)


def test_threads_of_the_algebra_change_no_bit(engine: Engine) -> None:
    """LAPACK's eigenvectors are others with one thread than with two."""
    X = np.random.default_rng(5).normal(size=(500, 300))
    found = []
    with prepared(engine, X, [500], precision="float64") as data:
        for threads in (1, 2):
            with threadpool_limits(threads):
                found.append(projection_of(engine, data, pca=20).vectors)
    assert np.array_equal(*found)
