"""A map of a real slide, made once."""

from pathlib import Path

import pytest

from tests.helpers.corrections import map_of_slide


@pytest.fixture(scope="session")
def mapped(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> Path:
    folder = tmp_path_factory.mktemp("mapped")
    map_of_slide(folder, sample_data / "CMU-1-Small-Region.svs")
    return folder


@pytest.fixture
def slide(sample_data: Path) -> Path:
    return sample_data / "CMU-1-Small-Region.svs"
