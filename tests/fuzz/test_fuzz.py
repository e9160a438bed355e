"""A sample of the mutated files with every run; all of them with `-m slow`, or `python -m tests.fuzz.cases`."""

import pytest

from tests.fuzz.cases import run_case, run_cases
from tests.fuzz.doors import doors


def test_mutated_files_are_refused_or_read_whole(tmp_path):
    open_doors = doors(str(tmp_path / "files"))
    outcomes = [run_case(case, open_doors) for case in range(100)]
    assert [o for o in outcomes if o.finding] == []
    assert {o.result for o in outcomes} == {"refused", "read"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_mutated_files_neither_crash_nor_hang():
    assert [outcome for outcome in run_cases(0, 10_000) if outcome.finding] == []
