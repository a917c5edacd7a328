"""What an application consists of: the app, its definitions, and the look-up for calls.

Imports the vocabulary and the codec.
"""
