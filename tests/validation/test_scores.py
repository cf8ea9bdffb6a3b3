"""Scores of a run on real embeddings, and their agreement with people's labels, beside scikit-learn's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import sklearn.metrics as peer

from distclust.config import EvaluateJob, KMeansJob
from distclust.workflows.evaluate import run_evaluate
from distclust.workflows.kmeans import run_kmeans
from tests.ops.labelled import peer_scores

EVERY = 6
REL = 1e-9


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_scores_of_intents(shared_data: Path, tmp_path: Path, metric: str) -> None:
    whole = pq.read_table(shared_data / "clinc150")
    table = whole.take(np.arange(0, len(whole), EVERY))
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path, row_group_size=500)
    run = str(tmp_path / "out")
    run_kmeans(
        KMeansJob(data=str(path), column="embedding", output=run, k=60, metric=metric, max_iter=10, target_bytes="1MB")
    )
    found = run_evaluate(EvaluateJob(run=run, truth="intent")).evaluation
    labels = pq.read_table(f"{run}/labels").column("cluster").to_numpy()
    X = table.column("embedding").combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    X = X.reshape(len(table), -1)
    if metric == "cosine":
        X /= np.linalg.norm(X, axis=1, keepdims=True)
    for name, expected in peer_scores(X, labels).items():
        assert getattr(found, name) == pytest.approx(expected, rel=REL), name
    truth = np.unique(np.array(table.column("intent").to_pylist()), return_inverse=True)[1]
    assert found.agreement is not None
    assert found.agreement.adjusted_rand == pytest.approx(peer.adjusted_rand_score(truth, labels), rel=REL)
    mutual = peer.normalized_mutual_info_score(truth, labels)
    assert found.agreement.normalized_mutual_information == pytest.approx(mutual, rel=REL)
    counts = peer.cluster.contingency_matrix(truth, labels)
    assert found.agreement.purity == pytest.approx(counts.max(axis=0).sum() / len(truth), rel=REL)
