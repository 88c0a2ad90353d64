"""Korean law: citations, judgments, statutes, names of laws."""
