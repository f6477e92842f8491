"""The only clients of the outer world: one module for each kind of upstream."""
