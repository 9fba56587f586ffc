"""Start one server from several threads, send a request to it, and print the response."""

import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

if __name__ == "__main__":
    from simpleipc_cli import ensure_running, send

    path, command, seconds = sys.argv[1:]

    def start():
        ensure_running(path, command, timeout=float(seconds))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    start()
    print(send(path, b"x").decode())
