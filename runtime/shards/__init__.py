"""One event loop: its partitions, its activities, and those who ask over a connection.

Imports the scheduling, the placement, the partitions and the transport.
"""
