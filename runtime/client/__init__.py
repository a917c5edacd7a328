"""What talks to a hub from outside.

Imports the scheduling, the placement and the transport; it knows no partition.
"""
