"""Where is a path that a user wrote?"""

from __future__ import annotations

from pathlib import Path

from jobqueue.errors import SpecError


def home_path(name: str, value: object) -> Path:
    """Return a path with `~` replaced; `name` is what it is for, in sentences.

    Raises `SpecError` for what is no path, and when the home folder that `~` stands for is not
    known.
    """
    if not isinstance(value, (str, Path)):
        raise SpecError(f"{name} is {value!r}; it must be a path.")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise SpecError(
            f"{name} is {str(value)!r}, and the home folder that ~ stands for is not known here. "
            "Write the whole path, or set the variable HOME."
        ) from error


def not_a_file(path: Path) -> str:
    """Return what a path leads to instead of a file, or "" for a file."""
    try:
        if path.is_file():
            return ""
        return "a folder" if path.is_dir() else "no such file"
    except (OSError, ValueError) as error:
        return f"none that can be looked at ({getattr(error, 'strerror', None) or error})"
