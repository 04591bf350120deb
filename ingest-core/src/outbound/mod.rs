//! The machines behind the pipeline: PostgreSQL, plain or with TimescaleDB, where events go; Redis, where the state of
//! devices can be read.

pub mod postgres;
pub mod redis;
