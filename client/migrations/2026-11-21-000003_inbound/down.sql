ALTER TABLE deliveries DROP COLUMN inbound;
