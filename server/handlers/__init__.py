"""HTTP in, HTTP out: one thin module for each route, and what they share to answer."""
