"""Child processes on POSIX systems."""
