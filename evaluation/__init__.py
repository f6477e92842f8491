"""What combinations are worth, in figures: the real coordinator over members whose skill is known.

``make eval``; what it found is docs/evaluation.md, which it writes.
"""
