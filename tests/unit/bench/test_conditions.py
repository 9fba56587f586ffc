from __future__ import annotations

import contextlib

import pytest
from helpers.strategies import text_of_any_characters
from hypothesis import given
from hypothesis import strategies as st

from simpleipc_cli.bench.conditions import (
    KINDS,
    PARTS,
    TIME_FIGURES,
    ConditionResult,
    evaluate,
    parse,
)

MS = 1_000_000


def refusal(text: str) -> str:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as caught:
        parse(text)
    return str(caught.value)


# Valid conditions


@pytest.mark.parametrize(
    ("text", "figure", "sign", "value"),
    [
        ("p99>5ms", "p99", ">", 5 * MS),
        ("p99.9 >= 200us", "p99.9", ">=", 200_000),
        ("p99.99<1.5s", "p99.99", "<", 1_500 * MS),
        ("min == 0ns", "min", "==", 0),
        ("stddev>1m30s", "stddev", ">", 90_000 * MS),
        ("connect.p99 > 1ms", "connect.p99", ">", MS),
        ("first_byte.mean>1ms", "first_byte.mean", ">", MS),
        ("service.p99.9>1ms", "service.p99.9", ">", MS),
        ("response.max>1ms", "response.max", ">", MS),
        ("rate<1000", "rate", "<", 1000),
        ("rate<0.5", "rate", "<", 0.5),
        ("errors!=0", "errors", "!=", 0),
        ("requests<5000", "requests", "<", 5000),
        ("late > 10", "late", ">", 10),
        ("skipped > 0", "skipped", ">", 0),
        ("error_rate>1%", "error_rate", ">", 0.01),
        ("error_rate>.5%", "error_rate", ">", 0.005),
        ("error_rate>0.1", "error_rate", ">", 0.1),
        ("error_rate==100%", "error_rate", "==", 1),
        ("bytes_in<=64K", "bytes_in", "<=", 65536),
        ("bytes_in<=64k", "bytes_in", "<=", 65536),
        ("bytes_out > 1M", "bytes_out", ">", 1 << 20),
        ("bytes_out > 1G", "bytes_out", ">", 1 << 30),
        ("bytes_out > 1T", "bytes_out", ">", 1 << 40),
        ("bytes_out == 4096", "bytes_out", "==", 4096),
    ],
    ids=str,
)
def test_valid_conditions_are_parsed(text, figure, sign, value):
    condition = parse(text)
    assert (condition.figure, condition.operator, condition.value) == (figure, sign, value)


def test_every_figure_can_be_used_in_a_condition():
    values = {"time": "5ms", "rate": "5", "share": "5%", "count": "5", "size": "5K"}
    for name, kind in KINDS.items():
        assert parse(f"{name}>{values[kind]}").figure == name.removeprefix("total.")


def test_conditions_know_every_promised_figure():
    times = "min mean max stddev p50 p75 p90 p95 p99 p99.9 p99.99".split()
    others = "rate errors error_rate requests late skipped bytes_in bytes_out".split()
    parts = "connect first_byte total service response".split()
    assert sorted(TIME_FIGURES) == sorted(times)
    assert sorted(PARTS) == sorted(parts)
    assert sorted(KINDS) == sorted(
        [*times, *others, *(f"{part}.{name}" for part in parts for name in times)]
    )


def test_a_figure_without_a_part_means_the_total():
    assert parse("total.p99>5ms").figure == parse("p99>5ms").figure == "p99"


@pytest.mark.parametrize("text", ["p99>5ms", "  p99  >\t5ms \n"], ids=["tight", "wide"])
def test_spaces_do_not_change_a_condition_and_its_text_is_kept_as_written(text):
    condition = parse(text)
    assert (condition.figure, condition.value, condition.text) == ("p99", 5 * MS, text.strip())


# Whether a condition holds


@pytest.mark.parametrize(
    ("sign", "below", "equal", "above"),
    [
        ("<", True, False, False),
        ("<=", True, True, False),
        (">", False, False, True),
        (">=", False, True, True),
        ("==", False, True, False),
        ("!=", True, False, True),
    ],
)
def test_each_operator_compares_as_its_symbol_says(sign, below, equal, above):
    condition = parse(f"p99{sign}5ms")
    responses = [ConditionResult(condition, (5 * MS + change,) * 2).holds for change in (-1, 0, 1)]
    assert responses == [below, equal, above]


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("p99>10ms", False),
        ("p99>9ms", False),
        ("p99>8ms", None),
        ("p99>6ms", None),
        ("p99>5ms", True),
        ("p99>=6ms", True),
        ("p99<6ms", False),
        ("p99<=6ms", None),
        ("p99<10ms", True),
        ("p99==5ms", False),
        ("p99==6ms", None),
        ("p99==7ms", None),
        ("p99!=7ms", None),
        ("p99!=10ms", True),
    ],
)
def test_bounds_decide_a_condition_if_all_possible_values_agree(condition, holds):
    assert ConditionResult(parse(condition), (6 * MS, 9 * MS)).holds is holds


def test_only_the_named_figure_decides_a_condition():
    bounds = {"p99": (9 * MS, 9 * MS), "connect.p99": (MS, MS), "rate": (5.0, 5.0)}
    conditions = map(parse, ("p99>5ms", "connect.p99>5ms", "total.p99>5ms"))
    assert [result.holds for result in evaluate(conditions, bounds)] == [True, False, True]


@pytest.mark.parametrize("text", ["p99>5ms", "p99<5ms", "p99!=5ms"])
def test_a_condition_on_an_unknown_figure_has_no_result_and_fails(text):
    (result,) = evaluate([parse(text)], {"p99": None})
    assert (result.holds, result.fails) == (None, True)


@pytest.mark.parametrize(
    ("figure", "needed"), [("p99", 100), ("connect.p99.9", 1_000), ("service.p90", 10)]
)
def test_a_condition_without_a_result_names_the_number_of_samples_that_it_needs(figure, needed):
    (result,) = evaluate([parse(f"{figure}>5ms")], {figure: (4 * MS, 6 * MS)})
    assert (result.fails, result.samples_needed) == (True, needed)


def test_a_figure_of_zero_decides_a_condition():
    assert ConditionResult(parse("errors==0"), (0, 0)).holds is True
    assert ConditionResult(parse("errors>0"), (0, 0)).holds is False


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_share_in_percent_is_converted_exactly(part, more):
    percent = part % 101
    assert ConditionResult(
        parse(f"error_rate=={percent}%"), (percent * more / (100 * more),) * 2
    ).holds


# Invalid conditions


@pytest.mark.parametrize(
    "text", ["p98>5ms", "P99>5ms", "stdev>5ms", "conect.p99>1ms", "zzz", "5ms<p99"]
)
def test_the_error_for_an_unknown_figure_lists_all_names(text):
    message = refusal(text)
    for name in ("min", "p99.99", "connect.", "response.", "rate", "bytes_out"):
        assert name in message.split(": ", 1)[1].replace(",", "").split()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown figure '': use one of min mean max"),
        ("  ", "unknown figure '': use one of"),
        (">5ms", "unknown figure '': use one of"),
        ("p99", "no operator after p99: use one of < <= > >= == !="),
        ("p99 5ms", "no operator after p99: use one of < <= > >= == !="),
        ("p99<<5ms", "unknown operator '<<': use one of < <= > >= == !="),
        ("p99>", "p99 cannot be '': give a time"),
        ("rate<", "rate cannot be '': give a number of responses per second"),
    ],
)
def test_the_error_names_a_missing_part_of_a_condition(text, message):
    assert refusal(text).startswith(message)


TIME = "give a time with its unit, such as 5ms, 200us or 1.5s"
RATE = "give a number of responses per second, such as 1000"
SHARE = "give a share of the requests, such as 1% or 0.01"
COUNT = "give a whole number, such as 10"
SIZE = "give a number of bytes, such as 4096, 64K or 1M"


@pytest.mark.parametrize(
    ("figure", "value", "wanted"),
    [
        *(
            ("p99", value, TIME)
            for value in ("5", "1%", "5K", "5 ms", "-5ms", "5ms or 6ms", "=5ms", "5s5s", "1s1m")
        ),
        ("connect.min", "0", TIME),
        *(("rate", value, RATE) for value in ("5ms", "1K", "1%", "-1", "1e3", "nan", "1_000")),
        *(("error_rate", value, SHARE) for value in ("5ms", "101%", "1.1", "-1%", "1 %", "1K")),
        *(("errors", value, COUNT) for value in ("0.5", "1%", "1K", "-1", "5ms", "\u0663")),
        *(("bytes_in", value, SIZE) for value in ("5ms", "64KB", "1.5K", "1%", "-1")),
    ],
)
def test_the_error_for_a_value_of_the_wrong_kind_names_the_right_kind(figure, value, wanted):
    # A space, as `p99>=5ms` has another operator.
    assert refusal(f"{figure}> {value}") == f"{figure} cannot be {value!r}: {wanted}"


@given(text_of_any_characters(20))
def test_any_text_is_parsed_or_refused(text):
    with contextlib.suppress(ValueError):
        assert parse(text).figure in KINDS
