"""The command as a whole: what it writes, refuses, and takes from files."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.commands import run  # noqa: F401  (a fixture)
from tests.helpers.report_maps import S, T, disc, ground, made_map, striped
from wsiseg.cli.main import main
from wsiseg.errors import MapError, OptionError, OutputError
from wsiseg.report.bulk import BulkOptions
from wsiseg.report.measure import MeasureOptions
from wsiseg.report.run import ReportOptions, ReportOutputs, report

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>.svs"
FORMULA = '=HYPERLINK("http://x","y").svs'
QUICK = ReportOptions(MeasureOptions(BulkOptions.of("biopsy"), field_um=6000, resamples=50, block_um=400))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two maps with names that would do harm if they were taken for markup or formulas."""
    folder = tmp_path_factory.mktemp("maps")
    names = ["Tumour", "Stroma", "Lymphocytes", "<b>Necrosis"]
    return [
        made_map(folder / "a.zarr", striped(2, 2), names, slide=EVIL, quick_hash="a" * 64),
        made_map(folder / "b.zarr", striped(2, 1.5), names, slide=FORMULA, quick_hash="b" * 64),
    ]


def with_role(**changes: Any) -> ReportOptions:
    from dataclasses import replace

    return replace(QUICK, roles=("none=<b>Necrosis",), **changes)


class Elements(HTMLParser):
    """What a browser would make of a page: elements with attributes, and texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_names_from_files_are_text(two: list[Path], tmp_path: Path) -> None:
    outputs = ReportOutputs(tmp_path / "r.html", tmp_path / "r.csv", tmp_path / "r.parquet", tmp_path / "long.csv")
    found = report(two, outputs, with_role(title="<i>T</i>"))
    assert [slide.slide for slide in found.slides] == [EVIL, FORMULA]
    text = outputs.page.read_text(encoding="utf-8")
    page = Elements(text)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 1
    assert not {"i", "iframe", "link", "object", "embed", "base"} & set(tags)
    assert EVIL in page.texts
    assert "<b>Necrosis" in page.texts
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    for tag, attributes in page.elements:
        assert (attributes.get("src") or "data:").startswith("data:"), tag
        assert (attributes.get("href") or "#").startswith("#"), tag
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_tables(two: list[Path], tmp_path: Path) -> None:
    patients = tmp_path / "patients.csv"
    patients.write_text(
        f'Slide;Patient;age;=1+1\n"{EVIL.replace(chr(34), chr(34) * 2)}";P1;60;x\nb;P1;61;@y\nelse;P2;1;2\n'
    )
    long_parquet = tmp_path / "long.parquet"
    outputs = ReportOutputs(tmp_path / "r.html", tmp_path / "r.csv", tmp_path / "r.parquet", long_parquet)
    found = report(two, outputs, with_role(patients=patients))
    assert [slide.patient for slide in found.slides] == ["P1", "P1"]
    with (tmp_path / "r.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["patient"] for row in rows] == ["P1", "P1"]
    assert rows[1]["slide"] == "'" + FORMULA
    assert (rows[0]["age"], rows[1]["'=1+1"]) == ("60", "'@y")
    assert float(rows[0]["stroma_pct"]) == pytest.approx(60, abs=1)
    assert float(rows[0]["stroma_pct_low"]) <= float(rows[0]["stroma_pct"]) <= float(rows[0]["stroma_pct_high"])
    assert float(rows[0]["tissue_mm2"]) == pytest.approx(4, rel=0.01)
    assert rows[0]["stroma_pct_tenfold"] == "60.0"
    assert not any(name.startswith("necrosis") for name in rows[0]), "the class set has no necrosis"

    import pyarrow.parquet as pq

    wide = pq.read_table(tmp_path / "r.parquet").to_pylist()
    assert wide[1]["slide"] == FORMULA, "a typed table needs no guard"
    assert wide[0]["stroma_pct"] == found.slides[0].of("stroma_pct").value
    assert wide[0]["stroma_hot_spot_pct"] is None
    table = pq.read_table(long_parquet).to_pylist()
    one = next(row for row in table if row["name"] == "stroma_pct" and row["slide"] == FORMULA)
    assert (one["unit"], one["method"], one["interval_includes"]) == ("%", "wsiseg:stroma_pct/1", "spatial")
    assert one["denominator_mm2"] == pytest.approx(3, rel=0.05)
    assert json.loads(one["parameters"])["bulk_diameter_um"] == 500
    spot = next(row for row in table if row["name"] == "stroma_hot_spot_pct")
    assert spot["value"] is None
    assert "no field of 6 mm" in spot["reason"]


def test_the_command(run: Callable[..., str], two: list[Path], tmp_path: Path) -> None:  # noqa: F811
    arguments = [
        *two,
        "--out",
        tmp_path / "r.html",
        "--role",
        "none=<b>Necrosis",
        "--specimen",
        "biopsy",
        "--resamples",
        30,
    ]
    said = run("report", *arguments, "--csv", tmp_path / "r.csv")
    assert "stroma" in said
    assert f"wrote {tmp_path / 'r.html'}" in said
    assert "note: Biopsies" in said
    facts = json.loads(run("report", *arguments, "--overwrite", "--json"))
    names = [one["name"] for one in facts["slides"][0]["measures"]]
    assert {"tissue_mm2", "stroma_pct", "stroma_pct_by_probability"} <= set(names)
    assert facts["slides"][0]["flags"][0]["state"] == "ok"
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as stop:
        main(["report", *map(str, arguments)])
    assert stop.value.code == 2
    assert sorted(tmp_path.iterdir()) == before


def test_a_cohort_is_over_patients(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps, lines = [], ["slide,patient"]
    for number in range(12):
        classes = ground(1.6, 1.6, S)
        classes[rng.random(classes.shape[0]) < 0.3 + 0.03 * (number // 2)] = T
        maps.append(
            made_map(
                tmp_path / f"m{number}.zarr",
                classes,
                ["Tumour", "Stroma"],
                slide=f"s{number}.svs",
                quick_hash=f"{number:064x}",
            )
        )
        lines.append(f"s{number},P{number // 2}")
    patients = tmp_path / "p.csv"
    patients.write_text("\n".join(lines), encoding="utf-8")
    from dataclasses import replace

    found = report(maps, ReportOutputs(tmp_path / "r.html"), replace(QUICK, patients=patients))
    (one, slides, count, low, high), *_ = found.cohort
    values = np.array([slide.of("stroma_pct").value for slide in found.slides]).reshape(6, 2)
    assert (slides, count) == (12, 6)
    assert one.value == pytest.approx(values.mean())
    assert one.low < one.value < one.high
    assert one.includes == "patients + slides within patients"
    assert (low, high) == pytest.approx(tuple(np.percentile(values.mean(axis=1), [25, 75])))
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    pictures = {a["alt"] for tag, a in Elements(text).elements if tag == "img" and "svg" in (a["src"] or "")}
    assert {"Stroma, % of tumour + stroma, slides", "Stroma, % of tumour + stroma, patients"} <= pictures
    assert "a table of patients" in text
    few = report(maps[:2], ReportOutputs(tmp_path / "few.html"), QUICK).cohort[0][0]
    assert few.reason == "interval not estimable: 2 patients, 5 are needed"


def test_a_slide_and_a_bed(sample_data: Path, tmp_path: Path) -> None:
    """With the slide: its picture below the classes, pen and blur judged; another slide is refused."""
    slide = sample_data / "CMU-1-Small-Region.svs"
    from wsiseg.slides import open_slide

    with open_slide(slide) as opened:
        quick = opened.quick_hash()
    classes = ground(1.48, 1.1, S, mpp=4)
    classes[disc(classes, 0.55, 0.7, 0.3, mpp=4)] = T

    def change(about: dict[str, Any]) -> None:
        about["slide"] = {"name": slide.name, "quick_hash": quick, "width": 2220, "height": 2967}

    path = made_map(tmp_path / "m.zarr", classes, ["Tumour", "Stroma", "Necrosis"], mpp=4, change=change)
    bed = tmp_path / "beds"
    bed.mkdir()
    square = [[0, 0], [2000, 0], [2000, 2000], [0, 2000], [0, 0]]
    (bed / f"{slide.stem}.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [square]}))
    options = ReportOptions(MeasureOptions(resamples=0), slides=sample_data, regions=bed)
    (one,) = report([path], ReportOutputs(tmp_path / "r.html"), options).slides
    flags = {flag.name: flag.state for flag in one.flags}
    assert (one.has_slide, flags["pen"], flags["blur"]) == (True, "ok", "ok")
    viable = one.of("bed_viable_tumour_pct")
    assert viable is not None
    # The helper's maps are of 16 level-0 pixels a pixel.
    assert viable.denominator_mm2 == pytest.approx((2000 / 16 * 4 / 1000) ** 2, rel=0.01)
    with pytest.raises(OptionError, match=r"is not the slide that m\.zarr was made from"):
        report(
            [path], ReportOutputs(tmp_path / "o.html"), ReportOptions(slide=str(sample_data / "OS-1-detail.ome.tif"))
        )
    (bed / f"{slide.stem}.geojson").write_text(
        json.dumps({"type": "Polygon", "coordinates": [[[x + 10**6, y] for x, y in square]]})
    )
    with pytest.raises(OptionError, match=r"has no area on CMU-1-Small-Region\.svs"):
        report([path], ReportOutputs(tmp_path / "o.html"), options)
    assert not (tmp_path / "o.html").exists()


@pytest.mark.parametrize("name", ["../x.svs", "/etc/passwd", "a/../../b.svs"])
def test_a_slides_name_leads_nowhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "slides").mkdir()
    (tmp_path / "x.svs").write_bytes(b"no slide")
    path = made_map(tmp_path / "m.zarr", striped(0.5, 0.5), slide=name)
    from dataclasses import replace

    (one,) = report([path], ReportOutputs(tmp_path / "r.html"), replace(QUICK, slides=tmp_path / "slides")).slides
    assert "no slide of this name is in slides" in next(flag for flag in one.flags if flag.name == "pen").text


def test_what_does_not_fit_is_refused_before_any_work(two: list[Path], tmp_path: Path) -> None:
    page = ReportOutputs(tmp_path / "r.html")
    roles = ("none=<b>Necrosis",)
    (tmp_path / "p.csv").write_text("slide,who\na,b\n")
    (tmp_path / "q.csv").write_text("slide,patient\na,b\na,c\n")
    (tmp_path / "t.csv").write_text("slide,patient,stroma_pct\na,b,3\n")
    (tmp_path / "e.json").write_text("{}")
    refused: list[tuple[list[Path], ReportOutputs, ReportOptions, type[Exception], str]] = [
        (two, page, ReportOptions(), OptionError, "may play the role of necrosis"),
        (two, page, ReportOptions(roles=(*roles, "stroma=Strma")), OptionError, "'Strma', which no map has"),
        ([], page, ReportOptions(), OptionError, "nothing to report"),
        ([two[0], two[0]], page, ReportOptions(roles=roles), OptionError, "given twice"),
        ([*two, tmp_path / "none.zarr"], page, ReportOptions(roles=roles), MapError, "does not exist"),
        (two, ReportOutputs(tmp_path / "r.txt"), ReportOptions(roles=roles), OptionError, "ends in .html"),
        (two, ReportOutputs(page.page, long=tmp_path / "r.xls"), ReportOptions(roles=roles), OptionError, "end"),
        (two, ReportOutputs(tmp_path / "no" / "r.html"), ReportOptions(roles=roles), OutputError, "does not exist"),
        (two, page, ReportOptions(roles=roles, slide="a.svs"), OptionError, "single map"),
        (two, page, ReportOptions(roles=roles, slides=tmp_path / "x"), OptionError, "not a folder"),
        (two, page, ReportOptions(roles=roles, regions=tmp_path / "x"), OptionError, "does not exist"),
        (two, page, ReportOptions(roles=roles, patients=tmp_path / "p.csv"), OptionError, "needs one column 'patient'"),
        (two, page, ReportOptions(roles=roles, patients=tmp_path / "q.csv"), OptionError, "line 3: the slide 'a'"),
        (two, page, ReportOptions(roles=roles, patients=tmp_path / "t.csv"), OptionError, "rename it"),
        (two, page, ReportOptions(roles=roles, evaluation=tmp_path / "e.json"), OptionError, "no confusion matrix"),
    ]  # fmt: skip
    before = sorted(path.name for path in tmp_path.iterdir())
    for maps, outputs, options, error, words in refused:
        with pytest.raises(error, match=re.escape(words)):
            report(maps, outputs, options)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_nothing_is_left_half_written(two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wsiseg.report.run.save_page", fail)
    with pytest.raises(OutputError, match="No space left"):
        report(two, ReportOutputs(tmp_path / "r.html", tmp_path / "r.csv"), with_role())
    assert list(tmp_path.iterdir()) == []


def test_many_maps_take_as_much_memory_as_one(tmp_path: Path) -> None:
    """And as long each: 16 maps in a process of its own, its largest memory early and late compared."""
    classes = striped(1.6, 1.6)
    first = made_map(tmp_path / "m0.zarr", classes, slide="s0.svs", quick_hash=f"{0:064x}")
    for number in range(1, 16):
        copy = tmp_path / f"m{number}.zarr"
        shutil.copytree(first, copy)
        node = copy / "zarr.json"
        node.write_text(node.read_text().replace("s0.svs", f"s{number}.svs").replace("0" * 64, f"{number:064x}"))
    code = (
        "import resource, sys, time\n"
        "from pathlib import Path\n"
        "from wsiseg.report.run import *\n"
        "from wsiseg.report.bulk import BulkOptions\n"
        "options = ReportOptions(MeasureOptions(BulkOptions.of('biopsy'), block_um=200))\n"
        f"maps = [Path({str(tmp_path)!r}, f'm{{n}}.zarr') for n in range(16)]\n"
        "seen = []\n"
        "def progress(done, total, name):\n"
        "    seen.append((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()))\n"
        f"report(maps, ReportOutputs(Path({str(tmp_path)!r}, 'r.html')), options, progress=progress)\n"
        "print(seen[5][0], seen[15][0], seen[10][1] - seen[5][1], seen[15][1] - seen[10][1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    early, late, some, other = map(float, done.stdout.split())
    assert late < early + 20_000, "KiB"
    assert other < 1.6 * some + 0.5
    assert (tmp_path / "r.html").stat().st_size < 1_000_000


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_in_a_browser_the_table_filters_and_no_name_runs(two: list[Path], tmp_path: Path) -> None:
    report(two, ReportOutputs(tmp_path / "r.html"), with_role())
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000",
        f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "r.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert '<span id="shown">2 of 2 shown</span>' in done.stdout
    assert "onerror" not in re.sub(r"&lt;.*?&gt;", "", done.stdout)


def test_pictures_show_the_classes(tmp_path: Path) -> None:
    """The picture that stands in the page has the class colours where the classes are."""
    classes = ground(4, 4, S)
    classes[disc(classes, 2, 2, 1.2)] = T
    path = made_map(tmp_path / "m.zarr", classes, ["Tumour", "Stroma"])
    report([path], ReportOutputs(tmp_path / "r.html"), QUICK)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    data = re.search(r"data:image/png;base64,([A-Za-z0-9+/=]+)", text)
    assert data is not None
    import io

    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1]))).convert("RGB")).astype(int)
    red, orange = picture[250, 250], picture[30, 30]
    assert red[0] > 1.7 * red[1]
    assert orange[0] > orange[2] + 60 and orange[1] > orange[2] + 40
    assert "Dark line: outline of the tumour bulk" in text
