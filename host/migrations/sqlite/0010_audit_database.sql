-- Which database this is, and how far the rows of each gateway are in it. A spool remembers both, so that a database that was
-- emptied, exchanged or brought back from a backup is noticed before it takes rows.
CREATE TABLE audit_database (
  id       INTEGER PRIMARY KEY CHECK (id = 1),
  identity TEXT NOT NULL           -- random, made here: a copy of this database has it, another database has not
);
INSERT INTO audit_database (id, identity) VALUES (1, lower(hex(randomblob(16))));

CREATE TABLE audit_replicas (
  replica      TEXT PRIMARY KEY,
  next_record  BIGINT NOT NULL,    -- the record of the spool that comes next
  hash         TEXT NOT NULL,      -- the hash of the record before it
  last_row     BIGINT NOT NULL,    -- the last row of this replica in audit_events
  holder       TEXT NOT NULL,      -- the spool that may write under this name
  leased_until BIGINT NOT NULL     -- seconds of audit_clock
);

-- Leases go by the clock of the database: it is the one that all gateways share.
CREATE VIEW audit_clock AS SELECT unixepoch() AS seconds;
