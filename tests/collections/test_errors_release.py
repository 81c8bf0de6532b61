"""Does nothing stay behind of a task that failed, also where Python's collector does not run?

Cycles of exceptions, tracebacks and frames kept futures until it ran, and with them their values.
"""

import gc

import dask
import pytest

from mpicluster import as_completed, wait


def make():
    return [0] * 1000


def fail(value):
    raise ValueError(len(value))


@pytest.fixture(autouse=True)
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def failing(client):
    """Return the future of a task whose input only it needs."""
    return client.submit(fail, client.submit(make, pure=False))


def use_result(client):
    try:
        failing(client).result()
    except ValueError:
        return


def use_exception(client):
    future = failing(client)
    assert isinstance(future.exception(), ValueError)
    assert future.traceback() is not None


def use_gather(client):
    try:
        client.gather([client.submit(make, pure=False), failing(client)])
    except ValueError:
        return


def use_as_completed(client):
    try:
        list(as_completed([failing(client)], with_results=True))
    except ValueError:
        return


def use_as_completed_without_raising(client):
    ((_, outcome),) = as_completed([failing(client)], with_results=True, raise_errors=False)
    assert outcome[0] is ValueError


def use_dependent(client):
    future = failing(client)
    wait([future])
    try:
        client.submit(len, future).result()
    except ValueError:
        return


def use_cancelled(client):
    future = failing(client)
    future.cancel()
    assert future.exception() is not None


def use_replicate(client):
    try:
        client.replicate([failing(client)])
    except ValueError:
        return


def use_delayed(client):
    try:
        client.compute(dask.delayed(fail)(dask.delayed(make)()), sync=True)
    except ValueError:
        return


def use_executor(client):
    with client.get_executor() as executor:
        future = executor.submit(fail, client.submit(make, pure=False))
        assert isinstance(future.exception(), ValueError)


@pytest.mark.parametrize("use", [
    use_result, use_exception, use_gather, use_as_completed, use_as_completed_without_raising,
    use_dependent, use_cancelled, use_replicate, use_delayed, use_executor,
])  # fmt: skip
def test_nothing_stays_of_a_failed_task(client, use):
    use(client)  # the fixture checks that all tasks and bytes go
