"""The fault catalogue: what upstreams do wrong, done to a user's own configuration, and what came of it."""
