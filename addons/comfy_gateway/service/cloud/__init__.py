"""Looks at the account's pods, one list for everybody."""
