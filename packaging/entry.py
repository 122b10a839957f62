"""Where the frozen program begins."""

import os

# The bootloader has put the folder of the bundled libraries before all others. That is for this process; a program that it
# starts (`credential_process` of an AWS profile) has libraries of its own.
if (before := os.environ.pop("LD_LIBRARY_PATH_ORIG", None)) is None:
    os.environ.pop("LD_LIBRARY_PATH", None)
else:
    os.environ["LD_LIBRARY_PATH"] = before

from gateway.cli.main import main

main()
