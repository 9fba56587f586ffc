"""Reading what came out of a JSON file, and saying what is wrong with it.

Knows no format of its own: each class checks what its numbers mean itself. Files of
results are handed around and edited by hand, so nothing in them is believed.
"""

from __future__ import annotations

from collections.abc import Mapping

_TOO_LARGE = 1 << 256  # far above any sum of squares, and far below what no float can hold


def mapping(data: object, what: str) -> Mapping[str, object]:
    """`data` as an object with fields. Raises ValueError if it is none; `what` names it."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{what} is {_described(data)}, not an object")
    return data


def items(fields: Mapping[str, object], name: str) -> list[object]:
    """A field that is a list. Raises ValueError if it is missing or none."""
    value = _field(fields, name)
    if not isinstance(value, list):
        raise ValueError(f"{name} is {_described(value)}, not a list")
    return value


def whole(fields: Mapping[str, object], name: str) -> int:
    """A field that is a whole number from 0 up. Raises ValueError if it is missing or none."""
    return whole_number(_field(fields, name), name)


def whole_or_none(fields: Mapping[str, object], name: str) -> int | None:
    """A field that is a whole number from 0 up, or null. Raises ValueError otherwise."""
    value = _field(fields, name)
    return None if value is None else whole_number(value, name)


def whole_numbers(data: object, length: int, what: str) -> list[int]:
    """A list of exactly `length` whole numbers from 0 up. Raises ValueError otherwise."""
    if not isinstance(data, list) or len(data) != length:
        raise ValueError(f"{what} is {_described(data)}, not a list of {length} whole numbers")
    return [whole_number(value, what) for value in data]


def whole_number(value: object, what: str) -> int:
    """`value` itself, a whole number from 0 up. Raises ValueError otherwise."""
    # True and False are ints to Python; to whoever wrote the file they are not.
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{what} is {_described(value)}, not a whole number")
    if value < 0:
        raise ValueError(f"{what} is {_described(value)}, which is below 0")
    if value >= _TOO_LARGE:
        raise ValueError(f"{what} is larger than anything that was ever measured")
    return value


def _field(fields: Mapping[str, object], name: str) -> object:
    if name not in fields:
        raise ValueError(f"{name} is missing")
    return fields[name]


def _described(value: object) -> str:
    """A value as it may be shown in a message of one line."""
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
