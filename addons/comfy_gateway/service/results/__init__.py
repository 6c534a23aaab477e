"""Keeps what prompts came to."""
