"""`wsiseg models`: what ships."""

from __future__ import annotations

import click


@click.command()
def models() -> None:
    """List the models that come with wsiseg, and what each can tell apart."""
    from wsiseg.models.spec import list_bundles, read_spec

    for name in list_bundles():
        spec = read_spec(name)
        click.echo(f"{name}: {', '.join(spec.classes.names)}")
        click.echo(f"  {spec.patch_size_px} px patches at {spec.mpp:g} um/px; licence {spec.licence}")
        click.echo(f"  {spec.training_data}")
