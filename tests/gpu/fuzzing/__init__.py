"""PTX nobody would write: mutants of real kernels and random programs, through parser, load and both engines."""
