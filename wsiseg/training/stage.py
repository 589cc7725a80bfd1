"""What both stages share: a network under Lightning, its optimiser, its averaged weights, its random numbers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from wsiseg.models.tissue_model import normalise
from wsiseg.training.augment import Augmentation
from wsiseg.training.config import AugmentationConfig, NetworkConfig, OptimiserConfig
from wsiseg.training.encoder_training import keep_still, layer_rates
from wsiseg.training.epochs import ClassFigures
from wsiseg.training.feature_cache import StageFeatures
from wsiseg.training.loading import Batch

ADVISERS = ("lightning.pytorch", "lightning.fabric", "lightning")
"""Loggers that give developers advice, which is nothing to a user."""

_AVERAGE_WARMUP_STEPS = 10
_LENGTHS = ("total_steps", "_schedule_phases")
"""What a schedule's state says of its length."""


class Stage(LightningModule):
    """A network that is being trained.

    Random numbers depend on seed, epoch, step and rank alone, so that a run that was interrupted after an epoch goes
    on exactly as it would have.

    Args:
        network: to train.
        network_config: its normalisation.
        optimiser: how.
        augmentation: how patches are changed.
        head_prefixes: beginnings of the names of new layers, which learn faster.
        seed: of everything random.
    """

    def __init__(
        self,
        network: nn.Module,
        network_config: NetworkConfig,
        optimiser: OptimiserConfig,
        augmentation: AugmentationConfig,
        head_prefixes: Sequence[str],
        seed: int,
    ) -> None:
        super().__init__()
        self.network = network
        normalise_lone_values(network)
        self.optimiser_config = optimiser
        self.augmentation = Augmentation(augmentation)
        self.head_prefixes = tuple(head_prefixes)
        self.seed = seed
        self.found: ClassFigures | None = None
        self.features: StageFeatures | None = None  # in place of pixels, where the encoder is frozen
        self._validated: Tensor | None = None
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(network_config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(network_config.std).view(3, 1, 1), persistent=False)
        self.average: AveragedModel | None = None
        if optimiser.average_decay:
            self.average = AveragedModel(network, avg_fn=self._average, use_buffers=True)
            self.average.requires_grad_(False)

    @property
    def result(self) -> nn.Module:
        """The network that is validated and kept: the averaged one where there is one."""
        return self.network if self.average is None else self.average.module

    def _average(self, averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        """Exponential moving average, over fewer steps at the beginning."""
        if not averaged.is_floating_point():
            return current
        decay = min(self.optimiser_config.average_decay, (int(count) + 1) / (int(count) + _AVERAGE_WARMUP_STEPS))
        return torch.lerp(averaged, current, 1 - decay)

    def setup(self, stage: str) -> None:
        """Keep the processes of several devices as quiet as the one that started them."""
        if self.trainer.world_size > 1:
            warnings.simplefilter("ignore")
            for name in ADVISERS:
                logging.getLogger(name).setLevel(logging.ERROR)

    def on_train_epoch_start(self) -> None:
        """An encoder that is not learned is not changed either."""
        keep_still(self.network)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Fix what dropout will draw in this step."""
        torch.manual_seed(_mixed(self.seed, self.current_epoch, 2 * batch_idx, self.global_rank))

    def generator(self, batch_index: int, purpose: int = 0) -> torch.Generator:
        """Random numbers of a step; those of each purpose are others."""
        step = 2 * batch_index + 1
        return torch.Generator().manual_seed(_mixed(self.seed + purpose, self.current_epoch, step, self.global_rank))

    def augmented(self, batch: Batch, batch_index: int) -> tuple[Tensor, Tensor | None]:
        """Augmented, normalised images (N, 3, H, W) and masks (N, L, H, W) of a batch.

        With `features`, the images are `EncoderMaps`, which stand in for them.
        """
        generator = self.generator(batch_index)
        if self.features is not None:
            maps, masks = self.features.training(batch["index"], generator, self.mean.device)
            return cast(Tensor, maps), masks
        images, masks = self.augmentation(batch["pixels"].float() / 255, batch.get("masks"), generator)
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return images, masks

    def on_validation_batch_start(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep which patches they are: features are found by it."""
        self._validated = batch["index"]

    def normalised(self, pixels: Tensor) -> Tensor:
        """Images as the network sees them, from uint8 patches (N, 3, H, W) of validation.

        With `features`, they are `EncoderMaps`.
        """
        if self.features is not None and self._validated is not None:
            return cast(Tensor, self.features.validation(self._validated, self.mean.device))
        return normalise(pixels, self.mean, self.std).contiguous(memory_format=torch.channels_last)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Bring the averaged weights up to date."""
        accumulate = self.optimiser_config.accumulate
        stepped = (batch_idx + 1) % accumulate == 0 or self.trainer.is_last_batch
        if self.average is not None and stepped:
            self.average.update_parameters(self.network)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out how long the schedule was: an extended training goes on along the longer one."""
        for state in checkpoint.get("lr_schedulers", []):
            for name in _LENGTHS:
                state.pop(name, None)

    def configure_optimizers(self) -> Any:
        """Optimiser and per-step schedule of the configuration."""
        config = self.optimiser_config
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        groups = self._parameter_groups()
        optimiser: torch.optim.Optimizer
        if config.algorithm == "sgd":
            optimiser = torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)
        else:
            optimiser = torch.optim.AdamW(groups, lr=config.learning_rate)
        scheduler: torch.optim.lr_scheduler.LRScheduler
        if config.schedule == "poly":
            scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimiser, lambda step: max(0.0, 1 - step / steps) ** config.power
            )
        else:
            rates = [group["lr"] for group in groups]
            scheduler = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps + 1, pct_start=0.15)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """New layers and the rest, each with and without weight decay."""
        config = self.optimiser_config
        named = [(name, parameter) for name, parameter in self.network.named_parameters() if parameter.requires_grad]
        encoder = [name for name, _ in named if not name.startswith(self.head_prefixes)]
        rates = layer_rates(encoder, config.layer_decay) if config.layer_decay < 1 else {}
        groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
        for name, parameter in named:
            decays = config.algorithm == "sgd" or parameter.ndim > 1
            key = (name.startswith(self.head_prefixes), decays, rates.get(name, 1.0))
            groups.setdefault(key, []).append(parameter)
        return [
            {
                "params": parameters,
                "lr": config.learning_rate * (config.head_factor if head else rate),
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (head, decays, rate), parameters in sorted(groups.items(), key=lambda entry: entry[0])
        ]


def normalise_lone_values(network: nn.Module) -> None:
    """Have BatchNorm use its running statistics where a channel has a single value, as a pooled patch alone in a batch.

    Such a value has no variance; torch refuses it.
    """
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_pre_hook(_before_lone)
            module.register_forward_hook(_after_lone)


def _before_lone(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if module.training and inputs[0].numel() == inputs[0].shape[1]:
        module.training = False
        module.lone = True  # type: ignore[assignment]


def _after_lone(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    if getattr(module, "lone", False):
        module.training = True
        del module.lone


def _mixed(seed: int, epoch: int, step: int, rank: int) -> int:
    """One seed from four numbers, below 2^63."""
    value = 0
    for part in (seed, epoch, step, rank):
        value = (value * 1_000_003 + part + 1) % (2**63 - 25)
    return value
