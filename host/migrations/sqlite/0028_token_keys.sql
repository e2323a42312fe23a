-- Keys that sign access tokens. No key is here: each is derived from `salt` and a secret that gateways hold in a file, and its id says
-- whether that is the same one. The key of the file `jwt.pk8`, with which every gateway begins, has no salt. Before the first exchange
-- the table is empty.
CREATE TABLE token_keys (
    kid        TEXT PRIMARY KEY NOT NULL,
    salt       BLOB,
    created_at TEXT NOT NULL,
    signs_at   TEXT NOT NULL,
    ends_at    TEXT
) STRICT;
