"""Lists the installed pollsters, and polls them once on this host without sending or storing anything."""

if __name__ == "__main__":
    from meter.commands.pollsters import main

    main()
