"""Brings input files to where prompts run."""
