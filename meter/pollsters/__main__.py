"""``python -m meter.pollsters``: see :mod:`meter.commands.pollsters`."""

if __name__ == "__main__":
    from meter.commands.pollsters import main

    main()
