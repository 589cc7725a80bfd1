"""`wsiseg models`: what ships."""

from __future__ import annotations

import click


@click.command()
def models() -> None:
    """List the models that come with wsiseg, and what each can tell apart."""
    from rich.console import Console
    from rich.table import Table

    from wsiseg.models.spec import list_bundles, read_spec

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("model", "classes", "um/px", "patch", "trained on", "licence"):
        table.add_column(name)
    for name in list_bundles():
        spec = read_spec(name)
        classes = ", ".join(spec.classes.names)
        table.add_row(name, classes, f"{spec.mpp:g}", f"{spec.patch_size_px} px", spec.training_data, spec.licence)
    Console().print(table)
