"""Do the ranks tell each other what the transcripts say?

After a wanted change: `python -m tests.scenarios.cluster --rewrite`, then read the difference.
"""

from pathlib import Path

import pytest

from tests.scenarios.cluster import TRANSCRIPTS, Cluster


@pytest.mark.parametrize("path", sorted(TRANSCRIPTS.glob("*.txt")), ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    transcript = path.read_text()
    assert Cluster().play(transcript) == transcript
