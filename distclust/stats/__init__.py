"""Mergeable sufficient statistics: what a pass over the rows leaves behind."""
