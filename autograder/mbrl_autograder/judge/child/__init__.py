"""What runs on the student's side of the judge, inside the sandbox.

This folder is all that the sandbox sees of the autograder. Its modules import nothing but the standard
library and
one another when they are loaded, and hold no secret: no test, no expected value, no path of the
instructor's machine.
"""
