"""Lives the sessions, one task for each, and tells and takes orders about them."""
