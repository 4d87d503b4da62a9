DROP TABLE hidden_keys;
DROP TABLE sent;
