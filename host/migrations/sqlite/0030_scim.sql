-- Users and groups that an identity provider keeps over SCIM. Users of others are not its to see or to change.
CREATE TABLE scim_users (
    user_id      TEXT PRIMARY KEY NOT NULL REFERENCES users (id),
    tenant_id    TEXT NOT NULL REFERENCES tenants (id),
    external_id  TEXT,
    display_name TEXT,
    changed_at   TEXT NOT NULL,
    UNIQUE (tenant_id, external_id)
) STRICT;

CREATE TABLE scim_groups (
    id          TEXT PRIMARY KEY NOT NULL,
    tenant_id   TEXT NOT NULL REFERENCES tenants (id),
    name        TEXT NOT NULL,
    external_id TEXT,
    created_at  TEXT NOT NULL,
    changed_at  TEXT NOT NULL,
    UNIQUE (tenant_id, name)
) STRICT;

CREATE TABLE scim_members (
    group_id TEXT NOT NULL REFERENCES scim_groups (id) ON DELETE CASCADE,
    user_id  TEXT NOT NULL REFERENCES scim_users (user_id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, user_id)
) STRICT;
CREATE INDEX scim_members_by_user ON scim_members (user_id);

-- What members of a group may do. An administrator says it: a provider names groups, and no roles.
CREATE TABLE group_roles (
    tenant_id  TEXT NOT NULL REFERENCES tenants (id),
    name       TEXT NOT NULL,
    role       TEXT NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (tenant_id, name, role)
) STRICT;
