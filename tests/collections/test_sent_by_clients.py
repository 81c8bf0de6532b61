"""What becomes of calls that a client sends to a worker itself, and of their futures?"""

import os
import threading
import time

import pytest

from mpicluster import fire_and_forget


def test_calls_one_after_the_other_end_in_every_way(client, tmp_path):
    """From the second on the client sends them to the worker itself."""

    def call(what, value=None):
        if what == "raise":
            raise ValueError(value)
        if what == "exit" and not value.exists():
            value.touch()
            os._exit(3)
        if what == "sleep":
            time.sleep(value)
        return bytes(value) if what == "large" else what

    def submit(*args):
        return client.submit(call, *args, pure=False)

    for _ in range(5):
        assert submit("plain").result() == "plain"
    with pytest.raises(ValueError, match="wrong"):
        submit("raise", "wrong").result()
    assert submit("plain").result() == "plain"
    assert submit("exit", tmp_path / "seen").result() == "exit"
    assert submit("plain").result() == "plain"
    done = threading.Event()
    large = submit("large", 5_000_000)
    large.add_done_callback(lambda _: done.set())  # nobody waits for it in this client's loop
    assert done.wait(30)
    assert len(large.result()) == 5_000_000
    assert submit("plain").result() == "plain"
    sleeping = submit("sleep", 1)
    time.sleep(0.05)
    sleeping.cancel()
    assert submit("plain").result() == "plain"
    fire_and_forget(submit("plain"))
    assert submit(submit("plain")).result() == "plain"


class Box:
    """Hides a future from whoever looks for futures in arguments."""

    def __init__(self, future):
        self.future = future


def test_a_hidden_future_of_a_call_that_was_sent_to_a_worker_is_known(client):
    """The scheduler had not heard of its task yet: LostValueError."""

    def identity(value):
        return value

    def open_box(box):
        return box.future.result()

    for number in range(20):
        future = client.submit(identity, number, pure=False)
        assert future.result() == number
        assert client.submit(open_box, Box(future), pure=False).result() == number
        del future
