"""`python -m cerank`."""

from cerank.cli import main

if __name__ == "__main__":
    main()
