"""The programs behind the commands, each a page of verbs."""
