"""The ways of signing in, and who is signed in."""
