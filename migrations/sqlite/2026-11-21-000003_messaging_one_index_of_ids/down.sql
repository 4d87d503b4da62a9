DROP INDEX messages_by_id;
CREATE UNIQUE INDEX messages_by_id ON messages (mesh_id, id);
CREATE UNIQUE INDEX messages_by_client_id ON messages (mesh_id, sender_member_id, client_message_id)
    WHERE client_message_id IS NOT NULL;
