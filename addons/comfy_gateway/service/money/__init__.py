"""Keeps within budgets, and says when something is wrong."""
