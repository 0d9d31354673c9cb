"""Which algorithmic choices matter at which batch sizes: the library behind the book."""

__version__ = "0.1.0"
