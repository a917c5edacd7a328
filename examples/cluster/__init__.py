"""Three processes serve one hub on PostgreSQL, one of them is killed, and the totals are exact.

``python -m examples.cluster`` starts everything by the commands that anybody would use:
``perdure dev-postgres`` and ``perdure serve`` (``machines.py``). One client in this process goes to
whichever node answers (``load.py``), counts what it was told, and compares in the end (``run.py``).
"""
