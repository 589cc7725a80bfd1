"""Whether a path leads to a file that can be read, and what was probably meant where it does not."""

from __future__ import annotations

import glob
import re
import stat
import unicodedata
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from wsiseg.errors import SlideError
from wsiseg.slides.formats.folders import folder_error

_MOST = 10_000
_ADDRESS = r"(https?|s3|gs|gcs|az|abfs|ftp|file|memory):/?[^/]"
_HOST = r"[\w-]+(\.[\w-]+)*\.(com|org|net|edu|gov|io|de|uk|eu|fr|cn|jp|ch|nl|int)(:\d+)?/."


def require_file(path: Path, may_be_empty: bool = False) -> None:
    """Raise `SlideError` if `path` is not a regular file that can be read, or is empty."""
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode):  # opening a pipe would wait for ever
            path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SlideError(f"{_shown(path)} does not exist; {_advice(path)}") from error
    except (OSError, ValueError) as error:  # no right, a loop of links, a name too long, a null byte
        raise SlideError(f"{_shown(path)} cannot be read ({_reason(error)}); {_remedy(error)}") from error
    if stat.S_ISDIR(found.st_mode):
        raise folder_error(path)
    if not stat.S_ISREG(found.st_mode):
        raise SlideError(f"{path} is a pipe or a device; give the path of a slide")
    if found.st_size == 0 and not may_be_empty:
        unfinished = next((one for one in _downloads(path) if one.exists()), None)
        more = f"{unfinished.name} is its unfinished download" if unfinished else "copy it again"
        raise SlideError(f"{path.name} is empty (0 bytes); {more}")


def _shown(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 300 else f"{text[:150]}...{text[-100:]}"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return "its name holds a character that no file has" if "null" in str(error) else str(error)


def _remedy(error: Exception) -> str:
    return "give yourself the right to read it" if isinstance(error, PermissionError) else "give the path of a slide"


def _downloads(path: Path) -> list[Path]:
    return [path.with_name(path.name + ending) for ending in (".part", ".crdownload", ".partial", ".aria2")]


def _advice(path: Path) -> str:
    """A guess at what a path that does not exist was meant to be."""
    text = str(path)
    part = next((one for one in _downloads(path) if one.exists()), None)
    if path.is_symlink():
        advice = f"it is a link to {_shown(path.readlink())}, which is not there"
    elif re.match(_ADDRESS, text, re.IGNORECASE) or re.match(_HOST, text, re.IGNORECASE):
        advice = _address(text)
    elif any(letter in text for letter in "*?["):
        advice = _pattern(text)
    elif text.startswith("~"):
        advice = "~ is not expanded inside quotes; write the whole path"
    elif "\\" in text and Path(text.replace("\\", "/")).exists():
        advice = f"write {text.replace(chr(92), '/')}, with forward slashes"
    elif text != text.strip() and Path(text.strip()).exists():
        advice = f"there is {text.strip()}: the path given has a space or a line end too many"
    elif part is not None:
        advice = f"{part.name} is its unfinished download"
    else:
        similar = _similar(path)
        advice = f"there is {similar}" if similar else "give the path of a slide"
    return advice


def _address(text: str) -> str:
    scheme = re.match(r"(\w+):/+(?!/)", text)
    if scheme and scheme[1].lower() == "file":
        return f"write the path alone, or file:///{text[scheme.end() :]}"
    if scheme:
        return f"if it is an address, write {scheme[1]}://{text[scheme.end() :]}"
    return f"if it is an address, write https://{text}"


def _pattern(text: str) -> str:
    found = sorted(islice(glob.iglob(text), _MOST))  # noqa: PTH207  (absolute patterns as well)
    if found:
        return (
            f"as a pattern it matches {len(found)} ({Path(found[0]).name}{', ...' if len(found) > 1 else ''}): "
            "write it without quotes, so that the shell lists them"
        )
    folder = Path(text).parent
    if any(letter in str(folder) for letter in "*?["):
        return "as a pattern it matches nothing; write one that matches slides, such as slides/*.svs"
    if not folder.is_dir():
        return f"as a pattern it matches nothing, since there is no folder {folder}"
    endings = sorted({one.suffix for one in islice(folder.iterdir(), _MOST) if one.is_file() and one.suffix})
    held = f"; files in {folder} end in {', '.join(endings[:6])}" if endings else f"; {folder} holds no files"
    return f"as a pattern it matches nothing{held}"


def _similar(path: Path) -> str | None:
    """A file whose name differs in case, accents' form, ending, or a letter or two."""
    try:
        names = [one.name for one in islice(path.parent.iterdir(), _MOST)]
    except OSError:
        return None
    same = [name for name in names if _plain(name) == _plain(path.name)]
    if same:
        return f"{same[0]}, whose letters are written otherwise"
    ending = [name for name in names if Path(name).stem == path.name or name == path.stem]
    return next(iter(ending or get_close_matches(path.name, names, 1, 0.85)), None)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
