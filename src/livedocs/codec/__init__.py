"""BSON and Extended JSON, read and written."""
