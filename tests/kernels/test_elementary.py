"""Exponential, logarithm and the functions of angles: a few units in the last place, and golden bits."""

from __future__ import annotations

import hashlib

import numpy as np

from distclust.kernels.elementary import arcsine, exponential, logarithm, sine_cosine


def test_exponential() -> None:
    x = np.concatenate([np.linspace(-700, 700, 4001), np.linspace(-1e-9, 1e-9, 101), [0.0, np.log(2) / 2]])
    exact = np.exp(x.astype(np.longdouble))
    np.testing.assert_allclose(exponential(x), exact.astype(float), rtol=4e-15)
    assert exponential(np.array([-1e9, 1e9])).tolist() == exponential(np.array([-700.0, 700.0])).tolist()


def test_logarithm() -> None:
    x = np.concatenate([2.0 ** np.arange(-1074, 1024), np.linspace(0.5, 2, 3001), [1 - 2**-53, 1 + 2**-52]])
    exact = np.log(x.astype(np.longdouble)).astype(float)
    np.testing.assert_allclose(logarithm(x), exact, rtol=4e-15)
    assert logarithm(np.array([0.0, 1.0])).tolist() == [-np.inf, 0.0]


def test_sine_and_cosine() -> None:
    x = np.concatenate([np.linspace(-1000, 1000, 4001), np.arange(-8, 9) * (np.pi / 4), [1e-300, -1e-9]])
    sine, cosine = sine_cosine(x)
    np.testing.assert_allclose(sine, np.sin(x.astype(np.longdouble)).astype(float), rtol=1e-13, atol=3e-16)
    np.testing.assert_allclose(cosine, np.cos(x.astype(np.longdouble)).astype(float), rtol=1e-13, atol=3e-16)
    assert sine_cosine(np.zeros(1))[0] == 0.0


def test_arcsine() -> None:
    x = np.concatenate([np.linspace(0, 1, 3001), [0.5, np.nextafter(0.5, 0), np.nextafter(1, 0), 1e-300]])
    exact = np.arcsin(x.astype(np.longdouble)).astype(float)
    np.testing.assert_allclose([arcsine(value) for value in x], exact, rtol=5e-16)


def test_bits_do_not_depend_on_place_or_machine() -> None:
    x = np.random.default_rng(0).random(999) * 100 - 50
    powers = exponential(x)
    assert all(exponential(x[i : i + 1])[0] == powers[i] for i in range(0, 999, 37))
    found = hashlib.sha256(powers.tobytes() + logarithm(powers).tobytes()).hexdigest()
    assert found == "29d31d03a97a801a7ff522c168f7f3c7c16b4b0a3e630e27fc6b9b660c9d9cf2"
