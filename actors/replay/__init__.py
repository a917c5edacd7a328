"""The pure engine: runs orchestrations' code over a history, replaying and going on alike.

Imports the vocabulary, the codec and the registry.
"""
