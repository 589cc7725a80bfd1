"""What all tests share: real slides where they are, and hypothesis without deadlines on noisy machines."""

import json
import os
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# Before torch is loaded: processes that test side by side, and those that they start, share the cores out.
_SIDE_BY_SIDE = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _SIDE_BY_SIDE > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _SIDE_BY_SIDE)))

settings.register_profile("wsiseg", deadline=None, max_examples=30)
settings.register_profile("thorough", deadline=None, max_examples=1000)  # --hypothesis-profile thorough
settings.load_profile("wsiseg")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Networks that tests compile are not kept among the user's own, but for all processes that test."""
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if _SIDE_BY_SIDE > 1 else base) / "cache"
    cache.mkdir(exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(cache)


class Parity:
    """The parity data: patches, labels, expected arrays, and weights made from names and shapes."""

    def __init__(self, folder: Path):
        import torch  # not above: tests of everything else do without

        inputs = np.load(folder / "inputs.npz")
        self.patches = torch.from_numpy(inputs["images"]).permute(0, 3, 1, 2).contiguous()  # (3, 3, 224, 224) uint8
        self.images = self.patches.float() / 255
        self.labels = torch.from_numpy(inputs["labels"])
        self.stage1 = np.load(folder / "stage1_expected.npz")
        self.stage2 = np.load(folder / "stage2_expected.npz")
        self.states = [json.loads((folder / f"stage{i}_state.json").read_text()) for i in (1, 2)]
        spec = spec_from_file_location("parity_weights", folder / "weights.py")
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        self.fill = module.fill

    def filled(self, network):
        """`network(4)` with the parity weights, in evaluation mode."""
        import torch

        with torch.device("meta"):
            built = network(4)
        state = {name: torch.from_numpy(self.fill(name, t.shape)) for name, t in built.state_dict().items()}
        built.load_state_dict(state, assign=True)
        return built.eval()


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


@pytest.fixture(scope="session")
def parity() -> Parity:
    """What the published program computed, and its inputs."""
    return Parity(ROOT / "tests" / "data" / "parity")


@pytest.fixture(scope="session")
def resnet38(parity: Parity):
    """The published classifier with the parity weights, in evaluation mode. Tests must leave it as it is."""
    from wsiseg.models.networks.resnet38 import ResNet38

    return parity.filled(ResNet38)


@pytest.fixture(scope="session")
def stage2_logits(parity: Parity):
    """Logits (3, 4, 224, 224) of the published segmenter with the parity weights on the parity patches."""
    import torch

    from wsiseg.models.networks.deeplab import DeepLabV3Plus

    with torch.inference_mode():
        return parity.filled(DeepLabV3Plus)(parity.images)
