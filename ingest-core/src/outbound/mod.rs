//! The machines behind the pipeline. PostgreSQL, plain or with TimescaleDB, is the only one so far.

pub mod postgres;
