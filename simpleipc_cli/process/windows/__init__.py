"""Child processes on Windows."""
