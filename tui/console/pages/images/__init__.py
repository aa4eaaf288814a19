"""All images of a repository."""
