"""Common English words, most of which are one token in every tokenizer: what prompts are made of."""

from __future__ import annotations

_TEXT = """
about above across action after again against age air all almost alone along already also among
amount animal another answer any area arm around art ask away back bad ball bank base beautiful
become bed before began behind being believe below best better between big bird black blood blue
board boat body book both box boy break bridge bright bring brother brought brown build building
business buy call came camp can capital car care carry case cause cell center central century
certain chance change character check child choose church circle city class clean clear close
cloud coast cold color column come common company compare complete condition consider contain
continue control cook cool copy corner correct cost could country course cover cross crowd current
cut dance danger dark day dead deal death decide deep degree design develop die difference
different direct direction discover discuss distance divide doctor dog dollar door double down
draw dream dress drink drive drop dry during each early earth east easy eat edge effect egg eight
either electric element else end energy engine enough enter equal even evening event ever every
exact example exercise expect experience experiment express eye face fact family famous far farm
fast father favor fear feed feel feet fell felt few field fight figure fill final find fine finger
finish fire first fish five floor flow flower fly follow food foot force foreign forest form
forward found four free fresh friend front fruit full game garden gas gave general gentle girl
give glad glass go gold good government grand grass gray great green ground group grow guess gun
hair half hand happen happy hard hat have head hear heart heat heavy held help high hill history
hold hole home hope horse hot hotel hour house huge human hundred hunt ice idea image include
"""

WORDS: tuple[str, ...] = tuple(_TEXT.split())
