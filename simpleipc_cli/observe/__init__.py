"""Watching what goes over a connection, without a word of it changed; see stream.py."""
