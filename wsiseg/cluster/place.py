"""What `--cluster` means: processes of this machine, a scheduler that runs, or a file that describes SLURM jobs."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from wsiseg.errors import OptionError
from wsiseg.system.json_values import JsonObject
from wsiseg.system.memory import parse_bytes

MOST_WORKERS = 100_000
_ADDRESS = re.compile(r"(tcp|tls)://(\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):(\d{1,5})")
_WALLTIME = re.compile(r"(\d+-)?\d{1,3}(:[0-5]?\d){0,2}")


@dataclass(frozen=True, slots=True)
class Local:
    """Worker processes of this machine.

    Attributes:
        workers: how many.
    """

    workers: int


@dataclass(frozen=True, slots=True)
class Scheduler:
    """A scheduler that runs, with its workers.

    Attributes:
        address: as "tcp://host:8786".
    """

    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Slurm:
    """SLURM jobs, each with one worker.

    Attributes:
        cores: processors of a job, which are also the threads that it computes in.
        memory: of a job, as "8GB".
        jobs: how many are kept running.
        walltime: of a job, as SLURM writes it; None as the queue has it.
        queue: SLURM's partition; None takes its default.
        account: that is charged.
        interface: network that the driver and the jobs reach each other by, as "ib0".
        logs: folder of the jobs' output; None keeps none.
        directives: more lines of `#SBATCH`, as "--gres=gpu:1".
        prologue: lines of shell before the worker starts, as "module load cuda".
    """

    cores: int
    memory: str
    jobs: int
    walltime: str | None = None
    queue: str | None = None
    account: str | None = None
    interface: str | None = None
    logs: str | None = None
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()


Place = Local | Scheduler | Slurm

_EXPECTED = "local:N, tcp://HOST:PORT, or a .yaml file that describes SLURM jobs"


def parse_place(text: str) -> Place:
    """What a value of `--cluster` means.

    Raises:
        OptionError: it means nothing, or its file says something that cannot be.
    """
    if text.startswith("local"):
        found = re.fullmatch(r"local:(\d{1,6})", text)
        if found is None or not 1 <= int(found[1]) <= MOST_WORKERS:
            raise OptionError(f"--cluster local:N has the number of worker processes, as local:4, got {text!r:.60}")
        return Local(int(found[1]))
    if "://" in text:
        found = _ADDRESS.fullmatch(text)
        if found is None or not 1 <= int(found[3]) <= 65535:
            raise OptionError(f"--cluster expected a scheduler's address, as tcp://node1:8786, got {text!r:.60}")
        return Scheduler(text)
    if text.lower().endswith((".yaml", ".yml")):
        return read_slurm(Path(text))
    raise OptionError(f"--cluster expected {_EXPECTED}, got {text!r:.60}")


def read_slurm(path: Path) -> Slurm:
    """The jobs that a file describes; raises `OptionError` where it does not."""
    given = _values(path)
    for name in ("cores", "jobs"):
        value = given[name]
        if type(value) is not int or not 1 <= value <= MOST_WORKERS:
            raise OptionError(f"{path}: {name} expected a whole number of at least 1, got {value!r:.40}")
    for name in ("directives", "prologue"):
        value = given.get(name, [])
        if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
            raise OptionError(f"{path}: {name} expected a list of lines, got {value!r:.40}")
        given[name] = tuple(value)
    for name in ("memory", "walltime", "queue", "account", "interface", "logs"):
        if name in given and (not isinstance(given[name], str) or not given[name].strip() or "\n" in given[name]):
            hint = '; put it into quotes: "2:00:00"' if name == "walltime" else ""
            raise OptionError(f"{path}: {name} expected a text, got {given[name]!r:.40}{hint}")
    if "walltime" in given and _WALLTIME.fullmatch(given["walltime"]) is None:
        raise OptionError(
            f"{path}: walltime expected hours:minutes:seconds, as 12:00:00, got {given['walltime']!r:.40}"
        )
    try:
        parse_bytes(given["memory"])
    except OptionError as error:
        raise OptionError(f"{path}: memory {error}") from error
    return Slurm(**given)


def _values(path: Path) -> JsonObject:
    """What a file states, under names that there are."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror}; --cluster expected {_EXPECTED}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} is no YAML: {' '.join(str(error).split())[:200]}") from error
    names = [one.name for one in fields(Slurm)]
    if not isinstance(found, dict):
        raise OptionError(f"{path} expected lines `name: value` with some of {', '.join(names)}")
    unknown = [str(name) for name in found if name not in names]
    if unknown:
        raise OptionError(f"{path} has {unknown[0]!r:.40}, expected {', '.join(names)}")
    missing = [name for name in ("cores", "memory", "jobs") if found.get(name) is None]
    if missing:
        raise OptionError(f"{path} lacks {', '.join(missing)}; the smallest file states cores, memory and jobs")
    return {name: value for name, value in found.items() if value is not None}
