"""How long the networks take for a patch, by memory layout and precision, as ratios in one run.

python benchmarks/precision.py [--model NAME]
"""

from __future__ import annotations

import argparse
import time

import torch

from wsiseg.models import DEFAULT_MODEL
from wsiseg.models.bundle import load_model

ROUNDS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    args = parser.parse_args()
    model = load_model(args.model)
    side = model.spec.patch_size_px
    count = max(1, 2**18 // side**2)
    last = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    base = 0.0
    print(f"{count} patches of {side} px, {torch.get_num_threads()} threads")
    for layout, memory_format in (("channels first", torch.contiguous_format), ("channels last", torch.channels_last)):
        model.classifier.to(memory_format=memory_format)
        model.segmenter.to(memory_format=memory_format)
        patches = last.contiguous(memory_format=memory_format)
        for half in (False, True):
            seconds = []
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                for _ in range(ROUNDS):
                    start = time.perf_counter()
                    model.classify(patches)
                    model.segment(patches)
                    seconds.append(time.perf_counter() - start)
            median = sorted(seconds[2:])[len(seconds[2:]) // 2]
            base = base or median
            name = "bfloat16" if half else "float32"
            print(f"{layout:14} {name:9} {1000 * median / count:6.2f} ms a patch, {base / median:4.2f} x")


if __name__ == "__main__":
    main()
