"""Input files: what their names mean, and what carrying them needs."""
