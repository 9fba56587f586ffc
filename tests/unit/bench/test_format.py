from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpleipc_cli.bench.conditions import parse_ns
from simpleipc_cli.bench.format import format_ns


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (7, "7 ns"),
        (7.4, "7 ns"),
        (999, "999 ns"),
        (999.6, "1.00 us"),
        (1_000, "1.00 us"),
        (1_234_567, "1.23 ms"),
        (9_994_999, "9.99 ms"),
        (9_996_000, "10.0 ms"),
        (99_949_999, "99.9 ms"),
        (99_960_000, "100 ms"),
        (999_499, "999 us"),
        (999_500, "1.00 ms"),
        (999_500_000, "1.00 s"),
        (90_000_000_000, "90.0 s"),
        (999_600_000_000, "1000 s"),
        (86_400_000_000_000, "86400 s"),
    ],
)
def test_times_are_written_with_three_digits_and_the_unit_that_fits(ns, text):
    assert format_ns(ns) == text


@given(st.integers(1_000, 10**12))
def test_written_times_are_correct_to_three_digits(ns):
    text = format_ns(ns)
    assert abs(parse_ns(text.replace(" ", "")) - ns) <= ns * 0.005
    if ns < 999 * 10**9:
        assert re.fullmatch(r"\d\.\d\d [um]?s|\d\d\.\d [um]?s|\d{3} [um]?s", text)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("5ms", 5_000_000),
        ("200us", 200_000),
        ("200µs", 200_000),
        ("200\u03bcs", 200_000),
        ("7ns", 7),
        ("1.5s", 1_500_000_000),
        (".5s", 500_000_000),
        ("2m", 120_000_000_000),
        ("1h", 3_600_000_000_000),
        ("1m30s", 90_000_000_000),
        ("0.1234567894s", 123_456_789),
        ("0.1234567896s", 123_456_790),
        ("1.000000001s", 1_000_000_001),
        ("0s", 0),
    ],
)
def test_durations_are_parsed_to_the_nanosecond(text, ns):
    assert parse_ns(text) == ns
    assert type(parse_ns(text)) is int


@pytest.mark.parametrize(
    "text",
    [
        *("", "5", "ms", "5 ms", " 5ms", "5ms\n", "-5ms", "+5ms", "5e3ms", "1_0ms", "5.ms"),
        *("5mss", "5MS", "5K", "nans", "infs", "\u0665ms", "5ms3", "1.2.3s"),
    ],
)
def test_an_invalid_duration_is_refused_with_examples(text):
    with pytest.raises(ValueError, match="give one such as 5ms") as caught:
        parse_ns(text)
    assert repr(text) in str(caught.value)
