-- Batches whose cost the gateway finds out by itself. `ask_ms` is when their upstream is asked next, in milliseconds since 1970: none where
-- nothing is left to ask, and of batches from before this table knew. `asks` counts how often it was asked; `maker` is JSON: for whom
-- the rows of the cost are written.
ALTER TABLE stored_objects ADD COLUMN ask_ms INTEGER;
ALTER TABLE stored_objects ADD COLUMN asks INTEGER NOT NULL DEFAULT 0;
ALTER TABLE stored_objects ADD COLUMN maker TEXT NOT NULL DEFAULT '';
CREATE INDEX stored_objects_by_ask ON stored_objects (ask_ms) WHERE ask_ms IS NOT NULL;
