"""Time, threads, tasks and event loops: what lets work happen, and knows of no work in particular.

Imports nothing of the runtime.
"""
