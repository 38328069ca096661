"""`python -m orch_local` is `orch-local`."""

from orch_local.cli.app import main

if __name__ == "__main__":
    main()
