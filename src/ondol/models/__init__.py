"""What weights we have, where they come from, and how they run on this machine.

Owns the catalogue, the models folder, downloads and conversions. Knows no request, queue or
database; turns files into backends only in ``loading``, and imports them late.
"""
