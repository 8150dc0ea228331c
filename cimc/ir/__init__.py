"""The intermediate representations: graph, tiles, program."""
