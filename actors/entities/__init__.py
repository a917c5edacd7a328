"""The state machine of an entity: operations, locks, stripes.

Imports the vocabulary, the codec, the registry and the contexts.
"""
