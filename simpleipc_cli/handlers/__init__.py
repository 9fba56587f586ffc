"""What answers a request. The server is handed one of these and knows only the interface."""
