"""The same nouns in every layer: who looks for one finds its whole slice under one name, as with `git ls-files | grep roles`."""

import ast
from collections.abc import Iterator

import pytest

from tests.checks.sources import ROOT, files, name

# Where each layer keeps a noun, as patterns below the root.
LAYERS = {
    "domain": ("hse/domain/{}/__init__.py", "hse/domain/*/{}.py"),
    "adapters": ("hse/adapters/postgres/{}.py", "hse/adapters/{}/__init__.py"),
    "tests": ("tests/api/test_{}.py",),
}
# What is called otherwise in a layer, and why. An entry that is no longer needed is an error.
OTHER_NAMES: dict[tuple[str, str], tuple[str, str]] = {
    ("domain", "auth"): ("authentication", "short in an address, in full where it is decided"),
    ("adapters", "auth"): ("authentication", "as in the domain"),
    ("domain", "me"): ("profile", "`me` is who asks; in the domain everything is about who asks"),
    ("adapters", "me"): ("users", "who asks is one of the people"),
    ("tests", "me"): (
        "own_password",
        "what somebody does to his own account has several files: password, second factor, sessions",
    ),
    ("domain", "alarms"): ("alerts", "alarms are what there is of the noun so far"),
    ("adapters", "availability"): ("bookings", "what is free is what no booking takes"),
    ("adapters", "imports"): ("bulk", "the stores of the other nouns, for many rows at once"),
}
# Domain nouns that GraphQL does not serve, and why.
NOT_IN_GRAPHQL = {
    "imports": "files go over REST only",
}

REST = sorted(path.stem for path in files(".py", "hse/api/rest") if path.stem != "__init__")
DOMAIN = sorted({path.parent.name for path in files(".py", "hse/domain") if path.parent.name != "domain"})


def is_in(layer: str, noun: str) -> bool:
    return any(list(ROOT.glob(pattern.format(noun))) for pattern in LAYERS[layer])


@pytest.mark.parametrize("noun", REST)
def test_what_rest_serves_is_called_the_same_in_every_layer(noun: str) -> None:
    for layer in LAYERS:
        other, _ = OTHER_NAMES.get((layer, noun), (noun, ""))
        assert is_in(layer, other), f"{noun}: nothing in {layer} is called {other}"


def test_other_names_are_still_needed() -> None:
    needless = [key for key in OTHER_NAMES if key[1] not in REST or is_in(*key)]
    assert needless == []


@pytest.mark.parametrize("noun", DOMAIN)
def test_a_noun_of_the_domain_is_one_of_graphql_or_says_why_not(noun: str) -> None:
    is_served = (ROOT / "hse" / "api" / "graphql" / f"{noun}.py").is_file()
    assert is_served != (noun in NOT_IN_GRAPHQL), noun


def stores() -> Iterator[str]:
    """The modules of the database that hold the rows of an entity."""
    for path in files(".py", "hse/adapters/postgres"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            bases = [ast.unparse(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
            # TableStore[V] is a store of whatever entity.
            if any(base.startswith("TableStore[") and base != "TableStore[V]" for base in bases):
                yield name(path)


def test_every_store_of_an_entity_is_named_after_a_noun_that_is_served() -> None:
    found = set(stores())
    assert len(found) > 5
    assert found <= {f"hse/adapters/postgres/{noun}.py" for noun in REST}
