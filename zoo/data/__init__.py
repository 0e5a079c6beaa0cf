"""Data modules, one a file, found by file name like the models. Each publishes a ``DataSpec``."""
