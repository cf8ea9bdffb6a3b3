"""Text to vectors and back to words, by scikit-learn: hashed TF-IDF, random projection, telling words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from distclust.errors import MissingExtraError

try:
    from sklearn.feature_extraction.text import (
        ENGLISH_STOP_WORDS,
        CountVectorizer,
        HashingVectorizer,
        TfidfTransformer,
    )
    from sklearn.preprocessing import normalize
    from sklearn.random_projection import SparseRandomProjection
except ImportError as missing:
    raise MissingExtraError(
        "The demonstration needs scikit-learn, which is not installed.", do='pip install "distclust[sklearn]"'
    ) from missing

WIDTH = 256
_HASHED_WORDS = 1 << 16
_DENSITY = 1 / 16
"""Share of the projection that is not zero: about 16 of the 256 coordinates carry a word."""
_PRIOR_WORDS = 1_000.0
_TOKEN = r"(?u)\b[^\W\d_]{3,}\b"


def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return unit vectors of texts.

    Parameters
    ----------
    texts : sequence of str
        Each with a word of three letters or more.

    Returns
    -------
    (n, 256) float32
    """
    stop_words = sorted(ENGLISH_STOP_WORDS)
    hashed = HashingVectorizer(
        n_features=_HASHED_WORDS, alternate_sign=False, norm=None, stop_words=stop_words, token_pattern=_TOKEN
    ).transform(texts)
    weighted = TfidfTransformer(sublinear_tf=True).fit_transform(hashed)
    projection = SparseRandomProjection(WIDTH, density=_DENSITY, dense_output=True, random_state=0)
    return np.ascontiguousarray(normalize(projection.fit_transform(weighted)), dtype=np.float32)


def telling_words(
    texts: Sequence[str], clusters: npt.NDArray[np.int32], n_clusters: int, n_words: int
) -> list[list[str]]:
    """Return the words that set each cluster apart from the others, the most telling first.

    By log-odds with an informative prior, as z-scores: Monroe, Colaresi and Quinn, *Fightin' Words* (2008).

    Parameters
    ----------
    texts : sequence of str
    clusters : (n,) int32
        Cluster of each text.
    n_clusters : int
    n_words : int
        Most words of a cluster.
    """
    vectorizer = CountVectorizer(
        binary=True, min_df=min(5, 1 + len(texts) // 500), stop_words=sorted(ENGLISH_STOP_WORDS), token_pattern=_TOKEN
    )
    presence = vectorizer.fit_transform(texts)
    vocabulary = vectorizer.get_feature_names_out()
    total = np.asarray(presence.sum(axis=0), dtype=np.float64).ravel()
    prior = _PRIOR_WORDS * total / total.sum()
    words = []
    for cluster in range(n_clusters):
        inside = np.asarray(presence[clusters == cluster].sum(axis=0), dtype=np.float64).ravel()
        here, there = inside + prior, total - inside + prior
        odds = np.log(here / (here.sum() - here)) - np.log(there / (there.sum() - there))
        scores = odds / np.sqrt(1 / here + 1 / there)
        best = np.argsort(-scores, kind="stable")[:n_words]
        words.append([str(vocabulary[word]) for word in best if inside[word] > 0 and scores[word] > 0])
    return words
