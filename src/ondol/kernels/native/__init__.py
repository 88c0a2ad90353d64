"""C kernels, compiled when the package is built (``hatch_build.py``); absent without a compiler."""
