"""Simple-IPC over Unix domain sockets."""
