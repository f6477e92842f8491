"""What all tests share: a hypothesis profile without deadlines, since this may be a slow or busy machine."""

from hypothesis import settings

settings.register_profile("suite", deadline=None)
settings.load_profile("suite")
