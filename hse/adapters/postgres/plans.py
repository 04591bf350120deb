"""Statements compiled for a connection that speaks to PostgreSQL without SQLAlchemy's engine."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import sqlalchemy as sa
from psycopg.pq.abc import PGresult
from sqlalchemy.dialects.postgresql.psycopg import PGDialectAsync_psycopg
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.util import LRUCache

from hse.adapters.postgres.pipeline import PipelinedConnection, Statement

COMPILED_MAX = 500
KEPT_MAX = 2000
DIALECT = PGDialectAsync_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]

Adapt = Callable[[Any], Any]


class Plan:
    """A compiled statement: its text, how its values are ordered and adapted, and what its rows are."""

    def __init__(self, text: str, names: Sequence[str], adapt: Mapping[str, Adapt], column_types: list[Any]) -> None:
        self.text = text.encode()
        self.names = names
        self._adapt = adapt
        # Of a statement that is no plain text.
        self._column_types = column_types
        self._metadata: SimpleResultMetaData | None = None

    def sent(self, parameters: Mapping[str, Any]) -> Statement:
        """What is sent, with these values."""
        adapt = self._adapt
        if not adapt:
            return self.text, [parameters[name] for name in self.names]
        values = [adapt[name](parameters[name]) if name in adapt else parameters[name] for name in self.names]
        return self.text, values

    def rows(self, connection: PipelinedConnection, result: PGresult) -> sa.Result[Any]:
        """The rows of a result, as SQLAlchemy's connections give them."""
        if self._metadata is None:
            self._metadata = self._metadata_of(result)
        return IteratorResult(self._metadata, iter(connection.rows(result)))

    def _metadata_of(self, result: PGresult) -> SimpleResultMetaData:
        numbers = range(result.nfields)
        keys = [(result.fname(number) or b"").decode() for number in numbers]
        adapt = [
            column_type._cached_result_processor(DIALECT, result.ftype(number))
            for number, column_type in zip(numbers, self._column_types, strict=False)
        ]
        return SimpleResultMetaData(keys, _processors=adapt if any(adapt) else None)


class Plans:
    """The plans of the statements that were sent."""

    def __init__(self) -> None:
        self._compiled: LRUCache[Any, Any] = LRUCache(COMPILED_MAX)
        self._plans: dict[Any, Plan] = {}

    def find(self, statement: sa.Executable, parameters: Mapping[str, Any] | None) -> tuple[Plan, Statement]:
        """The plan of a statement, and what is sent of it.

        One that is always the same object, and takes every value as a parameter, says so with the execution option `is_kept`: it
        costs less than half, as SQLAlchemy does not look through it again.
        """
        plan = self._plans.get(statement)
        if plan is not None:
            return plan, plan.sent(parameters or {})
        anything = cast("Any", statement)
        compiled, extracted, own, _ = anything._compile_w_cache(DIALECT, compiled_cache=self._compiled, column_keys=[])
        values = compiled.construct_params(parameters, extracted_parameters=extracted, _collected_params=own)
        column_types = [entry.type for entry in compiled._result_columns]
        if compiled.literal_execute_params or compiled.post_compile_params:
            # A list of values in the text itself: no two lengths have the same.
            expanded = compiled._process_parameters_for_postcompile(values)
            adapt = {**compiled._bind_processors, **expanded.processors}
            plan = Plan(expanded.statement, expanded.positiontup or (), adapt, column_types)
            return plan, plan.sent(expanded.parameters)
        plan = self._plans.get(compiled)
        if plan is None:
            plan = Plan(compiled.string, compiled.positiontup or (), compiled._bind_processors, column_types)
            self._keep(compiled, plan)
        if statement.get_execution_options().get("is_kept"):
            self._keep(statement, plan)
        return plan, plan.sent(values)

    def _keep(self, key: object, plan: Plan) -> None:
        while len(self._plans) >= KEPT_MAX:
            del self._plans[next(iter(self._plans))]
        self._plans[key] = plan
