"""The state machine of an orchestration instance: its messages, commands and rewinding.

Imports the vocabulary, the codec, the registry, the replay and the contexts.
"""
