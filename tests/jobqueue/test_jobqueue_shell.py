"""Does a command come back, whatever it does?"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from jobqueue.errors import CommandError
from jobqueue.shell import Command, one_line, run


def test_output_and_status_come_back() -> None:
    output = run(Command(("bash", "-c", "echo out; echo err >&2; exit 3")), 5)
    assert (output.status, output.stdout, output.stderr) == (3, "out\n", "err\n")
    assert output.said == "err"


def test_words_are_not_read_by_a_shell() -> None:
    assert run(Command(("echo", "$HOME; ls *")), 5).stdout == "$HOME; ls *\n"


def test_input_folder_and_hidden_variables(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIDDEN", "1")
    (home / "in").write_text("from a file")
    words = ("bash", "-c", 'cat; echo " $PWD [$HIDDEN]"')
    output = run(Command(words, stdin=home / "in", folder=home, without=("HIDDEN",)), 5)
    assert output.stdout == f"from a file {home} []\n"
    assert run(Command(("cat",)), 5).stdout == ""


def test_a_missing_program_is_a_sentence() -> None:
    with pytest.raises(CommandError, match="'no-such-program' could not be started") as caught:
        run(Command(("no-such-program",)), 5)
    assert not caught.value.started


def test_a_hanging_command_is_ended_with_its_children(home: Path) -> None:
    began = time.monotonic()
    with pytest.raises(CommandError, match=r"did not answer within 0\.2 s") as caught:
        run(Command(("bash", "-c", "sleep 60 & echo $! >child; wait"), folder=home), 0.2)
    assert caught.value.started
    assert time.monotonic() - began < 5
    child = int((home / "child").read_text())
    for _ in range(100):
        if (
            not Path(f"/proc/{child}/cmdline").exists()
            or not Path(f"/proc/{child}/cmdline").read_bytes()
        ):
            break
        time.sleep(0.01)
    else:
        os.kill(child, 9)
        pytest.fail("the child lives")


def test_bytes_that_are_no_text_harm_nobody() -> None:
    assert run(Command(("printf", r"\xff\x00ok")), 5).stdout.endswith("ok")


def test_one_line_is_short_and_printable() -> None:
    assert one_line("a\nb\x1b[31m\tc\x07") == "a b [31m c"
    assert len(one_line("x" * 1000)) == 400
