"""Everything kept: collections, documents, chunks, vectors and keywords in one SQLite file.

The way in is ``DocumentStore`` (``ondol.store.documents``). ``database`` knows no table: who keeps
rows in the file brings ``MIGRATIONS`` for them. Imports ``core`` only.
"""
