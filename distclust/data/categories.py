"""What is known of columns of numbers and categories; the values are turned by `distclust.data.encoding`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

ColumnKind = Literal["number", "category"]


@dataclass(frozen=True)
class Encoding:
    """How columns become rows.

    Attributes
    ----------
    names : tuple of str
        Columns, in the order of the row's values.
    categories : tuple
        For each column its categories in sorted order, None for a column of numbers.
    """

    names: tuple[str, ...]
    categories: tuple[tuple[str, ...] | None, ...]

    @property
    def is_category(self) -> npt.NDArray[np.bool_]:
        """(d,) which columns hold categories."""
        return np.array([known is not None for known in self.categories], np.bool_)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as a model stores them."""
        return {
            "columns": list(self.names),
            "categories": [None if known is None else list(known) for known in self.categories],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Encoding:
        """Rebuild what `as_dict` gave."""
        categories = tuple(None if known is None else tuple(known) for known in values["categories"])
        return cls(tuple(values["columns"]), categories)
