from __future__ import annotations

from ondol.core import errors
from ondol.core.errors import OUTCOMES, OndolError, outcome_of


def _tree(kind: type[OndolError]) -> set[type[OndolError]]:
    return {kind}.union(*(_tree(child) for child in kind.__subclasses__()))


def test_the_table_is_complete() -> None:
    assert set(OUTCOMES) == _tree(OndolError)


def test_the_docstring_draws_the_whole_tree() -> None:
    assert errors.__doc__ is not None
    for kind in _tree(OndolError):
        assert kind.__name__ in errors.__doc__


def test_codes_are_distinct_words() -> None:
    codes = [kind.default_code for kind in OUTCOMES]
    assert len(codes) == len(set(codes))


def test_anything_unknown_leaves_as_a_server_error() -> None:
    assert outcome_of(ValueError("x")) == OUTCOMES[OndolError]


def test_exit_codes_are_those_of_the_contract() -> None:
    assert {outcome.exit_code for outcome in OUTCOMES.values()} <= {1, 2, 3}
