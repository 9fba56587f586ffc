"""Child processes of the server and of `send --spawn`."""
