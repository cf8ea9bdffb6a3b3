"""Algorithms: plain functions over an engine."""
