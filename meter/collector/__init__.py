"""The collector: stores metering messages, and converts notifications into metering messages."""
