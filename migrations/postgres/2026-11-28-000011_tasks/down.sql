DROP TABLE task_members;
DROP TABLE task_heads;
DROP TABLE task_steps;
DROP TABLE task_dependencies;
DROP TABLE task_tags;
DROP TABLE tasks;
