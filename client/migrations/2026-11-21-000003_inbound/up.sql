-- What the reader's own rule says of a delivery: accept, hold or refuse. NULL: not looked at yet.
ALTER TABLE deliveries ADD COLUMN inbound TEXT;
