"""`wsiseg models`: what ships, and bundles from published checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import click

from wsiseg.cli.command import Group
from wsiseg.cli.options import OUTPUT, echo, json_option, overwrite_option, quiet_option

_DATA_SETS = {"luad-histoseg": "LUAD-HistoSeg", "bcss-wsss": "BCSS-WSSS"}
_SHORT = {"luad": "luad-histoseg", "bcss": "bcss-wsss"}


@click.group(cls=Group, invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """List the models that come with wsiseg, or make one from published checkpoints."""
    if context.invoked_subcommand is None:
        _list(as_json=False, quiet=False)


@models.command("list")
@json_option
@click.option("--quiet", is_flag=True, help="Print only names.")
def list_command(as_json: bool, quiet: bool) -> None:
    """List the models that come with wsiseg, and their classes."""
    _list(as_json=as_json, quiet=quiet)


def _list(*, as_json: bool, quiet: bool) -> None:
    from wsiseg.models.folder import list_bundles
    from wsiseg.models.summary import read_summary

    if as_json:
        rows = [
            {"name": one.name, "classes": list(one.classes), "patch_size_px": one.patch_size_px,
             "mpp": one.mpp, "licence": one.licence, "training_data": one.training_data}
            for one in map(read_summary, list_bundles())
        ]  # fmt: skip
        click.echo(json.dumps(rows, indent=2))
        return
    for name in list_bundles():
        if quiet:
            click.echo(name)
            continue
        one = read_summary(name)
        click.echo(f"{name}: {', '.join(one.classes)}")
        click.echo(f"  {one.patch_size_px} px patches at {one.mpp:g} um/px; licence {one.licence}")
        click.echo(f"  {one.training_data}")


@models.command("distance")
@click.argument("model")
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--mpp", type=float, metavar="UM", help="Microns per pixel of the patches, where the data set is silent.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, …")
@json_option
@quiet_option
def distance_command(model: str, dataset: Path, mpp: float | None, device: str, as_json: bool, quiet: bool) -> None:
    """Store in MODEL how far the patches that it was trained on reach, DATASET; its weights stay as they are.

    Maps then say where the tissue looks unlike them. Models that `train` makes know it already.
    """
    from wsiseg.system.extras import require_extra

    require_extra("train", "measuring training patches", "lightning")
    from wsiseg.training.distance import fit_distance

    path, found = fit_distance(model, dataset, device=device, mpp=mpp)
    if as_json:
        facts = {"file": str(path), "patches": found.patches, "groups": found.groups, "sha256": found.sha256}
        click.echo(json.dumps(facts))
    elif not quiet:
        echo(f"{path}: from {found.patches} patches of {found.groups} slides or patients")


@models.command("convert")
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=OUTPUT)
@overwrite_option
@json_option
@quiet_option
def convert_command(source: Path, target: Path, overwrite: bool, as_json: bool, quiet: bool) -> None:
    """Write the tensors of FILE, a torch checkpoint (.pth, .bin), as OUT.safetensors; nothing else in FILE is loaded.

    Models that name an encoder instead of holding it are loaded with safetensors alone. They compare the hash of the
    tensors that is printed here, which is the same for both files.
    """
    from wsiseg.models.weights.encoder_weights import MAX_ENCODER_BYTES
    from wsiseg.models.weights.tensor_files import convert

    count, digest = convert(source, target, MAX_ENCODER_BYTES, overwrite=overwrite)
    if as_json:
        click.echo(json.dumps({"file": str(target), "tensors": count, "tensors_sha256": digest}))
    elif not quiet:
        echo(f"{target}: {count} tensors, SHA-256 of the tensors {digest}")


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
@json_option
@quiet_option
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
    as_json: bool,
    quiet: bool,
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
    if as_json:
        click.echo(json.dumps({"model": str(out), "classes": list(spec.classes.names), "gate_rule": spec.gate_rule}))
    elif not quiet:
        echo(f"Model: {out} ({', '.join(spec.classes.names)}; gate rule {spec.gate_rule}, overlap {spec.overlap:g})")
