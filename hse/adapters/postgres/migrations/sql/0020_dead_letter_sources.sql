-- By which door a dead letter came in, for the row that it may become. Null in one that an older release kept: of those without a
-- number the epoch tells it, and those with one were a device's, over HDP/1.
alter table dead_letters add column source text;
