"""What answers requests: a process for each, prestarted processes, or workers."""
