"""Which channel is asked, what is known of its health, and what it may be burdened with.

Nothing here sends anything: ``routed_model`` carries out. What decides is told the time and given its chance.
"""
