"""Programs: steps by position, constants, keywords, early release of intermediate values."""

import gc
import pickle
import weakref

from mpicluster.integrations.programs import Program, call, make_dict, make_list, make_set


def test_positions_count_arguments_constants_and_results():
    program = Program([(divmod, (0, 1), ()), (make_list, (2, 0, 1), ())], [4])
    assert program(9) == [(2, 1), 9, 4]


def test_keywords_are_the_last_positions():
    program = Program([(dict, (0, 1), ("a", "b")), (sorted, (3, 2), ("reverse",))], [True])
    assert program(1, 2) == ["b", "a"]


def test_functions_may_be_values():
    assert Program([(call, (0, 1, 2), ("base",))], [])(int, "11", 2) == 3


def test_containers():
    assert Program([(make_dict, (0, 1), ()), (make_set, (0, 1), ())], [])("a", "b") == {"a", "b"}


def test_it_survives_a_pickle():
    program = pickle.loads(pickle.dumps(Program([(divmod, (0, 1), ())], [4])))
    assert program(9) == (2, 1)


class Value:
    """Something that a weak reference can watch."""


def test_intermediate_values_go_when_nobody_reads_them_any_more():
    made = []

    def make():
        value = Value()
        made.append(weakref.ref(value))
        return value

    def use(value):
        return [value.__class__]

    def look(value):
        gc.collect()
        return made[0]() is None

    assert Program([(make, (), ()), (use, (0,), ()), (look, (1,), ())], [])()
