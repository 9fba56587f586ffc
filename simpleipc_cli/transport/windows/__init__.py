"""Simple-IPC over Windows named pipes."""
