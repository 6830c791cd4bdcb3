"""Files that come with the package: schemas and prompts."""
