"""Are collections and futures found by name, and kept as long as they are published?"""

import dask.array as da
import pytest

from mpicluster import Client, get_client


def test_futures_are_published_and_found_in_tasks_and_by_other_clients(client, cluster):
    client.publish_dataset(squares=client.map(pow, range(4), [2] * 4))
    assert client.list_datasets() == ("squares",)
    assert client.gather(client.get_dataset("squares")) == [0, 1, 4, 9]

    def add():
        return sum(get_client().gather(get_client().datasets["squares"]))

    assert client.submit(add, pure=False).result() == 14
    with Client(cluster, set_as_default=False) as other:
        assert other.gather(other.get_dataset("squares")) == [0, 1, 4, 9]
    client.unpublish_dataset("squares")
    assert client.list_datasets() == ()


@pytest.mark.parametrize("computed", [True, False])
def test_a_collection_lives_while_it_is_published(client, computed):
    """The name of its values once led nowhere when all its own futures were gone."""
    ones = da.ones((8, 8), chunks=4).persist()
    if computed:
        ones.sum().compute()
    client.datasets["ones"] = ones
    del ones
    assert client.get_dataset("ones").sum().compute() == 64
    assert list(client.datasets) == ["ones"]
    del client.datasets["ones"]


def test_names_are_taken_once_and_missing_ones_are_told(client):
    client.publish_dataset(1, name="one")
    with pytest.raises(KeyError, match="'one' is published already"):
        client.publish_dataset(one=2)
    assert client.get_dataset("one") == 1
    client.publish_dataset(one=2, override=True)
    assert client.datasets["one"] == 2
    with pytest.raises(KeyError, match="No dataset 'two' is published; published are: 'one'"):
        client.get_dataset("two")
    assert client.get_dataset("two", default=None) is None
    assert "two" not in client.datasets
    with pytest.raises(ValueError, match="give one value and its name"):
        client.publish_dataset(1)
    with pytest.raises(TypeError, match="is a text"):
        client.publish_dataset(1, name=7)
    client.unpublish_dataset("one")
    with pytest.raises(KeyError, match="cannot be taken away"):
        client.unpublish_dataset("one")
