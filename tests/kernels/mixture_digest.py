"""Print a digest of what the mixture kernels give on fixed input; run by itself, so that a processor can be chosen."""

from __future__ import annotations

import hashlib

import numpy as np

from distclust.kernels.eigen import product, symmetric_eigen
from distclust.kernels.linear import cholesky_upper, congruence, inverse_upper
from distclust.kernels.mixture import grid_for, mixture_rows, mixture_sums, pack_mixture


def digest() -> str:
    rng = np.random.default_rng(0)
    found = hashlib.sha256()
    for n, d, k in ((131, 5, 3), (40, 18, 4), (600, 1, 2)):
        x = (rng.random((n, d)) * 4 - 2).astype(np.float32)
        x[0] = 1e7  # a coarser level
        weights, means = rng.random(n), rng.random((k, d)) * 4 - 2
        root = np.triu(rng.random((k, d, d))) + np.eye(d)
        roots, positive = cholesky_upper(congruence(root, np.tile(np.eye(d), (k, 1, 1))))
        assert positive.all()
        factors = inverse_upper(roots)
        scales = np.ascontiguousarray(np.diagonal(factors, axis1=1, axis2=2))
        for form, given in (("full", factors), ("tied", factors[0]), ("axis", scales)):
            packed = pack_mixture(form, np.zeros(k), means, given)
            sums = mixture_sums(x, weights, packed, grid_for(n, 1.0, d))
            rows = mixture_rows(x, packed)
            eigen = symmetric_eigen(congruence(roots, roots + np.swapaxes(roots, 1, 2)))
            for array in (roots, factors, *eigen, product(factors[0], roots[0]), *sums[:-1], *rows):
                found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


if __name__ == "__main__":
    print(digest())
