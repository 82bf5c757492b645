"""The command line: a table of commands, one parser, one file a command."""
