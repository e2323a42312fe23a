-- What the corpus of conformance showed of a provider under a configuration: so it is not tried again by another gateway, or after a
-- restart. `config` is the digest of the configuration, `corpus` the edition of the corpus: what another one showed does not count.
CREATE TABLE component_levels (
    digest   TEXT NOT NULL,
    config   TEXT NOT NULL,
    corpus   TEXT NOT NULL,
    -- JSON, by level.
    levels   TEXT NOT NULL,
    tried_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (digest, config)
);
