"""jaxtyping's checks, each made once for all calls that it cannot tell apart.

A check depends on the types of arguments and result, on shapes and dtypes of arrays, and on strings (`Literal`): calls
that agree in these pass or fail alike. Checked every time, they take more CPU time than all that they check: 2.6
instead of 0.9 s for `preflight`. Nested functions, which are made anew with each call, share what is known of them.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Collection, Hashable
from types import CodeType, FunctionType
from typing import Any

import jaxtyping
import numpy as np
import torch
from jaxtyping import _decorator, install_import_hook

MISSING = object()
LONGEST_LITERAL, MAX_ITEMS, MAX_KNOWN = 32, 16, 1000
every_time = _decorator.jaxtyped
KNOWN: dict[CodeType, dict[Hashable, set[Hashable]]] = {}
"""Of each function, what arguments and what results were found right together."""


def install() -> None:
    """Check all functions and dataclasses of mvpose that are imported from now on."""
    jaxtyping.jaxtyped = _decorator.jaxtyped = once  # pyright: ignore[reportAttributeAccessIssue]
    install_import_hook("mvpose", "beartype.beartype")


def once(fn: Any = MISSING, *, typechecker: Any) -> Any:
    """What `jaxtyping.jaxtyped` does, which calls it for the methods of a class."""
    if fn is MISSING:
        return functools.partial(once, typechecker=typechecker)
    if inspect.isclass(fn) and hasattr(fn.__init__, "checked_once"):
        return fn
    if not isinstance(fn, FunctionType):
        return every_time(fn, typechecker=typechecker)
    known, made = KNOWN.setdefault(fn.__code__, {}), threading.local()

    def given(*args: Any, **kwargs: Any) -> Any:
        return made.result

    @functools.cache
    def whole() -> Callable:
        return every_time(fn, typechecker=typechecker)

    @functools.cache
    def result_alone() -> Callable:
        stand_in = FunctionType(given.__code__, fn.__globals__, fn.__name__, None, given.__closure__)
        return every_time(functools.update_wrapper(stand_in, fn), typechecker=typechecker)

    @functools.wraps(fn)
    def checked(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:
            return fn(*args, **kwargs)
        arguments = described((args, kwargs))
        right = known.get(arguments)
        if right is None:
            result = whole()(*args, **kwargs)
        else:
            result = fn(*args, **kwargs)
            if described(result) in right:
                return result
            made.result = result
            try:
                result_alone()(*args, **kwargs)
            finally:
                del made.result
        if arguments is not None and (found := described(result)) is not None and len(known) < MAX_KNOWN:
            known.setdefault(arguments, set()).add(found)
        return result

    checked.checked_once = True
    return checked


def described(value: Any) -> Hashable:
    """All that a check of a value depends on; None if this is not known."""
    try:
        found = description(value)
        hash(found)  # refused by sizes that torch.export has not fixed
    except TypeError:
        return None
    return found


def description(value: Any) -> Hashable:
    """The same; TypeError if it is not known."""
    kind = type(value)
    describe = DESCRIPTIONS.get(kind)
    if describe is None:
        describe = DESCRIPTIONS[kind] = description_of(kind)
    return describe(value)


def description_of(kind: type) -> Callable[[Any], Hashable]:
    """How values of a type are described."""
    if issubclass(kind, torch.Tensor | np.ndarray):
        return lambda array: (kind, array.dtype, array.shape)
    if issubclass(kind, str):
        return lambda text: (kind, text) if len(text) <= LONGEST_LITERAL else kind
    if issubclass(kind, tuple | list):
        return lambda items: (kind, *map(description, few(items)))
    if issubclass(kind, dict):
        return lambda pairs: (kind, *((description(key), description(each)) for key, each in few(pairs).items()))
    if issubclass(kind, bytes) or not issubclass(kind, Collection):
        return lambda _: kind
    return unknown


def few(items: Any) -> Any:
    """The items of a container; TypeError if they are many."""
    if len(items) > MAX_ITEMS:
        raise TypeError(f"{len(items)} items")
    return items


def unknown(value: Any) -> Hashable:
    """TypeError: what is in other containers is looked at by each check."""
    raise TypeError(type(value))


DESCRIPTIONS: dict[type, Callable[[Any], Hashable]] = {}
