"""What people reported about attention on AMD GPUs, each as one small problem or request.

The folder is not called ``reports``: that is where the tests of the room ``conformance/reports``
are, which writes JUnit files and pages.
"""
