-- One index finds a message by its id and tells a repeated one: an id that comes with an idempotency key follows from mesh,
-- sender and key (`message_id` in features/messaging/send.rs). Ids are scattered, so each message dirties a page of this
-- index: the fewer bytes an entry has, the more messages share a page, and the less a transaction writes.
DROP INDEX messages_by_client_id;
DROP INDEX messages_by_id;
CREATE UNIQUE INDEX messages_by_id ON messages (id);
