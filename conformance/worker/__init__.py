"""What runs in the subject's own Python, with the standard library and the subject alone.

Started as ``PYTHON PATH/TO/worker`` (see ``__main__``), because the subject's Python need not have
the suite installed. Every module here imports its siblings relatively, so that the folder works
under any package name.
"""
