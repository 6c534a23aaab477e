"""What may be bought, where, when and for how much."""
