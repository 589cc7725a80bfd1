"""Exact outlines of a class map, row by row.

Others call `reader`. It has `tracing` go through the rows: `corners` finds where outlines turn, `linking` orders the
turns along the outlines, `spool` keeps the vertices in a file. At the end `rings` makes rings and regions of them.
"""
