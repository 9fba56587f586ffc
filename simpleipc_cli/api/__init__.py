"""The public API; programs import it from `simpleipc_cli`."""
