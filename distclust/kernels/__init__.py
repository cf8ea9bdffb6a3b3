"""Numeric kernels on arrays: serial, free of the GIL, compiled on first call, the same bits on every machine.

`nearest` finds nearest centres, `lloyd` sums rows exactly, `moments` scans and writes raw rows, `random` draws
numbers by row id. See DESIGN.md for what was measured.
"""
