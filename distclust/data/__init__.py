"""Sources, partitions, the node cache and sinks: everything between files and the blocks that steps see."""
