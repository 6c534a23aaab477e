"""The life of a user's pod: its states, what moves it between them, and what its user sees of it."""
