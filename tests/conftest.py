"""Settings of all tests."""

from hypothesis import settings

# Two busy cores make single examples slow: time says nothing about right or wrong.
settings.register_profile("book", deadline=None)
settings.load_profile("book")
