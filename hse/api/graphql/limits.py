"""What one operation may ask for, weighed before anything is run, and before graphql-core compares its fields with one another.

- *tokens*: how long the document is. It bounds that comparison, too: a third of a second at worst.
- *aliases*: how often it renames; *depth*: how far fields nest (`edges` and `node` count).
- *cost*: how much the answer could hold. A thing costs 1, a plain field of it 0.1, a field of JSON 5, `totalCount` 1; what stands
  in a list costs as often as the list's `first` says (1000 times in a list that has no pages), and so on outwards. An operation may
  cost 10 000.

Introspection costs 2000, so that an operation can ask for the whole schema and not for thirty of it; how it nests is kept within
bounds by graphql-core's own rule. The weighing goes through each fragment once, however often it is spread: fragments that spread
the next one twice would else be walked 2^n times.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLField,
    GraphQLList,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    parse,
    specified_rules,
    validate,
)
from graphql.validation import MaxIntrospectionDepthRule
from strawberry.extensions import SchemaExtension

from hse.api.graphql.errors import refused
from hse.domain.paging import PAGE_LIMIT_MAX

TOKENS_MAX = 1000
ALIASES_MAX = 30
DEPTH_MAX = 16
COST_MAX = 10_000
# What was parsed and validated before, so many of them, and none longer than this.
DOCUMENTS_REMEMBERED = 200
DOCUMENT_CHARS_REMEMBERED = 10_000

# In tenths, so that all is whole numbers.
TENTHS = 10
COST_OF_THING = 10
COST_OF_FIELD = 1
COST_OF_JSON = 50
COST_OF_TOTAL = 10
COST_OF_INTROSPECTION = 20_000

# Of a list without pages, such as the establishments that somebody is assigned to.
LIST_ITEMS_MAX = 1000
INT_CHARS_MAX = 12

RULES = (*specified_rules, MaxIntrospectionDepthRule)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """What a selection weighs; costs in tenths. In a list, `item_cost` is what each of its items costs."""

    depth: int = 0
    aliases: int = 0
    cost: int = 0
    item_cost: int = 0

    def beside(self, other: "Weight") -> "Weight":
        """Both of them."""
        return Weight(
            depth=max(self.depth, other.depth),
            aliases=self.aliases + other.aliases,
            cost=self.cost + other.cost,
            item_cost=self.item_cost + other.item_cost,
        )


class FragmentsCycle(Exception):
    """A fragment spreads itself."""


@dataclass(slots=True, kw_only=True)
class Scales:
    """Weighs one operation, with its variables as they were given."""

    schema: GraphQLSchema
    fragments: Mapping[str, FragmentDefinitionNode]
    variables: Mapping[str, Any]
    defaults: Mapping[str, Any]
    _known: dict[str, Weight | None] = field(default_factory=dict)

    def weigh(self, selections: SelectionSetNode | None, parent: GraphQLNamedType | None) -> Weight:
        """What these selections of a parent weigh. Raises `FragmentsCycle`."""
        weight = Weight()
        for node in () if selections is None else selections.selections:
            match node:
                case FieldNode():
                    weight = weight.beside(self._weigh_field(node, parent))
                case InlineFragmentNode():
                    condition = node.type_condition
                    kind = parent if condition is None else self.schema.get_type(condition.name.value)
                    weight = weight.beside(self.weigh(node.selection_set, kind))
                case FragmentSpreadNode():
                    weight = weight.beside(self._weigh_fragment(node.name.value))
        return weight

    def _weigh_fragment(self, name: str) -> Weight:
        if name not in self._known:
            self._known[name] = None
            fragment = self.fragments.get(name)
            kind = None if fragment is None else self.schema.get_type(fragment.type_condition.name.value)
            self._known[name] = Weight() if fragment is None else self.weigh(fragment.selection_set, kind)
        known = self._known[name]
        if known is None:
            raise FragmentsCycle
        return known

    def _weigh_field(self, node: FieldNode, parent: GraphQLNamedType | None) -> Weight:
        name = node.name.value
        aliases = 0 if node.alias is None else 1
        if name.startswith("__"):
            return Weight(aliases=aliases, cost=0 if name == "__typename" else COST_OF_INTROSPECTION)
        declared = parent.fields.get(name) if isinstance(parent, GraphQLObjectType) else None
        kind = None if declared is None else get_named_type(declared.type)
        if node.selection_set is None:
            costs = {"JSON": COST_OF_JSON} if name != "totalCount" else {"Int": COST_OF_TOTAL}
            return Weight(depth=1, aliases=aliases, cost=costs.get(kind.name if kind else "", COST_OF_FIELD))
        below = self.weigh(node.selection_set, kind)
        depth, aliases = below.depth + 1, aliases + below.aliases
        called = "" if kind is None else kind.name
        if called.endswith("Edge"):
            return Weight(depth=depth, aliases=aliases, item_cost=below.cost)
        cost = below.cost + below.item_cost * self._first(node, declared)
        if declared is not None and isinstance(get_nullable_type(declared.type), GraphQLList):
            return Weight(depth=depth, aliases=aliases, cost=(cost + COST_OF_THING) * LIST_ITEMS_MAX)
        return Weight(depth=depth, aliases=aliases, cost=cost if called == "PageInfo" else cost + COST_OF_THING)

    def _first(self, node: FieldNode, declared: GraphQLField | None) -> int:
        """How many items a list may have. What is no number within the bounds is refused when it is resolved."""
        argument = next((one for one in node.arguments or () if one.name.value == "first"), None)
        default = None if declared is None or "first" not in declared.args else declared.args["first"].default_value
        if argument is None:
            return default if isinstance(default, int) else 1
        match argument.value:
            case IntValueNode(value=text) if len(text) < INT_CHARS_MAX:
                return _bounded(int(text))
            case VariableNode(name=variable):
                given = self.variables.get(variable.value, self.defaults.get(variable.value, default))
                return _bounded(given) if type(given) is int else PAGE_LIMIT_MAX
        return PAGE_LIMIT_MAX


def refusals_of(
    schema: GraphQLSchema, document: DocumentNode, operation_name: str | None, variables: Mapping[str, Any]
) -> list[GraphQLError]:
    """Why an operation is not run; empty when it is within the limits."""
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    refusals = []
    for operation in operations:
        if operation_name is not None and (operation.name is None or operation.name.value != operation_name):
            continue
        scales = Scales(schema=schema, fragments=fragments, variables=variables, defaults=_defaults(operation))
        try:
            weight = scales.weigh(operation.selection_set, schema.get_root_type(operation.operation))
        except FragmentsCycle:
            # Validation says so, with the place.
            continue
        refusals += _refusals(weight)
    return refusals


class Limits(SchemaExtension):
    """Refuses what exceeds the limits, and validates the rest; documents that were valid before are known."""

    def on_operation(self) -> Iterator[None]:
        """Limit the length of the document, which the parser sees to."""
        self.execution_context.parse_options["max_tokens"] = TOKENS_MAX
        yield

    def on_parse(self) -> Iterator[None]:
        """Take a document that is known, and that no longer is than is worth to be remembered; the others are parsed."""
        context = self.execution_context
        if context.query and len(context.query) <= DOCUMENT_CHARS_REMEMBERED:
            with contextlib.suppress(GraphQLError, RecursionError):  # Parsed again, it is refused in the usual way.
                context.graphql_document = _parsed(context.query)
        yield

    def on_validate(self) -> Iterator[None]:
        """Weigh the operation, then validate it."""
        context = self.execution_context
        document = context.graphql_document
        if document is None or context.pre_execution_errors:
            yield
            return
        schema: GraphQLSchema = context.schema._schema
        try:
            errors = refusals_of(schema, document, context.operation_name, context.variables or {})
            context.pre_execution_errors = errors or self._validated(schema, document)
        except RecursionError:
            context.pre_execution_errors = [refused("graphql.too-deep", "the operation nests too deeply")]
        yield

    def _validated(self, schema: GraphQLSchema, document: DocumentNode) -> list[GraphQLError]:
        is_remembered = len(self.execution_context.query or "") <= DOCUMENT_CHARS_REMEMBERED
        return [*_known_errors(schema, document)] if is_remembered else validate(schema, document, RULES)


@lru_cache(maxsize=DOCUMENTS_REMEMBERED)
def _parsed(query: str) -> DocumentNode:
    return parse(query, max_tokens=TOKENS_MAX)


@lru_cache(maxsize=DOCUMENTS_REMEMBERED)
def _known_errors(schema: GraphQLSchema, document: DocumentNode) -> tuple[GraphQLError, ...]:
    return tuple(validate(schema, document, RULES))


def _refusals(weight: Weight) -> list[GraphQLError]:
    found = []
    if weight.depth > DEPTH_MAX:
        found.append(refused("graphql.too-deep", f"fields nest {weight.depth} deep: {DEPTH_MAX} at most"))
    if weight.aliases > ALIASES_MAX:
        found.append(refused("graphql.too-many-aliases", f"{weight.aliases} aliases: {ALIASES_MAX} at most"))
    if weight.cost > COST_MAX * TENTHS:
        cost = -(-weight.cost // TENTHS)
        found.append(
            refused(
                "graphql.too-costly", f"the operation could cost {cost}, {COST_MAX} at most: ask for fewer at a time"
            )
        )
    return found


def _defaults(operation: OperationDefinitionNode) -> dict[str, int]:
    given = {node.variable.name.value: node.default_value for node in operation.variable_definitions or ()}
    return {
        name: int(value.value)
        for name, value in given.items()
        if isinstance(value, IntValueNode) and len(value.value) < INT_CHARS_MAX
    }


def _bounded(first: int) -> int:
    return min(max(first, 1), PAGE_LIMIT_MAX)
