"""Which wishes for a task are refused before the scheduler hears of them?"""

from typing import Any

import pytest

from mpicluster.client.options import PRIORITY_MAX, RETRIES_MAX, make_options
from mpicluster.messages import NO_OPTIONS

DESCRIBED = [{"rank": 2, "host": "a", "resources": {"GPU": 1}}]


def test_a_resource_of_which_nothing_is_needed_is_no_wish() -> None:
    assert make_options(DESCRIBED, resources={"licence": 0}) == NO_OPTIONS
    assert make_options(DESCRIBED, resources={"GPU": 1, "x": 0}).resources == (("GPU", 1.0),)


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        ({"resources": {"GPU": -1}}, ValueError),
        ({"resources": {"GPU": float("nan")}}, ValueError),
        ({"resources": {"GPU": "one"}}, TypeError),
        ({"resources": ["GPU"]}, TypeError),
        ({"priority": PRIORITY_MAX + 1}, ValueError),
        ({"priority": -(10**30)}, ValueError),
        ({"priority": 5.5}, TypeError),
        ({"priority": "high"}, TypeError),
        ({"retries": RETRIES_MAX + 1}, ValueError),
        ({"retries": -1}, ValueError),
        ({"retries": 1.5}, TypeError),
    ],
)
def test_what_cannot_be_meant_is_refused(wish: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=r"\.$"):
        make_options(DESCRIBED, **wish)


def test_the_limits_themselves_are_accepted() -> None:
    options = make_options(DESCRIBED, priority=-PRIORITY_MAX, retries=RETRIES_MAX)
    assert (options.priority, options.retries) == (-PRIORITY_MAX, RETRIES_MAX)
