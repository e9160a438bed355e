"""A check made once for all calls that it cannot tell apart finds what a check of every call finds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import beartype
import numpy as np
import pytest
import torch
from jaxtyping import Float, Int, TypeCheckError
from torch import Tensor

from tests.shape_checks import described, once

checked = once(typechecker=beartype.beartype)


@checked
def rows(table: Float[Tensor, "n 3"], count: Int[np.ndarray, "n"], out: Callable) -> Float[Tensor, "n"]:
    return out(table)


def right(table: Tensor) -> Tensor:
    return table[:, 0]


@pytest.fixture(autouse=True)
def called_rightly() -> None:
    for number in (1, 2):
        rows(torch.zeros(number, 3), np.zeros(number, np.int64), right)


@pytest.mark.parametrize(
    ("table", "count"),
    [
        (torch.zeros(2, 4), np.zeros(2, np.int64)),
        (torch.zeros(2, 3), np.zeros(1, np.int64)),
        (torch.zeros(2, 3, dtype=torch.int64), np.zeros(2, np.int64)),
        (torch.zeros(2, 3), np.zeros(2)),
        (np.zeros((2, 3), np.float32), np.zeros(2, np.int64)),
    ],
)
def test_arguments_of_another_shape_or_type_are_found_after_right_ones(table, count):
    for _ in range(2):
        with pytest.raises(TypeCheckError, match="parameters of"):
            rows(table, count, lambda _: pytest.fail("it was called"))


@pytest.mark.parametrize("out", [lambda t: t, lambda t: t[:1, 0], lambda t: t[:, 0].long(), lambda t: None])
def test_a_wrong_result_of_right_arguments_is_found_and_computed_once(out):
    calls = []
    with pytest.raises(TypeCheckError, match="return value of"):
        rows(torch.zeros(2, 3), np.zeros(2, np.int64), lambda t: calls.append(t) or out(t))
    assert len(calls) == 1


def test_a_result_is_checked_with_the_sizes_of_its_arguments():
    """Fails if a result right for other arguments counts as right for these."""
    with pytest.raises(TypeCheckError):
        rows(torch.zeros(1, 3), np.zeros(1, np.int64), lambda t: torch.zeros(2))


def test_words_and_items_of_containers_count():
    @checked
    def words(unit: Literal["m", "mm"], pairs: dict[str, tuple[int, ...]], names: list[str]) -> None: ...

    words("m", {"a": (1,)}, ["b"])
    one = {"a": (1,)}
    for wrong in (("cm", one, ["b"]), ("m", {"a": ("1",)}, ["b"]), ("m", {1: (1,)}, ["b"]), ("m", one, [1])):
        with pytest.raises(TypeCheckError):
            words(*wrong)


def test_fields_of_a_dataclass_are_checked():
    @checked
    @dataclass(frozen=True)
    class Points:
        xyz: Float[np.ndarray, "n 3"]

    assert Points(np.zeros((2, 3))).xyz.shape == (2, 3)
    with pytest.raises(TypeCheckError):
        Points(np.zeros((2, 4)))


def test_nested_functions_are_checked_each_time_they_are_made():
    def outer(add: int) -> Callable:
        @checked
        def inner(x: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
            return x + add

        return inner

    assert [outer(add)(torch.zeros(2)).tolist() for add in (1, 2)] == [[1, 1], [2, 2]]
    with pytest.raises(TypeCheckError):
        outer(1)(torch.zeros(2, 2))


def test_what_is_in_large_or_other_containers_is_looked_at_each_time():
    assert described([0] * 17) is None and described({1}) is None and described((1, {2})) is None
    assert described([1.0, "a"]) == described([2.0, "a"]) != described([2.0, "b"])
