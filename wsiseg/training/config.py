"""Everything that decides how a model is trained: one frozen object, stored whole in the bundle it makes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from wsiseg.choices import Background, EncoderTraining, GateMode, GateRule, TrainingPrecision
from wsiseg.errors import OptionError
from wsiseg.models.gate_kinds import MODES, RULES
from wsiseg.models.tile_shape import check_gate_mode

Share = Annotated[float, Field(ge=0, le=1)]


AUTO_FOLDS, AUTO_PATCHES = 3, 2000
"""Folds of `refit` "few", and patches above which it sets a part aside: it is missed less there, folds take long."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class NetworkConfig(_Part):
    """One network before training.

    Attributes:
        architecture: a key of `wsiseg.models.networks.architectures.ARCHITECTURES`.
        arguments: of its builder, without the number of classes.
        initial_weights: "imagenet", "none", the path of a file (MXNet parameters, published checkpoints, or of an
            encoder alone); for an encoder also "hf-hub:OWNER/NAME" or the folder of a snapshot; or for the published
            segmenter "torchvision" or "timm:<name>".
        published: OWNER/NAME of the pathology encoder (docs/encoders.md) whose weights these are, for its licence
            decides whether a bundle may hold them; empty for others.
        mean: subtracted from pixels in [0, 1], red, green, blue.
        std: what the difference is divided by.
    """

    architecture: str
    arguments: dict[str, JsonValue] = {}
    initial_weights: str = "imagenet"
    published: str = ""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


class AugmentationConfig(_Part):
    """Random changes of a batch of patches, each patch by itself. Labels hold for a whole patch, so nothing is cut off.

    Attributes:
        horizontal_flip: probability.
        vertical_flip: probability.
        transpose: probability; with both flips this makes all eight orientations.
        stain: strength of changes in haematoxylin, eosin and DAB optical density (Tellez et al. 2018), each multiplied
            by 1 +- 0.3 and shifted by +- 0.05 at strength 1, and of brightness, contrast and saturation; 0 for none.
        blur: probability of a Gaussian blur.
        blur_sigma_px: upper end of its standard deviation.
        zoom: log of the largest factor by which a patch is enlarged or reduced about its centre (mirrored outside).
    """

    horizontal_flip: Share = 0.5
    vertical_flip: Share = 0.5
    transpose: Share = 0.0
    stain: float = Field(default=0.0, ge=0, le=3)
    blur: Share = 0.0
    blur_sigma_px: float = Field(default=1.0, gt=0, le=10)
    zoom: float = Field(default=0.0, ge=0, le=0.5)


class OptimiserConfig(_Part):
    """How the weights of one stage are learned.

    Attributes:
        algorithm: "sgd" or "adamw".
        learning_rate: of the new layers' neighbours, that is of the pretrained part.
        head_factor: what the learning rate of new layers is multiplied by.
        momentum: of SGD.
        layer_decay: what the rate of each block of the lite networks' encoder is multiplied by, against the next deeper
            one; 1 for one rate.
        weight_decay: of everything but biases and BatchNorm ("adamw"), or of everything ("sgd").
        schedule: "poly", (1 - t / T)^power per step; or "one_cycle", a short warm-up, then a cosine to zero.
        power: of "poly".
        epochs: passes over the training patches.
        batch_size: of the patches of one step.
        drop_incomplete: leave an incomplete last batch of an epoch out, where there is a whole one.
        average_decay: of the exponential moving average of weights that validation and the bundle use; 0 for none.
        accumulate: batches whose gradients are added up for one step; the schedule counts steps.
        patience: epochs without a better validation figure after which training stops (stage 1: mean average
            precision; stage 2: mean IoU, only where validation patches have masks); None never stops early.
        keep: the weights of the "best" epoch by that figure, or of the "last"; the last where there is no figure.
    """

    algorithm: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = Field(default=0.01, gt=0, le=10)
    head_factor: float = Field(default=10.0, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    schedule: Literal["poly", "one_cycle"] = "poly"
    power: float = Field(default=0.9, gt=0)
    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=20, ge=1)
    drop_incomplete: bool = True
    average_decay: float = Field(default=0.0, ge=0, lt=1)
    accumulate: int = Field(default=1, ge=1, le=1024)
    patience: int | None = Field(default=None, ge=1)
    keep: Literal["best", "last"] = "last"


class AttentionConfig(_Part):
    """Progressive dropout attention; see `Classifier.dropout_attention`.

    Attributes:
        first_epoch: index of the first epoch with it (3 is the fourth); None switches it off.
        decay: what mu is multiplied by after every epoch while it is above `floor`.
        floor: see `decay`.
        normalise: divide the attention by its maximum, so that features keep their scale; the published program
            does not.
    """

    first_epoch: int | None = Field(default=3, ge=0)
    decay: float = Field(default=0.98, gt=0, le=1)
    floor: float = Field(default=0.65, ge=0, le=1)
    normalise: bool = True

    def drop_above(self, epoch: int) -> float | None:
        """The share mu of a map's maximum above which it is dropped in an epoch (from 0); None for no attention."""
        if self.first_epoch is None or epoch < self.first_epoch:
            return None
        mu = 1.0
        for _ in range(epoch):
            mu = mu * self.decay if mu > self.floor else mu
        return mu


class PseudoMaskConfig(_Part):
    """How activation maps become pseudo masks (`wsiseg.training.pseudo_masks.PseudoMaskOptions`) and are computed.

    Attributes:
        precision: of the network, "float32"; or "bfloat16", faster where the processor has it, and not quite equal.
        batch_size: patches at once; less where memory is short.
    """

    normalisation: Literal["per_class", "joint"] = "per_class"
    absent_score: float = -1.0
    background: Background = "bright"
    bright_above: int = 200
    min_background_px: int = 50
    precision: Literal["float32", "bfloat16"] = "float32"
    batch_size: int = Field(default=16, ge=1)


class SupervisionConfig(_Part):
    """How stage 2 learns from pseudo masks.

    Attributes:
        weights: see `wsiseg.training.losses.SupervisionOptions`.
        background_score: likewise.
        divide_by_batch: likewise.
        prior_adjustment: tau of logit adjustment (Menon et al. 2021): while training, tau times the log of each class's
            share of the pseudo masks is added to its logits, so that rare classes are not drowned; 0 switches it off.
        select_gated: choose the best epoch behind the gate, as prediction is; the published program does not.
        class_weights: of the cross-entropies: "inverse_sqrt" of the classes' shares of the pseudo masks, or "none".
        mosaics: share of each batch that mosaics of four patches with a single class take the place of; 0 for none.
    """

    weights: tuple[float, ...] = (0.6, 0.2, 0.2)
    background_score: float = 100.0
    divide_by_batch: bool = False
    prior_adjustment: float = Field(default=0.0, ge=0, le=2)
    select_gated: bool = True
    class_weights: Literal["none", "inverse_sqrt"] = "none"
    mosaics: float = Field(default=0.0, ge=0, le=1)


class GateConfig(_Part):
    """How the gate's thresholds are chosen, and what it does.

    Attributes:
        threshold: used where there are no validation patches, and the upper end of what is chosen.
        recall: where set, each class's threshold is the highest, up to `threshold`, that lets this share of the
            validation patches with that class pass.
        context: of the bundle; standard deviation, in sides of a patch, of the Gaussian by which the classifier's
            probabilities are averaged over the patches around each before they are compared with the thresholds; 0
            lets each patch decide alone.
        floor: of the bundle; share of the most probable class's probability from which a class is allowed whatever its
            threshold. None for no such rule, as by the published rule.
        rule: of the bundle; "exclude" takes a suppressed class out, "multiply_logits" is the published program's, which
            multiplies its logits by 0.
        mode: of the bundle. "patches" asks the classifier about each patch by itself; "windows" shows it large tiles
            and averages its activation maps over each patch inside; "shared" puts the gate on the segmenter's encoder,
            so that the classifier is not needed to predict. The last two are faster (docs/large-tiles.md) and need
            context 0 and rule "exclude".
        shared_passes: over the training patches, each augmented otherwise, to teach the shared gate; 0 for one pass
            over them as they are.
        shared_decay: what half the squared weights of the shared gate cost, on standardised features.
    """

    threshold: Share = 0.1
    recall: Share | None = None
    context: float = Field(default=0.0, ge=0, le=20)
    floor: float | None = Field(default=None, gt=0, le=1)
    rule: GateRule = "exclude"
    mode: GateMode = "patches"
    shared_passes: int = Field(default=4, ge=0, le=100)
    shared_decay: float = Field(default=0.03, gt=0, le=100)

    @model_validator(mode="after")
    def _check_mode(self) -> Self:
        check_gate_mode(self.mode, self.context, self.rule)
        return self

    @property
    def floor_by_rule(self) -> float | None:
        """The floor, where the rule has one."""
        return None if RULES[self.rule].by_sign else self.floor

    @property
    def is_shared(self) -> bool:
        """Whether the segmenter's encoder gets a gate of its own, which is taught after it."""
        return MODES[self.mode].shared_head


class TrainingConfig(_Part):
    """A whole training, both stages.

    Attributes:
        preset: the name that it started from.
        classifier: of stage 1.
        segmenter: of stage 2.
        stage1: optimiser of stage 1.
        stage2: optimiser of stage 2.
        augmentation1: of stage 1.
        augmentation2: of stage 2.
        attention: progressive dropout attention in stage 1.
        pseudo_masks: how masks are made of activation maps.
        supervision: how stage 2 learns from them.
        gate: how thresholds are chosen.
        imbalance: what stage 1 does about rare classes: "sampler" shows patches that have one more often, "weights"
            gives its presence more weight in the loss, "none" leaves it.
        sheet_patches: patches on the sheet of pictures that is drawn after every epoch; 0 draws none.
        encoder_training: what is learned of the lite networks' encoders: "full", "frozen" for nothing, or "lora" for
            matrices of low rank beside each layer.
        lora_rank: of these matrices.
        shared_encoder: the segmenter takes the trained classifier's encoder as it is, and a bundle holds it once.
        feature_cache: bytes that features of a frozen encoder may take on the disk, so that they are computed once; 0
            computes them in every epoch.
        feature_views: augmented views of each patch that are computed for it.
        hold_weights: a bundle holds a frozen encoder whatever its licence, instead of naming weights that must not be
            handed on.
        start_from_classifier: begin the segmenter with the trained classifier's encoder, where both have the same.
        val_share: share of groups set aside where the data set does not split itself.
        refit: folds of groups over which thresholds are chosen by cross-validation, so that the networks learn from all
            patches and none is set aside; 0 sets `val_share` aside instead. "few" takes three folds
            where the data set does not split itself and has at most 2,000 patches.
        overlap: share of a patch that neighbours cover at prediction.
        seed: of everything random.
        precision: of the arithmetic; "auto" is bf16-mixed on a GPU that has it, else 32-true.
        half_weights: store convolution weights in 16 bits.
    """

    preset: str
    classifier: NetworkConfig
    segmenter: NetworkConfig
    stage1: OptimiserConfig
    stage2: OptimiserConfig
    augmentation1: AugmentationConfig = AugmentationConfig()
    augmentation2: AugmentationConfig = AugmentationConfig()
    attention: AttentionConfig = AttentionConfig()
    pseudo_masks: PseudoMaskConfig = PseudoMaskConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    gate: GateConfig = GateConfig()
    imbalance: Literal["none", "sampler", "weights"] = "none"
    sheet_patches: int = Field(default=6, ge=0, le=64)
    encoder_training: EncoderTraining = "full"
    lora_rank: int = Field(default=8, ge=1, le=256)
    shared_encoder: bool = False
    feature_cache: int = Field(default=0, ge=0, le=2**50)
    feature_views: int = Field(default=4, ge=1, le=64)
    hold_weights: bool = False
    start_from_classifier: bool = False
    val_share: float = Field(default=0.1, ge=0, lt=1)
    refit: Annotated[int, Field(ge=0, le=20)] | Literal["few"] = 0
    overlap: float = Field(default=0.5, ge=0, lt=1)
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    precision: TrainingPrecision = "auto"
    half_weights: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.supervision.weights) != 3:
            raise ValueError("supervision.weights needs three values, one for each depth")
        if self.refit == 1:
            raise ValueError("refit needs at least two folds, or 0 for none")
        if self.feature_cache and self.encoder_training != "frozen" and not self.shared_encoder:
            raise ValueError(
                "feature_cache (--feature-cache) is for an encoder that is not learned: add --encoder-training frozen, "
                "or --shared-encoder"
            )
        if self.feature_cache and self.supervision.mosaics:
            raise ValueError("feature_cache keeps views of whole patches, of which no mosaics are made: leave out one")
        return self

    @property
    def folds(self) -> int:
        """Of cross-validation; 0 where there is none, or nothing is decided yet."""
        return 0 if self.refit == "few" else self.refit

    def changed(self, **parts: object) -> TrainingConfig:
        """A copy with other values, checked; a mapping changes the named values of a part.

        Raises:
            OptionError: on a value out of its range.
        """
        fields = self.model_dump()
        for name, value in parts.items():
            fields[name] = {**fields[name], **value} if isinstance(value, dict) else value
        try:
            return TrainingConfig.model_validate(fields)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            if not first["loc"]:  # what several settings say together
                raise OptionError(first["msg"].removeprefix("Value error, ")) from error
            place = ".".join(str(part) for part in first["loc"])
            raise OptionError(f"{place}: {first['msg']}, got {first['input']!r:.60}") from error


def published_config() -> TrainingConfig:
    """The method as published (Han et al. 2022), with this project's corrections.

    Networks, optimisers and augmentation are the published program's. Corrected are what it gets wrong: pixels are
    normalised as the ImageNet statistics of the frozen BatchNorm layers expect, attention is divided by its
    maximum, pseudo masks are normalised per class, the loss is not divided by the batch size once more, and momentum
    is 0.9 where the program passed its weight decay.
    """
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return TrainingConfig(
        preset="published",
        classifier=NetworkConfig(architecture="resnet38", mean=mean, std=std),
        segmenter=NetworkConfig(architecture="deeplabv3plus_resnet101", mean=mean, std=std),
        stage1=OptimiserConfig(epochs=20),
        stage2=OptimiserConfig(epochs=30, keep="best"),
        augmentation2=AugmentationConfig(vertical_flip=0.0, blur=0.5),
    )


def lite_config(encoder: str = "tf_efficientnet_lite0") -> TrainingConfig:
    """Small networks on any encoder (docs/encoders.md), for a laptop; every value was chosen on validation patches."""
    from wsiseg.models.weights.encoder_sources import find_encoder  # noqa: PLC0415  (timm takes seconds to import)

    source = find_encoder(encoder)
    arguments: dict[str, JsonValue] = {"encoder": source.architecture}
    if source.arguments is not None:
        arguments["encoder_arguments"] = source.arguments
    augmentation = AugmentationConfig(transpose=0.5, stain=1.0, blur=0.2, zoom=0.15)
    optimiser = OptimiserConfig(
        algorithm="adamw",
        learning_rate=3e-4,
        head_factor=3.3,
        weight_decay=0.02,
        schedule="one_cycle",
        epochs=7,
        batch_size=32,
        average_decay=0.99,
    )
    mean, std = source.normalisation
    weights = {"initial_weights": source.weights, "published": source.published}
    return TrainingConfig(
        preset="lite",
        classifier=NetworkConfig(architecture="lite_classifier", arguments=arguments, mean=mean, std=std, **weights),
        segmenter=NetworkConfig(architecture="lite_segmenter", arguments=arguments, mean=mean, std=std, **weights),
        stage1=optimiser,
        stage2=optimiser.model_copy(update={"keep": "best"}),
        augmentation1=augmentation,
        augmentation2=augmentation,
        attention=AttentionConfig(first_epoch=None),
        gate=GateConfig(threshold=0.4, recall=0.98, context=2.0, floor=0.7),
        imbalance="sampler",
        refit="few",
        start_from_classifier=True,
        half_weights=True,
    )


PRESETS = {"lite": lite_config, "published": published_config}
