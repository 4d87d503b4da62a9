DROP TABLE vault_entries;
