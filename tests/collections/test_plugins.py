"""Are slots prepared as clients want it, also those that are started later?"""

import os
import time
import traceback
import zipfile

import pytest

from mpicluster import WorkerPlugin, worker_client


class Label(WorkerPlugin):
    name = "label"

    def __init__(self, text="label"):
        self.text = text

    def setup(self, worker):
        os.environ["LABEL"] = f"{self.text} {worker.name}"

    def teardown(self, worker):
        del os.environ["LABEL"]


def labels(client):
    """Return the label that each rank's tasks see."""
    look = client.map(lambda _: os.environ.get("LABEL"), range(8), pure=False, workers=[2])
    look += client.map(lambda _: os.environ.get("LABEL"), range(8), pure=False, workers=[3])
    return set(client.gather(look))


def end_slots(client):
    """End all slots, also those that were started while the tasks of other tests waited: a task
    that ends its slot left them there, and now and then they took the next tasks.
    """
    client.restart_workers()


def test_a_plugin_is_set_up_in_slots_that_are_started_later(client):
    assert client.register_plugin(Label()) == {2: {"status": "OK"}, 3: {"status": "OK"}}
    assert labels(client) == {"label 2", "label 3"}
    end_slots(client)
    assert labels(client) == {"label 2", "label 3"}
    client.register_plugin(Label("other"), idempotent=True)
    end_slots(client)
    assert labels(client) == {"label 2", "label 3"}
    client.register_plugin(Label("other"))
    assert labels(client) == {"other 2", "other 3"}
    client.unregister_worker_plugin("label")
    assert labels(client) == {None}
    end_slots(client)
    assert labels(client) == {None}
    with pytest.raises(KeyError, match="No plugin 'label' is registered"):
        client.unregister_worker_plugin("label")


def test_what_was_registered_first_is_done_first(client):
    """A module that was uploaded anew was once replaced by the older one, in slots that started."""

    class Slow(WorkerPlugin):
        name = "slow"

        def setup(self, worker):
            time.sleep(0.5)
            os.environ["SLOW"] = "done"

        def teardown(self, worker):
            del os.environ["SLOW"]

    client.register_plugin(Slow())
    end_slots(client)
    assert client.run(lambda: os.environ.get("SLOW")) == {2: "done", 3: "done"}
    client.unregister_worker_plugin("slow")


def nested(depth):
    """A task that has as many slots of worker 3 started as it is deep."""
    if depth:
        with worker_client() as inside:
            inside.submit(nested, depth - 1, workers=[3], pure=False).result()


def test_what_fails_in_one_slot_is_waited_for_in_the_others(client, tmp_path):
    """What followed `restart_workers` could meet a slot that was about to end."""

    def fail_first():
        try:
            (tmp_path / "first").touch(exist_ok=False)
        except FileExistsError:
            time.sleep(0.5)
            (tmp_path / f"ended-{os.getpid()}").touch()
        else:
            raise ValueError("first")

    client.submit(nested, 2, workers=[3], pure=False).result()
    with pytest.raises(ValueError, match="first"):
        client.run(fail_first, workers=[3])
    assert len(list(tmp_path.glob("ended-*"))) >= 2


def test_a_plugin_that_raises_is_not_registered(client):
    class Fails(WorkerPlugin):
        def setup(self, worker):
            os.environ["LABEL"] = "once"
            raise RuntimeError("no licence")

    client.submit(nested, 4, workers=[3], pure=False).result()
    with pytest.raises(RuntimeError, match="no licence"):
        client.register_plugin(Fails())
    assert labels(client) == {"once"}
    end_slots(client)
    assert labels(client) == {None}
    with pytest.raises(TypeError, match=r"no method `setup\(worker\)`"):
        client.register_plugin(3)


def test_a_callback_is_called_in_slots_that_are_started_later(client):
    client.register_worker_callbacks(lambda: os.environ.__setitem__("CALLED", "yes"))
    end_slots(client)
    called = client.map(lambda _: os.environ.get("CALLED"), range(4), pure=False)
    assert set(client.gather(called)) == {"yes"}


def test_an_uploaded_module_is_imported_everywhere_and_lies_nowhere(client, tmp_path):
    module = tmp_path / "uploaded_once.py"
    module.write_text("def twice(x):\n    return 2 * x\n")

    def call(x):
        import uploaded_once

        return uploaded_once.twice(x)

    with pytest.raises(ModuleNotFoundError):
        client.submit(call, 0, pure=False).result()
    client.upload_file(module)
    module.unlink()
    assert client.gather(client.map(call, range(4), pure=False)) == [0, 2, 4, 6]
    end_slots(client)
    assert client.gather(client.map(call, range(4), pure=False)) == [0, 2, 4, 6]
    module.write_text("def twice(x):\n    raise ValueError(x)\n")
    client.upload_file(module)
    with pytest.raises(ValueError, match="7") as caught:
        client.submit(call, 7).result()
    shown = "".join(traceback.format_exception(caught.value))
    assert 'File "<uploaded uploaded_once.py>", line 2, in twice' in shown
    del caught


def test_an_uploaded_archive_can_be_replaced(client, tmp_path):
    def call():
        import in_archive

        return in_archive.NUMBER

    def forget():
        import sys

        sys.modules.pop("in_archive", None)

    for number in (1, 2):
        with zipfile.ZipFile(tmp_path / "uploaded.zip", "w") as archive:
            archive.writestr("in_archive/__init__.py", f"NUMBER = {number}")
        client.upload_file(str(tmp_path / "uploaded.zip"))
        client.run(forget)
        assert client.submit(call, pure=False).result() == number


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("table.csv", ValueError, "only .py, .zip and .egg"),
        ("no-name.py", ValueError, "no name of a module"),
        ("missing.py", FileNotFoundError, "missing.py"),
    ],
)
def test_what_cannot_be_uploaded_is_refused(client, tmp_path, name, error, sentence):
    with pytest.raises(error, match=sentence):
        client.upload_file(tmp_path / name)


def test_restart_gives_all_up_and_makes_new_slots(client, tmp_path):
    def begin(number):
        with (tmp_path / "begun").open("a") as file:
            file.write(f"{number}\n")
        time.sleep(20)

    client.register_plugin(Label())
    before = set(client.gather(client.map(lambda _: os.getpid(), range(16), pure=False)))
    done = client.submit(abs, -1)
    done.result()
    waiting = client.map(begin, range(4), pure=False)
    begun = tmp_path / "begun"
    assert client.wait_until(lambda: begun.exists() and len(begun.read_text()) == 4, 60)
    client.restart()
    assert {future.status for future in (*waiting, done)} == {"cancelled"}
    after = set(client.gather(client.map(lambda _: os.getpid(), range(16), pure=False)))
    assert before.isdisjoint(after)
    assert len(begun.read_text().splitlines()) == 2  # none was run again
    assert labels(client) == {"label 2", "label 3"}
    client.unregister_worker_plugin("label")
