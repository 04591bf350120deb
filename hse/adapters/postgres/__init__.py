"""PostgreSQL and TimescaleDB: the engine, the migrations, and one file of statements a noun."""
