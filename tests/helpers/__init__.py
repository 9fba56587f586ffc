"""Shared code of the tests: servers, clients, terminals, and waits for states."""
