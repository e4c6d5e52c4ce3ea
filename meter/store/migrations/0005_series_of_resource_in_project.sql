-- The series of a resource, in all projects or in one: a query within a project reads no series of others.
CREATE INDEX series_resource_project ON series (resource_id, project_id);
DROP INDEX series_resource;
