DROP TABLE deliveries;
DROP TABLE messages;
