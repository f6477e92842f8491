"""The speed rig (``make bench``): what Antiphon adds to a request, beside a minimal relay.

Black box: everything that is measured is a process behind a port. The rig knows nothing of the
server's inside, and is no part of the wheel. docs/speed.md says what is promised and how to read the table.
"""
