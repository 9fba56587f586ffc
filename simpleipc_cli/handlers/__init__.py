"""Handlers: a process per request, prestarted processes, or workers."""
