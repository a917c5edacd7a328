"""A partition: mailboxes, activations, batches, checkpoints, exchange, recovery, moving.

Imports the scheduling and the placement.
"""
