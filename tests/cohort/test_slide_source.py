"""Lists of slides as people write them, and the names of their maps."""

import time
import tracemalloc
from itertools import chain
from pathlib import Path

import pytest

from tests.helpers.maps import painted
from tests.helpers.servers import address_of
from wsiseg.cohort.names import Cohort
from wsiseg.cohort.slide_source import Entry, SlideSource
from wsiseg.errors import OptionError, WsisegError


def entries(path: Path | str) -> list[Entry]:
    return list(SlideSource(str(path)))


def maps(path: Path, **options: bool) -> list[str]:
    return [named.map for named in Cohort(SlideSource(str(path)), **options)]


def test_a_text_file_has_a_slide_a_line(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(
        '\ufeff# mine\r\n/d/ä b.svs\r\n\r\n  s3://bucket/c.svs?v=1#x \n"/d/e.svs"'.encode()
    )
    assert [entry.slide for entry in entries(tmp_path / "list.txt")] == [
        "/d/ä b.svs",
        "s3://bucket/c.svs?v=1#x",
        "/d/e.svs",
    ]
    (tmp_path / "latin").write_bytes("/d/ä.svs\n".encode("latin-1"))
    (tmp_path / "utf16").write_bytes("/d/ä.svs\n".encode("utf-16"))
    assert entries(tmp_path / "latin") == entries(tmp_path / "utf16") == [Entry("/d/ä.svs")]


def test_relative_paths_lie_beside_the_list_or_are_seen_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("lists/a.svs", "b.svs"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    monkeypatch.chdir(tmp_path)
    for first, wanted in (("a.svs", "lists/a.svs"), ("b.svs", "b.svs"), ("neither.svs", "lists/neither.svs")):
        Path("lists/list.txt").write_text(f"{first}\n")
        assert entries("lists/list.txt") == [Entry(wanted)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "path,name,mpp,group\n/d/a.svs,case 1,0.25,p1\n/d/b.svs,,,\n"),
        ("a.CSV", "Group; MPP; Name; PATH\np1;0,25;case 1;/d/a.svs\n;;;/d/b.svs\n"),
        ("a.tsv", "slide\tname\tmpp\tpatient\tnotes\n/d/a.svs\tcase 1\t.25\tp1\told\n\n/d/b.svs\t\t\t\t\n"),
        ("a.csv", 'sep=;\nfile;name;mpp;case\n"/d/a.svs";case 1.zarr;0.250;p1\n/d/b.svs\n'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_in_every_spelling(tmp_path: Path, name: str, text: str, encoding: str) -> None:
    (tmp_path / name).write_text(text, encoding=encoding)
    assert entries(tmp_path / name) == [Entry("/d/a.svs", "case 1", 0.25, "p1"), Entry("/d/b.svs")]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("id,mpp\n1,2\n", "no column for the slides"),
        ("path,path\na,b\n", "two columns"),
        ("path,mpp\na.svs,fast\n", "line 2: expected .* um per pixel"),
        ("path,mpp\na.svs,0.5\nb.svs,-1\n", "line 3: expected .* um per pixel"),
        ("path,name\na.svs,../x\n", "line 2: expected a name"),
        ("path,name\na.svs,/x\n", "line 2: expected a name"),
        ("path,name\n,x\n", "line 2: no path"),
        ("path,name\na.svs,x,y\n", "line 2: more values"),
        ("path\n", "names no slide"),
    ],
)
def test_bad_tables_are_refused_by_line_before_any_work(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(WsisegError, match=named):
        Cohort(SlideSource(str(tmp_path / "a.csv")))


def test_what_is_no_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(bytes(range(256)) * 10)
    for place, said in ((tmp_path / "a.txt", "no text"), (tmp_path / "none.txt", "does not exist")):
        with pytest.raises(WsisegError, match=said):
            entries(place)
    with pytest.raises(OptionError, match="web servers do not list"):
        entries("https://host/slides/*.svs")


def test_patterns_and_folders_leave_out_what_is_no_slide(tmp_path: Path) -> None:
    (tmp_path / "x [1]").mkdir()
    for name in ("b.png", "a.png", "notes.txt", ".hidden", "Thumbs.db"):
        (tmp_path / "x [1]" / name).write_bytes(b"x")
    wanted = [Entry(str(tmp_path / "x [1]" / name)) for name in ("a.png", "b.png")]
    assert entries(tmp_path / "x [1]") == entries(tmp_path / "x*" / "*") == entries(tmp_path / "**" / "*.png") == wanted
    assert entries((tmp_path / "x [1]").as_uri()) == wanted


def test_a_bucket_is_listed_and_holds_lists(tmp_path: Path) -> None:
    files = tmp_path / "files"
    (files / "deep").mkdir(parents=True)
    for name in ("b.svs", "a.svs", "deep/c.svs", "notes.txt"):
        (files / name).write_text("x")
    (files / "list.csv").write_text("path,name\nb.svs,first\n/d/e.svs,\n")
    with address_of("s3", files, tmp_path) as address:
        assert [entry.slide for entry in entries(f"{address}/*.svs")] == [f"{address}/a.svs", f"{address}/b.svs"]
        assert [entry.slide for entry in entries(f"{address}/**/*")] == [
            f"{address}/{name}" for name in ("a.svs", "b.svs", "deep/c.svs")
        ]
        assert entries(f"{address}/list.csv") == [Entry(f"{address}/b.svs", "first"), Entry("/d/e.svs")]
        with pytest.raises(OptionError, match="names no slide"):
            Cohort(SlideSource(f"{address}/*.tif"))
        with pytest.raises(WsisegError, match="no-such-bucket"):
            entries("s3://no-such-bucket/*.svs")


def test_names_come_from_the_table_or_the_slides(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("path,name\n/d/x/a.svs,\n/d/x/a.tif,\n/d/y/b.svs,deep/case:1\n/d/y/c.svs,\n/d/x/a.svs,\n")
    assert maps(table) == ["a.svs.zarr", "a.tif.zarr", "deep/case:1.zarr", "c.zarr"]  # what is there twice counts once
    table.write_text("path\n/d/x/a.svs\n/d/x/a.svs\n/d/y/a.svs\n")
    with pytest.raises(OptionError, match=r"/d/x/a\.svs and /d/y/a\.svs would both become a\.zarr.*--keep-folders"):
        maps(table)
    assert maps(table, keep_folders=True) == ["x/a.zarr", "y/a.zarr"]
    table.write_text("path,name\n/d/x/a.svs,one\n/d/x/b.svs,One\n")
    assert maps(table) == ["one.zarr", "One.zarr"]
    with pytest.raises(OptionError, match=r"a\.svs and .*b\.svs"):
        maps(table, folds_case=True)


def test_parts_share_the_list_out_and_are_the_same_each_time(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("".join(f"/d/{index}.svs\n" for index in range(10)))
    cohort = Cohort(SlideSource(str(tmp_path / "list.txt")))
    parts = [[named.map for named in cohort.part(number, 3)] for number in (1, 2, 3)]
    assert [len(part) for part in parts] == [4, 3, 3]
    assert sorted(chain(*parts)) == sorted(named.map for named in cohort)
    assert parts[1] == [named.map for named in Cohort(SlideSource(str(tmp_path / "list.txt"))).part(2, 3)]


def test_time_is_linear_and_memory_does_not_hold_the_list(tmp_path: Path) -> None:
    painted(tmp_path / "a.png", (60, 60))
    took = {}
    for count in (1_000, 8_000):
        table = tmp_path / f"{count}.csv"
        table.write_text("path,group\n" + "".join(f"/d/site{n % 7}/slide-{n:08d}.svs,p{n}\n" for n in range(count)))
        tracemalloc.start()
        begun = time.process_time()
        cohort = Cohort(SlideSource(str(table)))
        assert cohort.slides == sum(1 for _ in cohort) == count
        took[count] = time.process_time() - begun, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert took[8_000][0] < 24 * took[1_000][0]
    assert took[8_000][1] < took[1_000][1] + 50 * 7_000  # the list itself takes some 300 bytes a line
