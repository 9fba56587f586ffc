"""`send --lines` and `--null` under Wine: many requests in one process, as on Unix."""

from __future__ import annotations

import json
import threading

import pytest
from helpers.waiting import TIMEOUT
from helpers.wine import HERE, windows_path


@pytest.fixture
def path(folder):
    return windows_path(folder / "sock")


@pytest.fixture
def echo(wine):
    """The command of a worker that answers with its process id, the request's number and text."""
    return f'"{windows_path(wine.words[-1])}" "{windows_path(HERE / "worker.py")}"'


def sent_back(lines):
    """Return which requests the workers got, from their responses."""
    return [line.split(" ", 2)[2] for line in lines]


def test_every_line_is_a_request_and_responses_keep_the_order(wine, path, echo):
    records = [f"record {number}" for number in range(60)]
    with wine.server(path, "--worker", echo, "--threads", "4"):
        given = "\n".join(records).encode()
        ran = wine.sipc("send", path, "--lines", "-j", "4", "--stats", input=given)
    assert ran.status == 0, ran.err
    assert sent_back(ran.out.splitlines()) == records
    assert json.loads(ran.err)["bytes_sent"] == sum(map(len, records))


def test_null_separates_records_and_responses_with_nul(wine, path, echo):
    with wine.server(path, "--worker", echo):
        ran = wine.sipc("send", path, "-0", input=b"a\r\nb\x1a\0\0c")
    assert ran.status == 0, ran.err
    assert [answer.split(b" ", 2)[2] for answer in ran.raw.split(b"\0")[:-1]] == [
        b"a\r\nb\x1a",
        b"",
        b"c",
    ]


def test_a_response_is_written_before_the_next_record_is_read(wine, path, echo):
    with wine.server(path, "--worker", echo):
        client = wine.start("run_sipc.py", "send", path, "--lines")
        for word in (b"one", b"two", b"three"):
            client.stdin.write(word + b"\n")
            client.stdin.flush()
            assert client.stdout.readline().rstrip().endswith(word)
        client.stdin.close()
        assert client.wait(TIMEOUT) == 0
        client.kill()
    for stream in (client.stdout, client.stderr):
        stream.close()


def test_records_are_read_from_a_file_and_responses_written_to_another_file(
    wine, path, folder, echo
):
    (folder / "records").write_bytes(b"one\ntwo\n")
    with wine.server(path, "--worker", echo):
        ran = wine.sipc(
            *("send", path, "--lines", "--data-file", windows_path(folder / "records")),
            *("-o", windows_path(folder / "answers")),
        )
    assert (ran.status, ran.out) == (0, "")
    assert sent_back((folder / "answers").read_text().splitlines()) == ["one", "two"]


def test_more_bytes_than_the_pipes_hold_are_sent_and_received(wine, path, echo):
    records = [b"%d" % number * 300_000 for number in range(8)]
    with wine.server(path, "--worker", echo, "--threads", "2"):
        client = wine.start("run_sipc.py", "send", path, "--lines", "-j", "2")
        feeder = threading.Thread(target=feed, args=(client, records))
        feeder.start()
        answers = client.stdout.read()
        feeder.join()
        assert client.wait(TIMEOUT) == 0
        client.kill()
    for stream in (client.stdout, client.stderr):
        stream.close()
    assert [line.split(b" ", 2)[2] for line in answers.splitlines()] == records


def feed(client, records):
    client.stdin.write(b"\n".join(records))
    client.stdin.close()


def test_a_failed_record_is_reported_and_the_others_are_sent(wine, path, echo):
    with wine.server(path, "--worker", echo, "--threads", "1"):
        ran = wine.sipc("send", path, "--lines", input=b"a\nend\nb\n")
    assert ran.status == 7
    assert sent_back(line for line in ran.out.splitlines() if line) == ["a", "b"]
    assert "record 2" in ran.err


def test_a_timeout_is_reported_though_the_output_is_not_read(wine, path, echo):
    with wine.server(path, "--worker", echo):
        client = wine.start("run_sipc.py", "send", path, "--lines", "-m", "5s")
        client.stdin.write(b"x" * 2_000_000 + b"\n")
        client.stdin.flush()
        assert client.wait(TIMEOUT) == 6
        assert b"in time" in client.stderr.read()
        client.kill()
        for stream in (client.stdin, client.stdout, client.stderr):
            stream.close()


def test_a_missing_server_fails_the_first_record(wine, path):
    ran = wine.sipc("send", path, "--lines", input=b"a\nb\n")
    assert ran.status == 4
    assert "record 1" in ran.err
