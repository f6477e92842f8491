"""The specification: ``tests/`` mirrors ``server/`` file by file."""
