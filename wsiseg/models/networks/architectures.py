"""The networks that a bundle can name: one dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal

from torch import nn

from wsiseg.errors import BundleError
from wsiseg.models.networks.unfilled import unfilled


@dataclass(frozen=True, slots=True)
class Architecture:
    """One kind of network.

    Attributes:
        kind: "classifier", a `wsiseg.models.networks.classifier.Classifier`; or "segmenter", a module that maps
            normalised images (N, 3, H, W) to logits (N, K, H, W) of the same height and width.
        target: "module:name" of what builds it, called with the number of classes and keyword arguments. It is
            imported when it is first built, so that a network costs nothing where it is not used. Arguments come
            from bundles, out of anybody's hand: a builder downloads nothing, opens no file, and refuses with a
            `ValueError` or `TypeError` what it does not know.
        new_layers: beginnings of the names of the layers that no pretrained weights fill. They learn faster, by
            `OptimiserConfig.head_factor`.
    """

    kind: Literal["classifier", "segmenter"]
    target: str
    new_layers: tuple[str, ...]

    def build(self, num_classes: int, arguments: Mapping[str, Any], *, empty: bool = False) -> nn.Module:
        """The network with weights as its builder initialises them.

        Args:
            num_classes: K.
            arguments: keyword arguments of the builder.
            empty: on the meta device instead: without memory, and without the time that first weights take.
        """
        module, name = self.target.split(":")
        builder = getattr(import_module(module), name)  # outside the modes: libraries make tensors when imported
        with ExitStack() as modes:
            if empty:
                modes.enter_context(unfilled())
            network: nn.Module = builder(num_classes, **arguments)
        return network


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "resnet38": Architecture("classifier", "wsiseg.models.networks.resnet38:ResNet38", ("fc8",)),
        "deeplabv3plus_resnet101": Architecture(
            "segmenter", "wsiseg.models.networks.deeplab:DeepLabV3Plus", ("aspp", "decoder")
        ),
        "lite_classifier": Architecture("classifier", "wsiseg.models.networks.lite:LiteClassifier", ("fuse", "fc8")),
        "lite_segmenter": Architecture(
            "segmenter", "wsiseg.models.networks.lite:LiteSegmenter", ("network.decoder", "network.segmentation_head")
        ),
    }
)


def build_network(
    kind: str, architecture: str, num_classes: int, arguments: Mapping[str, Any], *, empty: bool = False
) -> nn.Module:
    """A network of `ARCHITECTURES`; an `empty` one is on the meta device, see `Architecture.build`.

    Raises:
        BundleError: for a name that is not there or is of another kind, or arguments that its builder refuses.
    """
    known = [name for name, entry in ARCHITECTURES.items() if entry.kind == kind]
    if architecture not in known:
        raise BundleError(f"unknown {kind} architecture {architecture!r:.60}, this wsiseg knows {', '.join(known)}")
    try:
        return ARCHITECTURES[architecture].build(num_classes, arguments, empty=empty)
    except ImportError:
        raise  # a defect of the installation, not of the bundle
    except Exception as error:  # builders are other people's code and refuse in their own ways
        reason = " ".join(str(error).split())
        raise BundleError(f"{architecture} cannot be built with {dict(arguments)!r:.100}: {reason:.200}") from error
