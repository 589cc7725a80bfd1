"""ImageNet weights of ResNet-101, the segmenter's backbone, from torchvision's or timm's hub."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO

from torch import Tensor

from wsiseg.errors import OptionError

TIMM_PREFIX = "timm:"


def hub_weights(source: str) -> dict[str, Tensor]:
    """The state dict of a network that a hub has.

    Args:
        source: "torchvision", for its ResNet-101 (IMAGENET1K_V1); or "timm:<name>", as "timm:resnet101.a1_in1k".

    Raises:
        OptionError: where there is no such network, or the hub cannot be reached.
    """
    if source.startswith(TIMM_PREFIX):
        fetch: Callable[[], Mapping[str, Tensor]] = partial(_timm, _checked(source.removeprefix(TIMM_PREFIX)))
    elif source == "torchvision":
        fetch = _torchvision
    else:
        raise OptionError(f"expected torchvision or timm:NAME, got {source!r:.80}")
    try:
        return dict(fetch())
    except Exception as error:  # the hubs' clients raise of many kinds
        reason = " ".join(str(error).split())
        raise OptionError(
            f"weights of {source!r:.80} could not be had ({reason:.120}); download them elsewhere and give the file"
        ) from error


def _torchvision() -> Mapping[str, Tensor]:
    from torchvision.models import ResNet101_Weights  # type: ignore[import-untyped]  # noqa: PLC0415

    weights = ResNet101_Weights.IMAGENET1K_V1
    with redirect_stderr(StringIO()), redirect_stdout(StringIO()):  # it says where from, also where it then fails
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    return state


def _checked(name: str) -> str:
    import timm  # noqa: PLC0415  (it takes seconds to import)

    if not timm.is_model(name) and name not in timm.list_pretrained():
        raise OptionError(f"timm knows no network {name!r:.80}, as resnet101.a1_in1k is one")
    return name


def _timm(name: str) -> Mapping[str, Tensor]:
    import timm  # noqa: PLC0415

    for client in ("timm", "huggingface_hub"):  # their retries would fill the screen
        logging.getLogger(client).setLevel(logging.CRITICAL)
    state: Mapping[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    return state
