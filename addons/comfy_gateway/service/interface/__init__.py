"""Keeps and compresses what every page asks for."""
