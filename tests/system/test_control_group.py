"""Limits of control groups, of both versions, nested, as Linux lays them out; and the processors of a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wsiseg.system.control_group import cpu_limit, memory_limit, usable_cpus


def process(folder: Path, groups: str, mounts: list[str]) -> Path:
    """A process's folder as in /proc."""
    own = folder / "proc"
    own.mkdir()
    (own / "cgroup").write_text(groups)
    (own / "mountinfo").write_text("".join(f"{line}\n" for line in mounts))
    return own


def group(folder: Path, **values: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name.replace("__", ".")).write_text(value + "\n")


def test_version_2_takes_the_least_of_the_group_and_those_above(tmp_path: Path) -> None:
    mount = tmp_path / "sys fs"
    group(mount / "slice" / "job", memory__max="max", memory__high="3000", cpu__max="max 100000")
    group(mount / "slice", memory__max="2000", cpu__max="250000 100000")
    group(mount / "other", memory__max="1", cpu__max="1000 100000")
    own = process(
        tmp_path, "0::/slice/job\n", [f"30 23 0:27 / {str(mount).replace(' ', chr(92) + '040')} rw - cgroup2 none rw"]
    )
    assert memory_limit(own) == 2000
    assert cpu_limit(own) == 3


def test_version_1_follows_the_group_of_each_controller(tmp_path: Path) -> None:
    memory, cpu = tmp_path / "memory", tmp_path / "cpu,cpuacct"
    group(memory, memory__limit_in_bytes="9223372036854771712")
    group(memory / "batch" / "7", memory__limit_in_bytes="5000")
    group(cpu / "batch", cpu__cfs_quota_us="150000", cpu__cfs_period_us="100000")
    group(cpu / "batch" / "8", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    mounts = [
        f"35 31 0:32 / {memory} rw shared:9 - cgroup cgroup rw,memory",
        f"32 31 0:29 / {cpu} rw - cgroup cgroup rw,cpu,cpuacct",
    ]
    own = process(tmp_path, "4:memory:/batch/7\n1:cpu,cpuacct:/batch/8\n0::/\n", mounts)
    assert memory_limit(own) == 5000
    assert cpu_limit(own) == 2


@pytest.mark.parametrize("root", ["/docker/abc", "/"])
def test_a_container_sees_its_own_group_at_the_mount(tmp_path: Path, root: str) -> None:
    """With the group as the mount's root; or with a path that names what is outside and is not mounted."""
    mount = tmp_path / "cgroup"
    group(mount, memory__max="4000", cpu__max="100000 100000")
    own = process(tmp_path, "0::/docker/abc\n", [f"30 23 0:27 {root} {mount} ro - cgroup2 cgroup rw"])
    assert memory_limit(own) == 4000
    assert cpu_limit(own) == 1


def test_no_limit_and_no_linux(tmp_path: Path) -> None:
    assert memory_limit(tmp_path) is None
    assert cpu_limit(tmp_path) is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity")
def test_threads_follow_the_affinity_of_the_process() -> None:
    code = (
        "import os\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from wsiseg.system.control_group import usable_cpus\n"
        "print(usable_cpus())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)


def test_nothing_else_counts_the_machines_processors() -> None:
    package = Path(__file__).parents[2] / "wsiseg"
    users = [path.name for path in package.rglob("*.py") if "os.cpu_count" in path.read_text(encoding="utf-8")]
    assert sorted(users) == ["control_group.py", "doctor_facts.py"]  # which tells of both
