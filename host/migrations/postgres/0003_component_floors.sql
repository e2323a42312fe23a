-- The highest serial that was ever in force, by component: an older package, however well signed, is a downgrade.
CREATE TABLE component_floors (
  name TEXT PRIMARY KEY,
  serial BIGINT NOT NULL,
  digest TEXT NOT NULL
);
