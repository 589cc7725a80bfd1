"""`wsiseg train`: learn a model from patches and their labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsiseg.choices import (
    BACKGROUNDS,
    ENCODER_TRAININGS,
    GATE_MODES,
    LOGGERS,
    PRESETS,
    STAGES,
    TRAINING_PRECISIONS,
    LoggerName,
    StageName,
)
from wsiseg.cli.command import Command
from wsiseg.cli.options import OUTPUT, device_option, echo, is_terminal, json_option, names_of, overwrite_option
from wsiseg.system.json_values import JsonObject

if TYPE_CHECKING:
    from wsiseg.training.origin import Origin


@click.command(cls=Command)
@click.argument("dataset", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=OUTPUT, help="Folder of the model to write.")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file of settings; options override it.")
@click.option("--print-config", is_flag=True, help="Print the settings as a commented TOML file, and stop.")
@click.option(
    "--preset",
    type=click.Choice(PRESETS),
    help="Networks and options [default: the file's, otherwise lite].",
)
@click.option(
    "--stage",
    type=click.Choice(STAGES),
    default="all",
    show_default=True,
    help="Run one step (1: classifier; masks: pseudo masks; 2: segmenter and model), or all.",
)
@click.option("--epochs", type=int, help="Epochs of each stage [default: the preset's].")
@click.option("--epochs1", type=int, help="Epochs of stage 1; overrides --epochs.")
@click.option("--epochs2", type=int, help="Epochs of stage 2; overrides --epochs.")
@click.option("--batch-size", type=int, help="Patches in one step [default: the preset's].")
@click.option("--mpp", type=float, metavar="UM", help="Microns per pixel of the patches; overrides dataset.json.")
@click.option(
    "--classes", metavar="NAME|FILE", help="luad-histoseg, bcss-wsss, wsss4luad, or a JSON file of names and colours."
)
@click.option("--ignore-columns", metavar="NAME,…", help="Columns of labels.csv that are no classes.")
@click.option(
    "--faithful",
    is_flag=True,
    help="Train like the published program, with its mistakes; uses the preset published unless another is given.",
)
@click.option(
    "--published-background",
    type=click.Choice(BACKGROUNDS),
    help="With --faithful: background of pseudo masks, as for LUAD or BCSS [default: none for bcss-wsss, else bright].",
)
@click.option(
    "--encoder",
    metavar="NAME|hf-hub:OWNER/NAME|FOLDER",
    help="Encoder of the lite networks: of timm, of pathology (uni2-h, virchow2, h-optimus-1, ...), of the hub, or a "
    "folder of a hub's snapshot.",
)
@click.option(
    "--encoder-training",
    type=click.Choice(ENCODER_TRAININGS),
    help="What is learned of the encoder: all, nothing, or matrices of low rank (needs peft) [default: full].",
)
@click.option("--shared-encoder", is_flag=True, help="One encoder for both networks, learned in stage 1.")
@click.option(
    "--feature-cache",
    metavar="SIZE",
    help="Compute a frozen encoder once, on four fixed views of each patch, in at most so much of the disk, e.g. 8G.",
)
@click.option(
    "--hold-weights",
    is_flag=True,
    help="Put a frozen encoder into the model, though its licence is unknown or forbids handing it on.",
)
@click.option(
    "--init-stage1",
    metavar="imagenet|none|FILE",
    help="Initial weights of the classifier; FILE is MXNet's .params, .pth or safetensors, also of an encoder alone.",
)
@click.option(
    "--init-stage2",
    metavar="imagenet|none|torchvision|timm:NAME|FILE",
    help="Initial weights of the segmenter; FILE is of a DeepLabV3+ or a ResNet-101.",
)
@click.option("--init", hidden=True, help="Initial weights of both stages (an earlier name).")
@click.option("--init2", hidden=True, help="Earlier name of --init-stage2.")
@click.option(
    "--gate",
    "gate_mode",
    type=click.Choice(GATE_MODES),
    help="How the model is gated: each patch, windows of large tiles, or by the segmenter's own encoder "
    "[default: the file's, else patches].",
)
@click.option("--val-share", type=float, help="Share used for validation if the data set has no split.")
@click.option(
    "--refit/--no-refit",
    default=None,
    help="Learn from all patches, with thresholds from cross-validation, or set --val-share aside [default: learn from "
    "all where a data set has up to 2,000 patches and does not split itself].",
)
@click.option("--precision", type=click.Choice(TRAINING_PRECISIONS), help="Arithmetic of the networks [default: auto].")
@click.option("--seed", type=int, help="Seed of everything random [default: 0].")
@click.option("--devices", type=click.IntRange(1), default=1, show_default=True, help="Number of GPUs (or processes).")
@click.option(
    "--logger",
    type=click.Choice(LOGGERS),
    default="csv",
    show_default=True,
    help="Where the figures of each epoch are logged.",
)
@click.option("--from", "origin", metavar="MODEL", help="Go on from a model: its weights, networks and settings.")
@click.option(
    "--with",
    "old",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="With --from: patches of an earlier training, half of each batch beside the corrections.",
)
@device_option
@click.option("--strict", is_flag=True, help="Refuse a data set of which something cannot be learned.")
@click.option("--resume", is_flag=True, help="Resume an interrupted training, or one that is to have more epochs.")
@overwrite_option
@click.option("--quiet", is_flag=True, help="Show no progress, and say nothing.")
@json_option
def train(
    dataset: Path | None,
    out: Path | None,
    config: Path | None,
    print_config: bool,
    preset: str | None,
    stage: str,
    epochs: int | None,
    epochs1: int | None,
    epochs2: int | None,
    batch_size: int | None,
    mpp: float | None,
    classes: str | None,
    ignore_columns: str | None,
    faithful: bool,
    published_background: str | None,
    encoder: str | None,
    encoder_training: str | None,
    shared_encoder: bool,
    feature_cache: str | None,
    hold_weights: bool,
    init_stage1: str | None,
    init_stage2: str | None,
    init: str | None,
    init2: str | None,
    gate_mode: str | None,
    val_share: float | None,
    refit: bool | None,
    precision: str | None,
    seed: int | None,
    devices: int,
    logger: str,
    origin: str | None,
    old: Path | None,
    device: str,
    strict: bool,
    resume: bool,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train a model on DATASET, a folder of square patches labelled with the tissue classes that occur in them.

    Labels stand in labels.csv beside the images (file,<class>,<class>,… with 0 or 1), or in file names
    (train/*[1 0 0 1].png). dataset.json names the classes, their colours, and the microns per pixel.

    The model is written to --out; the steps of its training (checkpoints, pseudo masks, logs) lie in
    <out>.training, and each can be made alone with --stage.
    """
    from typing import Any, cast

    if not print_config:
        _require_folders(dataset, out)

    from wsiseg.system.memory import parse_bytes
    from wsiseg.training.config import AUTO_FOLDS
    from wsiseg.training.settings import effective_config, format_settings

    if published_background is not None and not faithful:
        raise click.UsageError("--published-background belongs to --faithful")
    background: Any = (published_background or ("none" if classes == "bcss-wsss" else "bright")) if faithful else None
    if faithful and preset is None and config is None and encoder is None:
        preset = "published"
    fixed: dict[str, object] = {"--faithful": faithful, "--config": config, "--preset": preset, "--encoder": encoder}
    fixed |= {
        "--shared-encoder": shared_encoder,
        "--init": init,
        "--init-stage1": init_stage1,
        "--init-stage2": init_stage2 or init2,
        "--gate": gate_mode,
    }
    begun = _origin(origin, old, [name for name, value in fixed.items() if value not in (None, False)])
    own = begun.config() if begun is not None else None
    settings = own or effective_config(config, preset, encoder, background, cast(Any, gate_mode))
    stages: dict[str, JsonObject] = {"stage1": {}, "stage2": {}}
    for name, chosen in (("stage1", epochs1), ("stage2", epochs2)):
        if (count := chosen if chosen is not None else epochs) is not None:
            stages[name]["epochs"] = count
        if batch_size is not None:
            stages[name]["batch_size"] = batch_size
    networks: dict[str, JsonObject] = {"classifier": {}, "segmenter": {}}
    for name, source in (("classifier", init_stage1 or init), ("segmenter", init_stage2 or init2 or init)):
        if source is not None:
            networks[name]["initial_weights"] = source
    plain = {"val_share": val_share, "precision": precision, "seed": seed, "encoder_training": encoder_training}
    if feature_cache is not None:
        plain["feature_cache"] = parse_bytes(feature_cache)
    plain |= {"shared_encoder": shared_encoder or None, "hold_weights": hold_weights or None}
    if refit is not None or (val_share is not None and settings.refit == "few"):
        settings = settings.changed(refit=(settings.folds or AUTO_FOLDS) if refit else 0)
    settings = settings.changed(**stages, **networks, **{name: v for name, v in plain.items() if v is not None})
    if print_config:
        click.echo(format_settings(settings), nl=False)
        return
    assert dataset is not None
    assert out is not None

    from wsiseg.datasets.dataset import read_classes
    from wsiseg.training.run import train as run_training

    made = run_training(
        dataset,
        out,
        settings,
        mpp=mpp,
        classes=read_classes(classes) if classes else None,
        stage=cast(StageName, stage),
        device=device,
        devices=devices,
        resume=resume,
        overwrite=overwrite,
        logger=cast(LoggerName, logger),
        progress=not quiet and is_terminal(),
        say=_nothing if quiet else echo,
        origin=begun,
        old=old,
        ignore_columns=names_of(ignore_columns),
        strict=strict,
    )
    if as_json:
        click.echo(json.dumps({"stage": stage, "output": str(made), "folder": f"{out}.training"}))


def _require_folders(dataset: Path | None, out: Path | None) -> None:
    if dataset is None or out is None:
        raise click.UsageError("expected DATASET and --out, or --print-config")
    if not dataset.is_dir():
        raise click.UsageError(f"{dataset} is not a folder, expected a data set of labelled patches")


def _origin(name: str | None, old: Path | None, fixed: list[str]) -> Origin | None:
    """The model to go on from; options that would change what it is are refused."""
    if name is None:
        if old is not None:
            raise click.UsageError("--with belongs to --from; put all patches into one folder to begin a model")
        return None
    if fixed:
        raise click.UsageError(f"{fixed[0]} and --from exclude each other: a model goes on as it began")
    from wsiseg.training.origin import Origin

    return Origin.of(name)


def _nothing(text: str) -> None:
    """Take a message and print nothing, for --quiet."""
