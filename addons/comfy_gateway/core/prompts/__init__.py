"""Prompts: what is read of them, whose turn it is, who may see them."""
