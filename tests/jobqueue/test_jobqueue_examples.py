"""Do the examples in the docstrings of jobqueue hold?"""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["units", "spec", "folder", "detect"])
def test_examples(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(f"jobqueue.{name}"))
    assert failed == 0
    assert tried > 0
