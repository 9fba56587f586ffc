from __future__ import annotations

import os
import threading

from helpers.procfs import is_in_syscall
from helpers.scripted_server import ScriptedServer, receive_request
from helpers.waiting import TIMEOUT, wait_until
from helpers.wire import message

from simpleipc_cli.batch import batch as module
from simpleipc_cli.batch.batch import Batch
from simpleipc_cli.batch.connector import Connector
from simpleipc_cli.cli.output import MessageOutput
from simpleipc_cli.cli.stdio import Input, Output
from simpleipc_cli.deadline import Deadline
from simpleipc_cli.transport import connect


def test_no_record_is_started_while_many_bytes_of_output_wait(endpoint, folder, monkeypatch):
    """Responses that wait for the oldest one are limited in bytes, too."""
    monkeypatch.setattr(module, "MAX_WAITING", 1_000_000)
    go = threading.Event()

    def converse(connection):
        number = receive_request(connection)
        assert number != b"1" or go.wait(TIMEOUT)
        connection.sendall(message(number * 100_000))

    records = b"1\n" + b"2\n" * 30
    (folder / "records").write_bytes(records)
    with (
        ScriptedServer(endpoint, converse) as server,
        open(folder / "responses", "wb+") as responses,
    ):
        source = Input(os.open(folder / "records", os.O_RDONLY), "records", Deadline(None))
        batch = Batch(
            source,
            Output(responses.fileno(), "responses", Deadline(None)),
            MessageOutput(Deadline(None)),
            Connector(
                lambda: connect(str(endpoint), Deadline(0.0)),
                timeout=None,
                waits=False,
            ),
            separator=b"\n",
            jobs=2,
            descriptors=100,
            spool_folders=[str(folder)],
            deadline=Deadline(None),
            describe=lambda number, error: b"%d %s\n" % (number, error.text.encode()),
        )
        usage = batch._usage
        thread = threading.Thread(target=batch.run)
        thread.start()

        def waits() -> bool:
            """Whether all responses but the first have arrived, and it waits for an event."""
            return (
                usage.size >= 1_000_000
                and len(batch._exchanges) == 1
                and is_in_syscall(thread.native_id, "poll")
            )

        wait_until(waits, "the batch to wait")
        assert (usage.size, server.accepted) == (1_000_000, 11)
        go.set()
        thread.join()
        os.close(source.fileno())
        responses.seek(0)
        assert responses.read().split() == [number * 100_000 for number in records.split()]
        assert (usage.size, usage.files) == (0, 0)
