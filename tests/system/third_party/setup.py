from setuptools import setup

setup(
    name="meter-lamp",
    version="1.0",
    py_modules=["meter_lamp"],
    entry_points={"meter.poll.compute": ["lamp = meter_lamp:lamp"]},
)
