"""What runs actors: mailboxes, turns, partitions, the pump, the client.

All time and I/O comes in from outside. The names for users are in ``perdure``.
"""
