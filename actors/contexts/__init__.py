"""What users' code sees of the world: in an orchestration, in an operation, in an activity.

Imports all above it: the vocabulary, the codec, the registry and the replay.
"""
