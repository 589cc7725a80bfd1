"""Names of any bytes, and terminals and pipes of any encoding."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.program import Command, run_all
from wsiseg.cli.streams import use_printable_streams
from wsiseg.system.printable import printable, readable


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("utf-8", "mm² µ … →"), ("ascii", "mm2 u ... ->"), ("gbk", "mm2 u … →"), ("cp932", "mm2 u … →")],
)
def test_output_falls_back_to_what_the_stream_can_print(encoding: str, expected: str) -> None:
    code = (
        "import click\n"
        "from rich.console import Console\n"
        "from wsiseg.cli.streams import use_printable_streams\n"
        "use_printable_streams()\n"
        "text = 'mm\\xb2 \\xb5 \\u2026 \\u2192'\n"
        "click.echo(text); Console().print(text); click.echo(text, err=True); print('a\\udce9b \\u5b57'[:3])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}, check=True
    )
    shown = done.stdout.decode(encoding).splitlines()
    assert shown == [expected, expected, r"a\xe9b"]
    assert done.stderr.decode(encoding).strip() == expected


def test_names_that_are_not_utf_8_are_written_out() -> None:
    name = os.fsdecode(b"h\xe9.svs")
    assert readable(name) == r"h\xe9.svs"
    assert printable(name) == r"h\xe9.svs"
    assert readable("hé.svs") == "hé.svs"
    assert readable("\ud800") == r"\ud800"


def test_streams_that_are_no_files_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    use_printable_streams()
    assert sys.stdout is stream


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have names of Unicode alone")
def test_a_slide_and_a_map_with_names_that_are_not_utf_8(tmp_path: Path, sample_data: Path) -> None:
    """Bytes as an old Latin-1 disk has them: predicted, shown, and exported, in a terminal of ASCII."""
    from wsiseg.geometry import Box, plan_grid
    from wsiseg.slides import open_slide

    with open_slide(sample_data / "CMU-1-Small-Region.svs") as slide:
        region = slide.read(plan_grid(slide.levels, slide.mpp, slide.mpp.x), Box(600, 900, 224, 224))
    name, out = tmp_path / os.fsdecode(b"h\xe9.png"), tmp_path / os.fsdecode(b"m\xe9.zarr")
    Image.fromarray(region.pixels).save(name)

    predict = ["predict", name, "--mpp", "0.5", "--tissue", "none"]
    outputs = {ending: tmp_path / os.fsdecode(b"e\xe9" + ending.encode()) for ending in (".png", ".csv", ".ome.tif")}
    export = ["export", out, "--png", outputs[".png"], "--csv", outputs[".csv"], "--ome-tiff", outputs[".ome.tif"]]
    commands = [
        *([*predict, "--out", out, "--json"], ["info", out, "--json"], export),
        [*predict, "--out", tmp_path / os.fsdecode(b"many\xe9")],
    ]
    done = run_all([Command(command) for command in commands], {"PYTHONIOENCODING": "ascii"})
    assert [said.code for said in done] == [0, 0, 0, 0], done
    told, information, *_ = (said.out.decode("ascii") for said in done)
    assert Path(json.loads(told)["map_path"]) == out
    stored = json.loads((out / "zarr.json").read_text(encoding="utf-8"))["attributes"]
    assert stored["wsiseg"]["slide"]["name"] == r"h\xe9.png"
    assert stored["ome"]["multiscales"][0]["name"] == r"m\xe9"
    assert json.loads(information)["slide"]["name"] == r"h\xe9.png"
    assert all(path.stat().st_size for path in outputs.values())
    assert (tmp_path / os.fsdecode(b"many\xe9") / os.fsdecode(b"h\xe9.zarr")).is_dir()
