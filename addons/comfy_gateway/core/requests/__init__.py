"""Kinds of requests, the servers that answer them, and what is said when none may."""
