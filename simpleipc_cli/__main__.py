"""The way in: `sipc` and `python -m simpleipc_cli`."""

from __future__ import annotations

from simpleipc_cli.cli import main

if __name__ == "__main__":
    main()
