"""The networks that a bundle can name: one dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal

from torch import nn

from wsiseg.errors import BundleError


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
    """

    kind: Literal["classifier", "segmenter"]
    target: str

    def build(self, num_classes: int, arguments: Mapping[str, Any]) -> nn.Module:
        """The network with weights as its builder initialises them."""
        module, name = self.target.split(":")
        network: nn.Module = getattr(import_module(module), name)(num_classes, **arguments)
        return network


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "resnet38": Architecture("classifier", "wsiseg.models.networks.resnet38:ResNet38"),
        "deeplabv3plus_resnet101": Architecture("segmenter", "wsiseg.models.networks.deeplab:DeepLabV3Plus"),
        "lite_classifier": Architecture("classifier", "wsiseg.models.networks.lite:LiteClassifier"),
        "lite_segmenter": Architecture("segmenter", "wsiseg.models.networks.lite:LiteSegmenter"),
    }
)


def build_network(kind: str, architecture: str, num_classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    """A network of `ARCHITECTURES`.

    Raises:
        BundleError: for a name that is not there or is of another kind, or arguments that its builder refuses.
    """
    known = [name for name, entry in ARCHITECTURES.items() if entry.kind == kind]
    if architecture not in known:
        raise BundleError(f"unknown {kind} architecture {architecture!r:.60}, this wsiseg knows {', '.join(known)}")
    try:
        return ARCHITECTURES[architecture].build(num_classes, arguments)
    except ImportError:
        raise  # a defect of the installation, not of the bundle
    except Exception as error:  # builders are other people's code and refuse in their own ways
        reason = " ".join(str(error).split())
        raise BundleError(f"{architecture} cannot be built with {dict(arguments)!r:.100}: {reason:.200}") from error
