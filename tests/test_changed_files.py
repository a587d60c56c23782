"""Files with random changes open, or are refused in one line; see scripts/benchmarks/fuzz.py."""

import fuzz
import pytest


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_changed_files_open_or_are_refused_in_one_line(kind):
    result = fuzz.fuzz(kind, files=100)
    assert not result["faults"]
    assert result["refused"] > 20
