"""What does a slot keep that a client has sent to every slot: plugins and modules?

Uploaded modules live in memory alone, so that nothing is left on a disk however a slot ends.
"""

import importlib
import os
import sys
import zipimport
from collections.abc import Sequence
from importlib.abc import ExecutionLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import decode_source, spec_from_loader
from pathlib import PurePath
from types import ModuleType
from typing import Any

_plugins: dict[str, Any] = {}
#: {module: source}.
_sources: dict[str, bytes] = {}
#: {file name: descriptor} of uploaded archives.
_archives: dict[str, int] = {}


def has_plugin(name: str) -> bool:
    """Return whether a plugin of this name is set up in this slot."""
    return name in _plugins


def set_up_plugin(name: str, plugin: Any) -> None:
    """Set a plugin up in this slot, in the place of one of the same name."""
    tear_down_plugin(name)
    plugin.setup(worker=_worker())
    _plugins[name] = plugin


def tear_down_plugin(name: str) -> bool:
    """Undo a plugin in this slot; return whether there was one."""
    plugin = _plugins.pop(name, None)
    if plugin is not None and hasattr(plugin, "teardown"):
        plugin.teardown(worker=_worker())
    return plugin is not None


def _worker() -> Any:
    from mpicluster.tasks import get_worker  # it needs clients itself

    return get_worker()


def check(name: str) -> None:
    """Raise unless a file of this name can be imported from."""
    stem, suffix = PurePath(name).stem, PurePath(name).suffix
    if suffix not in (".py", ".zip", ".egg"):
        raise ValueError(
            f"The file {name!r} was to be uploaded; only .py, .zip and .egg can be, which tasks "
            "import. Put data on a file system that all hosts see, or scatter it."
        )
    if suffix == ".py" and not stem.isidentifier():
        raise ValueError(f"{stem!r} is no name of a module; rename the file {name!r}.")


def take_file(name: str, content: bytes, load: bool) -> None:
    """Make the modules of a file importable in this process."""
    if PurePath(name).suffix == ".py":
        _take_module(PurePath(name).stem, content, load)
    else:
        _take_archive(name, content)


def _take_module(module: str, source: bytes, load: bool) -> None:
    _sources[module] = source
    if not any(isinstance(finder, _Uploaded) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Uploaded())
    if module in sys.modules:
        importlib.reload(sys.modules[module])
    elif load:
        importlib.import_module(module)


def _take_archive(name: str, content: bytes) -> None:
    old = _archives.pop(name, None)
    if old is not None:
        path = _path(old)
        sys.path.remove(path)
        sys.path_importer_cache.pop(path, None)
        os.close(old)
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(content)
    path = _path(fd)
    sys.path.insert(0, path)
    _archives[name] = fd
    zipimport.zipimporter(path).invalidate_caches()  # another file may have had this number
    importlib.invalidate_caches()


def _path(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


class _Uploaded(MetaPathFinder):
    """Finds the modules that were uploaded as `.py`, before all others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to load a module, None if it was not uploaded."""
        del path, target
        if fullname not in _sources:
            return None
        return spec_from_loader(fullname, _Source())


class _Source(ExecutionLoader):
    """Loads an uploaded module; tracebacks show its lines."""

    def get_filename(self, fullname: str) -> str:
        """Return what tracebacks call the file, which is nowhere."""
        return f"<uploaded {fullname}.py>"

    def get_source(self, fullname: str) -> str:
        """Return the text of a module."""
        return decode_source(_sources[fullname])
