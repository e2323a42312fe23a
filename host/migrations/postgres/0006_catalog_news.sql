-- Every gateway hears that the catalog changed as soon as the change is there to be read, and not if it is rolled back:
-- NOTIFY belongs to the transaction. The payload tells gateways of other schemas of this database that it is not for them.
CREATE FUNCTION announce_catalog() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('sallyport_catalog', TG_TABLE_SCHEMA);
    RETURN NULL;
END
$$;

CREATE TRIGGER catalog_news AFTER UPDATE ON catalog_epoch
    FOR EACH ROW EXECUTE FUNCTION announce_catalog();
