"""Faithful fake upstreams: real servers on loopback that do what a script says, faults included.

For ``antiphon simulate``, for tests and for measuring. They share no code with the wires in this package, so
that a mistake in one cannot hide in the other.
"""
