"""Numeric kernels: serial, GIL-free, compiled on first call, the same bits everywhere."""
