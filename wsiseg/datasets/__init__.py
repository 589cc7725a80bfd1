"""Labelled patches on disk: read, checked, drawn. No torch."""
