"""`wsiseg models`: what ships, and bundles from published checkpoints."""

from __future__ import annotations

from pathlib import Path

import click

from wsiseg.cli.options import OUTPUT, echo, overwrite_option

_DATA_SETS = {"luad-histoseg": "LUAD-HistoSeg", "bcss-wsss": "BCSS-WSSS"}
_SHORT = {"luad": "luad-histoseg", "bcss": "bcss-wsss"}


@click.group(invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """List the models that come with wsiseg, or make one from published checkpoints."""
    if context.invoked_subcommand is None:
        _list()


@models.command("list")
def list_command() -> None:
    """List the models that come with wsiseg, and their classes."""
    _list()


def _list() -> None:
    from wsiseg.models.spec import list_bundles, read_spec

    for name in list_bundles():
        spec = read_spec(name)
        click.echo(f"{name}: {', '.join(spec.classes.names)}")
        click.echo(f"  {spec.patch_size_px} px patches at {spec.mpp:g} um/px; licence {spec.licence}")
        click.echo(f"  {spec.training_data}")


@models.command("import")
@click.option(
    "--stage1",
    type=click.Path(path_type=Path),
    required=True,
    help="Published classifier (ResNet-38): .pth or safetensors.",
)
@click.option(
    "--stage2",
    type=click.Path(path_type=Path),
    required=True,
    help="Published segmenter (DeepLabV3+ on ResNet-101): .pth or safetensors.",
)
@click.option(
    "--classes",
    required=True,
    metavar="luad|bcss|FILE",
    help="luad (luad-histoseg), bcss (bcss-wsss), or a JSON file of names and colours, in the order of the channels.",
)
@click.option("--mpp", type=float, required=True, metavar="UM", help="Microns per pixel of the training patches.")
@click.option("--out", type=OUTPUT, required=True, help="Folder of the model to write.")
@click.option(
    "--patch-size", type=int, default=224, show_default=True, metavar="PX", help="Side of the training patches."
)
@click.option(
    "--overlap",
    type=float,
    metavar="SHARE",
    help="Share of a patch that overlaps its neighbour [default: 0.5; faithful: 0].",
)
@click.option("--faithful", is_flag=True, help="Gate like the published program: multiply logits by 0.")
@click.option("--name", help="Name of the model [default: the folder's].")
@click.option("--licence", help="Licence of the weights [default: not stated].")
@click.option("--citation", help="How to cite the weights [default: the method's paper].")
@overwrite_option
def import_command(
    stage1: Path,
    stage2: Path,
    classes: str,
    mpp: float,
    out: Path,
    patch_size: int,
    overlap: float | None,
    faithful: bool,
    name: str | None,
    licence: str | None,
    citation: str | None,
    overwrite: bool,
) -> None:
    """Make a model from a published classifier and segmenter.

    Checkpoints may be plain state dicts or hold one as state_dict, with or without "module." before names. Nothing but
    tensors is loaded from them.
    """
    for path in (stage1, stage2):
        if not path.is_file():
            raise click.UsageError(f"there is no file of weights {path}")

    from wsiseg.datasets.dataset import read_classes
    from wsiseg.models.weights.published import CITATION, LICENCE, import_bundle

    chosen = _SHORT.get(classes, classes)
    spec = import_bundle(
        stage1,
        stage2,
        read_classes(chosen),
        mpp,
        out,
        patch_size_px=patch_size,
        overlap=overlap,
        faithful=faithful,
        name=name,
        licence=licence or LICENCE,
        citation=citation or CITATION,
        training_data=_DATA_SETS.get(chosen, "not stated"),
        overwrite=overwrite,
    )
    echo(f"Model: {out} ({', '.join(spec.classes.names)}; gate rule {spec.gate_rule}, overlap {spec.overlap:g})")
