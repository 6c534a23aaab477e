"""Shared servers, and where each user's traffic goes."""
