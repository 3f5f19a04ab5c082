"""What runs inside the subject's own Python: standard library only, plus the subject itself.

Started as ``PYTHON PATH/TO/worker`` (see ``__main__``), because the subject's Python need not have
the suite installed. Every module here imports its siblings relatively, so that the folder works
under any package name.
"""
