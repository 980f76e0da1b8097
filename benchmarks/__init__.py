"""The harness: command line, protocol and speed comparisons."""
