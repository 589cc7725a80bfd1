"""What all tests share: real slides where they are, and hypothesis without deadlines on noisy machines."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("wsiseg", deadline=None, max_examples=60)
settings.load_profile("wsiseg")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The folder of slides and patches that the project ships."""
    return ROOT / "sample_data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Data that developers have beside their checkout; tests that need it skip without it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the developers' shared data")
    return folder
