"""Histories of a gateway that buys pods: users, faults of cloud, store and pods, and kills, drawn from a seed.

``python -m tests.schedules SEED`` plays one of them again and tells what happens.
"""
