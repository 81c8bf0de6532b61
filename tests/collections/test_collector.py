"""Does a long `map` let Python's collector run, but not after each 700 objects?"""

import gc


def test_a_long_map_looks_seldom_and_finds_what_its_arguments_leave(client):
    """Garbage in cycles is collected while a `map` goes on, only not after each 700 objects."""
    runs = []

    def note(phase, _info):
        if phase == "start" and making:
            runs.append(1)

    def arguments():
        for number in range(40_000):
            for _ in range(3):
                cycle = []
                cycle.append(cycle)
            yield number

    making = True
    gc.callbacks.append(note)
    try:
        futures = client.map(abs, arguments())
    finally:
        making = False
        gc.callbacks.remove(note)
    assert 1 <= len(runs) <= 40
    assert sum(client.gather(futures)) == sum(range(40_000))
