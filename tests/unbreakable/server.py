"""A program that has loaded everything and forks a run for each line it is given.

A run of `wsiseg predict` costs seconds until torch is loaded; a fork of a process that has it costs none. The child is
a process of its own, that can be killed like any other. One line in is a JSON object:

    arguments   of the command line
    log         file that takes what it prints
    piece_px    side of a piece, to have many of them in a small map
    colors      whether the model is that of `tests.helpers.color_model`, whatever the arguments say; torch computes it,
                since OpenVINO would take longer to compile it than all the rest of a run takes
    fault       a function of `tests.unbreakable.faults` that is called first, with the values of `fault_arguments`

Two lines come out: the child's number at once, and what `os.waitpid` says of its end.
"""

import gc
import json
import os
import signal
import sys

import imagecodecs  # noqa: F401  these, so that no child has to load them
import openslide  # noqa: F401
import PIL.Image  # noqa: F401
import rich.table  # noqa: F401
import tifffile  # noqa: F401
import torch

import wsiseg.models.bundle
import wsiseg.prediction.run
import wsiseg.slides.openslide
import wsiseg.slides.tiff.reader
import wsiseg.system.memory
from tests.helpers.color_model import color_model
from tests.unbreakable import faults
from wsiseg.cli import export, predict  # noqa: F401
from wsiseg.cli.main import main


def run(request: dict) -> int:
    output = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it starts with "&" ignore it
    if "piece_px" in request:
        wsiseg.system.memory.PIECE_PX = request["piece_px"]
    if request.get("colors"):
        wsiseg.prediction.run.load_model = lambda *_, **__: color_model()
        request["arguments"] += ["--runtime", "torch"]
    if "fault" in request:
        getattr(faults, request["fault"])(*request.get("fault_arguments", []))
    try:
        main(request["arguments"])
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def serve() -> None:
    torch.set_num_threads(1)
    gc.freeze()  # what is loaded stays: no child has to look through it
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = run(json.loads(line))
            except BaseException:  # a defect: the log shows it
                import traceback

                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    serve()
