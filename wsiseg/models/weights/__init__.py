"""Weights from elsewhere: checkpoints, MXNet, ImageNet, the published program."""
