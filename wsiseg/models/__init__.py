"""Networks, bundles of them, and the gate."""

DEFAULT_MODEL = "tissue-brca-lite"
"""The shipped bundle that predicts where none is named."""
