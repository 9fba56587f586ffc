"""Speak Simple-IPC, git's protocol between local processes, from a shell."""
