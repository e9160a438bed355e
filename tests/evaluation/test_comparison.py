"""Tables of several methods, as they are printed."""

import math

import numpy as np
import pandas as pd

from mvpose.evaluation.comparison import markdown, one_view_table
from mvpose.evaluation.subject_errors import Evaluation
from mvpose.evaluation.summary import Subject
from mvpose.metrics.intervals import Estimate
from mvpose.skeleton import HUMAN36M17

RIG, RING = ("four", False), ("ring", True)


def table(errors: dict) -> list[str]:
    """Lines of the table of methods by (benchmark, unseen) by views by metres, all of whose joints were found."""
    cells = {
        name: {
            key: {n: Estimate(m, math.nan, math.nan, 1) for n, m in by_views.items()} for key, by_views in keys.items()
        }
        for name, keys in errors.items()
    }
    found = {
        name: {key: dict.fromkeys(by_views, Estimate(1.0, math.nan, math.nan, 1)) for key, by_views in keys.items()}
        for name, keys in errors.items()
    }
    return markdown(cells, found).splitlines()


def test_methods_are_rows_and_a_dash_is_what_one_does_not_take():
    assert table({"a": {RIG: {4: 0.05, 2: 0.1}}, "b": {RIG: {4: 0.06}}}) == [
        "| MPJPE, mm | four (seen), 4 views | four (seen), 2 views |",
        "| --- | ---: | ---: |",
        "| a | 50.0 | 100.0 |",
        "| b | 60.0 | – |",
    ]


def test_a_curve_over_many_numbers_of_views_stands_upright_below_the_others():
    curve = {n: 0.1 / n for n in (20, 10, 5, 4, 2)}
    lines = table({"a": {RIG: {4: 0.05}, RING: curve}, "b": {RING: {20: 0.002}}})
    assert lines[:4] == ["| MPJPE, mm | four (seen), 4 views |", "| --- | ---: |", "| a | 50.0 |", "| b | – |"]
    assert lines[4:7] == ["", "| MPJPE, mm: ring (unseen) | a | b |", "| --- | ---: | ---: |"]
    assert lines[7] == "| 20 views | 5.0 | 2.0 |" and lines[-1] == "| 2 views | 50.0 | – |" and len(lines) == 12


def test_methods_of_one_view_are_judged_without_what_one_view_does_not_know():
    interval = Estimate(0.08, 0.07, 0.09, 1)
    figures = {"mpjpe_relative_m": interval, "n_mpjpe_m": interval, "pss": Estimate(0.5, math.nan, math.nan, 1)}
    subject = Subject(data_sha256="", model_sha256="", protocol="", skeleton=HUMAN36M17)
    one, four = (
        Evaluation(pd.DataFrame({"views": [n, 1], "max_views": [True, False]}), figures, subject, np.zeros((2, 17, 3)))
        for n in (1, 4)
    )
    assert one_view_table({"four": four}) == ""
    assert one_view_table({"one": one, "four": four}).splitlines() == [
        "",
        "| One view | root-relative MPJPE, mm | N-MPJPE, mm | PA-MPJPE, mm | PSS, % |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| one | 80.0 (70.0 to 90.0) | 80.0 (70.0 to 90.0) | – | 50.0 |",
    ]
