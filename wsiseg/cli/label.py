"""`wsiseg label`: label patches of slides in the browser."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsiseg.cli.command import Command
from wsiseg.cli.options import OUTPUT, announce, device_option, mpp_option, page_options, reader_option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wsiseg.classes import ClassTable
    from wsiseg.datasets.dataset import PatchDataset
    from wsiseg.labelling.advice import Advice
    from wsiseg.labelling.patch_cache import PatchCache
    from wsiseg.labelling.places import Candidate
    from wsiseg.labelling.probe import Embeddings
    from wsiseg.labelling.review import Sort
    from wsiseg.models.tissue_model import TissueModel

FILE = click.Path(path_type=Path)
DEFAULT_MPP, DEFAULT_PATCH_PX = 0.5, 112
"""Of patches where no model says another: the shipped model's."""

CHOICES = ("random", "classwise")
SORTS = ("file", "class", "disagreement", "confidence")


@click.command(cls=Command)
@click.argument("slides", nargs=-1)
@click.option("--out", type=OUTPUT, required=True, metavar="FOLDER", help="Data set to write, or to continue.")
@click.option("--classes", metavar="NAME,NAME,…", help="Tissue classes, in the order of the keys 1, 2, ….")
@click.option(
    "--model",
    metavar="NAME|FOLDER",
    help="Model whose opinion shows on a key; --choose classwise asks it.",
)
@click.option(
    "--encoder",
    metavar="NAME",
    help="Encoder in place of a model, as tf_efficientnet_lite0; it learns from the labels so far.",
)
@click.option(
    "--choose", type=click.Choice(CHOICES), default="random", show_default=True,
    help="Which patches come next; classwise needs --model or --encoder.",
)  # fmt: skip
@click.option(
    "--review",
    type=FILE,
    metavar="FOLDER|FILE.csv",
    help="Data set whose labels to check, in place of SLIDES: patches, or images with dots.",
)
@click.option(
    "--sort", type=click.Choice(SORTS), default="file", show_default=True,
    help="Order of --review; disagreement and confidence need --model or --encoder.",
)  # fmt: skip
@click.option("--regions", type=FILE, metavar="FILE|FOLDER", help="GeoJSON of the areas to take patches from.")
@click.option("--patients", type=FILE, metavar="FILE.csv", help="Table with the columns slide and patient.")
@click.option(
    "--keys", metavar="ACTION=KEY,…|default", help="Other keys, confirm=Space for instance; they are kept for later."
)
@click.option("--labeller", default="me", show_default=True, metavar="NAME", help="Who labels.")
@click.option(
    "--patch-mpp", type=float, metavar="UM", help="Microns per pixel of patches [default: the model's, or 0.5]."
)
@click.option("--patch-px", type=int, metavar="N", help="Side of a patch [default: the model's, or 112].")
@click.option("--candidates", type=int, default=5000, show_default=True, metavar="N", help="Patches to choose from.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the order of patches.")
@page_options
@mpp_option
@reader_option
@device_option
def label(
    slides: tuple[str, ...],
    out: Path,
    classes: str | None,
    model: str | None,
    encoder: str | None,
    choose: str,
    review: Path | None,
    sort: Sort,
    regions: Path | None,
    patients: Path | None,
    keys: str | None,
    labeller: str,
    patch_mpp: float | None,
    patch_px: int | None,
    candidates: int,
    seed: int,
    port: int,
    no_browser: bool,
    as_json: bool,
    quiet: bool,
    mpp: float | None,
    reader: str | None,
    device: str,
) -> None:
    """Label patches of SLIDES in the browser, several classes a patch, by keyboard.

    The address is printed on standard output. Ctrl-C ends; the same command continues where you stopped.
    """
    from wsiseg.system.extras import require_extra

    require_extra("app", "wsiseg label", "starlette", "uvicorn")
    if model is not None and encoder is not None:
        raise click.UsageError("state --model or --encoder; a model has an encoder of its own")
    if choose == "classwise" and model is None and encoder is None:
        raise click.UsageError("--choose classwise needs --model or --encoder")

    from wsiseg.datasets.patients import read_patients
    from wsiseg.labelling.keys import bindings, chosen_keys, keys_of
    from wsiseg.labelling.session import Terms, terms_of
    from wsiseg.labelling.workplace import Wishes, workplace
    from wsiseg.server.app import make_app
    from wsiseg.server.label.routes import LabelRoutes
    from wsiseg.server.label.training import Training
    from wsiseg.server.serve import serve
    from wsiseg.slides.arguments import slides_of

    def told(text: str) -> None:
        if not quiet:
            click.echo(f"wsiseg: {text}", err=True)

    if keys is not None:
        bindings(chosen_keys(keys))  # refused before anything is written
    dataset = None if review is None else _reviewed(review, out, classes, patch_mpp, patch_px)
    helper = None if model is None else _load(model, device)
    begun = terms_of(out)
    if dataset is not None:
        begun = Terms(dataset.mpp, dataset.patch_size_px, seed)
    wishes = Wishes(
        root=out,
        slides=slides_of(list(slides)),
        classes=_classes(classes, dataset),
        mpp=patch_mpp or (begun.mpp if begun else helper.spec.mpp if helper else DEFAULT_MPP),
        patch_px=patch_px or (begun.patch_px if begun else helper.spec.patch_size_px if helper else DEFAULT_PATCH_PX),
        labeller=labeller,
        most=candidates,
        seed=seed,
        regions=regions,
        patients=None if patients is None else {name: who for name, (who, _) in read_patients(patients).rows.items()},
        classwise=choose == "classwise",
        review=dataset,
        sort=sort,
        slide_mpp=mpp,
        reader=reader,
    )
    with workplace(wishes, _adviser(helper, encoder, device, told), told) as place:
        training = Training(out)
        routes = LabelRoutes(place, training, keys_of(place.session.folder, labeller, keys)).routes()
        try:
            serve(
                lambda s: make_app(s, "label", routes),
                port=port,
                browser=not no_browser,
                announce=partial(announce, as_json=as_json),
            )
        finally:
            training.close()
    told(f"{place.saved} patches are answered in {out}; train with: wsiseg train {out} --out my-model")


def _classes(names: str | None, dataset: PatchDataset | None) -> ClassTable | None:
    """Those of the data set and those that are named."""
    from wsiseg.classes import ClassTable

    if names is None:
        return None if dataset is None else dataset.classes
    return ClassTable.from_names([name.strip() for name in names.split(",")])


def _reviewed(path: Path, out: Path, classes: str | None, mpp: float | None, patch_px: int | None) -> PatchDataset:
    """The data set whose labels are looked at again: a folder, its table, or images with a dot on each cell."""
    from wsiseg.datasets.cut.run import CutOptions, cut
    from wsiseg.datasets.dataset import read_dataset
    from wsiseg.datasets.dots import has_dots
    from wsiseg.datasets.folders import LABELS_FILE

    if path.name == LABELS_FILE and path.is_file():
        path = path.parent
    if not has_dots(path):
        return read_dataset(path, val_share=0)
    patches = out / "labelling" / "dots"
    if not (patches / LABELS_FILE).is_file():
        cut(path, patches, CutOptions(patch_px or DEFAULT_PATCH_PX, mpp, _classes(classes, None)))
    return read_dataset(patches, val_share=0)


def _load(name: str, device: str) -> TissueModel:
    from wsiseg.models.bundle import load_model
    from wsiseg.models.devices import pick_device

    return load_model(name, pick_device(device))


def _adviser(
    model: TissueModel | None, encoder: str | None, device: str, told: Callable[[str], None]
) -> Callable[[PatchCache, Sequence[Candidate]], Advice | Embeddings] | None:
    """Asks a model or an encoder about all candidates; None where there is neither."""

    def progress(done: int, total: int) -> None:
        if done == total or done % 640 == 0:
            told(f"{'the encoder' if model is None else 'the model'} has seen {done} of {total} patches")

    if model is not None:
        return partial(_ask, model, progress)
    if encoder is None:
        return None

    from wsiseg.labelling.opinions import embed
    from wsiseg.models.devices import pick_device
    from wsiseg.models.embedding import Embedder

    made = Embedder(encoder, pick_device(device))
    return lambda cache, candidates: embed(made, cache, [candidate.id for candidate in candidates], progress)


def _ask(
    model: TissueModel, progress: Callable[[int, int], None], cache: PatchCache, candidates: Sequence[Candidate]
) -> Advice:
    from wsiseg.labelling.advice import Advice
    from wsiseg.labelling.opinions import ask, says

    opinions = ask(model, cache, [candidate.id for candidate in candidates], progress)
    names, limits = model.classes.names, (model.spec.gate, model.spec.gate_floor)
    return Advice(
        model.hash,
        names,
        {patch: says(opinion, names, *limits) for patch, opinion in opinions.items()},
        {patch: opinion[0] for patch, opinion in opinions.items()},
        {patch: opinion[1] for patch, opinion in opinions.items()},
    )
