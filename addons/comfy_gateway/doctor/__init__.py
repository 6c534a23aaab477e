"""What is missing before the gateway can serve: `./run_gateway.sh doctor`, one line for each finding.

It does what a start does (the state folder, its secret and the database are made if they are missing) but buys and
ends nothing; with ``--launch`` it goes on to buy and end one pod (``launch``, ``trial``). ``packages`` and ``findings``
need no package beyond Python's own, so that a missing one can be told.
"""
