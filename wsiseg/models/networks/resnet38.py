"""ResNet-38, the classifier of the published method.

Wu, Shen and van den Hengel, *Wider or Deeper: Revisiting the ResNet Model for Visual Recognition*, 2016, model A1:
a pre-activation residual network of output stride 8. Names of tensors are those of the published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor, nn
from torch.nn import functional as F

from wsiseg.models.networks.classifier import Classifier


@dataclass(frozen=True, slots=True)
class _Block:
    """One residual block: channels of its input, of its convolutions, and how they step."""

    name: str
    channels: tuple[int, ...]
    stride: int = 1
    first_dilation: int = 1
    dilation: int = 1
    dropout: float = 0.0

    def follow(self, name: str) -> _Block:
        """A block of the same kind behind this one, which changes no shape."""
        return replace(
            self, name=name, channels=(self.channels[-1], *self.channels[1:]), stride=1, first_dilation=self.dilation
        )


def _stage(first: _Block, repeats: int) -> list[_Block]:
    return [first, *(first.follow(f"{first.name}_{i}") for i in range(1, repeats + 1))]


_BLOCKS = (
    *_stage(_Block("b2", (64, 128, 128), stride=2), 2),
    *_stage(_Block("b3", (128, 256, 256), stride=2), 2),
    *_stage(_Block("b4", (256, 512, 512), stride=2), 5),
    *_stage(_Block("b5", (512, 512, 1024), dilation=2), 2),
    _Block("b6", (1024, 512, 1024, 2048), dilation=4, dropout=0.3),
    _Block("b7", (2048, 1024, 2048, 4096), dilation=4, dropout=0.5),
)
_FROZEN = ("conv1a", "b2", "b2_1", "b2_2")


class _Residual(nn.Module):
    """BatchNorm, ReLU, convolution, two or three times; three are a bottleneck of 1x1, 3x3, 1x1.

    The shortcut is a 1x1 convolution of the *activated* input where shapes change, else the input itself.
    """

    def __init__(self, block: _Block) -> None:
        super().__init__()
        steps = len(block.channels) - 1
        bottleneck = steps == 3
        self.suffixes = ("2a", "2b1", "2b2")[:steps]
        for i, suffix in enumerate(self.suffixes):
            before, after = block.channels[i : i + 2]
            wide = not bottleneck or i == 1
            dilation = (block.first_dilation if i == 0 else block.dilation) if wide else 1
            setattr(self, f"bn_branch{suffix}", nn.BatchNorm2d(before))
            convolution = nn.Conv2d(
                before,
                after,
                3 if wide else 1,
                stride=block.stride if i == 0 else 1,
                padding=dilation if wide else 0,
                dilation=dilation,
                bias=False,
            )
            setattr(self, f"conv_branch{suffix}", convolution)
        self.conv_branch1 = (
            None
            if block.channels[0] == block.channels[-1] and block.stride == 1
            else nn.Conv2d(block.channels[0], block.channels[-1], 1, stride=block.stride, bias=False)
        )
        self.dropout = nn.Dropout2d(block.dropout) if block.dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = branch = x
        for i, suffix in enumerate(self.suffixes):
            branch = F.relu(getattr(self, f"bn_branch{suffix}")(branch))
            if i == 0 and self.conv_branch1 is not None:
                shortcut = self.conv_branch1(branch)
            if i > 0:
                branch = self.dropout(branch)
            branch = getattr(self, f"conv_branch{suffix}")(branch)
        return shortcut + branch


class ResNet38(Classifier):
    """The published stage 1; 105 million parameters, features of 1/8 of the image's size.

    BatchNorm always uses its running statistics, with affine parameters that do not train, and the first
    convolution and the b2 blocks do not train either.

    Args:
        num_classes: number of tissue classes K.
    """

    depths = ("b4_5", "b5_2", "bn7")
    taps = True

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1a = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        for block in _BLOCKS:
            self.add_module(block.name, _Residual(block))
        self.bn7 = nn.BatchNorm2d(4096)
        self.feature_dropout = nn.Dropout2d(0.5)
        self.fc8 = nn.Conv2d(4096, num_classes, 1, bias=False)
        nn.init.xavier_uniform_(self.fc8.weight)
        for name, parameter in self.named_parameters():
            owner = self.get_submodule(name.rpartition(".")[0])
            if isinstance(owner, nn.BatchNorm2d) or name.partition(".")[0] in _FROZEN:
                parameter.requires_grad_(False)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The maps of `depths`: (N, 512 | 1024 | 4096, H / 8, W / 8), the last one behind its ReLU."""
        maps: dict[str, Tensor] = {}
        x = self.conv1a(images)
        for block in _BLOCKS:
            x = getattr(self, block.name)(x)
            if block.name in self.depths:
                maps[block.name] = x = self.tap(x)
        maps["bn7"] = F.relu(self.bn7(x))
        return maps

    def train(self, mode: bool = True) -> Self:
        """Training mode, less the BatchNorm layers, which stay in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self
