"""The public Python API; `simpleipc_cli` exports its names."""
