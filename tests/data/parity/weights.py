"""Deterministic network weights for parity checks: every tensor is a function of its name and shape.

Both sides of a parity check fill their network with `fill(name, shape)`; equal logits then mean equal
architectures, whatever code built them. Needs numpy alone.
"""

import zlib

import numpy as np


def fill(name: str, shape) -> np.ndarray:
    """The tensor `name` of a state dict, as a float32 (int64 for counters) array of `shape`."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    shape = tuple(shape)
    if len(shape) == 4:  # convolution: output x input x height x width
        fan_in = int(np.prod(shape[1:]))
        return (rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)
    if name.endswith(("running_var", "weight")):
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    return (0.1 * rng.standard_normal(shape)).astype(np.float32)  # biases and running means
