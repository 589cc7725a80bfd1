"""Torch's threads: no more than the processors that this process was granted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from wsiseg.models import DEFAULT_MODEL
from wsiseg.models.bundle import load_model
from wsiseg.models.devices import keep_to_quota
from wsiseg.system.control_group import usable_cpus


@pytest.fixture(autouse=True)
def _as_a_new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One in which torch chose 5 threads, and the user none."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    threads = torch.get_num_threads()
    keep_to_quota.cache_clear()
    torch.set_num_threads(5)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def quota(tmp_path: Path) -> Path:
    """A process's folder in /proc whose control group allows one processor's time."""
    process, mount = tmp_path / "proc", tmp_path / "groups"
    (mount / "job").mkdir(parents=True)
    process.mkdir()
    (mount / "job" / "cpu.max").write_text("100000 100000\n")
    (process / "cgroup").write_text("0::/job\n")
    (process / "mountinfo").write_text(f"30 23 0:27 / {mount} rw - cgroup2 none rw\n")
    return process


def test_a_quota_limits_them(quota: Path) -> None:
    keep_to_quota(quota)
    assert torch.get_num_threads() == 1


def test_a_number_of_the_users_own_stays(quota: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    keep_to_quota(quota)
    assert torch.get_num_threads() == 5


def test_once_in_a_process(quota: Path) -> None:
    """A program that chooses its threads after its first model keeps them."""
    keep_to_quota(quota)
    torch.set_num_threads(3)
    keep_to_quota(quota)
    assert torch.get_num_threads() == 3


def test_whoever_loads_a_model_keeps_to_it() -> None:
    load_model(DEFAULT_MODEL, "cpu")
    assert torch.get_num_threads() == min(5, usable_cpus())
