#!/usr/bin/env python3
"""Answers `git status` like git's own fsmonitor daemon: the paths changed since a token.

    sipc serve .git/fsmonitor--daemon.ipc --exec 'fsmonitor_handler.py WORKTREE SNAPSHOTS'

A token is the number of a snapshot, which is kept in the folder SNAPSHOTS: the contents of
all files, so that no change is missed, however fast it was, and none is named twice. Fit for
tests with a few small files, and for nothing else.
"""

import hashlib
import os
import pickle
import stat
import sys

PREFIX = b"snapshot:"


def scan(folder: bytes) -> dict[bytes, object]:
    """Return the state of every path below a folder, except those of git."""
    found: dict[bytes, object] = {}
    for entry in os.scandir(folder):
        if entry.name == b".git":
            continue
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            found[entry.name] = mode
            found |= {entry.name + b"/" + name: is_ for name, is_ in scan(entry.path).items()}
        elif stat.S_ISLNK(mode):
            found[entry.name] = os.readlink(entry.path)
        else:
            with open(entry.path, "rb") as file:
                found[entry.name] = mode, hashlib.sha256(file.read()).digest()
    return found


def keep(snapshot: dict[bytes, object], folder: bytes) -> bytes:
    """Store a snapshot; return its number."""
    number = b"%d" % len(os.listdir(folder))
    with open(
        os.path.join(folder, number), "xb"
    ) as file:  # fails if two requests store one at once
        pickle.dump(snapshot, file)
    return number


def kept(token: bytes, folder: bytes) -> dict[bytes, object] | None:
    """Return the snapshot of a token; None if this handler did not create the token."""
    number = token.removeprefix(PREFIX)
    if number == token or not number.isdigit():
        return None
    try:
        with open(os.path.join(folder, number), "rb") as file:
            return pickle.load(file)
    except FileNotFoundError:
        return None


def main() -> None:
    """Answer one request. Each error ends in a traceback, and so without a response."""
    tree, folder = map(os.fsencode, sys.argv[1:])
    before = kept(sys.stdin.buffer.read(), folder)
    now = scan(tree)
    answer = [PREFIX + keep(now, folder)]
    if before is None:
        answer.append(b"/")  # git then scans the whole work tree
    else:
        paths = before.keys() | now.keys()
        answer += sorted(path for path in paths if before.get(path) != now.get(path))
    sys.stdout.buffer.write(b"".join(part + b"\0" for part in answer))


main()
