"""Making and grading the assignments; the page "For instructors" says how to use this.

The hidden tests never enter the process that runs a submission. That process answers questions:
it returns values as plain data, and calls functions with inputs that it is sent. The tests run
outside.
"""
