"""What users write against, and the pure state machines behind it.

No I/O, no clock, no event loop: values in, effects out. The names for users are in ``perdure``.
"""
