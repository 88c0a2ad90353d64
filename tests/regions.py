"""Long documents in which a rule only says what it is about under its heading.

Every document has a section for every region, and a region's section names one product, far below
its heading. Which product that is differs from document to document, so a question about a product
in a region is answered by one document, and only a passage that knows its heading tells which.
"""

from __future__ import annotations

REGIONS = ("north", "south", "east", "west")
PRODUCTS = tuple(f"{colour}{kind}" for colour in ("red", "blue") for kind in "abcdefgh")
_FILLER = "Forms are filled in by hand and kept with the papers of the year before. "


def document(number: int) -> str:
    """Return the Markdown of one of ``len(PRODUCTS)`` documents."""
    return "\n\n".join(
        f"# {region.title()} province\n\n{_FILLER * 8}{product(number, at)} is delivered on Mondays."
        for at, region in enumerate(REGIONS)
    )


def product(number: int, region: int) -> str:
    """Return the product that document ``number`` has in a region."""
    return PRODUCTS[(number + 5 * region) % len(PRODUCTS)]


def records() -> list[dict[str, str]]:
    """Return all documents as records to ingest."""
    return [{"id": f"d{n}", "text": document(n)} for n in range(len(PRODUCTS))]


def questions() -> list[dict[str, str]]:
    """Return a question for every document, each about another region than the one before."""
    return [
        {
            "question": f"{product(n, n % 4)} in the {REGIONS[n % 4]} province",
            "document": f"d{n}",
        }
        for n in range(len(PRODUCTS))
    ]
