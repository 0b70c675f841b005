"""`python -m ssodkit`: the command line, as torch's launcher starts it in each process."""

from ssodkit.cli import main

if __name__ == "__main__":
    main()
