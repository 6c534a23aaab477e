"""The way of a prompt to a server and to its end."""
