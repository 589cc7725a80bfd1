"""The published program's behaviour, throughout: what `--faithful` switches on, each part an option of its own.

The list is that of what the program of Han et al. (2022) computes otherwise than its paper says or than is right; see
`docs/published-weights.md`. Networks, optimisers, epochs and batch sizes are the preset's: with the preset
`published` all of it is the program's.
"""

from __future__ import annotations

from wsiseg.choices import Background
from wsiseg.system.json_values import JsonObject
from wsiseg.training.config import TrainingConfig

PUBLISHED_MOMENTUM = 5e-4
"""What the program passes as momentum of stage 1: its weight decay, in the wrong place."""


def faithful(config: TrainingConfig, background: Background = "bright") -> TrainingConfig:
    """A configuration that behaves as the published program.

    - Pixels stay in [0, 1], without mean and deviation, though BatchNorm's statistics are ImageNet's.
    - Attention (PDA) from the fourth epoch on, not divided by its maximum.
    - Activation maps are normalised jointly over all classes, absent ones included; an absent class scores 0.
    - The loss of stage 2 is divided by the batch size once more, and its incomplete last batch is not dropped.
    - The gate multiplies logits by 0 or 1, at 0.1 for every class, patches do not overlap, and the best epoch is
      chosen without it. It looks at no patch but its own.
    - Momentum of stage 1 is 5e-4 (where it is SGD); no average of weights; the segmenter starts from its own initial
      weights; nothing is augmented but by flips, and by blur in stage 2; rare classes get no
      more weight than others.

    Two things are not followed: a patch without any class, which stops the program, is background here; and the
    number of classes, patch size and device are anything that works.

    Args:
        config: what to change.
        background: "bright" as for LUAD-HistoSeg, "none" as for BCSS-WSSS, where fat is tissue.
    """
    plain: JsonObject = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    no_stain: JsonObject = {"transpose": 0.0, "stain": 0.0, "zoom": 0.0}
    stage1: JsonObject = {"average_decay": 0.0}
    if config.stage1.algorithm == "sgd":
        stage1["momentum"] = PUBLISHED_MOMENTUM
    return config.changed(
        classifier=plain,
        segmenter=plain,
        stage1=stage1,
        stage2={"average_decay": 0.0, "drop_incomplete": False},
        augmentation1={**no_stain, "horizontal_flip": 0.5, "vertical_flip": 0.5, "blur": 0.0},
        augmentation2={**no_stain, "horizontal_flip": 0.5, "vertical_flip": 0.0, "blur": 0.5, "blur_sigma_px": 1.0},
        attention={"first_epoch": 3, "decay": 0.98, "floor": 0.65, "normalise": False},
        pseudo_masks={
            "normalisation": "joint",
            "absent_score": 0.0,
            "background": background,
            "bright_above": 200,
            # scikit-image 0.26, with which the parity masks were made, removes pieces of exactly 50 px as well.
            "min_background_px": 51,
        },
        supervision={
            "weights": (0.6, 0.2, 0.2),
            "background_score": 100.0,
            "divide_by_batch": True,
            "prior_adjustment": 0.0,
            "class_weights": "none",
            "select_gated": False,
        },
        gate={"threshold": 0.1, "recall": None, "rule": "multiply_logits", "context": 0.0, "floor": None},
        imbalance="none",
        start_from_classifier=False,
        overlap=0.0,
    )
