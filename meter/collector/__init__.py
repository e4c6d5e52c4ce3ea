"""The collector: metering messages into the store, and notifications into metering messages."""
