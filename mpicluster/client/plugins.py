"""How does a script prepare every slot, also those that are started later?

Plugins and uploaded modules. What is registered runs at once in all slots; the workers keep it and
run it in each slot that takes another's place, before its first task.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from mpicluster import uploads
from mpicluster.client.everywhere import NOTHING, Everywhere
from mpicluster.ids import Rank


class WorkerPlugin:
    """Something that each slot sets up when it starts: a connection, a setting, a cache.

    A plugin needs no more than a method `setup`; this class spares it the others. It is pickled
    once for each slot.

    >>> class Label(WorkerPlugin):
    ...     def setup(self, worker):
    ...         import os
    ...         os.environ["LABEL"] = f"on rank {worker.name}"
    >>> client.register_plugin(Label())
    {2: {'status': 'OK'}}
    >>> client.submit(lambda: __import__("os").environ["LABEL"]).result()
    'on rank 2'
    """

    def setup(self, worker: Any) -> None:
        """Prepare this slot; `worker` is what `get_worker()` returns in it."""

    def teardown(self, worker: Any) -> None:
        """Undo it, when the plugin is unregistered; a slot that ends is not told."""


class Plugins(Everywhere):
    """The methods of a client that prepare slots."""

    def register_plugin(
        self, plugin: Any, name: str | None = None, idempotent: bool = False
    ) -> dict[Rank, dict[str, str]]:
        """Set a plugin up in every slot, now and whenever a slot is started.

        One of the same name is replaced; with `idempotent` it stays, and nothing is done. If
        `setup` raises anywhere, that is raised here and the plugin is not registered.
        """
        if not callable(getattr(plugin, "setup", None)):
            raise TypeError(
                f"{plugin!r} was to be registered, but it has no method `setup(worker)`. Derive it "
                "from WorkerPlugin; the scheduler and the ranks themselves take no plugins."
            )
        if callable(getattr(plugin, "transition", None)):
            warnings.warn(
                f"{type(plugin).__name__}.transition is never called: a WorkerPlugin of mpicluster "
                "has `setup` and `teardown`.",
                stacklevel=2,
            )
        name = name or getattr(plugin, "name", None) or uuid4().hex
        if idempotent:
            there: dict[Rank, bool] = self._run(uploads.has_plugin, (name,), {})
            if all(there.values()):
                return {rank: {"status": "OK"} for rank in there}
        done = self._prepare(f"plugin-{name}", uploads.set_up_plugin, name, plugin)
        return {rank: {"status": "OK"} for rank in done}

    register_worker_plugin = register_plugin

    def unregister_worker_plugin(self, name: str) -> dict[Rank, dict[str, str]]:
        """Call a plugin's `teardown` in every slot, and set it up no more."""
        done = self._run(uploads.tear_down_plugin, (name,), {}, forget=f"plugin-{name}")
        if not any(done.values()):
            raise KeyError(f"No plugin {name!r} is registered.")
        return {rank: {"status": "OK"} for rank in done}

    def register_worker_callbacks(self, setup: Callable[..., Any]) -> dict[Rank, Any]:
        """Call a function in every slot, now and whenever a slot is started."""
        return self._prepare(f"callback-{uuid4().hex}", setup)

    def upload_file(self, filename: str | Path, load: bool = True) -> dict[Rank, dict[str, str]]:
        """Let tasks import a module of this file: a `.py`, `.zip` or `.egg`.

        The file is sent to every slot, now and whenever a slot is started, and lies nowhere on
        their disks; a newer one of the same name takes its place. With `load` a `.py` is imported
        at once. For many modules, and for data, a file system that all hosts see does better.
        """
        path = Path(filename)
        uploads.check(path.name)
        content = path.read_bytes()
        done = self._prepare(f"upload-{path.name}", uploads.take_file, path.name, content, load)
        return {rank: {"status": "OK"} for rank in done}

    def _prepare(self, name: str, function: Callable[..., Any], *args: Any) -> dict[Rank, Any]:
        """Run a function in every slot, now and whenever one is started; not if it raises."""
        try:
            done: dict[Rank, Any] = self._run(function, args, {}, keep=name)
        except BaseException:
            self._run(NOTHING, (), {}, forget=name, on_error="ignore")
            raise
        return done
