"""Commands that read a map in a bucket: its address may go through `pathlib`, which makes one slash of two."""

import json
from pathlib import Path

import pytest

from tests.helpers.commands import Run, run  # noqa: F401  (a fixture)
from tests.helpers.maps import write_map
from tests.helpers.servers import address_of
from wsiseg.cli.main import main
from wsiseg.geometry import Size


def test_info_and_export(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    (tmp_path / "files").mkdir()
    write_map(tmp_path / "files" / "m.zarr", Size(300, 200))
    with address_of("s3", tmp_path / "files", tmp_path) as base:
        there, here = f"{base}/m.zarr", str(tmp_path / "files" / "m.zarr")
        found, expected = (json.loads(run("info", place, "--json")) for place in (there, here))
        assert found.pop("map") == there
        assert expected.pop("map") == here
        assert found == expected
        for place, name in ((there, "there.geojson"), (here, "here.geojson")):
            run("export", place, "--geojson", tmp_path / name)
        assert (tmp_path / "there.geojson").read_bytes() == (tmp_path / "here.geojson").read_bytes()
        with pytest.raises(SystemExit) as stop:
            main(["info", f"{base}/none.zarr"])
        assert stop.value.code == 2
        assert f"{base}/none.zarr is not a tissue map, or the server does not have it" in capsys.readouterr().err
