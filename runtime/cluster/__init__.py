"""Crews of shards: event loops of one process, worker processes; and the balance among them.

Imports all of the runtime but the hub.
"""
