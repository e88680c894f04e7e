"""livedocs: MongoDB documents, live in the browser, for those who may see them."""

__version__ = "0.1.0"
