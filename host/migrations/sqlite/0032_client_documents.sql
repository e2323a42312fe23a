-- The address of the document by which a client is known; none: it was made here, or registered itself.
ALTER TABLE oauth_clients ADD COLUMN document TEXT;
