"""The labelling page in a real browser: thirty patches by keys, a kill, undo over the restart, a training."""

import csv
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.browser import done, page_of, settled, wait_until
from tests.helpers.pages import Server, served

CLASSES = "Tumour,Stroma,Lymphocytes"


@contextmanager
def labelling(sample_data: Path, out: Path, *more: object) -> Iterator[Server]:
    slide = sample_data / "CMU-1-Small-Region.svs"
    command = ("-m", "wsiseg", "label", slide, "--out", out, "--port", 0, "--no-browser", "--candidates", 60, *more)
    with served(*command) as server:
        yield server


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_thirty_patches_a_kill_and_undo(sample_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "patches"
    with labelling(sample_data, out, "--classes", CLASSES) as server, page_of(server) as page:
        for number in range(30):
            for key in ("1", "12", "2", "3", "")[number % 5]:
                page.keyboard.press(key)
            page.keyboard.press("Enter")
            if number == 23:
                wait_until(lambda: "page 2" in page.locator("#where").inner_text())
        settled(page)
        assert done(page) == 30
        assert "page 2" in page.locator("#where").inner_text()
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
    with labelling(sample_data, out) as server:
        assert len(rows(out)) == 30, "what the kill kept from the table is there when it serves again"
        with page_of(server) as page:
            assert done(page) == 30
            assert page.locator(".patch.done").count() == 6
            for _ in range(8):  # eight keys: three patches with their classes, and more
                page.keyboard.press("u")
                settled(page)
            assert done(page) < 30
            assert "page 2" in page.locator("#where").inner_text()
            for _ in range(8):
                page.keyboard.press("U")
                settled(page)
            assert done(page) == 30
        code, said = server.end()
        assert code == 0, said
    table = rows(out)
    assert [row["Tumour"] + row["Stroma"] + row["Lymphocytes"] for row in table] == [
        ("100", "110", "010", "001", "000")[number % 5] for number in range(30)
    ]


def test_names_are_text_and_other_keys_do_what_they_say(sample_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "patches"
    evil = "<img src=x onerror=alert(1)>"
    with labelling(sample_data, out, "--classes", f"Tumour,{evil}") as server, page_of(server) as page:
        assert page.locator("#classes .name").nth(1).inner_text() == evil
        assert page.locator("#classes img").count() == 0
        page.keyboard.press("2")
        page.keyboard.press("0")
        page.keyboard.press("?")
        page.keyboard.press("x")
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        page.keyboard.press(".")
        page.keyboard.press("Shift+Digit2")
        page.keyboard.press("c")
        wait_until(lambda: page.locator("#picture").evaluate("it => it.naturalWidth") > 0)
        page.keyboard.press("c")
        settled(page)
        places = page.locator(".patch").evaluate_all("all => all.map(one => one.dataset.status)")
        assert places[:6] == ["labelled", "unsure", "excluded", "labelled", "labelled", "draft"]
        page.keyboard.press("Shift+Enter")
        wait_until(lambda: "page 2" in page.locator("#where").inner_text())
        page.keyboard.press("p")
        assert "no model" in page.locator("#message").inner_text()
        page.keyboard.press("g")
        wait_until(lambda: "group" in page.locator("#where").inner_text())
        settled(page)
    assert len(rows(out)) == 24


@pytest.mark.slow
def test_a_training_from_the_page_while_labelling_goes_on(sample_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "patches"
    with labelling(sample_data, out, "--classes", "Tumour,Stroma") as server:
        server.enter()
        answers = {str(place): (["Tumour"], ["Stroma"], ["Tumour", "Stroma"])[place % 3] for place in range(24)}
        assert server.post("/api/answer", {"answers": answers, "status": "labelled", "round": 1}).status == 200
        assert server.get("/api/train").json["phase"] == "none"
        assert server.post("/api/train", {}).json["phase"] == "running"
        assert server.post("/api/train", {}).status == 400, "one at a time"
        assert server.post("/api/answer", {"answers": {"25": []}, "status": "labelled", "round": 1}).status == 200
        state = server.get("/api/train").json
        assert state["model"] == "patches-model-1"
        server.end()
    assert len(rows(out)) == 25
    log = (out / "labelling" / "patches-model-1.log").read_text()
    assert "Traceback" not in log


def test_what_a_page_may_not_send(sample_data: Path, tmp_path: Path) -> None:
    with labelling(sample_data, tmp_path / "patches", "--classes", CLASSES) as server:
        server.enter()
        answer = {"answers": {"0": ["Tumour"]}, "status": "labelled", "round": 1}
        for change in (
            {"answers": {"9999": []}}, {"answers": {"-1": []}}, {"answers": {"0": ["Fat"]}}, {"answers": {"0": "x"}},
            {"answers": []}, {"status": "fine"}, {"round": 7}, {"round": "1"}, {"answers": {}},
        ):  # fmt: skip
            assert server.post("/api/answer", answer | change).status in (400, 404), change
        for path in ("/patch/1/9999.png", "/patch/9/0.png", "/patch/1/..%2f..%2flabels.csv", "/api/page?number=999"):
            assert server.get(path).status == 404, path
        assert server.get("/api/page?number=x").status == 400
        page = server.get("/api/page").json
        text = str(page)
        assert "CMU" not in text, "a page knows neither slide nor place"
        assert server.get(page["items"][0]["patch"]).headers["content-type"] == "image/png"
        code, said = server.end()
        assert code == 0, said
