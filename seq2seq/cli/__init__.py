"""The command line. A command is a file here with ``add(subparsers)``, its arguments, and ``run(args)``, its work.

``run`` returns an exit code; None is 0. It imports what it needs when it is called, so that help appears at once.
"""
