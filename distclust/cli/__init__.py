"""The command line: what a terminal needs around the workflows, and nothing that they could do themselves."""
