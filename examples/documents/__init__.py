"""A document pipeline: extract, check, have people decide, store, notify; it survives ``kill -9``.

* ``app.py``: the orchestrations, activities and entities. Read this one first.
* ``models.py``: the values that cross between them.
* ``extract.py``, ``rules.py``: the real work, as plain functions of a file or a text.
* ``desk.py``: the world outside, a folder of results and an outbox, both idempotent.
* ``reviewer.py``: the person who decides about flagged documents.
* ``plan.py``: which documents there are.
* ``run.py``, ``view.py``: one run on a hub, and what it shows meanwhile.
* ``verify.py``: the same totals by a plain loop, to compare with.
"""
