"""Finds files by the names under which they were shown."""
