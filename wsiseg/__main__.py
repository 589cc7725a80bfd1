"""`python -m wsiseg` is `wsiseg`."""

from wsiseg.cli.main import main

main()
