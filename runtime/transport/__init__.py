"""Between event loops: the wire's form, channels, lines, and the way to each partition.

Imports the scheduling and the placement; it knows no partition.
"""
