"""The command line: its commands, tables, and what both of the project's command lines print with."""
