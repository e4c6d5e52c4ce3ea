"""The rules of CloudKitty's module HashMap, and the price book that costs the same.

- :mod:`~meter.rating.hashmap.rules`: the rules, as CloudKitty's API returns them.
- :mod:`~meter.rating.hashmap.metered_services`: how Meter measures what CloudKitty calls a service.
- :mod:`~meter.rating.hashmap.effective_prices`: what a unit costs by the rules of a service and group, or why that cannot be a price.
- :mod:`~meter.rating.hashmap.book_file`: the file of a price book.
"""
