"""How do scripts and tasks find each other's collections and futures by name?

Datasets with the meaning they have in `distributed`: published values live in the scheduler, the
futures in them keep their data on the workers.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, cast

from mpicluster.client.base import ClientBase
from mpicluster.client.coordination import Named

if TYPE_CHECKING:
    from mpicluster.client.client import Client

_MISSING = object()


class _Dataset(Named):
    """What is published under one name."""

    kind = "dataset"

    def publish(self, value: Any, override: bool) -> bool:
        """Give the name a value; return False if it has one and is not to lose it."""
        return bool(self._request("publish", *self._item(value), override)[1])

    def get(self) -> list[Any]:
        """Return the value in a list, which is empty if there is none."""
        request, answer = self._request("get")
        return self._load_items(request, answer) if answer is not None else []

    def delete(self) -> bool:
        """Take the value away; return whether there was one."""
        return bool(self._request("delete")[1])

    def names(self) -> list[str]:
        """Return the names that have values."""
        return sorted(self._request("names")[1])


class Publishing(ClientBase):
    """The methods of a client that publish."""

    def publish_dataset(
        self, *args: Any, name: str | None = None, override: bool = False, **kwargs: Any
    ) -> None:
        """Publish collections or futures by name, for all scripts and tasks of the cluster.

        Persist a collection first, or each who gets it computes it anew. Raises `KeyError` for a
        name that is taken, unless `override` is true.

        >>> client.publish_dataset(squares=client.map(pow, range(3), [2] * 3))
        >>> client.gather(client.get_dataset("squares"))
        [0, 1, 4]
        """
        named = dict(kwargs)
        if args:
            if len(args) != 1 or name is None:
                raise ValueError(
                    f"{len(args)} values were to be published under the name {name!r}; give one "
                    "value and its name, or name=value for each."
                )
            named[name] = args[0]
        elif name is not None:
            raise ValueError(f"The name {name!r} was given without a value to publish.")
        for key, value in named.items():
            if not self._dataset(key).publish(value, override):
                raise KeyError(
                    f"A dataset {key!r} is published already. Say override=True to replace it."
                )

    def get_dataset(self, name: str, default: Any = _MISSING) -> Any:
        """Return what was published under a name; without it `default`, or else `KeyError`."""
        found = self._dataset(name).get()
        if found:
            return found[0]
        if default is _MISSING:
            names = ", ".join(map(repr, self.list_datasets())) or "none"
            raise KeyError(f"No dataset {name!r} is published; published are: {names}.")
        return default

    def list_datasets(self) -> tuple[str, ...]:
        """Return the names that are published."""
        return tuple(self._dataset("any").names())

    def unpublish_dataset(self, name: str) -> None:
        """Take a published value away; the futures that others have made of it stay."""
        if not self._dataset(name).delete():
            raise KeyError(f"No dataset {name!r} is published, so it cannot be taken away.")

    @property
    def datasets(self) -> Datasets:
        """What is published, as a mapping: `client.datasets["squares"] = futures`."""
        return Datasets(self)

    def _dataset(self, name: str) -> _Dataset:
        if not isinstance(name, str) or not name:
            raise TypeError(f"The name of a dataset is a text, but {name!r} was given.")
        return _Dataset(name, cast("Client", self))


class Datasets(MutableMapping[str, Any]):
    """The published values of a cluster."""

    def __init__(self, client: Publishing) -> None:
        self._client = client

    def __getitem__(self, name: str) -> Any:
        return self._client.get_dataset(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self._client.publish_dataset(value, name=name, override=True)

    def __delitem__(self, name: str) -> None:
        self._client.unpublish_dataset(name)

    def __contains__(self, name: object) -> bool:
        return name in self._client.list_datasets()

    def __iter__(self) -> Iterator[str]:
        return iter(self._client.list_datasets())

    def __len__(self) -> int:
        return len(self._client.list_datasets())

    def __repr__(self) -> str:
        return f"<Datasets: {', '.join(self) or 'none'}>"
