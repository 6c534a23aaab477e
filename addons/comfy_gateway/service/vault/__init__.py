"""Keeps the files of pods beyond their pods' ends."""
