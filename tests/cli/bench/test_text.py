"""The report of `sipc bench` in text: complete, aligned, and never wider than a terminal."""

from __future__ import annotations

import os
import re

import pytest
from helpers.bench_reports import CLOSED, LONGEST, MS, OPEN, report_of

from simpleipc_cli.bench.conditions import evaluate, parse
from simpleipc_cli.bench.format import sections
from simpleipc_cli.bench.generator import FAILURES
from simpleipc_cli.bench.histogram import Histogram
from simpleipc_cli.cli.bench.terminal import print_report


@pytest.fixture
def text_of(capfdbinary):
    """A report as it is printed."""

    def text(report, evaluated=(), changes=None) -> str:
        print_report(report, sections(report, evaluated, changes))
        return capfdbinary.readouterr().out.decode()

    return text


def test_the_report_of_a_closed_loop_is_complete(text_of):
    assert (
        text_of(report_of(answered=12, failed=2, settings={**CLOSED, "processes": 2}))
        == """\
/run/x
started    2026-01-02T03:04:05+00:00
load       closed loop, at most 8 at once, 2 processes, 0 B each, for 10.0 s
rate       6/s, over 2.00 s
requests   16 sent, 12 answered, 2 failed (14.3 %), 2 unfinished
payload    120 B sent and 240 B received, by those answered
generator  25 % of a processor

Times
             service      connect   first byte
min          1.00 ms       100 us       500 us
mean         1.01 ms       101 us       503 us
stddev       3.61 us       361 ns      1.80 us
p50          1.01 ms       101 us       503 us
p75          1.01 ms       101 us       504 us
p90         ~1.01 ms      ~101 us      ~505 us
p95                -            -            -
p99                -            -            -
p99.9              -            -            -
p99.99             -            -            -
max          1.01 ms       101 us       506 us
samples           12           12           12
"-": too few samples
"~": fewer than 3 samples lie beyond, likely to be too low
service time: from the actual start of a request to its complete response
connect: from the start of a request to its connection
first byte: from the start of a request to the first byte of its response

Failures
               count         mean          p50          p99          max
timeout            2      7.00 ms     ~7.00 ms            -      7.00 ms
"-": too few samples
"~": fewer than 3 samples lie beyond, likely to be too low

Latency (service time)
1.00 ms to 1.01 ms  ##################################  12  100.0 %
"""
    )


def test_the_report_of_an_open_loop_explains_service_time_and_response_time(text_of):
    text = text_of(report_of(settings=OPEN))
    assert re.search("^load +open loop, 500/s offered, at most 8 at once, 0 B each", text, re.M)
    assert re.search("^rate +500/s achieved, 500/s offered, over 2.00 s$", text, re.M)
    assert re.search("^late +3 started more than 1.00 ms after they were due, 1 never$", text, re.M)
    assert re.search(r"^ +response +service +connect +first byte$", text, re.M)
    assert re.search(r"^p50 +3.00 ms +1.50 ms ", text, re.M)
    assert "\nresponse time: from when a request was due to its complete response\n" in text
    assert "\nservice time: from the actual start of a request to its complete response\n" in text
    assert "\nLatency (response time)\n" in text


def test_a_report_without_responses_has_no_times(text_of):
    text = text_of(report_of(answered=0))
    assert "0 answered, 5 failed" in text
    assert "Times" not in text
    assert "Latency" not in text


@pytest.mark.parametrize("share", [0.5, 0.95], ids=["idle", "busy"])
def test_the_report_says_if_the_load_generator_may_have_limited_the_rate(text_of, share):
    said = "\nWarning: the generator may be the limit" in text_of(report_of(share=share))
    assert said == (share > 0.9)


@pytest.mark.parametrize("partial", [False, True])
def test_a_partial_report_is_marked(text_of, partial):
    assert ("\nPartial: " in text_of(report_of(partial=partial))) == partial


def test_control_characters_of_a_path_are_escaped(text_of):
    report = report_of()
    report.path = "/run/\x1b[2J\n\udcff"
    assert text_of(report).startswith("/run/\\x1b[2J\\n\\udcff\n")


def test_a_program_that_reads_the_report_gets_whole_lines(text_of):
    report = report_of(settings={**OPEN, "processes": 16, "requests": 10**9, "warmup": MS})
    text = text_of(report)
    found = list(sections(report, (), None))
    facts = [row[-1] for section in found for row in section.rows if section.has_words]
    assert max(map(len, facts)) > 69, "it does not fit beside its name"
    for whole in facts:
        assert f" {whole}\n" in text


@pytest.mark.parametrize("longest", [1, MS, LONGEST], ids=["1 ns", "1 ms", "39 h"])
@pytest.mark.parametrize("count", [1, 10**9], ids=["few", "very many"])
@pytest.mark.parametrize("settings", [CLOSED, OPEN], ids=["closed", "open"])
def test_the_report_fits_80_columns_of_a_terminal(text_of, monkeypatch, longest, count, settings):
    monkeypatch.setattr(os, "isatty", lambda _descriptor: True)
    monkeypatch.setenv("NO_COLOR", "1")
    report = report_of(settings={**settings, "processes": 16, "requests": count, "warmup": MS})
    results = report.results
    for histogram in (results.total, results.connect, results.first_byte, results.response):
        histogram.record(longest, count)
    results.bytes_in = results.bytes_out = count * 10**6
    for kind in FAILURES:
        results.failures.setdefault(kind, Histogram()).record(longest, count)
    conditions = map(parse, ("p99>5ms", "first_byte.p99.99>=123456.789ms", "errors>0"))
    evaluated = evaluate(conditions, report.bounds())
    text = text_of(report, evaluated, report.compare(report_of(settings=settings)))
    assert max(map(len, text.splitlines())) <= 80
