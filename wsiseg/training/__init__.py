"""Two stages: a classifier, pseudo masks, a segmenter; and the bundle that comes of it."""

from wsiseg.system.extras import require_extra

# Before any module of this folder is loaded: an installation for predicting alone lacks these.
require_extra("train", "training", "lightning", "kornia", "torchmetrics")
