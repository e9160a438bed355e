import re

from hypothesis import given
from hypothesis import strategies as st

from mvpose.storage.locations import MAX_LENGTH, safe_path


@given(st.lists(st.text(min_size=1, max_size=150), min_size=1, max_size=4))
def test_a_safe_path_stays_where_it_is_put(names):
    parts = safe_path(names).split("/")
    assert len(parts) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", p) and len(p) <= MAX_LENGTH + 9 for p in parts)


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_two_names_never_become_one(a, b):
    assert (safe_path([a]) == safe_path([b])) == (a == b)


def test_plain_names_stay_as_they_are():
    assert safe_path(["session_1", "Trial-02.b"]) == "session_1/Trial-02.b"
