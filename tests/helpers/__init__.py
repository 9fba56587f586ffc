"""What the tests share: servers, clients, terminals, and waits for states."""
