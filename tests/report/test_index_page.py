import math
from dataclasses import replace
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from mvpose.quality.judgement import Grade, Verdict
from mvpose.report.index_page import REVIEW_AT, IndexRow, index_page

GOOD = {
    "body_used_mean_mm": 12.0, "body_left_out_mean_mm": 30.0, "body_reconstructed_share": 1.0,
    "body_bone_spread_share": 0.04, "swapped_share": 0.0, "too_fast_share": 0.0,
}  # fmt: skip


def row(name: str, failed_share: float = 0.0, link: str = "", run: str = "run", **figures: float) -> IndexRow:
    return judged(name, figures, failed_share, link, run)


def judged(name: str, figures: dict[str, float], failed_share: float = 0.0, link: str = "", run: str = "") -> IndexRow:
    return IndexRow(run=run, capture_id=name, figures=GOOD | figures, failed_share=failed_share, link=link)


class _Reader(HTMLParser):
    """Links, and the first cell of each row."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.rows: list[list[str]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("href", "src") and value]
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1] and self.tags:
            self.rows[-1][-1] += data


def order(rows: list[IndexRow]) -> list[str]:
    return [cells[0] for cells in _Reader(index_page("t", rows)).rows if cells]


def test_the_worst_comes_first_and_what_stands_out_is_named():
    rows = [
        row("fine"),
        row("shaky", body_bone_spread_share=0.25),
        row("swapped", swapped_share=0.03),
        row("torn", failed_share=0.5),
        IndexRow(run="run", capture_id="nothing", figures={}, failed_share=1.0, reasons=("2 x no_person",)),
    ]
    assert order(rows) == ["nothing", "torn", "shaky", "swapped", "fine"]
    cells = {c[0]: c for c in _Reader(index_page("t", rows)).rows if c}
    assert "no person" in cells["nothing"][1]


def test_verdicts_come_before_scores_and_all_but_the_good_are_to_look_at():
    """Fails without the verdict in the sort key, and if captures without a verdict count as good."""
    rows = [
        replace(row("exact", body_used_mean_mm=1.0), verdict=Verdict(Grade.BAD, "camera names a, b: exchanged")),
        replace(row("shaky", body_bone_spread_share=0.25), verdict=Verdict(Grade.GOOD)),
        row("unknown"),
    ]
    page = index_page("t", rows)
    assert order(rows) == ["exact", "unknown", "shaky"]
    assert "<b>2</b><span>to look at</span>" in page and "<b>1</b><span>bad</span>" in page
    assert _Reader(page).rows[1][1] == "bad: camera names a, b: exchanged"


def test_a_low_error_does_not_hide_limbs_that_change_their_length():
    """The batch that peers called good at 0.28 px had heels 59 cm under the floor."""
    silent = row("silent", body_used_mean_mm=0.7, body_bone_spread_share=0.4)
    assert silent.score > 1 > row("honest", body_used_mean_mm=25.0).score


@given(st.sampled_from(sorted(REVIEW_AT)), st.floats(0, 1), st.floats(0, 1))
def test_more_of_any_figure_is_never_better(name, low, high):
    low, high = sorted((low, high))

    def bad(value: float) -> float:
        match name:
            case "failed_share":
                return row("a", failed_share=value).score
            case "body_missing_share":
                return row("a", body_reconstructed_share=1 - value).score
        return judged("a", {name: value}).score

    assert bad(low) <= bad(high)


def test_a_figure_that_could_not_be_measured_counts_for_nothing():
    assert row("a", body_left_out_mean_mm=math.nan).score == row("b", body_left_out_mean_mm=0.0).score


def test_the_page_fetches_nothing_and_links_lead_where_they_should():
    page = index_page("t", [row("a", link="../run/view/report.html#capture-a"), row("b", run="other")])
    reader = _Reader(page)
    assert reader.links == ["../run/view/report.html#capture-a"]
    assert "default-src 'none'" in page and not reader.tags & {"img", "link", "iframe", "video"}
    assert any("other" in cell for cells in reader.rows for cell in cells)


def test_names_from_archives_cannot_become_markup():
    page = index_page("<script>t", [row("<img src=x onerror=alert(1)>", link='"><script>alert(1)</script>')])
    assert "<img" not in page and "<script>alert" not in page and "<script>t" not in page
