DROP TABLE __skill_index;
DROP TABLE skill_versions;
DROP TABLE skills;
