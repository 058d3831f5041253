"""CSV and JSON files as the world writes them: what they are, where their records lie, what their records say."""
